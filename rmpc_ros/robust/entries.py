"""The numbers of a compiled program: where each entry of matrix, right-hand side and cost comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmpc_ros.robust.affine import CONSTANT, Affine, Vector
from rmpc_ros.robust.uncertain_program import Objective
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.box import Box

Terms = tuple[tuple[int, float], ...]  # (symbol, value)
Matrix = NDArray[np.float64]
NEGLIGIBLE = 1e-12  # times a row's largest entry: rounding noise of products of matrices, stored as zero


class Entries:
    """Entries of a sparse matrix; those that come from set data can be refilled by set name."""

    def __init__(self) -> None:
        self._row: list[int] = []
        self._column: list[int] = []
        self._value: list[float] = []
        self._sources: dict[str, list[tuple[int, int, float]]] = {}

    def add(self, row: int, column: int, value: float) -> None:
        """One entry; entries at the same place add up."""
        self._row.append(row)
        self._column.append(column)
        self._value.append(value)

    def add_from_set(self, row: int, column: int, name: str, place: int, scale: float, value: float) -> None:
        """One entry scale * value, where value is number `place` of the named set's data."""
        self._sources.setdefault(name, []).append((len(self._value), place, scale))
        self.add(row, column, scale * value)

    def compile(self, rows: int, columns: int) -> sparse.csc_matrix:
        """CSC matrix that stores every place ever named."""
        row, column = np.array(self._row, np.int64), np.array(self._column, np.int64)
        value = np.array(self._value)
        order = np.lexsort((row, column))
        r, c = row[order], column[order]
        first = np.ones(r.size, bool)
        first[1:] = (r[1:] != r[:-1]) | (c[1:] != c[:-1])
        slot = np.empty(r.size, np.int64)
        slot[order] = np.cumsum(first) - 1
        data = np.zeros(int(first.sum()))
        np.add.at(data, slot, value)
        self._base = data.copy()
        self._refill: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], Vector]] = {}
        for name, triples in self._sources.items():
            at, place, scale = (np.array(v) for v in zip(*triples, strict=True))
            self._refill[name] = (slot[at], place, scale.astype(float))
            np.add.at(self._base, slot[at], -value[at])
        self._now = {name: value[[t[0] for t in triples]] for name, triples in self._sources.items()}
        largest = np.zeros(rows)
        np.maximum.at(largest, r[first], np.abs(data))
        noise = (self._base != 0) & (np.abs(self._base) < NEGLIGIBLE * largest[r[first]])
        data[noise] -= self._base[noise]
        self._base[noise] = 0.0
        indptr = np.searchsorted(c[first], np.arange(columns + 1))
        return sparse.csc_matrix((data, r[first], indptr), shape=(rows, columns))

    def uses(self, name: str) -> bool:
        """Whether any entry comes from the named set."""
        return name in self._refill

    def refill(self, name: str, values: Vector, matrix: sparse.csc_matrix) -> bool:
        """Write a set's new data into the matrix; returns whether anything changed."""
        _, place, scale = self._refill[name]
        new = scale * values[place]
        if np.array_equal(new, self._now[name]):
            return False
        self._now[name] = new
        matrix.data[:] = self._base
        for other, (at, _, _) in self._refill.items():
            np.add.at(matrix.data, at, self._now[other])
        return True


class RightSide:
    """b = B (p, 1), collected term by term from symbols that are not decisions; `matrix` is B after `compile`."""

    def __init__(self, parameters: int) -> None:
        self._size = parameters
        self._terms: list[tuple[int, int, float]] = []

    def add(self, row: int, symbol: int, value: float) -> None:
        """Add value * symbol (a parameter, or 1 for CONSTANT) to a row."""
        self._terms.append((row, self._size if symbol == CONSTANT else -2 - symbol, value))

    def compile(self, rows: int) -> None:
        """Make the matrix of all rows."""
        row, column, value = ([t[k] for t in self._terms] for k in range(3))
        self.matrix = np.zeros((rows, self._size + 1))
        np.add.at(self.matrix, (np.array(row, np.int64), np.array(column, np.int64)), np.array(value, float))


@dataclass(frozen=True)
class Numbers:
    """Rows whose coefficient of an uncertain vector is a number: its support moves to the right-hand side.

    Attributes
    ----------
    at : (k,) rows
    directions : (k, d) coefficients
    sizes : (k, d) their moduli
    """

    at: NDArray[np.int64]
    directions: Matrix
    sizes: Matrix

    @classmethod
    def of(cls, at: NDArray[np.int64], directions: Matrix) -> Numbers:
        """With the moduli computed once."""
        return cls(at, directions, np.abs(directions))

    def shift(self, members: UncertaintySet, rows: int) -> Vector:
        """What the set takes from each right-hand side, (rows,)."""
        if isinstance(members, Box):  # products instead of a checked call; one where the box is about zero
            support = self.sizes @ members.radius
            center = members.center()
            if center.any():
                support += self.directions @ center
        else:
            support = members.support(self.directions)
        return np.asarray(np.bincount(self.at, support, rows), float)


def objective_data(objective: Objective, variables: int, parameters: int) -> tuple[sparse.csc_matrix, Matrix, Matrix]:
    """(P, C, S) of the cost 1/2 x'P x + (C k)'x + k'S k with k = (p, 1)."""
    P = sparse.csc_array((variables, variables))
    C = np.zeros((variables, parameters + 1))
    S = np.zeros((parameters + 1, parameters + 1))
    linear, known = _split(objective.linear, variables, parameters)
    C[:, -1] += linear.toarray().ravel()
    S[-1] += known.toarray().ravel()
    for expression, weights in objective.squares:
        F, k = _split(expression, variables, parameters)
        W = sparse.diags_array(weights)
        P = P + 2 * F.T @ W @ F
        C += (2 * F.T @ W @ k).toarray()
        S += (k.T @ W @ k).toarray()
    symmetric = sparse.csc_matrix((P + P.T) / 2)
    symmetric.sort_indices()  # PIQP reads unsorted columns wrongly
    return symmetric, C, S


def _split(e: Affine, variables: int, parameters: int) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Matrices of an expression without uncertainty: of the decisions, and of (p, 1)."""
    decided = e.sym >= 0
    F = sparse.csr_array((e.val[decided], (e.row[decided], e.sym[decided])), shape=(e.rows, variables))
    place = np.where(e.sym == CONSTANT, parameters, -2 - e.sym)[~decided]
    known = sparse.csr_array((e.val[~decided], (e.row[~decided], place)), shape=(e.rows, parameters + 1))
    return F, known
