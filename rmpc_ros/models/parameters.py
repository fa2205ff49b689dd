"""Physical parameters with uncertainty: a recursive Bayesian belief and hypothesis-test bounds.

Belief theta ~ N(mean, covariance), theta relative to nominal. One measurement r = J (theta - mean) + e, J = dF/dtheta:
    G = P J'(J P J' + R)^-1,   mean <- mean + G r,   P <- (I - G J) P + drift^2 I
Bounds: theta_i is not rejected at level alpha iff |theta_i - mean_i| <= t_{1-alpha/2, N-k} sqrt(P_ii) (Student's t,
batch fit) or the normal quantile (recursive). Jointly: the ellipsoid of the F test. Inverting a test gives a
confidence set. Source: Bertsimas, Gupta, Kallus 2018, section 3 (sets from tests); Seber and Wild 1989, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from rmpc_ros.errors import DataError, NumericalError
from rmpc_ros.models.physics import Physics

if TYPE_CHECKING:
    from rmpc_ros.models.hybrid import Transitions

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class ParameterBelief:
    """What is known about theta.

    Attributes
    ----------
    mean : (k,);  covariance : (k, k)
    prior : largest allowed standard deviation
    drift : standard deviation of theta's change in one period
    freedom : degrees of freedom of the bounds' quantile; infinite for the normal one
    lower, upper : physical limits of theta; the mean is kept inside
    """

    mean: Vector
    covariance: Matrix
    prior: float = 0.2
    drift: float = 0.0
    freedom: float = np.inf
    lower: float = 0.05
    upper: float = 5.0

    @staticmethod
    def nominal(count: int, prior: float = 0.2, drift: float = 0.0) -> ParameterBelief:
        """Belief before data: theta = 1 with standard deviation `prior`."""
        return ParameterBelief(np.ones(count), prior**2 * np.eye(count), prior, drift)

    def updated(self, J: Matrix, error: Vector, deviation: Vector, huber: float = 3.0) -> ParameterBelief:
        """Take in one prediction error (n,) with its predicted standard deviation (n,) and J = dF/dtheta (n, k)."""
        PJ = self.covariance @ J.T
        size = float(np.max(np.abs(error) / deviation))
        inflated = max(size / huber, 1.0)  # Huber: a wild value counts as if it were much noisier
        S = J @ PJ + np.diag(inflated * deviation**2)
        gain = np.linalg.solve(S, PJ.T).T
        P = self.covariance - gain @ PJ.T + self.drift**2 * np.eye(len(self.mean))
        return replace(self, mean=np.clip(self.mean + gain @ error, self.lower, self.upper), covariance=self._capped(P))

    def widened(self, factor: float) -> ParameterBelief:
        """Covariance times `factor`, up to the prior."""
        return replace(self, covariance=self._capped(factor * self.covariance))

    def bounds(self, confidence: float = 0.95) -> Matrix:
        """Interval of each parameter that a t test at level 1 - confidence does not reject, (k, 2)."""
        quantile = (
            stats.norm.ppf(0.5 + confidence / 2)
            if np.isinf(self.freedom)
            else stats.t.ppf(0.5 + confidence / 2, self.freedom)
        )
        half = quantile * np.sqrt(np.diag(self.covariance))
        return np.column_stack([np.maximum(self.mean - half, self.lower), np.minimum(self.mean + half, self.upper)])

    def plausible(self, theta: ArrayLike, confidence: float = 0.95) -> bool:
        """Whether the joint F (or chi-square) test does not reject `theta`, (k,)."""
        gap = np.asarray(theta, float) - self.mean
        k = gap.size
        statistic = float(gap @ np.linalg.solve(self.covariance, gap))
        limit = (
            stats.chi2.ppf(confidence, k) if np.isinf(self.freedom) else k * stats.f.ppf(confidence, k, self.freedom)
        )
        return statistic <= float(limit)

    def _capped(self, P: Matrix) -> Matrix:
        P = 0.5 * (P + P.T)
        over = np.minimum(1.0, self.prior / np.sqrt(np.maximum(np.diag(P), 1e-300)))
        return over[:, None] * P * over


def fit_parameters(
    physics: Physics, data: Transitions, noise: Vector, prior: float = 0.5, drift: float = 0.0
) -> ParameterBelief:
    """Non-linear least squares on one-step errors, robust (soft L1), with the covariance of the linearised problem.

    Parameters
    ----------
    noise : (n,) standard deviation of each state's one-step error

    Raises
    ------
    DataError
        The data do not identify the parameters.
    NumericalError
        The least-squares search fails.
    """
    k = len(physics.parameters)
    start = ParameterBelief.nominal(k, prior, drift)
    if k == 0:
        return start

    def errors(theta: Vector) -> Vector:
        ahead = physics.advance_many(data.x, data.u, data.d, theta)
        return np.concatenate([((data.after - ahead) / noise).ravel(), (theta - 1.0) / prior])

    found = optimize.least_squares(errors, np.ones(k), loss="soft_l1", bounds=(start.lower, start.upper), x_scale=0.1)
    if not found.success:
        raise NumericalError(f"parameter fit of '{physics.name}' stopped: {found.message}", str(found.status))
    freedom = max(data.after.size - k, 1)
    variance = max(float(np.median(np.abs(found.fun[:-k])) * 1.4826) ** 2, 1e-12)
    information = found.jac.T @ found.jac
    if np.linalg.cond(information) > 1e12:
        raise DataError(f"the data do not identify {', '.join(physics.parameters)}: excite the plant more")
    covariance = variance * np.linalg.inv(information)
    return replace(start, mean=np.asarray(found.x), covariance=start._capped(covariance), freedom=float(freedom))
