"""Robust programs whose sets change: compiled once to cones, re-solved in place.

    min c'x   s.t.   (A_j x + a_j)'u + g_j'x <= b_j  for all u in U_j,      E x = e,      lower <= x <= upper

Each robust row becomes, by conic duality (base.py), with the set's F, G, h and cones K:

    F'z_j = A_j x + a_j,   G'z_j = 0,   h'z_j + g_j'x <= b_j,   z_j in K*

New data of the same family and size keep the sparsity pattern, so that `update` writes numbers into the solver and
nothing is built again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, UncertaintySet
from rmpc_ros.sets.cones import dual_map
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


class RobustProgram:
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
        self._forms = [row.uncertain.conic() for row in rows]
        blocks = _Blocks()
        # zero cone first: duality equalities and E x = e
        start = n
        starts = []
        for form in self._forms:
            starts.append(start)
            start += form.h.size
        size = start
        row_at = 0
        rhs: list[Vector] = []
        for row, form, z in zip(rows, self._forms, starts, strict=True):
            d, k = form.F.shape[1], form.G.shape[1]
            if np.shape(row.A) != (d, n) or np.shape(row.a) != (d,) or np.shape(row.g) != (n,):
                raise SetError(
                    f"a robust row over a set of dimension {d} and {n} variables has A {np.shape(row.A)}, "
                    f"a {np.shape(row.a)}, g {np.shape(row.g)}"
                )
            blocks.transposed(form.F, row_at, z)
            blocks.fixed(-np.asarray(row.A, float), row_at, 0)
            rhs.append(np.asarray(row.a, float))
            blocks.transposed(form.G, row_at + d, z)
            rhs.append(np.zeros(k))
            row_at += d + k
        if equality is not None:
            E, e = np.atleast_2d(np.asarray(equality[0], float)), np.atleast_1d(np.asarray(equality[1], float))
            blocks.fixed(E, row_at, 0)
            rhs.append(e)
            row_at += e.size
        cones = [Cone("zero", row_at)] if row_at else []
        first = row_at
        for row, form, z in zip(rows, self._forms, starts, strict=True):
            blocks.dense_row(form.h, row_at, z)
            blocks.fixed(np.asarray(row.g, float)[None, :], row_at, 0)
            rhs.append(np.array([float(row.b)]))
            row_at += 1
        for bound, sign in ((upper, 1.0), (lower, -1.0)):
            if bound is None:
                continue
            limit = np.broadcast_to(np.asarray(bound, float), n)
            at = np.flatnonzero(np.isfinite(limit))
            blocks.add(row_at + np.arange(at.size), at, np.full(at.size, sign))
            rhs.append(sign * limit[at])
            row_at += at.size
        cones.append(Cone("nonnegative", row_at - first))
        for form, z in zip(self._forms, starts, strict=True):
            T, kinds = dual_map(form.cones)
            entries = sparse.coo_array(-T)
            blocks.add(row_at + entries.row, z + entries.col, entries.data)
            rhs.append(np.zeros(T.shape[0]))
            row_at += T.shape[0]
            cones.extend(kinds)
        self._blocks = blocks
        matrix = blocks.compile(row_at, size)
        self._cost = np.concatenate([c, np.zeros(size - n)])
        self._program = ConicProgram(None, self._cost, matrix, np.concatenate(rhs), _merged(cones), tolerance)

    def update(self, sets: Sequence[UncertaintySet]) -> None:
        """New sets for all robust rows, in order.

        Raises
        ------
        SetError
            A set's family or size differs, so that its pattern does not fit: build a new program.
        """
        if len(sets) != len(self._forms):
            raise SetError(f"{len(sets)} sets for {len(self._forms)} robust rows")
        known: dict[int, ConicForm] = {}
        values = []
        for n, (uncertain, old) in enumerate(zip(sets, self._forms, strict=True)):
            form = (
                known.setdefault(id(uncertain), uncertain.conic())
                if id(uncertain) not in known
                else known[id(uncertain)]
            )
            if not _same_pattern(form, old):
                raise SetError(
                    f"robust row {n + 1}: the new set of family '{uncertain.family}' has another pattern than the one "
                    "compiled; build a new RobustProgram"
                )
            values.append(form)
        self._blocks.refill(values)
        self._forms = values
        self._program.update(values=self._blocks.data())

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


class _Blocks:
    """Entries of a sparse matrix in a fixed order; those that come from sets can be refilled."""

    def __init__(self) -> None:
        self._rows: list[Index] = []
        self._columns: list[Index] = []
        self._values: list[Vector] = []
        self._from_sets: list[int] = []

    def add(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        self._rows.append(np.asarray(rows, np.int64))
        self._columns.append(np.asarray(columns, np.int64))
        self._values.append(np.asarray(values, float))

    def fixed(self, block: NDArray[np.float64], row: int, column: int) -> None:
        i, j = np.nonzero(block)
        self.add(row + i, column + j, block[i, j])

    def transposed(self, matrix: sparse.csc_array, row: int, column: int) -> None:
        self._from_sets.append(len(self._values))
        self.add(
            row + np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr)), column + matrix.indices, matrix.data
        )

    def dense_row(self, values: Vector, row: int, column: int) -> None:
        self._from_sets.append(len(self._values))
        self.add(np.full(values.size, row), column + np.arange(values.size), values)

    def compile(self, rows: int, columns: int) -> sparse.csc_array:
        i, j = np.concatenate(self._rows), np.concatenate(self._columns)
        self._order = np.lexsort((i, j))
        pointer = np.concatenate([[0], np.cumsum(np.bincount(j, minlength=columns))])
        return sparse.csc_array((self.data(), i[self._order], pointer), shape=(rows, columns))

    def data(self) -> Vector:
        return np.concatenate(self._values)[self._order]

    def refill(self, forms: Sequence[ConicForm]) -> None:
        places = iter(self._from_sets)
        for form in forms:
            self._values[next(places)] = form.F.data
            self._values[next(places)] = form.G.data
        for form in forms:
            self._values[next(places)] = form.h


def _same_pattern(new: ConicForm, old: ConicForm) -> bool:
    if new is old:
        return True
    return new.cones == old.cones and all(
        a.shape == b.shape and np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)
        for a, b in ((new.F, old.F), (new.G, old.G))
    )


def _merged(cones: Sequence[Cone]) -> list[Cone]:
    """Neighbouring nonnegative blocks as one: fewer, larger blocks are quicker."""
    out: list[Cone] = []
    for cone in cones:
        if out and cone.kind == out[-1].kind == "nonnegative":
            out[-1] = Cone("nonnegative", out[-1].size + cone.size)
        else:
            out.append(cone)
    return out
