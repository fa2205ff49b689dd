"""Bayesian bounds on the parameters of a linear model, updated sample by sample.

    y = phi'theta + e,  e ~ N(0, s2),   theta | s2 ~ N(m, s2 P),   1/s2 ~ Gamma(a, rate b)

The prior is conjugate, so that one sample updates (m, P, a, b) in O(p^2). The posterior of theta is multivariate t with
2a degrees of freedom: its credible ellipsoid is { (theta - m)' P^-1 (theta - m) <= p (b/a) F_{p,2a} }, its marginal
intervals give the box. Forgetting flattens the past: P/lam, and a, b times lam, before each sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rmpc_ros.errors import DataError
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.certificate import Certificate, FittedSet
from rmpc_ros.sets.data import check_level
from rmpc_ros.sets.ellipsoid import Ellipsoid

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class BayesianBounds:
    """Posterior of (theta, s2) and the sets it gives.

    Parameters
    ----------
    mean : (p,) prior mean of theta
    covariance : (p, p) prior P, in units of the noise variance
    noise_variance : prior guess b/a of s2
    weight : the samples that this guess is worth (2a), > 0
    forgetting : lam in (0, 1]
    names : of the parameters
    """

    def __init__(
        self,
        mean: ArrayLike,
        covariance: ArrayLike,
        noise_variance: float = 1.0,
        weight: float = 1.0,
        forgetting: float = 1.0,
        names: tuple[str, ...] | None = None,
    ) -> None:
        self.mean, self.covariance = np.array(mean, float), np.array(covariance, float)
        p = self.mean.size
        if self.mean.ndim != 1 or self.covariance.shape != (p, p):
            raise DataError(f"prior covariance has shape {self.covariance.shape}; ({p}, {p}) wanted for {p} parameters")
        if not np.all(np.linalg.eigvalsh(self.covariance) > 0):
            raise DataError("the prior covariance is not positive definite")
        if not (noise_variance > 0 and weight > 0 and 0 < forgetting <= 1):
            raise DataError(
                f"noise_variance = {noise_variance}, weight = {weight}, forgetting = {forgetting}: give positive "
                "numbers, forgetting at most 1"
            )
        self._a, self._b = 0.5 * weight, 0.5 * weight * noise_variance
        self.forgetting, self.samples = float(forgetting), 0
        self.names = names or tuple(f"theta{i + 1}" for i in range(p))

    @property
    def noise_variance(self) -> float:
        """Present estimate b/a of s2."""
        return self._b / self._a

    def update(self, features: ArrayLike, value: float) -> None:
        """Take one sample (phi (p,), y).

        Raises
        ------
        DataError
            Wrong length or a value that is not finite; the state stays as it was.
        """
        phi, y = np.asarray(features, float), float(value)
        if phi.shape != self.mean.shape or not (np.all(np.isfinite(phi)) and np.isfinite(y)):
            raise DataError(f"sample {self.samples + 1}: give {self.mean.size} finite features and a finite value")
        lam = self.forgetting
        covariance = self.covariance / lam
        spread = covariance @ phi
        scale = 1.0 + float(phi @ spread)
        residual = y - float(phi @ self.mean)
        self.mean = self.mean + spread * residual / scale
        self.covariance = covariance - np.outer(spread, spread) / scale
        self.covariance = 0.5 * (self.covariance + self.covariance.T)
        self._a, self._b = lam * self._a + 0.5, lam * self._b + 0.5 * residual**2 / scale
        self.samples += 1

    def ellipsoid(self, confidence: float) -> FittedSet:
        """Credible ellipsoid of theta."""
        check_level("confidence", confidence)
        p = self.mean.size
        radius = float(np.sqrt(p * self.noise_variance * special.fdtri(p, 2 * self._a, confidence)))
        return self._certified(Ellipsoid.from_shape(self.mean, self.covariance, radius), confidence, "F distribution")

    def box(self, confidence: float) -> FittedSet:
        """Intervals that hold all parameters together (Bonferroni over the parameters)."""
        check_level("confidence", confidence)
        p = self.mean.size
        t = float(special.stdtrit(2 * self._a, 1 - (1 - confidence) / (2 * p)))
        half = t * np.sqrt(self.noise_variance * np.diag(self.covariance))
        return self._certified(Box.around(self.mean, half), confidence, "Student t, Bonferroni")

    def _certified(self, shown: UncertaintySet, confidence: float, test: str) -> FittedSet:
        statement = (
            f"The parameters lie in the set with posterior probability at least {confidence:g}; assumes the linear "
            "model, normal noise and the stated prior."
        )
        thresholds = {"degrees_of_freedom": 2 * self._a, "noise_variance": self.noise_variance}
        return FittedSet(
            shown,
            Certificate(
                shown.family,
                1 - confidence,
                confidence,
                self.samples,
                f"conjugate posterior, {test}",
                thresholds,
                (1, max(self.samples, 1)),
                statement,
                self.names,
                max(self.samples, 1),
            ),
        )
