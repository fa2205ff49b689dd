"""Moving-horizon estimation: the most likely window of states, with limits and robust measurement costs.

    min  |x_0 - xbar|^2_{P^-1} + sum_k |w_k|^2_{Q^-1} + sum_k sum_i h((y_ki - x_k,s(i)) / r_i)
    s.t. x_{k+1} = F(x_k, u_k) + w_k,   lower <= x_k <= upper

over the last N periods; h(e) = 2 c^2 (sqrt(1 + e^2/c^2) - 1) is the pseudo-Huber cost, missing readings have weight 0,
and the arrival cost (xbar, P) comes from the extended Kalman filter at the window's beginning. The program is compiled
once (CasADi, IPOPT) and started from the last window, shifted.
Source: Rao, Rawlings and Mayne 2003.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import ConfigError, NumericalError
from rmpc_ros.models.estimator import Estimate, ExtendedKalman

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class _Period:
    """What happened in one period: prior of the filter at its end, input before, readings, trusted sensors."""

    prior: Estimate
    u: Vector
    y: Vector
    use: NDArray[np.bool_]


class MovingHorizon:
    """A moving-horizon estimator around an extended Kalman filter.

    Parameters
    ----------
    filter : supplies model, noises, limits and the arrival cost
    start : estimate before the first measurement
    horizon : N >= 1 periods
    huber : c of the robust measurement cost, in standard deviations
    disturbances, theta : fixed inputs of the model
    """

    def __init__(
        self,
        filter: ExtendedKalman,
        start: Estimate,
        horizon: int,
        huber: float = 3.0,
        disturbances: ArrayLike = (),
        theta: ArrayLike | None = None,
    ) -> None:
        if horizon < 1:
            raise ConfigError(f"moving horizon = {horizon}: must be 1 or more")
        self.filter, self.horizon = filter, horizon
        self._d = np.asarray(disturbances, float)
        self._theta = np.ones(len(filter.physics.parameters)) if theta is None else np.asarray(theta, float)
        self._estimate = start
        self._window: deque[_Period] = deque(maxlen=horizon + 1)
        self._guess: Vector | None = None
        self._scale = np.maximum(np.abs(start.mean), 1e-3)
        self._solver = self._compile(huber)

    def update(self, u: ArrayLike, y: Vector, trusted: NDArray[np.bool_] | None = None) -> Vector:
        """Input of the last period and the readings (m,) after it; returns the estimated state now, (n,).

        Raises
        ------
        NumericalError
            The program was not solved: the caller keeps the filter's estimate (`self.estimate`).
        """
        prior = self.filter.predicted(self._estimate, u, self._d, self._theta)
        use = np.isfinite(y) if trusted is None else np.isfinite(y) & trusted
        self._estimate = self.filter.corrected(prior, y, use)
        self._window.append(_Period(prior, np.atleast_1d(np.asarray(u, float)), y, use))
        if len(self._window) <= self.horizon:
            return self._estimate.mean
        return self._solve()

    @property
    def estimate(self) -> Estimate:
        """What the extended Kalman filter alone says now."""
        return self._estimate

    def _compile(self, huber: float) -> Any:
        f, N = self.filter, self.horizon
        n, m, q, k = f.physics.sizes
        s = len(f.sensors.names)
        X, U = ca.MX.sym("X", n, N + 1), ca.MX.sym("U", m, N)
        Y, use = ca.MX.sym("Y", s, N + 1), ca.MX.sym("use", s, N + 1)
        xbar, root = ca.MX.sym("xbar", n), ca.MX.sym("root", n, n)
        d, theta = ca.MX.sym("d", q), ca.MX.sym("theta", k)
        scale = ca.DM(self._scale)
        cost = ca.sumsqr(ca.mtimes(root, X[:, 0] * scale - xbar))
        for t in range(N):
            w = X[:, t + 1] * scale - f.physics.function(X[:, t] * scale, U[:, t], d, theta)
            cost += ca.sumsqr(w / ca.DM(np.maximum(f.process_noise, 1e-9 * self._scale)))
        index = list(f.sensors.states)
        for t in range(N + 1):
            e = (Y[:, t] - (X[:, t] * scale)[index]) / ca.DM(f.sensors.noise)
            cost += ca.sum1(use[:, t] * 2 * huber**2 * (ca.sqrt(1 + (e / huber) ** 2) - 1))
        p = ca.vertcat(ca.vec(U), ca.vec(Y), ca.vec(use), xbar, ca.vec(root), d, theta)
        options: Any = {
            "ipopt.print_level": 0,
            "print_time": False,
            "ipopt.sb": "yes",
            "ipopt.max_iter": 60,
            "ipopt.tol": 1e-6,
        }
        if f.physics.function.is_a("SXFunction"):
            options["expand"] = True
        program: Any = {"x": ca.vec(X), "p": p, "f": cost}
        return ca.nlpsol("mhe", "ipopt", program, options)

    def _solve(self) -> Vector:
        periods = list(self._window)
        first = periods[0].prior
        values, vectors = np.linalg.eigh(first.covariance)
        root = (vectors / np.sqrt(np.maximum(values, 1e-14 * values[-1]))).T
        y = np.array([np.where(v.use, v.y, 0.0) for v in periods])
        use = np.array([v.use for v in periods], float)
        p = np.concatenate(
            [
                np.concatenate([v.u for v in periods[1:]]),
                y.ravel(),
                use.ravel(),
                first.mean,
                root.T.ravel(),
                self._d,
                self._theta,
            ]
        )
        N, n = self.horizon, self._scale.size
        guess = np.concatenate([v.prior.mean / self._scale for v in periods]) if self._guess is None else self._guess
        lower = np.tile(np.broadcast_to(self.filter.lower, n) / self._scale, N + 1)
        upper = np.tile(np.broadcast_to(self.filter.upper, n) / self._scale, N + 1)
        found = self._solver(x0=np.clip(guess, lower, upper), p=p, lbx=lower, ubx=upper)
        status = self._solver.stats()
        if not status["success"]:
            self._guess = None
            raise NumericalError(
                f"moving-horizon estimation stopped with '{status['return_status']}'", status["return_status"]
            )
        states = np.asarray(found["x"]).reshape(N + 1, n)
        self._guess = np.concatenate([states[1:].ravel(), self._estimate.mean / self._scale])
        return np.asarray(states[-1] * self._scale, float)
