"""The backup controller: the same problem with softened state constraints.

    min  cost(v) + sum_t ( rho_1 e_t + rho_2 e_t^2 )   s.t.  every state row of step t may be exceeded by e_t >= 0,
                                                             every input limit is kept

Only here are constraints soft: it runs when the promised sets can no longer hold (math.md 3.2), and says so.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import LocalPlan
from rmpc_ros.solvers.qp import ParametricQp

LINEAR_WEIGHT, QUADRATIC_WEIGHT = 1e3, 1e3  # per normalised unit: above any multiplier of the nominal cost's weights


class SoftBackup:
    """Softened twin of a `FixedFeedback` controller; shares its data."""

    def __init__(self, hard: FixedFeedback) -> None:
        self.hard = hard
        n, N, nx = hard.qp.n, hard.N, hard.model.nx
        m, rows = hard.qp.m, hard.qp.A.shape[0]
        state_rows = N * nx
        group = np.zeros((state_rows, N))
        group[np.arange(state_rows), np.arange(state_rows) // nx] = 1.0
        slack = np.vstack([group, np.zeros((rows - state_rows, N))])
        H = np.zeros((n + N, n + N))
        H[:n, :n] = hard.qp.H
        H[n:, n:] = 2 * QUADRATIC_WEIGHT * np.eye(N)
        A = np.vstack([np.hstack([hard.qp.A, -slack]), np.hstack([hard.qp.A[:state_rows], group])])
        f, upper, lower = np.split(np.arange(n + 2 * m), [n, n + m])
        data, data0 = hard.qp.data, hard.qp.data0
        q = data.shape[1]
        free = np.full(state_rows, 1e20)
        self.qp = ParametricQp(
            H,
            A,
            np.vstack(
                [
                    data[f],
                    np.zeros((N, q)),
                    data[upper[:n]],
                    np.zeros((N, q)),
                    data[upper[n:]],
                    np.zeros((state_rows, q)),
                    data[lower[:n]],
                    np.zeros((N, q)),
                    np.zeros((state_rows, q)),
                    data[lower[n + state_rows :]],
                    data[lower[n : n + state_rows]],
                ]
            ),
            np.concatenate(
                [
                    data0[f],
                    np.full(N, LINEAR_WEIGHT),
                    data0[upper[:n]],
                    np.full(N, 1e20),
                    data0[upper[n:]],
                    free,
                    data0[lower[:n]],
                    np.zeros(N),
                    -free,
                    data0[lower[n + state_rows :]],
                    data0[lower[n : n + state_rows]],
                ]
            ),
            tolerance=1e-5,
        )

    def solve(self) -> LocalPlan:
        """Solve for the data in force.

        Raises
        ------
        InfeasibleError, NumericalError
            Even the input limits cannot be kept.
        """
        self.qp.update(self.hard.data.p)
        solution = self.qp.solve()
        return self.hard.plan(solution.v[: self.hard.qp.n], solution.objective, solution.iterations)
