"""Vectors that are affine in the uncertainty, with coefficients affine in the decisions.

    e(w) = e_0 + sum_c e_c w_c,   e_c = sum_v value v + constant.

A `Table` holds the non-zero terms as four parallel arrays (row of e, column c, decision variable or -1 for a constant,
value); column 0 is the part that does not depend on w. All policies, states and signals of a network are such tables,
so that robust counterparts are written with array operations only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

Integers = NDArray[np.int64]
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

CONSTANT = -1


@dataclass(frozen=True)
class Table:
    """e(w) of `rows` entries; `row`, `col`, `var`, `val` are parallel arrays of its non-zero terms."""

    rows: int
    row: Integers
    col: Integers
    var: Integers
    val: Vector

    @staticmethod
    def zeros(rows: int) -> Table:
        """e(w) = 0."""
        empty = np.empty(0, np.int64)
        return Table(rows, empty, empty, empty, np.empty(0))

    @staticmethod
    def constant(values: ArrayLike) -> Table:
        """Numbers: (k,) for the deterministic part only, (k, 1 + columns) with coefficients of w."""
        dense = np.asarray(values, float)
        if dense.ndim == 1:
            dense = dense[:, None]
        row, col = np.nonzero(dense)
        return Table(dense.shape[0], row, col, np.full(row.size, CONSTANT, np.int64), dense[row, col])

    @staticmethod
    def numbers(rows: int, columns: ArrayLike, matrix: Matrix) -> Table:
        """Coefficients `matrix` (rows, k) of the k named columns of w."""
        row, k = np.nonzero(matrix)
        cols = np.asarray(columns, np.int64)[k]
        return Table(rows, row, cols, np.full(row.size, CONSTANT, np.int64), matrix[row, k])

    @staticmethod
    def variables(index: NDArray[np.int64], columns: ArrayLike) -> Table:
        """One decision variable per entry: `index` (k, len(columns)) of variables, -1 where the coefficient is zero."""
        row, k = np.nonzero(index >= 0)
        return Table(index.shape[0], row, np.asarray(columns, np.int64)[k], index[row, k], np.ones(row.size))

    def left(self, matrix: ArrayLike) -> Table:
        """M e(w) for a matrix of numbers (m, rows)."""
        m = sparse.csc_array(np.atleast_2d(np.asarray(matrix, float)))
        if m.shape[1] != self.rows:
            raise ValueError(f"a {m.shape} matrix meets a vector of {self.rows} entries")
        counts = np.diff(m.indptr)[self.row]
        source = np.repeat(np.arange(self.row.size), counts)
        ends = np.cumsum(counts)
        within = np.arange(source.size) - np.repeat(ends - counts, counts)
        place = m.indptr[self.row[source]] + within
        return Table(
            m.shape[0],
            m.indices[place].astype(np.int64),
            self.col[source],
            self.var[source],
            self.val[source] * m.data[place],
        )

    def __add__(self, other: Table) -> Table:
        return total([self, other])

    def __sub__(self, other: Table) -> Table:
        return total([self, other.times(-1.0)])

    def times(self, factor: float) -> Table:
        """The vector e(w) times a number."""
        return Table(self.rows, self.row, self.col, self.var, factor * self.val)

    def take(self, rows: Sequence[int] | Integers) -> Table:
        """The named entries, in that order."""
        wanted = np.asarray(rows, np.int64)
        pick = np.zeros((wanted.size, self.rows))
        pick[np.arange(wanted.size), wanted] = 1.0
        return self.left(pick)

    def evaluate(self, solution: Vector, columns: int) -> Matrix:
        """Coefficients (rows, columns) at given values of the decision variables."""
        out = np.zeros((self.rows, columns))
        factor = np.where(self.var >= 0, solution[np.maximum(self.var, 0)] if solution.size else 0.0, 1.0)
        np.add.at(out, (self.row, self.col), self.val * factor)
        return out

    def columns(self) -> Integers:
        """Columns that appear, ascending."""
        return np.unique(self.col)


def total(tables: Sequence[Table]) -> Table:
    """Sum of tables with equally many rows."""
    rows = tables[0].rows
    if any(t.rows != rows for t in tables):
        raise ValueError(f"tables of {[t.rows for t in tables]} rows cannot be added")
    return Table(
        rows,
        np.concatenate([t.row for t in tables]),
        np.concatenate([t.col for t in tables]),
        np.concatenate([t.var for t in tables]),
        np.concatenate([t.val for t in tables]),
    )


def stack(tables: Sequence[Table]) -> Table:
    """Tables one above the other."""
    starts = np.cumsum([0] + [t.rows for t in tables])
    return Table(
        int(starts[-1]),
        np.concatenate([t.row + s for t, s in zip(tables, starts, strict=False)]),
        np.concatenate([t.col for t in tables]),
        np.concatenate([t.var for t in tables]),
        np.concatenate([t.val for t in tables]),
    )
