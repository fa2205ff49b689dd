"""The numbers of a compiled program: where each entry of matrix, right-hand side and cost comes from."""

from __future__ import annotations

from collections.abc import Mapping

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
    """b = B (p, 1) - supports of sets in given directions, collected term by term.

    The support of a box along a is max(a, 0)'upper + min(a, 0)'lower, so that with boxes all of b is linear in
    z = (p, 1, upper, lower, ...): one product for the rows that depend on sets, one for the others.
    """

    def __init__(self, parameters: int) -> None:
        self._size = parameters
        self._terms: list[tuple[int, int, float]] = []
        self._numbers: dict[str, tuple[list[int], list[Vector]]] = {}

    def add(self, row: int, symbol: int, value: float) -> None:
        """Add value * symbol (a parameter, or 1 for CONSTANT) to a row."""
        self._terms.append((row, self._size if symbol == CONSTANT else -2 - symbol, value))

    def subtract_support(self, row: int, name: str, direction: Vector) -> None:
        """Subtract the named set's support in a direction (d,) from a row."""
        rows, directions = self._numbers.setdefault(name, ([], []))
        rows.append(row)
        directions.append(direction)

    def compile(self, rows: int, sets: Mapping[str, UncertaintySet]) -> None:
        """Make the matrices of all rows; `known` is (p, 1), to be written in place."""
        row, column, value = ([t[k] for t in self._terms] for k in range(3))
        known = self._size + 1
        self._plain = np.zeros((rows, known))
        np.add.at(self._plain, (np.array(row, np.int64), np.array(column, np.int64)), np.array(value, float))
        shifted = [row for rows_of, _ in self._numbers.values() for row in rows_of]
        self._span = slice(min(shifted, default=0), max(shifted, default=-1) + 1)
        self._places: dict[str, tuple[slice, slice]] = {}
        self._directions: dict[str, tuple[NDArray[np.int64], Matrix]] = {}
        matrices, at = [self._plain[self._span]], known
        for name, (rows_of, directions) in self._numbers.items():
            places, along = np.array(rows_of, np.int64) - self._span.start, np.array(directions)
            d = along.shape[1]
            self._places[name], self._directions[name] = (slice(at, at + d), slice(at + d, at + 2 * d)), (places, along)
            parts = np.zeros((len(matrices[0]), 2 * d))
            np.subtract.at(parts, places, np.hstack([np.maximum(along, 0.0), np.minimum(along, 0.0)]))
            matrices.append(parts)
            at += 2 * d
        self._shifted = np.hstack(matrices)
        self._z = np.zeros(at)
        self._z[self._size] = 1.0
        self.known = self._z[:known]
        self._apart: dict[str, Vector] = {}
        for name in self._numbers:
            self.take(name, sets[name])

    def varying(self) -> NDArray[np.int32]:
        """Rows that depend on a parameter or a set."""
        depends = np.asarray(self._plain[:, :-1].any(axis=1))
        for places, _ in self._directions.values():
            depends[self._span.start + places] = True
        return np.flatnonzero(depends).astype(np.int32)

    def take(self, name: str, members: UncertaintySet) -> None:
        """The named set is another now; one of any family with the same dimension."""
        if name not in self._places:
            return
        upper, lower = self._places[name]
        if isinstance(members, Box):
            self._z[upper] = members.upper
            self._z[lower] = members.lower
            if self._apart:
                self._apart.pop(name, None)
            return
        self._z[upper] = self._z[lower] = 0.0
        places, along = self._directions[name]
        self._apart[name] = np.asarray(np.bincount(places, members.support(along), len(self._shifted)), float)

    def fill(self, out: Vector) -> None:
        """Write b, (rows,), for the sets and the parameters in force."""
        self._plain.dot(self.known, out)
        if self._places:
            shifted = out[self._span]
            self._shifted.dot(self._z, shifted)
            for support in self._apart.values():
                shifted -= support


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
