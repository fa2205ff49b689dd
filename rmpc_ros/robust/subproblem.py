"""The worst case at a fixed first stage, as ONE mixed-integer program over all K^T subsets (dual form).

Inner linear program by its dual, with lambda >= 0 for W y <= r and the bounds of y priced by kappa >= 0:

    max_{v in U} Q(x, v) = max { tau (b'y_lo - G) + lambda'(T x + W y_lo - h) + lambda'M v - (y_hi - y_lo)'kappa :
                                 tau b + W'lambda + kappa >= 0,  lambda >= 0,  v in U }

and v in U by one binary per piece of a step's union. The product g = M'lambda times v is split over the pieces,
g_t = sum_a g_ta with lo e_ta <= g_ta <= hi e_ta, which is exact: no constant but the bounds lo, hi of g, and those are
linear programs over the dual polyhedron.

Two modes share the code:
- "cost":        tau = 1, G = 0: the worst cost (exact if lambda's bounds hold no optimal multiplier back);
- "homogeneous": 0 <= tau <= 1/max|b|, 0 <= lambda_i <= 1/max|row i|. Its value is positive iff some v in U leaves no y
  with b'y <= G (Farkas), so its bounds are exact for ANY problem. With tau = 0 it is the feasibility test; with G it
  proves that a cost found with assumed bounds on lambda is the worst.

Source: Zeng and Zhao (2013); Li, Yorke-Smith, Keviczky (seed 001) eqs. (5), (8), (9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmpc_ros.errors import InfeasibleError, SetError, UnboundedError
from rmpc_ros.robust.polytope_union import Atom, PolytopeUnion
from rmpc_ros.robust.recourse import SEARCH
from rmpc_ros.robust.two_stage import TwoStageProblem
from rmpc_ros.solvers.lp import LinearProgram

Vector = NDArray[np.float64]
Mode = Literal["cost", "homogeneous"]


@dataclass(frozen=True)
class WorstCase:
    """Maximiser v (q,), its value, the proven upper bound on the value, multipliers lambda (m,) and tau."""

    v: Vector
    value: float
    bound: float
    multipliers: Vector
    tau: float


@dataclass(frozen=True)
class DualBounds:
    """Bounds of g = M'lambda over the dual polyhedron, (q,) each; `proven` where no bound on lambda was assumed."""

    lower: Vector
    upper: Vector
    proven: bool


def row_scales(problem: TwoStageProblem) -> Vector:
    """Largest coefficient of each coupling row on y and v (1 where all are zero), (m,)."""
    size = np.maximum(np.max(np.abs(problem.W), axis=1, initial=0), np.max(np.abs(problem.M), axis=1, initial=0))
    return np.where(size > 0, size, 1.0)


def rows_with_v(problem: TwoStageProblem, limit: Vector) -> Vector:
    """`limit` on the rows that hold v, none on the others (their multipliers enter no product), (m,)."""
    return np.where(np.any(problem.M != 0, axis=1), limit, np.inf)


