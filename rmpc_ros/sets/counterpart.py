"""Robust programs whose sets change: compiled once to cones, re-solved in place.

    min c'x   s.t.   (A_j x + a_j)'u + g_j'x <= b_j  for all u in U_j,      E x = e,      lower <= x <= upper

Each robust row becomes the cones of its set's epigraph (base.py) at direction A_j x + a_j and bound b_j - g_j'x:

    E_A (A_j x + a_j) + E_b (b_j - g_j'x) + Y y_j + s_j = 0,   s_j in K

New data of the same family and size keep the sparsity pattern, so that `update` writes numbers into the solver and
nothing is built again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import Epigraph, UncertaintySet
from rmpc_ros.solvers.conic import Cone, ConicProgram, ConicSolution

Vector = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class RobustRow:
    """(A x + a)'u + g'x <= b for all u in `uncertain`.

    Attributes
    ----------
    uncertain : the set U, dimension d
    A : (d, n)
    a : (d,)
    g : (n,)
    b : number
    """

    uncertain: UncertaintySet
    A: NDArray[np.float64]
    a: Vector
    g: Vector
    b: float

    @cached_property
    def diagonal(self) -> Vector | None:
        """Diagonal of A where A is a diagonal matrix, else None: then entries follow without a product."""
        square = self.A.shape[0] == self.A.shape[1]
        return np.diagonal(self.A) if square and not np.any(self.A - np.diag(np.diagonal(self.A))) else None


class CounterpartProgram:
    """A linear program with robust rows, compiled once; `update` changes sets, `solve` returns x.

    Parameters
    ----------
    cost : (n,) c
    rows : robust rows
    equality : (E, e) or None
    lower, upper : (n,) bounds, infinities allowed
    """

    def __init__(
        self,
        cost: ArrayLike,
        rows: Sequence[RobustRow],
        equality: tuple[ArrayLike, ArrayLike] | None = None,
        lower: ArrayLike | None = None,
        upper: ArrayLike | None = None,
        tolerance: float = 1e-8,
    ) -> None:
        c = np.asarray(cost, float)
        n = self._n = c.size
        self._rows = tuple(rows)
        self._forms = [row.uncertain.epigraph() for row in rows]
        self._blocks = _Blocks()
        self._places: list[tuple[Index, Index]] = []
        cones: list[Cone] = []
        row_at, column_at = 0, n
        for row, form in zip(rows, self._forms, strict=True):
            d = form.A.shape[1]
            if np.shape(row.A) != (d, n) or np.shape(row.a) != (d,) or np.shape(row.g) != (n,):
                raise SetError(
                    f"a robust row over a set of dimension {d} and {n} variables has A {np.shape(row.A)}, "
                    f"a {np.shape(row.a)}, g {np.shape(row.g)}"
                )
            active = _active(form)
            touched = _ones(form.A) @ (row.A != 0).astype(float) + np.outer(form.b != 0, row.g != 0)
            i, j = np.nonzero(touched[active])
            places = i.astype(np.int64), j.astype(np.int64)
            self._places.append(places)
            head = _Head(form.A[active].toarray(), form.b[active])
            self._blocks.add(row_at + active[places[0]], places[1], head.entries(row, places))
            spread = np.repeat(np.arange(form.Y.shape[1]), np.diff(form.Y.indptr))
            self._blocks.add(row_at + form.Y.indices, column_at + spread, form.Y.data)
            row_at += form.A.shape[0]
            column_at += form.Y.shape[1]
            cones.extend(form.cones)
        self._robust_rows, size = row_at, column_at
        blocks, rhs = self._blocks, [_right_side(row, form) for row, form in zip(rows, self._forms, strict=True)]
        if equality is not None:
            E, e = np.atleast_2d(np.asarray(equality[0], float)), np.atleast_1d(np.asarray(equality[1], float))
            i, j = np.nonzero(E)
            blocks.add(row_at + i, j, E[i, j])
            rhs.append(e)
            row_at += e.size
            cones.append(Cone("zero", e.size))
        first = row_at
        for bound, sign in ((upper, 1.0), (lower, -1.0)):
            if bound is None:
                continue
            limit = np.broadcast_to(np.asarray(bound, float), n)
            at = np.flatnonzero(np.isfinite(limit))
            blocks.add(row_at + np.arange(at.size), at, np.full(at.size, sign))
            rhs.append(sign * limit[at])
            row_at += at.size
        if row_at > first:
            cones.append(Cone("nonnegative", row_at - first))
        matrix = blocks.compile(row_at, size)
        self._rhs = np.concatenate(rhs)
        self._cost = np.concatenate([c, np.zeros(size - n)])
        self._program = ConicProgram(None, self._cost, matrix, self._rhs, _merged(cones), tolerance)

    def update(self, sets: Sequence[UncertaintySet]) -> None:
        """New sets for all robust rows, in order.

        Raises
        ------
        SetError
            A set's family or size differs, so that its pattern does not fit: build a new program.
        """
        if len(sets) != len(self._forms):
            raise SetError(f"{len(sets)} sets for {len(self._forms)} robust rows")
        known: dict[int, tuple[Epigraph, _Head]] = {}
        fitting: dict[tuple[int, int], bool] = {}
        rhs = []
        for n, (uncertain, old, row) in enumerate(zip(sets, self._forms, self._rows, strict=True)):
            if id(uncertain) not in known:
                form = uncertain.epigraph()
                active = _active(form)
                known[id(uncertain)] = form, _Head(form.A[active].toarray(), form.b[active])
            form, head = known[id(uncertain)]
            pair = (id(form), id(old))
            if pair not in fitting:
                fitting[pair] = _same_pattern(form, old)
            if not fitting[pair]:
                raise SetError(
                    f"robust row {n + 1}: the new set of family '{uncertain.family}' has another pattern than the one "
                    "compiled; build a new CounterpartProgram"
                )
            self._blocks.refill(2 * n, head.entries(row, self._places[n]))
            self._blocks.refill(2 * n + 1, form.Y.data)
            rhs.append(_right_side(row, form))
            self._forms[n] = form
        right = np.concatenate(rhs)
        same = np.array_equal(right, self._rhs[: self._robust_rows])
        self._rhs[: self._robust_rows] = right
        self._program.update(values=self._blocks.data(), rhs=None if same else self._rhs)

    def solve(self) -> Vector:
        """Optimal x (n,), checked by the solver access.

        Raises
        ------
        InfeasibleError, UnboundedError, NumericalError
        """
        return self.solve_all().x[: self._n]

    def arrays(self) -> tuple[Vector, sparse.csc_matrix, Vector, tuple[Cone, ...], float]:
        """Cost, matrix, right-hand side, cones, tolerance: what a bare call of the solver needs."""
        program = self._program
        return self._cost, program.matrix, program.rhs, program.cones, program.tolerance

    def solve_all(self) -> ConicSolution:
        """The whole conic solution, multipliers included."""
        return self._program.solve()


def _active(form: Epigraph) -> Index:
    """Rows of an epigraph in which the direction or the bound appears."""
    return np.union1d(form.A.indices, np.flatnonzero(form.b)).astype(np.int64)


@dataclass(frozen=True)
class _Head:
    """Active rows of E_A and E_b, dense: once for all robust rows over one set."""

    A: NDArray[np.float64]
    b: Vector

    def entries(self, row: RobustRow, places: tuple[Index, Index]) -> Vector:
        """Entries of E_A A_j - E_b g_j' at the places of its pattern."""
        i, j = places
        if row.diagonal is not None:
            return np.asarray(self.A[i, j] * row.diagonal[j] - self.b[i] * row.g[j])
        return np.asarray((self.A @ row.A)[places] - self.b[i] * row.g[j])


