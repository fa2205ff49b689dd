"""Which sensor lies, and how: stuck, drifting, spiking, silent.

From each sensor's readings and normalised innovations z (prediction errors of an estimator over their deviations):
    stuck     the last readings are identical although the sensor is noisy: impossible by chance
    spike     |z| beyond a limit in a single reading
    drift     CUSUM  s <- max(0, s + z - allowance), and the same for -z, beyond a limit: a lasting one-sided error
    dropout   a scheduled reading failed to come several times in a row
A sensor with a fault is not trusted until it has agreed with the estimate for a while. When most sensors disagree at
once it is the plant that moved, and all are trusted.
Source: Page 1954 (CUSUM); Basseville and Nikiforov 1993.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError

Vector = NDArray[np.float64]
Kind = Literal["stuck", "spike", "drift", "dropout"]


@dataclass(frozen=True)
class Fault:
    """A named fault of a sensor since a step, with its evidence in words."""

    sensor: str
    kind: Kind
    step: int
    evidence: str


@dataclass(frozen=True)
class FaultLimits:
    """When a sensor is suspected.

    Attributes
    ----------
    identical : readings in a row that must not be identical
    spike : |z| of a spike
    allowance, drift : CUSUM allowance and limit, in standard deviations
    silent : scheduled readings that may fail in a row
    agreement : readings with |z| < 3 after which a sensor is trusted again
    """

    identical: int = 4
    spike: float = 6.0
    allowance: float = 1.0
    drift: float = 15.0
    silent: int = 3
    agreement: int = 10


@dataclass
class _Watch:
    last: float = np.nan
    identical: int = 1
    silent: int = 0
    agreed: int = 0
    up: float = 0.0
    down: float = 0.0
    fault: Fault | None = None


class FaultDetector:
    """Watches all sensors of one estimator.

    Parameters
    ----------
    names : (m,) sensor names
    limits : FaultLimits
    """

    def __init__(self, names: tuple[str, ...], limits: FaultLimits | None = None) -> None:
        self.names = names
        self.limits = limits or FaultLimits()
        self._watches = [_Watch() for _ in names]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults in force now, for /diagnostics."""
        return tuple(w.fault for w in self._watches if w.fault is not None)

    def update(self, step: int, y: Vector, z: Vector, scheduled: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """One step of readings.

        Parameters
        ----------
        y : (m,) readings, NaN where none came
        z : (m,) normalised innovations, NaN likewise
        scheduled : (m,) which sensors were due

        Returns
        -------
        (m,) which sensors to trust in this step.
        """
        if not len(y) == len(z) == len(scheduled) == len(self.names):
            raise DataError(f"{len(y)} readings, {len(z)} innovations for {len(self.names)} sensors")
        spoke = np.isfinite(y)
        healthy = np.array([w.fault is None for w in self._watches])
        asked = spoke & healthy
        moved = int(asked.sum()) >= 3 and float(np.mean(np.abs(z[asked]) > self.limits.spike)) > 0.5
        trusted = np.zeros(len(y), bool)
        for k, watch in enumerate(self._watches):
            if spoke[k]:
                trusted[k] = self._reading(step, k, watch, float(y[k]), float(z[k]), moved)
            elif scheduled[k]:
                self._silence(step, k, watch)
        return trusted

    def _reading(self, step: int, k: int, watch: _Watch, value: float, z: float, moved: bool) -> bool:
        limits = self.limits
        watch.silent = 0
        watch.identical = watch.identical + 1 if value == watch.last else 1
        watch.last = value
        clipped = float(np.clip(z, -4.0, 4.0))
        if not moved:
            watch.up = max(0.0, watch.up + clipped - limits.allowance)
            watch.down = max(0.0, watch.down - clipped - limits.allowance)
        if watch.identical >= limits.identical:
            self._blame(step, k, watch, "stuck", f"{watch.identical} identical readings of {value:.6g}")
            return False
        if watch.fault is not None:
            agrees = abs(z) < 3.0
            watch.agreed = watch.agreed + 1 if agrees else 0
            needed = 2 if watch.fault.kind in ("spike", "dropout") else limits.agreement
            if watch.agreed < needed:
                return watch.fault.kind == "spike" and agrees
            watch.fault, watch.up, watch.down = None, 0.0, 0.0
            return True
        if not moved and max(watch.up, watch.down) > limits.drift:
            size = max(watch.up, watch.down)
            self._blame(step, k, watch, "drift", f"CUSUM {size:.1f} above {limits.drift:g}")
            return False
        if not moved and abs(z) > limits.spike:
            self._blame(step, k, watch, "spike", f"{value:.6g} is {abs(z):.1f} standard deviations from its prediction")
            return False
        return watch.identical == 1  # a second identical reading is no fault yet, but nothing to learn from either

    def _silence(self, step: int, k: int, watch: _Watch) -> None:
        watch.silent += 1
        if watch.silent >= self.limits.silent and watch.fault is None:
            self._blame(step, k, watch, "dropout", f"{watch.silent} scheduled readings in a row did not come")

    def _blame(self, step: int, k: int, watch: _Watch, kind: Kind, evidence: str) -> None:
        if watch.fault is None or watch.fault.kind != kind:
            watch.fault = Fault(self.names[k], kind, step, evidence)
        watch.agreed = 0
