"""U^DY: mean in an ellipsoid, second moment below a multiple of the sample's (Bertsimas, Gupta, Kallus, eq. 41)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from rmpc_ros.errors import DataError, SetError
from rmpc_ros.sets.base import ConicForm, Matrix, UncertaintySet, Vector, _factor, finite
from rmpc_ros.sets.bootstrap import resample_counts, resamples_for, upper_value
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import FitOptions, fitter, need_samples
from rmpc_ros.sets.moments import resampled_moments
from rmpc_ros.solvers.conic import Cone


class SecondMomentSet(UncertaintySet):
    """U of eq. (41): u in the box for which l <= 1/eps, w, m, A, Ah exist with.

        (l-1) lower <= m <= (l-1) upper,  l mu = m + u + w,  norm2(C w) <= l sqrt(g1),  C'C = Sigma^-1,
        [[l-1, m'], [m, A]] >= 0,  [[1, u'], [u, Ah]] >= 0,  l (g2 Sigma + mu mu') - A - Ah - w mu' - mu w' >= 0

    Parameters
    ----------
    mean : (d,)
    covariance : (d, d), positive definite
    g1, g2 : thresholds of the mean and the second moment, g1 >= 0, g2 >= 1
    epsilon : in (0, 1)
    lower, upper : (d,) known support; without it the rows of the box fall away
    """

    family: ClassVar[str] = "dy"

    def __init__(
        self,
        mean: ArrayLike,
        covariance: ArrayLike,
        g1: float,
        g2: float,
        epsilon: float,
        lower: ArrayLike | None = None,
        upper: ArrayLike | None = None,
    ) -> None:
        self.mean, self.covariance = finite("mean", mean, 1), finite("covariance", covariance, 2)
        self.g1, self.g2, self.epsilon = _factor(g1), _factor(g2), float(epsilon)
        self.lower = None if lower is None else finite("lower", lower, 1)
        self.upper = None if upper is None else finite("upper", upper, 1)
        d = self.mean.size
        if self.covariance.shape != (d, d):
            raise SetError(f"covariance has shape {self.covariance.shape}; ({d}, {d}) wanted")
        if (self.lower is None) != (self.upper is None):
            raise SetError("give both lower and upper, or neither")
        if not 0 < self.epsilon < 1:
            raise SetError(f"epsilon = {epsilon}: give a number between 0 and 1")
        try:
            root = np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError:
            raise SetError("Sigma is not positive definite: remove linearly dependent columns") from None
        self._C = np.linalg.inv(root)
        self._scale = np.sqrt(np.diag(self.covariance))

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.mean.size)

    def center(self) -> Vector:
        """The mean."""
        return self.mean

    def conic(self) -> ConicForm:
        """Auxiliary l, w, m and the upper triangles of A and Ah; three semidefinite blocks.

        Written for v = (u - mu)/s, s the standard deviations: in these coordinates mu = 0 and the solver sees numbers
        of order one whatever the units of u.
        """
        d = self.dim
        scale = self._scale
        covariance, C = self.covariance / np.outer(scale, scale), self._C * scale
        lower, upper = None, None
        if self.lower is not None and self.upper is not None:
            lower, upper = (self.lower - self.mean) / scale, (self.upper - self.mean) / scale
        columns, rows = np.tril_indices(d)  # upper triangle column by column: entry (rows[k], columns[k])
        t = rows.size
        at_l, at_w, at_m, at_A, at_B = d, d + 1, 2 * d + 1, 3 * d + 1, 3 * d + 1 + t
        size = at_B + t
        index = np.zeros((d, d), int)
        index[rows, columns] = index[columns, rows] = np.arange(t)
        lines: list[Vector] = []
        rhs: list[float] = []
        cones: list[Cone] = []

        def line(constant: float, *terms: tuple[int, float]) -> None:
            """One slack  constant + sum coefficient x."""
            row = np.zeros(size)
            for place, value in terms:
                row[place] -= value
            lines.append(row)
            rhs.append(constant)

        for i in range(d):
            line(0.0, (at_m + i, 1), (i, 1), (at_w + i, 1))
        cones.append(Cone("zero", d))
        line(1 / self.epsilon, (at_l, -1))
        if lower is not None and upper is not None:
            for i in range(d):
                line(upper[i], (i, -1))
                line(-lower[i], (i, 1))
                line(-upper[i], (at_l, upper[i]), (at_m + i, -1))
                line(lower[i], (at_l, -lower[i]), (at_m + i, 1))
        cones.append(Cone("nonnegative", len(lines) - d))
        line(0.0, (at_l, float(np.sqrt(self.g1))))
        for i in range(d):
            line(0.0, *[(at_w + j, C[i, j]) for j in range(d)])
        cones.append(Cone("second_order", d + 1))
        off = np.sqrt(2)
        for constant, corner, side, block in ((-1.0, at_l, at_m, at_A), (1.0, None, 0, at_B)):
            for j in range(d + 1):
                for i in range(j + 1):
                    if j == 0:
                        line(constant, *([] if corner is None else [(corner, 1.0)]))
                    elif i == 0:
                        line(0.0, (side + j - 1, off))
                    else:
                        line(0.0, (block + index[i - 1, j - 1], 1.0 if i == j else off))
            cones.append(Cone("psd", d + 1))
        second = self.g2 * covariance
        for j in range(d):
            for i in range(j + 1):
                f = 1.0 if i == j else off
                line(
                    0.0,
                    (at_l, f * second[i, j]),
                    (at_A + index[i, j], -f),
                    (at_B + index[i, j], -f),
                )
        cones.append(Cone("psd", d))
        matrix, h = np.array(lines), np.array(rhs)
        return ConicForm(
            sparse.csc_array(matrix[:, :d] / scale),
            sparse.csc_array(matrix[:, d:]),
            h + matrix[:, :d] @ (self.mean / scale),
            tuple(cones),
        )

    def parameters(self) -> dict[str, Any]:
        """Moments, thresholds, epsilon, box."""
        return {
            "mean": self.mean.tolist(),
            "covariance": self.covariance.tolist(),
            "g1": self.g1,
            "g2": self.g2,
            "epsilon": self.epsilon,
            "lower": None if self.lower is None else self.lower.tolist(),
            "upper": None if self.upper is None else self.upper.tolist(),
        }

    @classmethod
    def from_parameters(cls, **parameters: Any) -> SecondMomentSet:
        """Inverse of `parameters`."""
        return cls(**parameters)


@fitter("dy", "g1", "g2", "box", "resamples")
def fit_second_moment(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit U^DY; thresholds by the bootstrap at alpha/2 each, the resample in the sample's place.

    g1: (mu - mu_b)'Sigma_b^-1(mu - mu_b);  g2: the largest eigenvalue of Sigma_b^-1 E[(u - mu_b)(u - mu_b)'].
    """
    n, d = data.shape
    need_samples("dy", n, max(10, 3 * d), options)
    mean, covariance = data.mean(axis=0), np.atleast_2d(np.cov(data.T))
    thresholds = {}
    if not (options.has("g1") and options.has("g2")):
        given = options.number("resamples") if options.has("resamples") else None
        counts = resample_counts(n, resamples_for(options.alpha / 2, given), np.random.default_rng(options.seed))
        means, covariances = resampled_moments(data, counts)
        shift = means - mean
        try:
            inverse = np.linalg.inv(covariances)
        except np.linalg.LinAlgError:
            raise DataError(
                f"family dy: some resamples of {n} rows have a singular covariance; give more rows, or g1= and g2="
            ) from None
        centred = data - mean
        second = centred.T @ centred / n + shift[:, :, None] * shift[:, None, :]
        ratio = np.linalg.eigvals(inverse @ second).real.max(axis=1)
        thresholds = {
            "g1": upper_value(np.einsum("bi,bij,bj->b", shift, inverse, shift), options.alpha / 2),
            "g2": max(1.0, upper_value(ratio, options.alpha / 2)),
        }
    for name in ("g1", "g2"):
        if options.has(name):
            thresholds[name] = options.number(name)
    box = options.box(data)
    lower, upper = box if box is not None else (None, None)
    fitted = SecondMomentSet(mean, covariance, thresholds["g1"], thresholds["g2"], options.epsilon, lower, upper)
    assumption = "the first two moments are finite" + (" and the known support holds" if box is not None else "")
    certificate = options.certificate(
        "dy",
        data,
        "bootstrap of the mean and the second moment",
        thresholds,
        options.promise(assumption),
        given=("g1", "g2"),
    )
    return FittedSet(fitted, certificate)
