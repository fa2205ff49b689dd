"""The backup controller: the same problem with softened state constraints.

    min  cost(v) + sum_t ( rho_1 e_t + rho_2 e_t^2 )   s.t.  every state row of step t may be exceeded by e_t >= 0,
                                                             every input limit is kept

Only here are constraints soft: it runs when the promised sets can no longer hold (math.md 3.2), and says so.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import LocalPlan
from rmpc_ros.solvers.qp import DenseQp

FREE = 1e20  # no bound, as DAQP writes it
LINEAR_WEIGHT, QUADRATIC_WEIGHT = 1e3, 1e3  # per normalised unit: above any multiplier of the nominal cost's weights


class SoftBackup:
    """Softened twin of a `FixedFeedback` controller; shares its data."""

    def __init__(self, hard: FixedFeedback) -> None:
        self.hard = hard
        n, N, nx = hard.qp.n, hard.N, hard.model.nx
        rows = hard.qp.A.shape[0]
        self._states = N * nx
        group = np.kron(np.eye(N), np.ones((nx, 1)))
        slack = np.vstack([group, np.zeros((rows - self._states, N))])
        H = np.zeros((n + N, n + N))
        H[:n, :n] = hard.qp.H
        H[n:, n:] = 2 * QUADRATIC_WEIGHT * np.eye(N)
        A = np.vstack([np.hstack([hard.qp.A, -slack]), np.hstack([hard.qp.A[: self._states], group])])
        self.qp = DenseQp(H, A, tolerance=1e-5)

    def solve(self) -> LocalPlan:
        """Solve for the data in force.

        Raises
        ------
        InfeasibleError, NumericalError
            Even the input limits cannot be kept.
        """
        n, N, states = self.hard.qp.n, self.hard.N, self._states
        f, upper, lower = self.hard.sides()
        free = np.full(states, FREE)
        self.qp.update(
            np.concatenate([f, np.full(N, LINEAR_WEIGHT)]),
            np.concatenate([upper[:n], np.full(N, FREE), upper[n:], free]),
            np.concatenate([lower[:n], np.zeros(N), -free, lower[n + states :], lower[n : n + states]]),
        )
        solution = self.qp.solve()
        return self.hard.plan(solution.v[:n], None, solution.objective, solution.iterations)
