"""Robust constraints by cuts: for sets whose counterpart is large but whose worst member is quick to find.

    e(w) <= 0 for all w in U    becomes    e(w_k) <= 0 for the members w_k found so far,

and after each solve an oracle names, for every row, the member of U where the policy is worst; violated rows enter.
The last round proves that no member violates. Support-vector sets (a sort per row) and thousands of scenarios (one
matrix product) are such sets. In receding horizon the cuts that were active stay. Source: Mutapcic and Boyd (2009),
cutting-set methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import ConfigError, NumericalError
from rmpc_ros.robust.affine import CONSTANT, Affine, Relation
from rmpc_ros.robust.backends import Clarabel, Piqp, ProgramData
from rmpc_ros.robust.compiled import CompiledProgram
from rmpc_ros.robust.solution import Solution
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.base import UncertaintySet

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Oracle = Callable[[Matrix], Matrix]  # directions (m, d) -> worst members (m, d)
ROUNDS = 200


def worst_member(members: UncertaintySet) -> Oracle:
    """Oracle of a set: its maximisers."""
    return lambda directions: np.atleast_2d(members.maximisers(directions))


def worst_sample(samples: ArrayLike, used: Sequence[int] | None = None) -> Oracle:
    """Oracle of scenarios (N, d): row i of the constraint ranges over the first `used[i]` samples (default: all)."""
    rows = np.asarray(samples, float)

    def oracle(directions: Matrix) -> Matrix:
        value = directions @ rows.T
        if used is not None:
            value[np.arange(len(rows))[None, :] >= np.asarray(used)[:, None]] = -np.inf
        worst: Matrix = rows[np.argmax(value, axis=1)]
        return worst

    return oracle


@dataclass(frozen=True)
class _Tensor:
    """e(w) = sum_c w_c (F_c x + k_c [p; 1]) of one relation, dense: F (rows, columns, n), k (rows, columns, p + 1)."""

    F: Matrix
    k: Matrix
    oracle: Oracle


class CuttingPlanes:
    """An uncertain program whose `relations` are enforced by cuts; the program's own constraints are compiled.

    Parameters
    ----------
    program : linear or quadratic, without cones, with one uncertain vector
    relations : pairs (relation, oracle)
    tolerance : largest accepted violation of a row at its worst member
    """

    def __init__(
        self, program: UncertainProgram, relations: Sequence[tuple[Relation, Oracle]], tolerance: float = 1e-6
    ) -> None:
        if len(program.vectors) != 1:
            raise ConfigError(f"cuts take programs with one uncertain vector; this one has {len(program.vectors)}")
        self._compiled = CompiledProgram(program, solver="piqp")
        self._program, self._tolerance = program, tolerance
        self._tensors = [self._tensor(relation.expression, oracle) for relation, oracle in relations]
        self._cuts: list[tuple[Vector, Vector]] = []
        self.rounds = 0

    def _tensor(self, e: Affine, oracle: Oracle) -> _Tensor:
        n, p, columns = self._compiled.data.cost.size, self._program.parameter_size, self._program.columns
        F, k = np.zeros((e.rows, columns, n)), np.zeros((e.rows, columns, p + 1))
        decided = e.sym >= 0
        np.add.at(F, (e.row[decided], e.col[decided], e.sym[decided]), e.val[decided])
        place = np.where(e.sym == CONSTANT, p, -2 - e.sym)[~decided]
        np.add.at(k, (e.row[~decided], e.col[~decided], place), e.val[~decided])
        return _Tensor(F, k, oracle)

    def solve(self, **parameters: ArrayLike) -> Solution:
        """Solve until no row is violated by its worst member.

        Raises
        ------
        InfeasibleError
            Already the members found so far cannot be satisfied.
        NumericalError
            No end within the limit of rounds.
        """
        began = time.perf_counter()
        self._compiled.update(**parameters)
        given = {name: np.asarray(parameters[name], float) for name in self._program.parameters}
        known = np.append(np.concatenate([*given.values(), np.empty(0)]), 1.0)
        for round_ in range(1, ROUNDS + 1):
            x, objective, solver = self._master(known)
            found = self._separate(x, known)
            self._cuts += found
            if not found:
                self.rounds = round_
                self._cuts = [(f, k) for f, k in self._cuts if f @ x + k @ known > -1e-3]
                constant = float(known @ self._compiled.objective_constant @ known)
                seconds = time.perf_counter() - began
                values = x[: self._program.size]
                return Solution(self._program, values, known[:-1], objective + constant, f"{solver}, cuts", seconds)
        raise NumericalError(f"cuts still violated after {ROUNDS} rounds", "rounds")

    def _master(self, known: Vector) -> tuple[Vector, float, str]:
        """PIQP; where it does not converge Clarabel, and the answer says which."""
        d = self._compiled.data
        F = np.array([f for f, _ in self._cuts]).reshape(-1, d.cost.size)
        right = -np.array([k @ known for _, k in self._cuts])
        matrix = sparse.csc_matrix(sparse.vstack([d.matrix, sparse.csr_array(F)], format="csc"))
        matrix.sort_indices()
        rhs, below = np.concatenate([d.rhs, right]), d.below + len(right)
        data = ProgramData(d.quadratic, d.cost, matrix, rhs, d.lower, d.upper, d.equal, below, [])
        try:
            return *Piqp(data, 1e-8).solve(), "piqp"
        except NumericalError:
            return *Clarabel(data, 1e-8).solve(), "clarabel"

    def _separate(self, x: Vector, known: Vector) -> list[tuple[Vector, Vector]]:
        out = []
        for tensor in self._tensors:
            coefficients = tensor.F @ x + tensor.k @ known
            worst = tensor.oracle(coefficients[:, 1:])
            values = coefficients[:, 0] + np.sum(coefficients[:, 1:] * worst, axis=1)
            for i in np.flatnonzero(values > self._tolerance):
                w = np.append(1.0, worst[i])
                out.append((w @ tensor.F[i], w @ tensor.k[i]))
        return out
