"""How disturbances behave in simulation: one process per disturbance, seeded, always inside its bounds.

With centre c and half-width h of the bounds, and a = e^{-period/time_constant}:

    autoregressive   w+ = c + a (w - c) + sqrt(1 - a^2) spread h n,  n normal, clipped to the bounds
    vertices         one of the two bounds, changed with probability period/hold
    bimodal          c -+ 2/3 h (two suppliers, changed with probability period/hold) plus up to h/3 either way
    uniform          anew in every period
    constant         `value`
"""

from __future__ import annotations

import math

import numpy as np

from rmpc_ros.config.sections import Realisation


class DisturbanceProcess:
    """One disturbance as a process in discrete time; `next()` gives the value of the next period."""

    def __init__(
        self, kind: Realisation, bounds: tuple[float, float], period: float, generator: np.random.Generator
    ) -> None:
        self.kind = kind
        self.lower, self.upper = bounds
        self.centre, self.half = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
        self._memory = math.exp(-period / kind.time_constant)
        self._switch = min(1.0, period / kind.hold)
        self._generator = generator
        self._side = 1.0 if generator.random() < 0.5 else -1.0
        self._value = self._clip(self.centre + kind.spread * self.half * generator.standard_normal())

    def next(self) -> float:
        """Value held over the next period."""
        match self.kind.kind:
            case "autoregressive":
                push = math.sqrt(1 - self._memory**2) * self.kind.spread * self.half * self._generator.standard_normal()
                self._value = self._clip(self.centre + self._memory * (self._value - self.centre) + push)
            case "vertices":
                self._value = self.centre + self._next_side() * self.half
            case "bimodal":
                within = self._generator.uniform(-1, 1) / 3
                self._value = self.centre + (self._next_side() * 2 / 3 + within) * self.half
            case "uniform":
                self._value = self._generator.uniform(self.lower, self.upper)
            case "constant":
                assert self.kind.value is not None  # checked when the file was loaded
                self._value = self.kind.value
        return self._value

    def _next_side(self) -> float:
        if self._generator.random() < self._switch:
            self._side = 1.0 if self._generator.random() < 0.5 else -1.0
        return self._side

    def _clip(self, value: float) -> float:
        return min(max(value, self.lower), self.upper)
