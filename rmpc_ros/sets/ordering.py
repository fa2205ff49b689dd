"""U^LCX: linear-convex ordering (Bertsimas, Gupta, Kallus, eq. 34). No assumption beyond finite moments.

The paper's support function (35) lacks two constants as printed; here v'u is maximised over (34) itself.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.sets.bootstrap import resample_counts, resamples_for, upper_value
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import FitOptions, fitter, need_samples
from rmpc_ros.solvers.conic import Cone
from rmpc_ros.solvers.lp import LinearProgram


class OrderingSet(UncertaintySet):
    """U of eq. (34): u for which r, z in [1, 1/eps] and s1, s2, s3 in [0, z/N]^N exist with.

        abs(z - 1's1) <= G,  abs(z - 1 - 1's2) <= G,  abs(1 - 1's3) <= G,
        norm_inf(r + u - sum s1_j u^j) <= G,  norm_inf(r - sum s2_j u^j) <= G,  norm_inf(u - sum s3_j u^j) <= G

    Parameters
    ----------
    data : (N, d) the samples u^j
    G : threshold >= 0
    epsilon : in (0, 1)
    """

    family: ClassVar[str] = "lcx"

    def __init__(self, data: ArrayLike, G: float, epsilon: float) -> None:
        self.data, self.G, self.epsilon = finite("data", data, 2), _factor(G), float(epsilon)
        if not 0 < self.epsilon < 1:
            raise SetError(f"epsilon = {epsilon}: give a number between 0 and 1")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.data.shape[1])

    def center(self) -> Vector:
        """The sample mean."""
        return np.asarray(self.data.mean(axis=0))

    @cached_property
    def _rows(self) -> tuple[sparse.csc_array, Vector]:
        """Ranged rows  abs(M x - c) <= G  over x = (u, r, z, s1, s2, s3)."""
        n, d = self.data.shape
        eye, none, ones = sparse.eye_array(d), sparse.csc_array((d, d)), stored(np.ones((1, n)))
        gap, gaps, one = sparse.csc_array((1, d)), sparse.csc_array((d, 1)), sparse.csc_array([[1.0]])
        cloud, empty, flat = stored(self.data.T), sparse.csc_array((d, n)), sparse.csc_array((1, n))
        rows = sparse.block_array(
            [
                [gap, gap, one, -ones, flat, flat],
                [gap, gap, one, flat, -ones, flat],
                [gap, gap, sparse.csc_array((1, 1)), flat, flat, ones],
                [eye, eye, gaps, -cloud, empty, empty],
                [none, eye, gaps, empty, -cloud, empty],
                [eye, none, gaps, empty, empty, -cloud],
            ],
            format="csc",
        )
        return rows, np.concatenate([[0.0, 1.0, 1.0], np.zeros(3 * d)])

    def conic(self) -> ConicForm:
        """All as inequalities."""
        n, d = self.data.shape
        rows, middle = self._rows
        weights = sparse.eye_array(3 * n)
        z = sparse.csc_array(np.full((3 * n, 1), -1 / n))
        limits = sparse.block_array(
            [
                [sparse.csc_array((1, 2 * d)), sparse.csc_array([[1.0]]), sparse.csc_array((1, 3 * n))],
                [sparse.csc_array((1, 2 * d)), sparse.csc_array([[-1.0]]), sparse.csc_array((1, 3 * n))],
                [sparse.csc_array((3 * n, 2 * d)), z, weights],
                [sparse.csc_array((3 * n, 2 * d)), sparse.csc_array((3 * n, 1)), -weights],
            ]
        )
        matrix = sparse.vstack([rows, -rows, limits], format="csc")
        h = np.concatenate([middle + self.G, self.G - middle, [1 / self.epsilon, -1.0], np.zeros(6 * n)])
        return ConicForm(matrix[:, :d], matrix[:, d:], h, (Cone("nonnegative", h.size),))

    @cached_property
    def _lp(self) -> LinearProgram:
        """The rows without z, which becomes a number in row and column bounds: few rows, simple bounds."""
        n, d = self.data.shape
        rows, middle = self._rows
        matrix = sparse.hstack([rows[:, : 2 * d], rows[:, 2 * d + 1 :]], format="csc")
        free = np.full(2 * d, np.inf)
        return LinearProgram(
            np.zeros(matrix.shape[1]),
            matrix,
            middle - self.G,
            middle + self.G,
            np.concatenate([-free, np.zeros(3 * n)]),
            np.concatenate([free, np.full(3 * n, 1 / n)]),
            options={"presolve": "off"},  # keeps the basis from one z and one direction to the next
        )

    @cached_property
    def _stacked(self) -> sparse.csc_array:
        return sparse.csc_array(self._rows[0][:, 2 * self.dim + 1 :])

    def _at(self, z: float) -> tuple[float, float, Vector]:
        """Least -v'u for one z, its derivative in z, and u."""
        n, d = self.data.shape
        _, middle = self._rows
        shift = middle[:2] - z
        self._lp.set_row_bounds([0, 1], shift - self.G, shift + self.G)
        self._lp.set_bounds(np.arange(2 * d, 2 * d + 3 * n), np.zeros(3 * n), np.full(3 * n, z / n))
        best = self._lp.solve()
        reduced = -(self._stacked.T @ best.row_dual)  # of the weights; negative: held by the bound z/N
        slope = -float(best.row_dual[0] + best.row_dual[1]) + float(np.minimum(reduced, 0.0).sum()) / n
        return best.objective, slope, best.x[:d]

    def _optimum(self, direction: Vector) -> tuple[float, Vector]:
        """Search over z in [1, 1/eps]: the value is convex and piecewise linear in z, so tangents find its minimum."""
        cost = np.zeros(self._lp.size[1])
        cost[: self.dim] = -direction
        self._lp.set_cost(cost)
        low, high = 1.0, 1 / self.epsilon
        left, right = self._at(low), self._at(high)
        if left[1] >= 0:
            return -left[0], left[2]
        if right[1] <= 0:
            return -right[0], right[2]
        best = min(left, right, key=lambda point: point[0])
        for _ in range(100):
            if right[1] - left[1] <= 1e-14 * (1 + abs(best[0])):
                break
            z = (left[0] - right[0] + right[1] * high - left[1] * low) / (right[1] - left[1])
            lowest = left[0] + left[1] * (z - low)
            if best[0] - lowest <= 1e-9 * (1 + abs(best[0])) or not low < z < high:
                break
            middle = self._at(z)
            best = min(best, middle, key=lambda point: point[0])
            if middle[1] < 0:
                low, left = z, middle
            else:
                high, right = z, middle
        return -best[0], best[2]

    def parameters(self) -> dict[str, Any]:
        """Samples, threshold, epsilon."""
        return {"data": self.data.tolist(), "G": self.G, "epsilon": self.epsilon}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> OrderingSet:
        """Inverse of `parameters`."""
        return cls(**parameters)


def ordering_statistics(data: Matrix, counts: Matrix, rng: np.random.Generator, directions: int = 100) -> Vector:
    """Supremum over norm1(a) + abs(b) <= 1 of E_emp(a'u - b)+ - E_boot(a'u - b)+, for every resample (B,).

    For one direction the best b is a kink (a value a'u^j, or 0), found for all resamples by sorting and two cumulative
    sums. Over directions the problem is not convex: coordinate and random directions start it, then rounds try
    directions near the best ones. The value is thus a lower bound, which more `directions` make tighter.
    """
    d = data.shape[1]
    axes = np.vstack([np.eye(d), -np.eye(d)])
    best, owner = np.zeros(len(counts)), np.zeros((len(counts), d))
    weights = np.ascontiguousarray(((1.0 - counts) / len(data)).T, dtype=np.float32)
    _try_directions(axes, data, weights, best, owner)
    if d == 1:
        return best
    rays = rng.standard_normal((directions // 2, d))
    rays[::2] /= data.std(axis=0)
    _try_directions(rays, data, weights, best, owner)
    for spread in (0.5, 0.25, 0.1):
        top = owner[rng.integers(len(counts), size=max(directions // 6, 1))]
        step = spread * np.abs(top).max(axis=1, keepdims=True)
        _try_directions(top + step * rng.standard_normal(top.shape), data, weights, best, owner)
    return best


def _try_directions(
    directions: Matrix, data: Matrix, weights: NDArray[np.float32], best: Vector, owner: Matrix
) -> None:
    """Raise `best` (B,), and `owner` with it, where a direction gives more; weights (N, B).

    Single precision (errors near 1e-6 of the statistic) halves the time, which is that of memory.
    """
    for a in directions / np.abs(directions).sum(axis=1, keepdims=True):
        y = data @ a
        order = np.argsort(-y, kind="stable")
        down = y[order]
        steps = -np.diff(down)[:, None].astype(np.float32)
        size = (1 / (1 + np.abs(down[1:, None]))).astype(np.float32)
        above = np.maximum(y, 0.0).astype(np.float32)
        at_zero = above @ weights
        for start in range(0, weights.shape[1], 64):  # blocks that stay in the processor's cache
            block = slice(start, start + 64)
            gain = weights[order[:-1], block]
            np.cumsum(gain, axis=0, out=gain)
            gain *= steps
            np.cumsum(gain, axis=0, out=gain)  # E (y - b)+ at b = down[1:]
            gain *= size
            top = np.maximum(np.max(gain, axis=0), at_zero[block])
            better = top > best[block]
            best[block][better] = top[better]
            owner[block][better] = a


@fitter("lcx", "G", "resamples")
def fit_ordering(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit U^LCX; the threshold by the bootstrap."""
    n, d = data.shape
    need_samples("lcx", n, max(10, d + 2), options)
    if options.has("G"):
        G = options.number("G")
    else:
        rng = np.random.default_rng(options.seed)
        given = options.number("resamples") if options.has("resamples") else None
        counts = resample_counts(n, resamples_for(options.alpha, given), rng)
        G = upper_value(ordering_statistics(data, counts, rng), options.alpha)
    certificate = options.certificate(
        "lcx",
        data,
        "bootstrap of the linear-convex ordering statistic",
        {"G": G},
        options.promise("the second moment is finite"),
        given=("G",),
    )
    return FittedSet(OrderingSet(data, G, options.epsilon), certificate)
