"""U^CS: mean and covariance within norm balls (Bertsimas, Gupta, Kallus, eq. 39; Calafiore and El Ghaoui)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, Epigraph, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.sets.bootstrap import resample_counts, resamples_for, upper_value
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import FitOptions, fitter, need_samples
from rmpc_ros.solvers.conic import Cone


class MomentSet(UncertaintySet):
    """U = { mu + y + C'w : norm2(y) <= G1, norm2(w) <= sqrt(1/eps - 1), C'C = Sigma + G2 I }.

    support(v) = mu'v + G1 norm2(v) + sqrt(1/eps - 1) sqrt(v'(Sigma + G2 I)v).

    Parameters
    ----------
    mean : (d,)
    covariance : (d, d), Sigma + G2 I positive definite
    G1, G2 : radii >= 0 of the mean and the covariance
    epsilon : in (0, 1)
    """

    family: ClassVar[str] = "cs"

    def __init__(self, mean: ArrayLike, covariance: ArrayLike, G1: float, G2: float, epsilon: float) -> None:
        self.mean, self.covariance = finite("mean", mean, 1), finite("covariance", covariance, 2)
        self.G1, self.G2, self.epsilon = _factor(G1), _factor(G2), float(epsilon)
        d = self.mean.size
        if self.covariance.shape != (d, d):
            raise SetError(f"covariance has shape {self.covariance.shape}; ({d}, {d}) wanted")
        if not 0 < self.epsilon < 1:
            raise SetError(f"epsilon = {epsilon}: give a number between 0 and 1")
        self._sigma = self.covariance + self.G2 * np.eye(d)
        try:
            self._root = np.linalg.cholesky(self._sigma)  # C' : lower triangular
        except np.linalg.LinAlgError:
            raise SetError("Sigma + G2 I is not positive definite: remove linearly dependent columns") from None
        self._kappa = float(np.sqrt(1 / self.epsilon - 1))

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.mean.size)

    def center(self) -> Vector:
        """The mean."""
        return self.mean

    def conic(self) -> ConicForm:
        """Auxiliary w; (G1, u - mu - C'w) and (kappa, w) in second-order cones."""
        d, eye = self.dim, sparse.eye_array(self.dim)
        gap = sparse.csc_array((1, d))
        F = sparse.vstack([gap, -eye, gap, sparse.csc_array((d, d))], format="csc")
        G = sparse.vstack([gap, stored(self._root), gap, -eye], format="csc")
        h = np.concatenate([[self.G1], -self.mean, [self._kappa], np.zeros(d)])
        return ConicForm(F, G, h, (Cone("second_order", d + 1), Cone("second_order", d + 1)))

    def support(self, directions: ArrayLike) -> Vector:
        """Closed form."""
        rows = self._directions(directions)
        value = (
            rows @ self.mean
            + self.G1 * np.linalg.norm(rows, axis=1)
            + self._kappa * np.linalg.norm(rows @ self._root, axis=1)
        )
        return self._shape(value, directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """Mu + G1 v/norm2(v) + kappa C'Cv/norm2(Cv) (Remark 18 of the paper prints Cv where C'Cv is right)."""
        rows = self._directions(directions)
        first, second = np.linalg.norm(rows, axis=1), np.linalg.norm(rows @ self._root, axis=1)
        zero = first == 0
        unit = rows / np.where(zero, 1.0, first)[:, None]
        inner = rows @ self._sigma / np.where(zero, 1.0, second)[:, None]
        return self._shape(self.mean + self.G1 * unit + self._kappa * inner, directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Distance of u - mu to the ellipsoid { C'w } by its secular equation, at most G1."""
        rows = self._directions(points)
        scale, axes = np.linalg.eigh(self._sigma)
        z = (rows - self.mean) @ axes
        low = np.zeros(len(rows))
        high = np.max(scale) + np.linalg.norm(z, axis=1) * np.sqrt(np.max(scale)) / self._kappa
        inside = np.sum(z**2 / scale, axis=1) <= self._kappa**2
        for _ in range(200):
            middle = 0.5 * (low + high)
            far = np.sum(z**2 * scale / (scale + middle[:, None]) ** 2, axis=1) > self._kappa**2
            low, high = np.where(far, middle, low), np.where(far, high, middle)
        rest = z * (high[:, None] / (scale + high[:, None]))
        gap = np.where(inside, 0.0, np.linalg.norm(rest, axis=1))
        return self._shape(gap <= self.G1 + tolerance * (1 + np.max(np.abs(rows), axis=1)), points)

    def epigraph(self) -> Epigraph:
        """Cones: y = (y1, y2): mu'a + G1 y1 + kappa y2 <= t, norm2(a) <= y1, norm2(Ca) <= y2."""
        d = self.dim
        A = sparse.vstack(
            [
                stored(self.mean[None, :]),
                sparse.csc_array((1, d)),
                -sparse.eye_array(d),
                sparse.csc_array((1, d)),
                -sparse.csc_array(self._root.T),
            ],
            format="csc",
        )
        Y = np.zeros((2 * d + 3, 2))
        Y[0], Y[1, 0], Y[d + 2, 1] = (self.G1, self._kappa), -1.0, -1.0
        pattern = ([0, 0, 1, d + 2], [0, 1, 0, 1])
        return Epigraph(
            A,
            np.append(-1.0, np.zeros(2 * d + 2)),
            sparse.csc_array((Y[pattern], pattern), shape=Y.shape),
            (Cone("nonnegative", 1), Cone("second_order", d + 1), Cone("second_order", d + 1)),
        )

    def parameters(self) -> dict[str, Any]:
        """Mean, covariance, radii, epsilon."""
        return {
            "mean": self.mean.tolist(),
            "covariance": self.covariance.tolist(),
            "G1": self.G1,
            "G2": self.G2,
            "epsilon": self.epsilon,
        }

    @classmethod
    def from_parameters(cls, **parameters: Any) -> MomentSet:
        """Inverse of `parameters`."""
        return cls(**parameters)


def resampled_moments(data: Matrix, counts: Matrix) -> tuple[Matrix, NDArray[np.float64]]:
    """Mean (B, d) and unbiased covariance (B, d, d) of every resample."""
    n, d = data.shape
    centre = data.mean(axis=0)
    z = data - centre
    means = counts @ z / n
    products = (z[:, :, None] * z[:, None, :]).reshape(n, d * d)
    second = (counts @ products / n).reshape(-1, d, d)
    covariance = (second - means[:, :, None] * means[:, None, :]) * n / (n - 1)
    return means + centre, covariance


@fitter("cs", "G1", "G2", "R", "resamples")
def fit_moments(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit U^CS: radii by the bootstrap at alpha/2 each, or from a known bound R on norm2(u) (`R=`).

    With R (math.md section 1.1): G1 = R/sqrt N (2 + sqrt(2 log(2/alpha))), G2 = 2R^2/sqrt N (2 + sqrt(2 log(4/alpha))).
    """
    n, d = data.shape
    need_samples("cs", n, max(10, d + 2), options)
    mean, covariance = data.mean(axis=0), np.atleast_2d(np.cov(data.T))
    test = "bootstrap of the mean and the covariance (Frobenius norm)"
    assumption = "the first two moments are finite"
    radii = {}
    if options.has("R"):
        bound = options.number("R")
        far = np.linalg.norm(data, axis=1)
        options.refuse_outside(data, far > bound, f"norm2(u) exceeds the known bound R = {bound:g}")
        radii = {
            "G1": bound / np.sqrt(n) * (2 + np.sqrt(2 * np.log(2 / options.alpha))),
            "G2": 2 * bound**2 / np.sqrt(n) * (2 + np.sqrt(2 * np.log(4 / options.alpha))),
        }
        test = "concentration of the mean and the covariance (Shawe-Taylor and Cristianini)"
        assumption = f"norm2(u) never exceeds {bound:g}"
    elif not (options.has("G1") and options.has("G2")):
        given = options.number("resamples") if options.has("resamples") else None
        counts = resample_counts(n, resamples_for(options.alpha / 2, given), np.random.default_rng(options.seed))
        means, covariances = resampled_moments(data, counts)
        radii = {
            "G1": upper_value(np.linalg.norm(means - mean, axis=1), options.alpha / 2),
            "G2": upper_value(np.linalg.norm(covariances - covariance, axis=(1, 2)), options.alpha / 2),
        }
    for name in ("G1", "G2"):
        if options.has(name):
            radii[name] = options.number(name)
    certificate = options.certificate("cs", data, test, radii, options.promise(assumption), given=("G1", "G2"))
    return FittedSet(MomentSet(mean, covariance, radii["G1"], radii["G2"], options.epsilon), certificate)
