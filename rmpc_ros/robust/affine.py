"""Vectors that are affine in what is uncertain, with coefficients affine in what is decided.

    e(w) = e_0 + sum_c e_c w_c,      e_c = constant + sum value * decision + sum value * parameter

An `Affine` holds the non-zero terms as four parallel arrays (entry, column of w, symbol, value), so that policies,
states and constraints of a whole horizon are array operations. It supports +, -, scaling, M @ e, slicing and
comparison, which is all that a robust program is written with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

Index = NDArray[np.int64]
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

CONSTANT = -1  # symbol of a number; decisions are 0, 1, ...; parameters are -2, -3, ...
NOMINAL = 0  # column of the part that does not depend on w


@dataclass(frozen=True, eq=False)
class Affine:
    """e(w) with `rows` entries; `row`, `col`, `sym`, `val` are parallel arrays of its non-zero terms."""

    rows: int
    row: Index
    col: Index
    sym: Index
    val: Vector

    __array_ufunc__ = None  # numpy leaves `matrix @ e` and `array + e` to this class

    # -- making -------------------------------------------------------------------------------------------------------
    @staticmethod
    def constant(values: ArrayLike) -> Affine:
        """Numbers (k,)."""
        v = np.atleast_1d(np.asarray(values, float))
        row = np.flatnonzero(v)
        return Affine(v.size, row, np.zeros_like(row), np.full(row.size, CONSTANT), v[row])

    @staticmethod
    def symbols(index: ArrayLike, columns: ArrayLike = NOMINAL) -> Affine:
        """One symbol per entry (k,), or a matrix (k, c) of symbols that multiply the named columns of w.

        Symbol -1 (CONSTANT) stands for "no term" here.
        """
        table = np.asarray(index, np.int64)
        if table.ndim == 1:
            table = table[:, None]
        row, place = np.nonzero(table != CONSTANT)
        cols = np.atleast_1d(np.asarray(columns, np.int64))[place]
        return Affine(table.shape[0], row, cols, table[row, place], np.ones(row.size))

    def spread(self, matrix: Matrix, seen: Affine) -> Affine:
        """One symbol (this vector has one entry, one term) times `matrix` @ seen, for plain uncertain `seen`."""
        row, k = np.nonzero(matrix)
        columns = np.empty(seen.rows, np.int64)
        columns[seen.row] = seen.col
        return Affine(matrix.shape[0], row, columns[k], np.full(row.size, self.sym[0]), matrix[row, k] * self.val[0])

    @staticmethod
    def uncertain(columns: Index) -> Affine:
        """The uncertain entries themselves."""
        n = columns.size
        return Affine(n, np.arange(n), columns.astype(np.int64), np.full(n, CONSTANT), np.ones(n))

    # -- arithmetic ---------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return self.rows

    def __neg__(self) -> Affine:
        return self * -1.0

    def __mul__(self, factor: ArrayLike) -> Affine:
        """Times a number, or entry by entry times an array (rows,)."""
        f = np.broadcast_to(np.asarray(factor, float), self.rows)
        return Affine(self.rows, self.row, self.col, self.sym, self.val * f[self.row])

    __rmul__ = __mul__

    def __add__(self, other: Affine | ArrayLike) -> Affine:
        right = as_affine(other, self.rows)
        if right.rows != self.rows:
            raise ValueError(f"vectors of {self.rows} and {right.rows} entries cannot be added")
        return Affine(
            self.rows,
            np.concatenate([self.row, right.row]),
            np.concatenate([self.col, right.col]),
            np.concatenate([self.sym, right.sym]),
            np.concatenate([self.val, right.val]),
        )

    __radd__ = __add__

    def __sub__(self, other: Affine | ArrayLike) -> Affine:
        return self + -as_affine(other, self.rows)

    def __rsub__(self, other: ArrayLike) -> Affine:
        return -self + other

    def __rmatmul__(self, matrix: ArrayLike) -> Affine:
        """M e(w) for numbers M (m, rows) or (rows,)."""
        return self.left(matrix)

    def left(self, matrix: ArrayLike | sparse.sparray) -> Affine:
        """M e(w) for a dense or sparse matrix (m, rows); scipy's own @ does not give way to this class."""
        m = sparse.csr_array(matrix if sparse.issparse(matrix) else np.atleast_2d(np.asarray(matrix, float)))
        if m.shape[1] != self.rows:
            raise ValueError(f"a {m.shape} matrix meets a vector of {self.rows} entries")
        terms, place = np.unique(np.stack([self.col, self.sym]), axis=1, return_inverse=True)
        place = np.asarray(place).ravel()
        table = sparse.csr_array((self.val, (self.row, place)), shape=(self.rows, terms.shape[1]))
        product = sparse.coo_array(m @ table)
        return Affine(
            m.shape[0],
            product.row.astype(np.int64),
            terms[0, product.col],
            terms[1, product.col],
            product.data,
        )

    def __getitem__(self, which: int | slice | Sequence[int] | Index) -> Affine:
        """The named entries, in that order."""
        wanted = np.atleast_1d(np.arange(self.rows)[which])
        pick = sparse.csr_array(
            (np.ones(wanted.size), (np.arange(wanted.size), wanted)), shape=(wanted.size, self.rows)
        )
        return self.left(pick)

    def __le__(self, other: Affine | ArrayLike) -> Relation:
        return Relation(self - other)

    def __ge__(self, other: Affine | ArrayLike) -> Relation:
        return Relation(as_affine(other, self.rows) - self)

    # -- reading ------------------------------------------------------------------------------------------------------
    def merged(self) -> Affine:
        """The same with one term per (entry, column, symbol), sorted, exact zeros left out."""
        order = np.lexsort((self.sym, self.col, self.row))
        row, col, sym, val = self.row[order], self.col[order], self.sym[order], self.val[order]
        if row.size == 0:
            return self
        new = np.concatenate([[True], (np.diff(row) != 0) | (np.diff(col) != 0) | (np.diff(sym) != 0)])
        start = np.flatnonzero(new)
        total = np.add.reduceat(val, start)
        keep = total != 0.0
        start = start[keep]
        return Affine(self.rows, row[start], col[start], sym[start], total[keep])

    def part(self, keep: NDArray[np.bool_]) -> Affine:
        """The terms where `keep` is true."""
        return Affine(self.rows, self.row[keep], self.col[keep], self.sym[keep], self.val[keep])

    def at(self, column_values: Vector) -> Affine:
        """The vector at fixed values of all columns (column 0 has value 1): an expression without uncertainty."""
        return Affine(self.rows, self.row, np.zeros_like(self.col), self.sym, self.val * column_values[self.col])

    def evaluate(self, decisions: Vector, parameters: Vector, columns: int) -> Matrix:
        """Coefficients (rows, columns) at given values of decisions and parameters."""
        values = np.concatenate([parameters[::-1], [1.0], decisions])  # symbol s is at s + 1 + len(parameters)
        out = np.zeros((self.rows, columns))
        np.add.at(out, (self.row, self.col), self.val * values[self.sym + 1 + parameters.size])
        return out


@dataclass(frozen=True)
class Relation:
    """expression(w) <= 0, entry by entry."""

    expression: Affine


def as_affine(value: Affine | ArrayLike, rows: int) -> Affine:
    """`value` itself, or numbers broadcast to (rows,)."""
    if isinstance(value, Affine):
        return value
    return Affine.constant(np.broadcast_to(np.asarray(value, float), rows))


def stack(parts: Sequence[Affine]) -> Affine:
    """Vectors one above the other."""
    starts = np.cumsum([0] + [p.rows for p in parts])
    return Affine(
        int(starts[-1]),
        np.concatenate([p.row + s for p, s in zip(parts, starts, strict=False)]),
        np.concatenate([p.col for p in parts]),
        np.concatenate([p.sym for p in parts]),
        np.concatenate([p.val for p in parts]),
    )
