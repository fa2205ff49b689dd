"""Solving a `RobustProgram`: HiGHS when it is linear, Clarabel otherwise; every answer is checked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import CONSTANT, Table, Vector
from rmpc_ros.network.robust_program import RobustProgram
from rmpc_ros.solvers.conic import Cone, ConicProgram
from rmpc_ros.solvers.lp import LinearProgram


@dataclass(frozen=True)
class ProgramData:
    """min 1/2 v'diag(square) v + cost'v + constant, row_lower <= A v <= row_upper, lower <= v <= upper, cones.

    Attributes
    ----------
    cones : tables (top, rest...) with norm2(rest) <= top; `matrices` : semidefinite blocks.
    """

    cost: Vector
    square: Vector
    constant: float
    matrix: sparse.csr_array
    row_lower: Vector
    row_upper: Vector
    lower: Vector
    upper: Vector
    cones: tuple[Table, ...]
    matrices: tuple[tuple[int, Table], ...]

    @property
    def is_linear(self) -> bool:
        """Whether HiGHS can solve it as a linear program."""
        return not self.cones and not self.matrices and not np.any(self.square)

    @property
    def sizes(self) -> dict[str, int]:
        """Variables, rows and non-zeros."""
        return {
            "variables": self.cost.size,
            "rows": int(self.matrix.shape[0]) + sum(c.rows for c in self.cones) + sum(t.rows for _, t in self.matrices),
            "nonzeros": int(self.matrix.nnz) + sum(c.row.size for c in self.cones),
        }

    @cached_property
    def conic(self) -> tuple[sparse.csc_matrix, Vector, list[Cone]]:
        """(A, b, cones) of A v + s = b, s in K."""
        n = self.cost.size
        equal = self.row_lower == self.row_upper
        up = np.isfinite(self.row_upper) & ~equal
        down = np.isfinite(self.row_lower) & ~equal
        eye = sparse.eye_array(n, format="csr")
        has_up, has_low = np.isfinite(self.upper), np.isfinite(self.lower)
        blocks = [self.matrix[equal], self.matrix[up], -self.matrix[down], eye[has_up], -eye[has_low]]
        rhs = [
            self.row_lower[equal],
            self.row_upper[up],
            -self.row_lower[down],
            self.upper[has_up],
            -self.lower[has_low],
        ]
        cones = [Cone("zero", int(equal.sum())), Cone("nonnegative", sum(r.size for r in rhs[1:]))]
        for table in self.cones:
            block, shift = _rows(table, n)
            blocks.append(-block)
            rhs.append(shift)
            cones.append(Cone("second_order", table.rows))
        for order, table in self.matrices:
            block, shift = _rows(table, n)
            blocks.append(-block)
            rhs.append(shift)
            cones.append(Cone("psd", order))
        kept = [c for c in cones if c.rows]
        return sparse.csc_matrix(sparse.vstack(blocks, format="csc")), np.concatenate(rhs), kept


def _rows(table: Table, n: int) -> tuple[sparse.csr_array, Vector]:
    fixed = table.var == CONSTANT
    shift = np.zeros(table.rows)
    np.add.at(shift, table.row[fixed], table.val[fixed])
    triplets = (table.val[~fixed], (table.row[~fixed], table.var[~fixed]))
    return sparse.csr_array(sparse.coo_array(triplets, shape=(table.rows, n))), shift


@dataclass(frozen=True)
class ProgramSolution:
    """A checked optimum: `x` (n,), objective with its constant, CPU seconds of the solver call, the solver's name."""

    x: Vector
    objective: float
    seconds: float
    solver: str


def assemble(program: RobustProgram) -> ProgramData:
    """Sparse data of a program."""
    n, m = program.variables, program.rows
    cost, square = np.zeros(n), np.zeros(n)
    for index, values in program.cost:
        np.add.at(cost, index, values)
    for index, values in program.squares:
        np.add.at(square, index, 2.0 * values)
    row = np.concatenate([t[0] for t in program.triplets])
    var = np.concatenate([t[1] for t in program.triplets])
    val = np.concatenate([t[2] for t in program.triplets])
    return ProgramData(
        cost,
        square,
        program.cost_constant,
        sparse.csr_array(sparse.coo_array((val, (row, var)), shape=(m, n))),
        np.concatenate(program.row_lower),
        np.concatenate(program.row_upper),
        np.concatenate(program.lower),
        np.concatenate(program.upper),
        tuple(program.cones),
        tuple(program.matrices),
    )


def solve(data: ProgramData, solver: str = "auto", tolerance: float = 1e-8) -> ProgramSolution:
    """Solve once.

    Parameters
    ----------
    solver : "auto" (HiGHS for linear programs), "simplex", "ipm" (HiGHS interior point with crossover), "conic".

    Raises
    ------
    InfeasibleError, UnboundedError, NumericalError
        From the solver rooms, never an unchecked answer.
    ConfigError
        A linear solver was asked for a program with cones or squares.
    """
    chosen = ("simplex" if data.is_linear else "conic") if solver == "auto" else solver
    if chosen not in ("simplex", "ipm", "conic"):
        raise ConfigError(f"solver = {solver!r}; known: auto, simplex, ipm, conic")
    start = time.process_time()
    if chosen == "conic":
        matrix, rhs, cones = data.conic
        quadratic = sparse.diags_array(data.square, format="csc") if np.any(data.square) else None
        answer = ConicProgram(quadratic, data.cost, matrix, rhs, cones, tolerance).solve()
        x, objective = answer.x, answer.objective + data.constant
    else:
        if not data.is_linear:
            raise ConfigError(f"solver = {solver!r} takes linear programs only; this one has cones or squares")
        program = LinearProgram(
            data.cost,
            data.matrix,
            data.row_lower,
            data.row_upper,
            data.lower,
            data.upper,
            constant=data.constant,
            options={"solver": chosen},
        )
        linear = program.solve()
        x, objective = linear.x, linear.objective
    return ProgramSolution(
        x, objective, time.process_time() - start, "clarabel" if chosen == "conic" else f"highs-{chosen}"
    )
