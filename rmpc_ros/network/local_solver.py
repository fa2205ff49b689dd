"""One agent's problem inside a distributed method: its own cost plus a quadratic pull on the shared numbers.

    min  f_i(v) + sum_k weight_k / 2 (c_k - target_k)^2,   c = the agent's copies of the announced sets' numbers.

Built once; an iteration changes the linear cost only. PIQP solves the linear-constrained programs (it reuses its
preconditioner), Clarabel those with cones. An agent sees nothing of the others but targets.
"""

from __future__ import annotations

import time

import numpy as np
from scipy import sparse

from rmpc_ros.network.affine_table import Integers, Vector
from rmpc_ros.network.design_local import AgentProgram
from rmpc_ros.solvers.conic import ConicProgram
from rmpc_ros.solvers.qp import SparseQp


class LocalSolver:
    """Agent i's warm problem.

    Attributes
    ----------
    index : its variables that are shared, in a fixed order
    x : its last solution (all variables)
    seconds : CPU time of the last solve, update and check included
    """

    def __init__(self, problem: AgentProgram, index: Integers, weights: Vector, tolerance: float = 1e-6) -> None:
        self.problem, self.index, self.tolerance = problem, index, tolerance
        self.x = np.zeros(problem.data.cost.size)
        self.seconds = 0.0
        self.set_weights(weights)

    def set_weights(self, weights: Vector) -> None:
        """New weights (penalties) per shared number; rebuilds the solver."""
        d = self.problem.data
        self.weights = weights
        square = d.square.copy()
        np.add.at(square, self.index, weights)
        if d.cones or d.matrices:
            matrix, rhs, cones = d.conic
            self._conic: ConicProgram | None = ConicProgram(
                sparse.diags_array(square, format="csc"), d.cost, matrix, rhs, cones, 1e-8
            )
            return
        self._conic = None
        equal = d.row_lower == d.row_upper
        self._qp = SparseQp(
            sparse.csc_matrix(sparse.diags_array(square, format="csc")),
            d.cost.copy(),
            sparse.csc_matrix(d.matrix[~equal]),
            d.row_lower[~equal],
            d.row_upper[~equal],
            d.lower,
            d.upper,
            sparse.csc_matrix(d.matrix[equal]),
            d.row_lower[equal],
            self.tolerance,
            condense_equalities=True,
        )

    def solve(self, targets: Vector) -> Vector:
        """Minimise with the pull towards `targets`; returns the new copies.

        Raises
        ------
        InfeasibleError, NumericalError
            The agent's own constraints contradict each other, or the solver's answer failed its check.
        """
        start = time.thread_time()
        cost = self.problem.data.cost.copy()
        np.add.at(cost, self.index, -self.weights * targets)
        if self._conic is not None:
            self._conic.update(cost=cost)
            self.x = self._conic.solve().x
        else:
            self._qp.update(c=cost)
            self.x = self._qp.solve().v
        self.seconds = time.thread_time() - start
        copies: Vector = self.x[self.index]
        return copies

    @property
    def cost(self) -> float:
        """The agent's own cost f_i at its last solution."""
        d = self.problem.data
        return float(d.cost @ self.x + 0.5 * self.x @ (d.square * self.x) + d.constant)