def _right_side(row: RobustRow, form: Epigraph) -> Vector:
    return np.asarray(-(form.A @ row.a) - form.b * row.b)


def _ones(matrix: sparse.csc_array) -> sparse.csc_array:
    return sparse.csc_array((np.ones_like(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)


class _Blocks:
    """Entries of a sparse matrix, block by block in a fixed order; a block's values can be refilled."""

    def __init__(self) -> None:
        self._rows: list[Index] = []
        self._columns: list[Index] = []
        self._values: list[Vector] = []

    def add(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        self._rows.append(np.asarray(rows, np.int64))
        self._columns.append(np.asarray(columns, np.int64))
        self._values.append(np.asarray(values, float))

    def refill(self, block: int, values: Vector) -> None:
        self._values[block] = values

    def compile(self, rows: int, columns: int) -> sparse.csc_array:
        i, j = np.concatenate(self._rows), np.concatenate(self._columns)
        self._order = np.lexsort((i, j))
        pointer = np.concatenate([[0], np.cumsum(np.bincount(j, minlength=columns))])
        return sparse.csc_array((self.data(), i[self._order], pointer), shape=(rows, columns))

    def data(self) -> Vector:
        return np.concatenate(self._values)[self._order]


def _same_pattern(new: Epigraph, old: Epigraph) -> bool:
    if new is old:
        return True
    return (
        new.cones == old.cones
        and np.array_equal(new.b, old.b)
        and all(
            a.shape == b.shape and np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)
            for a, b in ((new.A, old.A), (new.Y, old.Y))
        )
    )


def _merged(cones: Sequence[Cone]) -> list[Cone]:
    """Neighbouring blocks of equalities or inequalities as one: fewer, larger blocks are quicker."""
    out: list[Cone] = []
    for cone in cones:
        if out and cone.kind == out[-1].kind and cone.kind in ("zero", "nonnegative"):
            out[-1] = Cone(cone.kind, out[-1].size + cone.size)
        else:
            out.append(cone)
    return out
