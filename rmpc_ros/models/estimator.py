"""Extended Kalman filter for partial, noisy, asynchronous and missing measurements.

    x+ = F(x, u) + w,  y_i = x_{s(i)} + v_i  for the sensors that spoke in this step (the others are NaN)

Unmeasured disturbances are estimated as states that drift (`with_disturbance_states`): that is what makes a stuck
sensor replaceable by its neighbours. A measurement far from its prediction counts less (Huber), but never so little
that the estimate cannot follow a real change. `error_box` bounds the estimation error for the robust sets.
Source: Jazwinski 1970, chapter 8 (EKF); Huber 1964.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rmpc_ros.errors import ConfigError, NumericalError
from rmpc_ros.models.physics import Physics

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Mean (n,) and covariance (n, n) of the state."""

    mean: Vector
    covariance: Matrix

    @property
    def deviation(self) -> Vector:
        """Standard deviations (n,)."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)), float)


@dataclass(frozen=True)
class Sensors:
    """Which state each sensor reads, and its noise.

    Attributes
    ----------
    names : (m,) for reports
    states : (m,) index into x
    noise : (m,) standard deviation, > 0
    """

    names: tuple[str, ...]
    states: tuple[int, ...]
    noise: Vector

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.states) == len(self.noise) or not np.all(np.asarray(self.noise) > 0):
            raise ConfigError(
                f"{len(self.names)} sensors, {len(self.states)} states, noise {self.noise}: must fit, > 0"
            )


def with_disturbance_states(
    physics: Physics, drifting: Sequence[str], nominal: ArrayLike, decay: float = 1.0
) -> Physics:
    """The same plant with some disturbances appended to the state: d+ = nominal + decay (d - nominal).

    Parameters
    ----------
    drifting : disturbances to estimate; the others stay inputs of the model
    nominal : (q,) nominal values of all disturbances
    decay : share kept per period; 1 is a random walk
    """
    unknown = [name for name in drifting if name not in physics.disturbances]
    if unknown:
        raise ConfigError(f"'{physics.name}' has no disturbance {unknown[0]}; it has {', '.join(physics.disturbances)}")
    index = [physics.disturbances.index(name) for name in drifting]
    rest = [k for k in range(len(physics.disturbances)) if k not in index]
    base = np.asarray(nominal, float)
    n, m, _, k = physics.sizes
    x, u, d, theta = (
        ca.MX.sym(s, v) for s, v in zip(("x", "u", "d", "theta"), (n + len(index), m, len(rest), k), strict=True)
    )
    entries: list[Any] = [None] * len(physics.disturbances)
    for place, position in enumerate(index):
        entries[position] = x[n + place]
    for place, position in enumerate(rest):
        entries[position] = d[place]
    end = physics.function(x[:n], u, ca.vertcat(*entries), theta)
    drift = ca.DM(base[index]) + decay * (x[n:] - ca.DM(base[index]))
    return replace(
        physics,
        states=(*physics.states, *drifting),
        disturbances=tuple(physics.disturbances[k] for k in rest),
        function=ca.Function("F", [x, u, d, theta], [ca.vertcat(end, drift)]),
    )


@dataclass(frozen=True)
class ExtendedKalman:
    """The filter's fixed numbers; estimates go in and out.

    Attributes
    ----------
    physics : one-step map
    process_noise : (n,) standard deviation of w
    sensors : which states are read
    huber : innovations beyond this many standard deviations count less
    lower, upper : (n,) physical limits of the state (fractions in [0, 1]); the mean is kept inside
    """

    physics: Physics
    process_noise: Vector
    sensors: Sensors
    huber: float = 4.0
    lower: Vector | float = -np.inf
    upper: Vector | float = np.inf

    @cached_property
    def _step(self) -> Any:
        symbols = [ca.MX.sym(s, v) for s, v in zip(("x", "u", "d", "theta"), self.physics.sizes, strict=True)]
        end = self.physics.function(*symbols)
        return ca.Function("FA", symbols, [end, ca.densify(ca.jacobian(end, symbols[0]))])

    def predicted(
        self, estimate: Estimate, u: ArrayLike, d: ArrayLike = (), theta: ArrayLike | None = None
    ) -> Estimate:
        """One period ahead.

        Raises
        ------
        NumericalError
            The model cannot be integrated from the estimate.
        """
        parameters = np.ones(len(self.physics.parameters)) if theta is None else theta
        if np.size(d) != len(self.physics.disturbances):
            raise ConfigError(
                f"{np.size(d)} disturbances given; '{self.physics.name}' wants {', '.join(self.physics.disturbances)}"
            )
        try:
            mean, A = self._step(estimate.mean, u, d, parameters)
        except RuntimeError as error:
            raise NumericalError(f"estimator of '{self.physics.name}' at {estimate.mean.tolist()}: {error}") from error
        A = np.asarray(A)
        P = A @ estimate.covariance @ A.T + np.diag(self.process_noise**2)
        return Estimate(np.clip(np.asarray(mean).ravel(), self.lower, self.upper), P)

    def innovations(self, prior: Estimate, y: Vector) -> Vector:
        """(y - prediction) over its standard deviation per sensor, (m,); NaN where nothing was measured."""
        index = list(self.sensors.states)
        variance = np.diag(prior.covariance)[index] + self.sensors.noise**2
        score: Vector = (y - prior.mean[index]) / np.sqrt(variance)
        return score

    def corrected(self, prior: Estimate, y: Vector, trusted: NDArray[np.bool_] | None = None) -> Estimate:
        """Take in the readings (m,) of the trusted sensors; NaN is a sensor that did not speak."""
        use = np.isfinite(y) if trusted is None else np.isfinite(y) & trusted
        rows = np.flatnonzero(use)
        if rows.size == 0:
            return prior
        index = [self.sensors.states[k] for k in rows]
        H = np.eye(prior.mean.size)[index]
        inflation = np.maximum(np.abs(self.innovations(prior, y)[rows]) / self.huber, 1.0)
        R = np.diag((self.sensors.noise[rows] * inflation) ** 2)
        S = H @ prior.covariance @ H.T + R
        gain = np.linalg.solve(S, H @ prior.covariance).T
        mean = prior.mean + gain @ (y[rows] - prior.mean[index])
        keep = np.eye(prior.mean.size) - gain @ H
        P = keep @ prior.covariance @ keep.T + gain @ R @ gain.T  # Joseph's form stays positive definite
        return Estimate(np.clip(mean, self.lower, self.upper), P)


def error_box(deviation: Vector, share: float = 0.999) -> Vector:
    """Half-widths (n,) of a box that holds the estimation error with probability `share`, from its standard deviations.

    A union bound over the components of a normal error. With these as the `noise` of each state in the plant file the
    robust design is that of an output-feedback tube:  xhat+ = A xhat + B u + E d + (e+ - A e)  holds exactly.
    """
    return np.asarray(stats.norm.ppf(1 - (1 - share) / (2 * deviation.size)) * deviation, float)
