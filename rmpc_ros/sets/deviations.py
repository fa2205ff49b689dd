"""U^FB: forward and backward deviations of independent components (Bertsimas, Gupta, Kallus, eqs. 27, 28)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, sparse, stats

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, Epigraph, Matrix, UncertaintySet, Vector, finite, stored
from rmpc_ros.sets.bootstrap import resample_counts, resamples_for, upper_value
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import FitOptions, component_level, fitter, need_samples
from rmpc_ros.solvers.conic import Cone


class DeviationSet(UncertaintySet):
    """U = { y1 + y2 - y3 : mb <= y1 <= mf, y2, y3 >= 0, sum y2_i^2/(2 sf_i^2) + y3_i^2/(2 sb_i^2) <= log(1/eps) }.

    Parameters
    ----------
    mb, mf : (d,) bounds of the means
    sb, sf : (d,) backward and forward deviations, positive
    epsilon : in (0, 1)
    """

    family: ClassVar[str] = "fb"

    def __init__(self, mb: ArrayLike, mf: ArrayLike, sb: ArrayLike, sf: ArrayLike, epsilon: float) -> None:
        self.mb, self.mf, self.sb, self.sf = (
            finite(name, value, 1) for name, value in (("mb", mb), ("mf", mf), ("sb", sb), ("sf", sf))
        )
        self.epsilon = float(epsilon)
        d = self.mb.size
        if not all(v.size == d for v in (self.mf, self.sb, self.sf)):
            raise SetError("mb, mf, sb and sf need the same number of entries")
        if np.any(self.mb > self.mf):
            raise SetError(f"mb = {self.mb.tolist()} exceeds mf = {self.mf.tolist()}: the interval of means is empty")
        if np.any(self.sb <= 0) or np.any(self.sf <= 0):
            raise SetError(f"sb = {self.sb.tolist()}, sf = {self.sf.tolist()}: deviations must be positive")
        if not 0 < self.epsilon < 1:
            raise SetError(f"epsilon = {epsilon}: give a number between 0 and 1")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.mb.size)

    @property
    def _rho(self) -> float:
        return float(np.sqrt(2 * np.log(1 / self.epsilon)))

    def center(self) -> Vector:
        """Midpoint of the means."""
        return 0.5 * (self.mb + self.mf)

    def conic(self) -> ConicForm:
        """Auxiliary y2, y3; mb <= u - y2 + y3 <= mf; one second-order cone."""
        d, eye = self.dim, sparse.eye_array(self.dim)
        none = sparse.csc_array((d, d))
        F = sparse.vstack([eye, -eye, sparse.csc_array((4 * d + 1, d))], format="csc")
        G = sparse.block_array(
            [
                [-eye, eye],
                [eye, -eye],
                [-eye, none],
                [none, -eye],
                [sparse.csc_array((1, d)), sparse.csc_array((1, d))],
                [-sparse.diags_array(1 / self.sf), none],
                [none, -sparse.diags_array(1 / self.sb)],
            ],
            format="csc",
        )
        h = np.concatenate([self.mf, -self.mb, np.zeros(2 * d), [self._rho], np.zeros(2 * d)])
        return ConicForm(F, G, h, (Cone("nonnegative", 4 * d), Cone("second_order", 2 * d + 1)))

    def support(self, directions: ArrayLike) -> Vector:
        """Closed form (28)."""
        rows = self._directions(directions)
        up = rows >= 0
        means = np.sum(np.where(up, self.mf, self.mb) * rows, axis=1)
        spread = np.linalg.norm(np.where(up, self.sf, self.sb) * rows, axis=1)
        return self._shape(means + self._rho * spread, directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """Mean bound on the side of each a_i, plus rho s_i^2 a_i / norm2(s a)."""
        rows = self._directions(directions)
        up = rows >= 0
        s = np.where(up, self.sf, self.sb)
        length = np.linalg.norm(s * rows, axis=1, keepdims=True)
        away = np.divide(s**2 * rows, length, out=np.zeros_like(rows), where=length > 0)
        return self._shape(np.where(up, self.mf, self.mb) + self._rho * away, directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Squared distances to [mb, mf] in units of the deviations, summed."""
        rows = self._directions(points)
        over, under = np.maximum(rows - self.mf, 0) / self.sf, np.maximum(self.mb - rows, 0) / self.sb
        return self._shape(np.sqrt(np.sum(over**2 + under**2, axis=1)) <= self._rho * (1 + tolerance), points)

    def epigraph(self) -> Epigraph:
        """Cones: y = (p, q, w): a = p - q, p, q >= 0, mf'p - mb'q + rho w <= t, norm2(sf p, sb q) <= w."""
        d, eye = self.dim, sparse.eye_array(self.dim)
        none, gap = sparse.csc_array((d, d)), sparse.csc_array((d, 1))
        row = sparse.csc_array((1, d))
        Y = sparse.block_array(
            [
                [-eye, eye, gap],
                [-eye, none, gap],
                [none, -eye, gap],
                [stored(self.mf[None, :]), stored(-self.mb[None, :]), sparse.csc_array([[self._rho]])],
                [row, row, sparse.csc_array([[-1.0]])],
                [-sparse.diags_array(self.sf), none, gap],
                [none, -sparse.diags_array(self.sb), gap],
            ],
            format="csc",
        )
        A = sparse.vstack([eye, sparse.csc_array((Y.shape[0] - d, d))], format="csc")
        b = np.zeros(Y.shape[0])
        b[3 * d] = -1.0
        return Epigraph(A, b, Y, (Cone("zero", d), Cone("nonnegative", 2 * d + 1), Cone("second_order", 2 * d + 1)))

    def parameters(self) -> dict[str, Any]:
        """Mean bounds, deviations, epsilon."""
        return {
            **{name: getattr(self, name).tolist() for name in ("mb", "mf", "sb", "sf")},
            "epsilon": self.epsilon,
        }

    @classmethod
    def from_parameters(cls, **parameters: Any) -> DeviationSet:
        """Inverse of `parameters`."""
        return cls(**parameters)


