"""The worst case by optimality conditions: any polytopes, and recourse with integers (nested generation).

A cost G is the worst iff no v in U leaves every recourse dearer than G. With the elastic program of an integer part y_I

    phi_I(v; G) = min_{y, s >= 0} { w's : W y + W_I y_I - s <= h - T x - M v,  b'y + b_I y_I - s_0 <= G,  bounds on y }

the search is  max_{v in U} min_{I found} phi_I(v; G) > 0 ?  Its multipliers lie in [0, w] by construction and its
slacks in intervals that follow from the bounds of y and U, so the big-M numbers of the complementarity conditions are
derived, never assumed. If some v comes out positive, the true recourse there either costs more than G (G grows), or has
an integer part not yet known (it is added), or does not exist. Otherwise G is proven.

v enters by the description of seed 001 eq. (5): v_t = sum_k v_tk, D_k v_tk <= d_k e_tk, sum_k e_tk = 1. With integers
the worst v need not be a vertex, so v stays continuous here. Source: Zhao and Zeng (2012), nested column-and-constraint
generation; Zeng and Zhao (2013) for the optimality conditions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmpc_ros.errors import DataError, InfeasibleError, NumericalError, UnboundedError
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.recourse import SEARCH, RecourseProgram
from rmpc_ros.robust.subproblem import row_scales
from rmpc_ros.robust.two_stage import TwoStageProblem
from rmpc_ros.robust.worst_case import Finding
from rmpc_ros.solvers.lp import LinearProgram

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_VIOLATION = 1e-6
_MAX_ROUNDS = 200


class KktSearch:
    """max over v in U of Q(x, v), for mixed-integer recourse too; the counterpart of `WorstCaseSearch`.

    Parameters
    ----------
    problem : two-stage problem whose recourse is bounded (given, or implied by its rows and any cost budget)
    union : uncertainty, any polytopes
    tolerance : relative accuracy of costs

    Attributes
    ----------
    count : mixed-integer searches solved so far
    proven : always True: no bound on multipliers is assumed
    """

    proven = True

    def __init__(self, problem: TwoStageProblem, union: PolytopeUnion, tolerance: float = 1e-6) -> None:
        self.problem, self.union, self.tolerance = problem, union, tolerance
        self.count = 0
        self._recourse = RecourseProgram(problem)
        self._integer = list(problem.recourse_integer)
        self._real = [j for j in range(problem.b.size) if j not in set(self._integer)]
        self._parts: list[Vector] = [] if self._integer else [np.zeros(0)]

    def update(self, problem: TwoStageProblem) -> None:
        """New h and first-stage data; the integer parts found stay."""
        self.problem = problem
        self._recourse.problem = problem

    def recourse(self, x: Vector, v: Vector) -> Finding:
        """Q(x, v) at one scenario; a new integer part is remembered."""
        try:
            found = self._recourse.solve(x, v)
        except InfeasibleError:
            return Finding(v, np.inf, np.inf, np.zeros(0))
        if self._integer:
            part = np.round(found.y[self._integer])
            if not any(np.array_equal(part, known) for known in self._parts):
                self._parts.append(part)
        return Finding(v, found.cost, found.cost, np.zeros(0))

    def worst(self, x: Vector, subsets: Sequence[int] | None = None, certify: bool = True) -> Finding:
        """Worst scenario at x; always certified.

        Raises
        ------
        DataError
            A recourse variable has no bound, given or implied.
        NumericalError
        """
        start = self.union if subsets is None else self.union.subset(subsets[0])
        best = self.recourse(x, np.tile(start.polytopes[0].lowest, self.union.steps))
        for _ in range(_MAX_ROUNDS):
            if not best.feasible:
                return best
            slack = self.tolerance * max(1.0, abs(best.cost))
            known = len(self._parts)
            v, violation = self._search(x, best.cost + 0.5 * slack, subsets)
            if violation <= 1e-8:
                return Finding(best.v, best.cost, best.cost + slack, best.multipliers)
            found = self.recourse(x, v)
            if found.cost > best.cost + 0.25 * slack:
                best = found
            elif len(self._parts) == known:
                if violation <= _VIOLATION * (1.0 + float(np.max(np.abs(self.problem.h)))):
                    return Finding(best.v, best.cost, best.cost + slack, best.multipliers)
                raise NumericalError(
                    f"the search claims a violation of {violation:.2e} where the recourse costs {found.cost:.9g} "
                    f"within the budget {best.cost:.9g}",
                    "disagreement",
                    {"first_stage": x, "scenario": v},
                )
        raise NumericalError(f"the nested search did not end in {_MAX_ROUNDS} rounds", "iterations", {"first_stage": x})

    def _search(self, x: Vector, budget: float, subsets: Sequence[int] | None) -> tuple[Vector, float]:
        """Max over v of the least elastic violation over the integer parts known, and its v."""
        self.count += 1
        p = self.problem
        double = [*range(p.h.size), *p.equality]
        sign = np.concatenate([np.ones(p.h.size), -np.ones(len(p.equality))])
        scale = np.append(row_scales(p)[double], max(float(np.max(np.abs(p.b), initial=0.0)), 1e-12))
        W = np.vstack([sign[:, None] * p.W[double], p.b[None, :]]) / scale[:, None]
        M = np.vstack([sign[:, None] * p.M[double], np.zeros((1, p.dim))]) / scale[:, None]
        r = np.append(sign * (p.h - p.T @ x)[double], budget) / scale
        boxes = [polytope.bounds for polytope in self.union.polytopes]
        v_low = np.tile(np.min([low for low, _ in boxes], axis=0), self.union.steps)
        v_high = np.tile(np.max([high for _, high in boxes], axis=0), self.union.steps)
        low, high = self._implied_bounds(W, M, r, v_low, v_high)
        model = _Model()
        v = model.columns(p.dim, v_low, v_high)
        self._describe_union(model, v, subsets)
        theta = model.columns(1, -np.inf, np.inf, cost=-1.0)
        for part in self._parts:
            rest = r - W[:, self._integer] @ part
            _elastic(model, v, theta[0], W[:, self._real], M, rest, low[self._real], high[self._real], v_low, v_high)
        found = model.build().solve()
        return found.x[v], float(found.x[theta[0]])

    def _describe_union(self, model: _Model, v: NDArray[np.int_], subsets: Sequence[int] | None) -> None:
        width = self.union.dim // self.union.steps
        for t in range(self.union.steps):
            here = v[t * width : (t + 1) * width]
            switches, shares = [], []
            for k, polytope in enumerate(self.union.polytopes):
                allowed = 1.0 if subsets is None or subsets[t] == k else 0.0
                e = model.columns(1, 0.0, allowed, integer=True)
                low, high = polytope.bounds
                part = model.columns(width, np.minimum(low, 0.0), np.maximum(high, 0.0))
                model.rows([(part, polytope.D), (e, -polytope.d[:, None])], -np.inf, 0.0)
                switches.append(e)
                shares.append(part)
            model.rows([(e, np.ones((1, 1))) for e in switches], 1.0, 1.0)
            model.rows([(here, -np.eye(width)), *[(part, np.eye(width)) for part in shares]], 0.0, 0.0)

    def _implied_bounds(self, W: Matrix, M: Matrix, r: Vector, v_low: Vector, v_high: Vector) -> tuple[Vector, Vector]:
        """Bounds of y: the given ones, and where there are none those that rows and budget imply for some v."""
        p = self.problem
        low, high = np.array(p.recourse_lower), np.array(p.recourse_upper)
        n = p.b.size
        program = LinearProgram(
            np.zeros(n + p.dim), np.hstack([W, M]), -np.inf, r, np.append(low, v_low), np.append(high, v_high)
        )
        for values, direction in ((low, 1.0), (high, -1.0)):
            for j in np.flatnonzero(~np.isfinite(values)):
                cost = np.zeros(n + p.dim)
                cost[j] = direction
                program.set_cost(cost)
                try:
                    values[j] = direction * program.solve().objective - direction
                except UnboundedError as error:
                    raise DataError(
                        f"recourse {j} lacks a {'lower' if direction > 0 else 'upper'} bound, given or implied; "
                        "the optimality conditions need one"
                    ) from error
        return low, high


class _Model:
    """Columns and rows collected block by block."""

    def __init__(self) -> None:
        self._cost: list[Vector] = []
        self._low: list[Vector] = []
        self._high: list[Vector] = []
        self._integer: list[int] = []
        self._size = 0
        self._blocks: list[tuple[list[tuple[NDArray[np.int_], Matrix]], Vector, Vector]] = []

    def columns(
        self, count: int, low: Vector | float, high: Vector | float, cost: float = 0.0, integer: bool = False
    ) -> NDArray[np.int_]:
        """Append columns, return their indices."""
        index = np.arange(self._size, self._size + count)
        self._size += count
        self._cost.append(np.full(count, cost))
        self._low.append(np.broadcast_to(np.asarray(low, float), count))
        self._high.append(np.broadcast_to(np.asarray(high, float), count))
        if integer:
            self._integer.extend(index.tolist())
        return index

    def rows(self, terms: Sequence[tuple[NDArray[np.int_], Matrix]], low: Vector | float, high: Vector | float) -> None:
        """Append rows  low <= sum of matrix @ columns <= high."""
        count = terms[0][1].shape[0]
        self._blocks.append(
            (
                list(terms),
                np.broadcast_to(np.asarray(low, float), count),
                np.broadcast_to(np.asarray(high, float), count),
            )
        )

    def build(self) -> LinearProgram:
        """The program."""
        parts = []
        for terms, low, _ in self._blocks:
            block = sparse.lil_array((low.size, self._size))
            for columns, matrix in terms:
                block[:, columns] += matrix
            parts.append(block.tocsr())
        return LinearProgram(
            np.concatenate(self._cost),
            sparse.vstack(parts, format="csr"),
            np.concatenate([low for _, low, _ in self._blocks]),
            np.concatenate([high for _, _, high in self._blocks]),
            np.concatenate(self._low),
            np.concatenate(self._high),
            self._integer,
            options=SEARCH,
        )


def _elastic(
    model: _Model,
    v: NDArray[np.int_],
    theta: int,
    W: Matrix,
    M: Matrix,
    r: Vector,
    low: Vector,
    high: Vector,
    v_low: Vector,
    v_high: Vector,
) -> None:
    """Rows for  theta <= 1's,  (y, s) optimal in  min { 1's : W y + M v - s <= r, low <= y <= high, s >= 0 }."""
    m, n = W.shape
    positive, negative = np.maximum(W, 0.0), np.minimum(W, 0.0)
    m_plus, m_minus = np.maximum(M, 0.0), np.minimum(M, 0.0)
    most = positive @ high + negative @ low + m_plus @ v_high + m_minus @ v_low - r  # largest W y + M v - r
    least = positive @ low + negative @ high + m_plus @ v_low + m_minus @ v_high - r
    excess, slack = np.maximum(most, 0.0), np.maximum(-least, 0.0)
    y = model.columns(n, low, high)
    s = model.columns(m, 0.0, excess)
    room = model.columns(m, 0.0, slack)  # W y + M v - s + room = r
    dual = model.columns(m, 0.0, 1.0)
    one, eye, eye_n = np.ones((1, 1)), np.eye(m), np.eye(n)
    model.rows([(y, W), (v, M), (s, -eye), (room, eye)], r, r)
    tight = model.columns(m, 0.0, 1.0, integer=True)  # dual > 0 only where room = 0
    model.rows([(dual, eye), (tight, -eye)], -np.inf, 0.0)
    model.rows([(room, eye), (tight, np.diag(slack))], -np.inf, slack)
    broken = model.columns(m, 0.0, 1.0, integer=True)  # s > 0 only where dual = 1
    model.rows([(s, eye), (broken, -np.diag(excess))], -np.inf, 0.0)
    model.rows([(dual, eye), (broken, -eye)], 0.0, np.inf)
    if n:
        at_low, at_high = positive.sum(axis=0), -negative.sum(axis=0)
        alpha, beta = model.columns(n, 0.0, at_low), model.columns(n, 0.0, at_high)
        model.rows([(dual, W.T), (alpha, -eye_n), (beta, eye_n)], 0.0, 0.0)
        for price, top, sign, end in ((alpha, at_low, 1.0, low), (beta, at_high, -1.0, high)):
            held = model.columns(n, 0.0, 1.0, integer=True)
            model.rows([(price, eye_n), (held, -np.diag(top))], -np.inf, 0.0)
            # |y - end| <= (high - low)(1 - held)
            model.rows([(y, sign * eye_n), (held, np.diag(high - low))], -np.inf, sign * end + high - low)
    model.rows([(np.array([theta]), one), (s, -np.ones((1, m)))], -np.inf, 0.0)
