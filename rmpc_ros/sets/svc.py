"""The support-vector set: { u : sum_i a_i norm1(Q (u - u_i)) <= theta }.

Shang, Huang, You 2017 (kernel and dual), Shang and You 2019 = seed 003 (calibration). In x = Q u the level function is
separable, f(u) = sum_k h_k(x_k) with h_k(t) = sum_i a_i abs(t - x_ik), convex and piecewise linear with slopes from -1
to 1. Everything below follows from the h_k: the support function is a fractional knapsack over their segments (exact,
no linear program), and the cones need d auxiliary variables instead of one for each support vector and component.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import DataError, SetError
from rmpc_ros.sets.base import ConicForm, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.calibrate import calibrate, split_rows
from rmpc_ros.sets.certificate import Certificate, FittedSet
from rmpc_ros.sets.combine import Intersection
from rmpc_ros.sets.fit import FitOptions, fitter
from rmpc_ros.sets.svc_qp import potential, solve_dual
from rmpc_ros.solvers.conic import Cone


class SupportVectorSet(UncertaintySet):
    """U = { u : sum_i a_i norm1(Q (u - u_i)) <= theta }.

    Parameters
    ----------
    points : (n, d) support vectors u_i
    weights : (n,) a_i > 0, summing to one
    transform : (d, d) Q, regular
    level : theta, at least the minimum of the level function

    Raises
    ------
    SetError
        Wrong shapes or weights, a singular transform, or an empty set.
    """

    family: ClassVar[str] = "svc"

    def __init__(self, points: ArrayLike, weights: ArrayLike, transform: ArrayLike, level: float) -> None:
        self.points, self.weights = finite("points", points, 2), finite("weights", weights, 1)
        self.transform = finite("transform", transform, 2)
        self.theta = float(level)
        n, d = self.points.shape
        if self.weights.size != n or self.transform.shape != (d, d):
            raise SetError(f"{n} points of dimension {d}, {self.weights.size} weights, Q {self.transform.shape}")
        if np.any(self.weights <= 0) or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise SetError(f"weights must be positive and sum to one; they sum to {self.weights.sum()!r}")
        if not np.linalg.cond(self.transform) < 1e12:
            raise SetError("the transform Q is singular; remove columns that depend on others")
        lowest = float(self.level(self.center()))
        if not self.theta >= lowest - 1e-9 * (1 + abs(lowest)):
            raise SetError(f"level {self.theta} lies below the least value {lowest} of the level function: empty set")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.points.shape[1])

    @cached_property
    def _knots(self) -> tuple[Matrix, Matrix, Matrix]:
        """Sorted x_ik (n, d), slopes (n + 1, d) and intercepts (n + 1, d) of the pieces of each h_k."""
        x = self.points @ self.transform.T
        order = np.argsort(x, axis=0, kind="stable")
        x, a = np.take_along_axis(x, order, axis=0), self.weights[order]
        zero = np.zeros((1, self.dim))
        below = np.vstack([zero, np.cumsum(a, axis=0)])
        moment = np.vstack([zero, np.cumsum(a * x, axis=0)])
        slopes = 2 * below - below[-1]
        return x, slopes, moment[-1] - 2 * moment

    @cached_property
    def _segments(self) -> tuple[Vector, Matrix, Matrix]:
        """Minimiser x0 of f, and for both signs the steps away from it: lengths and slopes (2, d, n)."""
        x, slopes, _ = self._knots
        n, d = x.shape
        start = np.argmax(slopes[1:] >= -1e-15, axis=0)
        x0 = x[start, np.arange(d)]
        length, slope = np.zeros((2, d, n)), np.ones((2, d, n))
        for k in range(d):
            s = start[k]
            up = np.diff(x[s:, k])
            down = np.diff(x[: s + 1, k])[::-1]
            for sign, (gaps, rates) in enumerate(((up, slopes[s + 1 : n, k]), (down, -slopes[1 : s + 1, k][::-1]))):
                length[sign, k, : gaps.size] = gaps
                slope[sign, k, : gaps.size] = np.maximum(rates[: gaps.size], 0.0)
                length[sign, k, gaps.size] = np.inf  # beyond the last knot the slope is one
        return x0, length, slope

    def level(self, points: ArrayLike) -> Vector:
        """F(u) of each row: (d,) or (m, d) -> () or (m,)."""
        rows = self._directions(points)
        values = potential(self.points @ self.transform.T, self.weights, rows @ self.transform.T)
        return self._shape(values, points)

    def with_level(self, level: float) -> SupportVectorSet:
        """The same shape with another theta."""
        return SupportVectorSet(self.points, self.weights, self.transform, level)

    def center(self) -> Vector:
        """The minimiser of f: the weighted medians of the x_ik, (d,)."""
        return np.asarray(np.linalg.solve(self.transform, self._segments[0]))

    def _knapsack(self, rows: Matrix) -> tuple[Vector, Matrix]:
        """Supports and maximisers: buy the segments with the largest gain for each unit of theta first."""
        x0, length, slope = self._segments
        d, n = length.shape[1:]
        price = np.linalg.solve(self.transform.T, rows.T).T
        budget = max(self.theta - float(self.level(self.center())), 0.0)
        values, points = np.empty(len(rows)), np.empty((len(rows), d))
        for m, b in enumerate(price):
            sign = np.where(b >= 0, 0, 1)
            gap, rate = length[sign, np.arange(d)].ravel(), slope[sign, np.arange(d)].ravel()
            worth = np.repeat(np.abs(b), n)
            useful = (gap > 0) & (worth > 0)
            gap, rate, worth = gap[useful], rate[useful], worth[useful]
            owner = np.repeat(np.arange(d), n)[useful]
            taken = np.zeros(d)
            if gap.size:
                ratio = np.divide(worth, rate, out=np.full(gap.size, np.inf), where=rate > 0)
                order = np.argsort(-ratio, kind="stable")
                gap, rate, owner = gap[order], rate[order], owner[order]
                cost = np.cumsum(np.multiply(gap, rate, out=np.zeros(gap.size), where=rate > 0))
                last = int(np.argmax(cost > budget))
                spent = cost[last - 1] if last else 0.0
                taken += np.bincount(owner[:last], gap[:last], d)
                taken[owner[last]] += (budget - spent) / rate[last]
            x = x0 + np.where(b >= 0, taken, -taken)
            values[m] = b @ x
            points[m] = x
        return values, np.asarray(np.linalg.solve(self.transform, points.T).T, float)

    def support(self, directions: ArrayLike) -> Vector:
        """Exact support, see `_knapsack`."""
        return self._shape(self._knapsack(self._directions(directions))[0], directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """Exact maximisers, see `_knapsack`."""
        return self._shape(self._knapsack(self._directions(directions))[1], directions)

    def conic(self) -> ConicForm:
        """Epigraph rows s_kj x_k + c_kj <= t_k for every piece, and sum t <= theta."""
        _, slopes, intercepts = self._knots
        pieces, d = slopes.shape
        rows = np.vstack([np.outer(slopes[:, k], self.transform[k]) for k in range(d)] + [np.zeros((1, d))])
        auxiliary = sparse.vstack(
            [sparse.kron(-sparse.eye_array(d), np.ones((pieces, 1))), np.ones((1, d))], format="csc"
        )
        return ConicForm(
            stored(rows),
            sparse.csc_array(auxiliary),
            np.concatenate([-intercepts.ravel(order="F"), [self.theta]]),
            (Cone("nonnegative", pieces * d + 1),),
        )

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """F(u) <= theta."""
        values = np.atleast_1d(self.level(self._directions(points)))
        return self._shape(values <= self.theta + tolerance * (1 + abs(self.theta)), points)

    def scaled(self, factor: float) -> SupportVectorSet:
        """Points and level scaled about the centre; scaling by 0 gives the centre up to 1e-12 of its size."""
        scale = max(_factor(factor), 1e-12)
        center = self.center()
        return SupportVectorSet(
            center + scale * (self.points - center), self.weights, self.transform, scale * self.theta
        )

    def reach(self, directions: ArrayLike) -> Vector:
        """Largest t with f(center + t d) <= theta, exactly: f is piecewise linear along a ray."""
        rows = self._directions(directions)
        knots = self._knots[0] - self._segments[0]
        center = self.center()
        values = np.empty(len(rows))
        for m, row in enumerate(rows):
            v = self.transform @ row
            moving = np.abs(v) > 0
            times = np.unique((knots[:, moving] / v[moving]).ravel())
            times = np.concatenate([[0.0], times[times > 0]])
            levels = np.asarray(self.level(center + times[:, None] * row))
            last = int(np.searchsorted(levels, self.theta, side="right")) - 1
            if last < 0:
                values[m] = 0.0
                continue
            if last + 1 < times.size:
                rate = (levels[last + 1] - levels[last]) / (times[last + 1] - times[last])
            else:
                rate = float(np.abs(v).sum())
            values[m] = times[last] + (self.theta - levels[last]) / rate
        return self._shape(values, directions)

    def parameters(self) -> dict[str, Any]:
        """Support vectors, weights, Q, theta."""
        return {
            "points": self.points.tolist(),
            "weights": self.weights.tolist(),
            "transform": self.transform.tolist(),
            "level": self.theta,
        }

    @classmethod
    def from_parameters(cls, **parameters: Any) -> SupportVectorSet:
        """Inverse of `parameters`."""
        return cls(**parameters)


def whitening(data: Matrix) -> Matrix:
    """Q = Sigma^(-1/2), symmetric, of the sample covariance.

    Raises
    ------
    DataError
        The columns are linearly dependent.
    """
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(data, rowvar=False)))
    if values[0] <= 1e-12 * values[-1]:
        worst = int(np.argmax(np.abs(vectors[:, 0])))
        raise DataError(
            f"the covariance is singular (smallest eigenvalue {values[0]:.1e}): column {worst + 1} depends linearly on "
            "the others; remove it"
        )
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


def learn_shape(data: Matrix, nu: float) -> tuple[SupportVectorSet, dict[str, Any]]:
    """Uncalibrated support-vector set of data (N, d) and what the program found.

    Raises
    ------
    DataError
        Nu outside (0, 1] or dependent columns.
    """
    if not 0 < nu <= 1:
        raise DataError(f"nu = {nu!r} is outside its range: give a number in (0, 1], the share left outside")
    transform = whitening(data)
    dual = solve_dual(data @ transform.T, nu)
    chosen = np.flatnonzero(dual.weights > 1e-9 * dual.bound)
    weights = dual.weights[chosen] / dual.weights[chosen].sum()
    shape = SupportVectorSet(data[chosen], weights, transform, dual.theta)
    found = {
        "theta_uncalibrated": dual.theta,
        "qp_optimum": dual.objective,
        "support_vectors": int(chosen.size),
        "boundary_support_vectors": int(dual.free.size),
    }
    return shape, found


@fitter("svc", "nu", "l_factor", "n_calibration", "box")
def fit_support_vectors(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit and calibrate the support-vector set.

    Parameters `nu` (default epsilon), `l_factor` (kernel constants l_k = factor x range, must exceed 1; the set does
    not depend on it), `n_calibration` (default a third of the rows, at least the number needed; 0: none, no promise),
    `box` (known support, intersected).

    Raises
    ------
    DataError
        Parameters out of range, dependent columns, or too few samples (the message says how many are needed).
    """
    nu, factor = options.number("nu", options.epsilon), options.number("l_factor", 1.01)
    if not factor > 1:
        raise DataError(f"l_factor = {factor!r}: the kernel constants must exceed the ranges; give a number above 1")
    count = int(options.number("n_calibration")) if options.has("n_calibration") else None
    if count is not None and (count < 0 or count != options.number("n_calibration")):
        raise DataError(f"n_calibration = {options.parameters['n_calibration']!r}: give a whole number >= 0")
    box = options.box(data)
    least = data.shape[1] + 2
    if count == 0:
        shape, found = learn_shape(data, nu)
        thresholds: dict[str, Any] = {"nu": nu, "l_factor": factor, "theta": shape.theta, "n_calibration": 0, **found}
        certificate = Certificate(
            "svc",
            None,
            None,
            len(data),
            "support-vector program, not calibrated",
            thresholds,
            options.window,
            f"No promise: about {100 * nu:g} % of the training samples lie outside; calibrate the set on fresh samples "
            "for a guarantee.",
            options.columns,
        )
    else:
        rows = split_rows(len(data), least, options.epsilon, options.confidence, options.seed, count)
        shape, found = learn_shape(data[rows.shape], nu)
        level = calibrate(shape.level(data[rows.calibration]), options.epsilon, options.confidence)
        shape = shape.with_level(max(level.level, float(shape.level(shape.center()))))
        thresholds = {"nu": nu, "l_factor": factor, "theta": shape.theta, "n_calibration": level.samples}
        thresholds |= {"k": level.index, "attained_confidence": level.attained_confidence, **found}
        certificate = options.certificate(
            "svc", data, "order statistics (binomial tail)", thresholds, membership_promise(options)
        )
    inner: UncertaintySet = shape if box is None else Intersection([shape, Box(*box)])
    return FittedSet(inner, certificate)


def membership_promise(options: FitOptions) -> str:
    """The sentence of sets that are calibrated by order statistics."""
    return (
        f"With confidence {options.confidence:g} over the calibration samples, a new sample lies outside the set with "
        f"probability at most {options.epsilon:g}; assumes only independent samples from one distribution."
    )
