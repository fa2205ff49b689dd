"""Bayesian linear regression on features, recursive with forgetting and bounded influence.

    k = P phi / (lam/w + phi'P phi),   m <- m + k (y - phi'm),   P <- (P - k phi'P)/lam,   var(y) = s^2 (1 + phi'P phi)

P is in units of the noise variance s^2 (per output), so all outputs share it. w = min(1, c / largest |residual|/s) is
Huber's weight: a wild measurement moves the mean by no more than one of c standard deviations would. The covariance
never exceeds its prior, so forgetting without excitation cannot blow it up.
Source: learning.md, "Hybrid models"; Huber 1964 for the weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError, DataError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class BayesianLayer:
    """Weights of all outputs with their common covariance.

    Attributes
    ----------
    mean : (p, n)
    covariance : (p, p) in units of each output's noise variance
    noise : (n,) standard deviations s of the noise
    prior : largest allowed diagonal entry of the covariance
    samples : measurements taken in
    """

    mean: Matrix
    covariance: Matrix
    noise: Vector
    prior: float
    samples: int = 0

    @staticmethod
    def empty(features: int, noise: Vector, prior: float = 1.0) -> BayesianLayer:
        """Layer that predicts 0 with prior variance: a hybrid model is then its physics."""
        if not (np.all(np.asarray(noise) > 0) and prior > 0):
            raise ConfigError(f"noise {noise} and prior {prior} of a Bayesian layer must be positive")
        start = np.zeros((features, np.size(noise)))
        return BayesianLayer(start, prior * np.eye(features), np.asarray(noise, float), prior)

    def predict(self, phi: Matrix) -> tuple[Matrix, Matrix]:
        """Mean and variance (N, n) of the outputs at features (N, p)."""
        spread = np.einsum("np,pq,nq->n", phi, self.covariance, phi)
        return phi @ self.mean, np.outer(1.0 + np.maximum(spread, 0.0), self.noise**2)

    def updated(
        self, phi: Vector, y: Vector, forgetting: float = 1.0, huber: float = 3.0, noise_rate: float = 0.005
    ) -> BayesianLayer:
        """Take in one measurement.

        Parameters
        ----------
        phi : (p,);  y : (n,)
        forgetting : lam in (0, 1]; the memory is 1/(1 - lam) samples
        huber : c
        noise_rate : share by which the noise variance moves towards the clipped squared residual; 0 keeps it

        Raises
        ------
        DataError
            A value is not finite.
        """
        if not (np.all(np.isfinite(phi)) and np.all(np.isfinite(y))):
            raise DataError("a residual measurement holds values that are not finite: leave the sample out")
        if not 0.0 < forgetting <= 1.0:
            raise ConfigError(f"forgetting = {forgetting}: must lie in (0, 1]")
        Pphi = self.covariance @ phi
        spread = max(float(phi @ Pphi), 0.0)
        error = y - phi @ self.mean
        size = float(np.max(np.abs(error) / (self.noise * np.sqrt(1.0 + spread))))
        weight = min(1.0, huber / size) if size > 0 else 1.0
        gain = Pphi / (forgetting / weight + spread)
        P = (self.covariance - np.outer(gain, Pphi)) / forgetting
        P = 0.5 * (P + P.T)
        over = np.sqrt(self.prior / np.maximum(np.diag(P), self.prior))
        P = over[:, None] * P * over
        squared = np.minimum(error**2 / (1.0 + spread), (huber * self.noise) ** 2)
        noise = np.sqrt((1 - noise_rate) * self.noise**2 + noise_rate * squared)
        return replace(
            self, mean=self.mean + np.outer(gain, error), covariance=P, noise=noise, samples=self.samples + 1
        )

    def widened(self, factor: float) -> BayesianLayer:
        """Covariance times `factor`, up to the prior: after a detected change the past counts for less."""
        P = factor * self.covariance
        over = np.sqrt(self.prior / np.maximum(np.diag(P), self.prior))
        return replace(self, covariance=over[:, None] * P * over)


def fit_layer(phi: Matrix, y: Matrix, prior: float = 1.0, huber: float = 3.0, passes: int = 5) -> BayesianLayer:
    """Batch fit by iteratively reweighted ridge regression, (N, p) and (N, n); the noise from the median residual.

    Raises
    ------
    DataError
        Fewer samples than outputs need, or values that are not finite.
    """
    count, p = phi.shape
    if count < 10 or y.shape[0] != count:
        raise DataError(f"{count} feature rows and {y.shape[0]} output rows: at least 10 equal ones are needed")
    if not (np.all(np.isfinite(phi)) and np.all(np.isfinite(y))):
        raise DataError("the training data hold values that are not finite")
    noise: Vector = np.asarray(np.maximum(1.4826 * np.median(np.abs(y - np.median(y, 0)), axis=0), 1e-9), float)
    weight = np.ones(count)
    covariance, mean = prior * np.eye(p), np.zeros((p, y.shape[1]))
    for _ in range(passes):
        information = phi.T @ (weight[:, None] * phi) + np.eye(p) / prior
        covariance = np.asarray(np.linalg.inv(information), float)
        covariance = 0.5 * (covariance + covariance.T)
        mean = covariance @ (phi.T @ (weight[:, None] * y))
        error = y - phi @ mean
        freedom = count / max(count - min(np.trace(covariance @ (phi.T @ phi)), 0.9 * count), 1.0)
        noise = np.asarray(np.maximum(1.4826 * np.median(np.abs(error), axis=0) * np.sqrt(freedom), 1e-9), float)
        size = np.max(np.abs(error) / noise, axis=1)
        weight = np.minimum(1.0, huber / np.maximum(size, 1e-12))
    return BayesianLayer(mean, covariance, noise, prior, count)