def _grid(centred: Vector, spread: float) -> Vector:
    """Where the supremum over x > 0 is looked for: x times the standard deviation from 0.01 to 60."""
    reach = float(np.max(np.abs(centred))) / spread
    return np.geomspace(1e-2, min(60.0, 600.0 / reach), 160) / spread


def forward_deviation(values: ArrayLike) -> float:
    """Sf = sqrt( sup_{x>0} (2/x^2) (log E[e^{x u}] - x mean) ), the limit x -> 0 (biased variance) included.

    `backward`: call with -values. Source: Bertsimas, Gupta, Kallus, section 6; Chen, Sim, Sun 2007.
    """
    array: Vector = np.asarray(values, float)
    centred = array - array.mean()
    spread = float(np.std(centred))
    grid = _grid(centred, spread)

    def curve(x: float) -> float:
        top = float(np.max(x * centred))
        return 2 / x**2 * (float(np.log(np.mean(np.exp(x * centred - top)))) + top)

    heights = np.array([curve(x) for x in grid])
    best = int(np.argmax(heights))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    fine = optimize.minimize_scalar(lambda x: -curve(x), bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return float(np.sqrt(max(spread**2, heights[best], -fine.fun)))


def resampled_deviations(values: Vector, counts: Matrix) -> Vector:
    """Forward deviation of every resample (B,), by one matrix product over the grid and a parabola at its top."""
    centred = values - values.mean()
    grid = _grid(centred, float(np.std(centred)))
    n = values.size
    top = float(np.max(centred))
    means = counts @ centred / n
    moments = np.log(np.maximum(counts @ np.exp(np.outer(centred - top, grid)) / n, 1e-300)) + top * grid
    heights = 2 / grid**2 * (moments - np.outer(means, grid))
    best = np.clip(np.argmax(heights, axis=1), 1, grid.size - 2)
    rows = np.arange(len(counts))
    left, mid, right = heights[rows, best - 1], heights[rows, best], heights[rows, best + 1]
    bend = left - 2 * mid + right
    gain = np.where(bend < 0, -((right - left) ** 2) / np.where(bend < 0, 8 * bend, 1.0), 0.0)
    variances = counts @ centred**2 / n - means**2
    peak = np.maximum(np.max(heights, axis=1), np.minimum(mid + gain, mid * 1.01))
    return np.asarray(np.sqrt(np.maximum(np.maximum(peak, variances), 0.0)))


def bootstrap_deviations(values: Vector, level: float, counts: Matrix) -> tuple[float, float]:
    """Upper bounds (sf, sb) of one component's deviations, each at `level`."""
    forward = upper_value(resampled_deviations(values, counts), level)
    backward = upper_value(resampled_deviations(-values, counts), level)
    return forward, backward


@fitter("fb", "mf", "mb", "sf", "sb", "resamples")
def fit_deviations(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit U^FB: means by t-tests at alpha'/2, deviations by the bootstrap at alpha'/4 each."""
    n, d = data.shape
    need_samples("fb", n, max(10, d + 2), options)
    level = component_level(options.alpha, d)
    sample_sf = np.array([forward_deviation(data[:, i]) for i in range(d)])
    sample_sb = np.array([forward_deviation(-data[:, i]) for i in range(d)])
    half = stats.t.ppf(1 - level / 4, n - 1) * data.std(axis=0, ddof=1) / np.sqrt(n)
    mb = options.vector("mb", d) if options.has("mb") else data.mean(axis=0) - half
    mf = options.vector("mf", d) if options.has("mf") else data.mean(axis=0) + half
    if options.has("sf") and options.has("sb"):
        sf, sb = options.vector("sf", d), options.vector("sb", d)
    else:
        rng = np.random.default_rng(options.seed)
        given = options.number("resamples") if options.has("resamples") else None
        counts = resample_counts(n, resamples_for(level / 4, given), rng)
        pairs = np.array([bootstrap_deviations(data[:, i], level / 4, counts) for i in range(d)])
        sf = options.vector("sf", d) if options.has("sf") else pairs[:, 0]
        sb = options.vector("sb", d) if options.has("sb") else pairs[:, 1]
    statement = options.promise("the components are independent of each other")
    certificate = options.certificate(
        "fb",
        data,
        "t-test for the means, bootstrap for the deviations",
        {"mb": mb, "mf": mf, "sb": sb, "sf": sf, "sf_sample": sample_sf, "sb_sample": sample_sb},
        statement,
        given=("mb", "mf", "sb", "sf"),
    )
    return FittedSet(DeviationSet(mb, mf, sb, sf, options.epsilon), certificate)
