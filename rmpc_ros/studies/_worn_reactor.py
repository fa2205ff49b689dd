"""The reactor-separator plant as it really is: decaying catalyst, and a side reaction A -> C that the benchmark lacks.

    s_j = side ks exp(-Es/(R T_j)) xA_j   in both reactors:   dxA_j -= s_j,   dT_j -= dHs/Cp s_j

The physics of the hybrid model is `plants.reactor_separator`. Logs come from heat inputs that jump at random about the
steady state; the feeds vary as first-order autoregressive processes that nobody measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.models.hybrid import Transitions
from rmpc_ros.models.nonlinear import NonlinearModel
from rmpc_ros.plants import reactor_separator

Vector = NDArray[np.float64]

PERIOD = 36.0  # s
NOMINAL_FEED = np.array([300.0, 0.98, 300.0, 1.0])  # T10, xA10, T20, xA20
FEED_REACH = np.array([3.0, 0.01, 3.0, 0.0])
NOMINAL_INPUT = np.array([12.6e5, 16.2e5, 12.6e5])  # kJ/h
INPUT_REACH = 5.0e5
NOISE = np.tile([2e-5, 2e-5, 0.005], 3)
WEAR = {"side": 1.0, "ks": 3.0e5, "Es": 5.0e4, "dHs": -120.0}


def balances(x: dict[str, Any], u: dict[str, Any], d: dict[str, Any], p: dict[str, Any]) -> Sequence[Any]:
    """Right-hand sides in the order of `reactor_separator.STATES`, per hour."""
    clean = list(reactor_separator.balances(x, u, d, p))
    for vessel, row in (("1", 0), ("2", 3)):
        side = p["side"] * p["ks"] * ca.exp(-p["Es"] / (p["R"] * x["T" + vessel])) * x["xA" + vessel]
        clean[row] = clean[row] - side
        clean[row + 2] = clean[row + 2] - p["dHs"] / p["Cp"] * side
    return clean


def build() -> NonlinearModel:
    """The true plant."""
    plant = reactor_separator
    return NonlinearModel(
        "worn_reactor_separator",
        plant.STATES,
        plant.INPUTS,
        plant.DISTURBANCES,
        {**plant.PARAMETERS, **WEAR},
        balances,
        time_unit=3600.0,
    )


class World:
    """The true plant with its unmeasured feeds; `measured` is what the sensors say."""

    def __init__(self, seed: int) -> None:
        self.model = build()
        self._stepper = self.model.stepper(PERIOD)
        self._rng = np.random.default_rng(seed)
        self._feed = np.zeros(4)
        self.state = self.model.steady_state(NOMINAL_INPUT, NOMINAL_FEED)
        self.measured = self.state.copy()

    def step(self, u: Vector, wear: Mapping[str, float]) -> Vector:
        """Advance one period and measure, (9,)."""
        self._feed = 0.98 * self._feed + 0.15 * FEED_REACH * self._rng.normal(size=4)
        d = NOMINAL_FEED + np.clip(self._feed, -FEED_REACH, FEED_REACH)
        self.state = self._stepper.advance(self.state, u, d, self.model.parameter_vector(wear))
        self.measured = self.state + NOISE * np.clip(self._rng.normal(size=9), -3, 3)
        return self.measured


def excited_log(steps: int, seed: int, wear: Sequence[Mapping[str, float]] | Mapping[str, float]) -> Transitions:
    """Log under heat inputs that jump every eight periods; `wear` for the whole log, or of every step."""
    world, rng = World(seed), np.random.default_rng(seed + 1)
    states, inputs, u = [world.measured.copy()], [], NOMINAL_INPUT.copy()
    for k in range(steps):
        if k % 8 == 0:
            u = NOMINAL_INPUT + 0.3 * INPUT_REACH * rng.uniform(-1, 1, 3)
        states.append(world.step(u, wear if isinstance(wear, Mapping) else wear[k]))
        inputs.append(u)
    rows = np.array(states)
    feed = np.tile(NOMINAL_FEED, (steps, 1))
    return Transitions(rows[:-1], np.array(inputs), feed, rows[1:], PERIOD * np.arange(1.0, steps + 1))