class _DualPolyhedron:
    """{ (lambda, tau, kappa) : tau b + W'lambda + kappa >= 0 } with y shifted to its lower bound."""

    def __init__(self, problem: TwoStageProblem, mode: Mode, limit: Vector) -> None:
        p = problem
        m, n = p.h.size, p.b.size
        finite_low = np.isfinite(p.recourse_lower)
        self.shift = np.where(finite_low, p.recourse_lower, 0.0)
        capped = np.flatnonzero(np.isfinite(p.recourse_upper))
        price = sparse.csr_array((np.ones(capped.size), (capped, np.arange(capped.size))), shape=(n, capped.size))
        self.matrix = sparse.hstack([sparse.csr_array(p.W.T), sparse.csr_array(p.b[:, None]), price], format="csr")
        self.row_lower = np.zeros(n)
        self.row_upper = np.where(finite_low, np.inf, 0.0)
        self.room = (p.recourse_upper - self.shift)[capped]
        upper = limit if mode == "cost" else np.minimum(limit, 1.0 / row_scales(p))
        lower = np.zeros(m)
        lower[list(p.equality)] = -upper[list(p.equality)]
        largest = float(np.max(np.abs(p.b), initial=0.0))
        tau = (1.0, 1.0) if mode == "cost" else (0.0, 1.0 / largest if largest > 0 else 1.0)
        self.lower = np.concatenate([lower, [tau[0]], np.zeros(capped.size)])
        self.upper = np.concatenate([upper, [tau[1]], np.full(capped.size, np.inf)])

    def product_bounds(self, M: NDArray[np.float64]) -> tuple[Vector, Vector]:
        """Smallest and largest (M'lambda)_k over the polyhedron; infinite where a linear program says so."""
        program = LinearProgram(
            np.zeros(self.lower.size), self.matrix, self.row_lower, self.row_upper, self.lower, self.upper
        )
        ends = np.zeros((2, M.shape[1]))
        for k in np.flatnonzero(np.any(M != 0, axis=0)):
            for end, sign in enumerate((1.0, -1.0)):
                cost = np.zeros(self.lower.size)
                cost[: M.shape[0]] = sign * M[:, k]
                program.set_cost(cost)
                try:
                    ends[end, k] = sign * program.solve().objective
                except UnboundedError:
                    ends[end, k] = -sign * np.inf
        return ends[0], ends[1]


def dual_bounds(problem: TwoStageProblem, mode: Mode, assumed: Vector | None = None) -> DualBounds:
    """Bounds of M'lambda derived from the data.

    First without any bound on lambda ("cost") or with its normalisation ("homogeneous"); only if that leaves a product
    unbounded, with `assumed` (m,) on the rows that hold v (None: the infinite bounds are returned).

    Raises
    ------
    UnboundedError
        No dual point exists: the recourse cost has no lower bound. `details["direction"]` is a recession direction.
    """
    free = _DualPolyhedron(problem, mode, np.full(problem.h.size, np.inf))
    try:
        lower, upper = free.product_bounds(problem.M)
    except InfeasibleError as error:
        raise UnboundedError(
            "the recourse cost is unbounded below: a direction d of y with W d <= 0 has b'd < 0",
            error.status,
            {"direction": _recession(problem)},
        ) from error
    if np.all(np.isfinite(lower)) and np.all(np.isfinite(upper)):
        return DualBounds(lower, upper, True)
    if assumed is None:
        return DualBounds(lower, upper, False)
    held = _DualPolyhedron(problem, mode, rows_with_v(problem, assumed))
    lower, upper = held.product_bounds(problem.M)
    return DualBounds(lower, upper, False)


def _recession(problem: TwoStageProblem) -> Vector:
    """Direction in which the recourse falls for ever, scaled to norm_inf 1."""
    p = problem
    low = np.where(np.isfinite(p.recourse_lower), 0.0, -1.0)
    high = np.where(np.isfinite(p.recourse_upper), 0.0, 1.0)
    return LinearProgram(p.b, p.W, *p.row_bounds(np.zeros(p.h.size)), low, high).solve().x


