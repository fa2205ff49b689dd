"""Calibrated multi-step radii: adaptive conformal inference on normalised prediction errors.

    score s = max_j |x_j - mean_j| / sigma_j,   radius_j = q sigma_j,   q = (1 - a) quantile of the last scores,
    a <- a + gamma (a* - [s > q])                                            (one a per horizon step)

Whatever the data do, the long-run share of misses is a* (Gibbs and Candes 2021): the size of the learning model's set
follows its errors. Where a <= 0 the quantile is infinite: the radius is capped by what is physically possible, and
counted.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.conformal import AdaptiveConformal

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationSettings:
    """Numbers of adaptive conformal inference.

    Attributes
    ----------
    coverage : 1 - a*
    rate : gamma, .005 to .05; larger follows faster and is rougher
    window : scores kept
    """

    coverage: float = 0.95
    rate: float = 0.02
    window: int = 400

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1 or not 0 < self.rate < 1 or self.window < 20:
            raise ConfigError(
                f"calibration coverage {self.coverage}, rate {self.rate}, window {self.window}: "
                "give values in (0, 1), (0, 1) and at least 20"
            )


class AdaptiveQuantile:
    """Adaptive conformal inference on a window of scores; `value` before, `observe` after each score."""

    def __init__(self, settings: CalibrationSettings) -> None:
        self._conformal = AdaptiveConformal(1.0 - settings.coverage, settings.rate)
        self._scores: deque[float] = deque(maxlen=settings.window)
        self.infinite = 0
        self.value = math.inf
        """q for the next score; infinite where nothing is known or a <= 0."""

    @property
    def coverage(self) -> float:
        """Share of scores covered so far."""
        steps = self._conformal.steps
        return 1.0 - self._conformal.misses / steps if steps else float("nan")

    def observe(self, score: float, promised: float | None = None) -> bool:
        """Take in a score; `promised` is the q that was announced for it (default: the present one). True is a miss."""
        if not score >= 0:
            raise DataError(f"conformal score {score}: must be 0 or more")
        q = self.value if promised is None else promised
        self.infinite += math.isinf(q)
        self._conformal.update(score > q)
        self._scores.append(score)
        self.value = self._conformal.radius(np.fromiter(self._scores, float, len(self._scores)))
        return score > q


class MultiStepCalibrator:
    """One adaptive quantile per horizon step.

    Parameters
    ----------
    horizon : H
    cap : (n,) largest radius that is physically possible, in state units
    settings : coverage and rate
    """

    def __init__(self, horizon: int, cap: Vector, settings: CalibrationSettings | None = None) -> None:
        self.cap = np.asarray(cap, float)
        self.quantiles = [AdaptiveQuantile(settings or CalibrationSettings()) for _ in range(horizon)]

    def radius(self, deviation: Matrix) -> Matrix:
        """Radii (H, n) for predicted standard deviations (H, n), capped."""
        q = np.array([quantile.value for quantile in self.quantiles[: len(deviation)]])
        scaled = np.where(np.isinf(q)[:, None], np.inf, np.where(np.isinf(q), 0.0, q)[:, None] * deviation)
        return np.asarray(np.minimum(scaled, self.cap), float)

    def disturbance_set(self, deviation: Vector) -> Box:
        """Set of w in  x+ = mean + w,  for predicted standard deviations (n,): the robust MPC's disturbance set."""
        radius = self.radius(np.asarray(deviation, float)[None])[0]
        return Box.around(np.zeros(radius.size), radius)

    def observe(self, step: int, error: Vector, deviation: Vector, promised: float | None = None) -> bool:
        """Error (n,) of the prediction `step` periods ahead (1-based) and its predicted deviation; True is a miss."""
        score = float(np.max(np.abs(error) / deviation))
        return self.quantiles[step - 1].observe(score, promised)