class DualSubproblem:
    """max over v in U of the recourse cost (or of the normalised violation), built once; x changes costs only.

    Parameters
    ----------
    problem : continuous recourse
    union : uncertainty
    mode : "cost" or "homogeneous"
    bounds : from `dual_bounds`
    assumed : (m,) bound on lambda that `bounds` was derived with; used only where `bounds.proven` is False
    anchored : give every coordinate a third candidate value, the anchor of `solve` (for distances to a sample)
    """

    def __init__(
        self,
        problem: TwoStageProblem,
        union: PolytopeUnion,
        mode: Mode,
        bounds: DualBounds,
        assumed: Vector,
        anchored: bool = False,
    ) -> None:
        if union.dim != problem.dim:
            raise SetError(f"the union has dimension {union.dim}, the problem's uncertain vector {problem.dim}")
        self.problem, self.union, self.anchored = problem, union, anchored
        limit = np.full(problem.h.size, np.inf) if bounds.proven else rows_with_v(problem, assumed)
        self._dual = _DualPolyhedron(problem, mode, limit)
        self._atoms = box_atoms(union) if anchored else union.atoms
        self._build(bounds)

    def _build(self, bounds: DualBounds) -> None:
        p, dual, atoms = self.problem, self._dual, self._atoms
        m, q = p.h.size, p.dim
        width = self.union.dim // self.union.steps
        start = dual.lower.size
        lower, upper = [dual.lower, bounds.lower], [dual.upper, bounds.upper]
        self._tau = m
        self._pick = start + q  # binaries e_ta, then per choice a binary and its share of g
        picks = self.union.steps * len(atoms)
        lower.append(np.zeros(picks))
        upper.append(np.ones(picks))
        column = self._pick + picks
        entries: list[tuple[int, int, float]] = []
        row_low: list[float] = []
        row_high: list[float] = []

        def row(terms: Sequence[tuple[int, float]], low: float, high: float) -> None:
            entries.extend((len(row_low), j, value) for j, value in terms)
            row_low.append(low)
            row_high.append(high)

        rows, columns = np.nonzero(p.M)
        by_column: dict[int, list[tuple[int, float]]] = {k: [] for k in range(q)}
        for at, to in zip(rows.tolist(), columns.tolist(), strict=True):
            by_column[to].append((at, -float(p.M[at, to])))
        for product in range(q):
            row([(start + product, 1.0), *by_column[product]], 0.0, 0.0)
        integer = list(range(self._pick, self._pick + picks))
        # share of g, coordinate, value (nan: the anchor), binary that switches it
        shares: list[int] = []
        share_of: list[int] = []
        values: list[float] = []
        switches: list[int] = []
        paid: list[int] = []  # shares of tau, which pay for the distance to the anchor
        tau_top = float(dual.upper[self._tau])
        for t in range(self.union.steps):
            first = self._pick + t * len(atoms)
            row([(first + a, 1.0) for a in range(len(atoms))], 1.0, 1.0)
            for i in range(width):
                k = t * width + i
                if not by_column[k] and not self.anchored:
                    for a, atom in enumerate(atoms):  # no effect on the cost: any value of the piece
                        shares.append(-1)
                        share_of.append(k)
                        values.append(float(atom.lower[i]))
                        switches.append(first + a)
                    continue
                parts: list[tuple[int, float]] = [(start + k, -1.0)]
                tau_parts: list[tuple[int, float]] = [(self._tau, -1.0)]
                for a, atom in enumerate(atoms):
                    choices = [float(atom.lower[i])]
                    if atom.upper[i] > atom.lower[i]:
                        choices.append(float(atom.upper[i]))
                        if self.anchored:
                            choices.append(np.nan)
                    single = len(choices) == 1
                    chosen = []
                    for value in choices:
                        switch = first + a
                        if not single:
                            switch = column
                            integer.append(column)
                            chosen.append((column, 1.0))
                            lower.append(np.zeros(1))
                            upper.append(np.ones(1))
                            column += 1
                        low, high = bounds.lower[k], bounds.upper[k]
                        lower.append(np.array([min(low, 0.0)]))
                        upper.append(np.array([max(high, 0.0)]))
                        row([(column, 1.0), (switch, -high)], -np.inf, 0.0)
                        row([(column, 1.0), (switch, -low)], 0.0, np.inf)
                        parts.append((column, 1.0))
                        shares.append(column)
                        share_of.append(k)
                        values.append(value)
                        switches.append(switch)
                        column += 1
                        if self.anchored:
                            lower.append(np.zeros(1))
                            upper.append(np.full(1, tau_top))
                            row([(column, 1.0), (switch, -tau_top)], -np.inf, 0.0)
                            tau_parts.append((column, 1.0))
                            paid.append(column)
                            column += 1
                    if not single:
                        row([*chosen, (first + a, -1.0)], 0.0, 0.0)
                row(parts, 0.0, 0.0)
                if self.anchored:
                    row(tau_parts, 0.0, 0.0)
        at_row, at_column, coefficient = zip(*entries, strict=True)
        extra = sparse.csr_array((coefficient, (at_row, at_column)), shape=(len(row_low), column))
        wide = sparse.hstack([dual.matrix, sparse.csr_array((dual.matrix.shape[0], column - start))])
        self._columns = column
        self._share, self._share_of = np.array(shares), np.array(share_of)
        self._values, self._switch, self._paid = np.array(values), np.array(switches), np.array(paid, int)
        self._program = LinearProgram(
            np.zeros(column),
            sparse.vstack([wide, extra], format="csr"),
            np.concatenate([dual.row_lower, row_low]),
            np.concatenate([dual.row_upper, row_high]),
            np.concatenate(lower),
            np.concatenate(upper),
            integer,
            options=SEARCH,
        )
        self.restrict(None)

    def restrict(self, subsets: Sequence[int] | None) -> None:
        """Search one combination of subsets (one per step), or all of them (None).

        For all, pieces inside the hull of the others are switched off: a convex function is largest at the hull's
        vertices. Only bounds of binaries change.
        """
        allowed = np.zeros(self.union.steps * len(self._atoms))
        for t in range(self.union.steps):
            for a, atom in enumerate(self._atoms):
                wanted = (atom.hull or self.anchored) if subsets is None else subsets[t] in atom.subsets
                allowed[t * len(self._atoms) + a] = float(wanted)
        self._program.set_bounds(np.arange(self._pick, self._pick + allowed.size), 0.0, allowed)

    def solve(
        self,
        x: Vector,
        budget: float | None = None,
        anchor: Vector | None = None,
        price: float = 0.0,
    ) -> WorstCase:
        """Worst case at x.

        Parameters
        ----------
        x : (n,)
        budget : G of the homogeneous mode; None: feasibility alone (tau = 0)
        anchor, price : with `anchored`, the value counts  - tau * price * norm1(v - anchor)  as well

        Raises
        ------
        UnboundedError, NumericalError
        """
        p, dual = self.problem, self._dual
        cost = np.zeros(self._columns)
        cost[: p.h.size] = p.T @ x + p.W @ dual.shift - p.h
        cost[self._tau] = p.b @ dual.shift - (budget or 0.0)
        cost[self._tau + 1 : self._tau + 1 + dual.room.size] = -dual.room
        values = self._values
        if anchor is not None:
            values = self._anchored_values(anchor)
            cost[self._paid] = -price * np.abs(values - anchor[self._share_of])
        active = self._share >= 0
        cost[self._share[active]] += values[active]
        if dual.lower[self._tau] == 0.0:
            self._program.set_bounds(self._tau, 0.0, 0.0 if budget is None else dual.upper[self._tau])
        self._program.set_cost(-cost)
        found = self._program.solve()
        chosen = found.x[self._switch] > 0.5
        v = np.zeros(p.dim)
        v[self._share_of[chosen]] = values[chosen]
        return WorstCase(v, -found.objective, -found.bound, found.x[: p.h.size], float(found.x[self._tau]))

    def _anchored_values(self, anchor: Vector) -> Vector:
        """Candidate values with the anchor, moved into each piece, in place of nan."""
        values = self._values.copy()
        third = np.isnan(values)  # the order per piece is lower, upper, anchor
        where = np.flatnonzero(third)
        values[where] = np.clip(anchor[self._share_of[where]], values[where - 2], values[where - 1])
        return values


def box_atoms(union: PolytopeUnion) -> tuple[Atom, ...]:
    """Each subset as one box piece.

    Raises
    ------
    SetError
        A subset is not a box.
    """
    if not all(p.is_box for p in union.polytopes):
        raise SetError("distances to samples inside the dual subproblem need boxes; this union has another polytope")
    return tuple(Atom(*p.bounds, frozenset([k])) for k, p in enumerate(union.polytopes))
