"""Robust MPC with fixed feedback: tightened constraints around a nominal trajectory.

With u = K x + c and c = v(t) decided now, the deviation e = x - xbar obeys e+ = A e + G dzeta + w whatever v is, so
row'x(t) <= b for all members holds iff

    row'xbar(t) <= b - sum_{s<t} |row' A^{t-1-s} G| r(s) - sum_{tau<t} support_W(row' A^tau)          (math.md 2.1, 3.2)

The tightening is one matrix-vector product in the neighbours' half-widths r; what remains is a nominal QP in v.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.mpc.local import Cost, LocalModel, LocalPlan, Matrix, Prediction, StepData, Vector
from rmpc_ros.solvers.qp import ParametricQp


class FixedFeedback:
    """Compiled problem of one agent; fill `data`, call `solve`.

    Parameters
    ----------
    model, cost, horizon : see `LocalModel`, `Cost`; N >= 1
    """

    form = "fixed"

    def __init__(self, model: LocalModel, cost: Cost, horizon: int) -> None:
        self.model, self.N = model, horizon
        self.prediction = Prediction(model, horizon)
        self.data: StepData = self.prediction.data
        nx, nu, N = model.nx, model.nu, horizon
        self._spread = spread(self.prediction, np.eye(nx))
        own_upper = own_tube(self.prediction, np.eye(nx))
        own_lower = own_tube(self.prediction, -np.eye(nx))
        self._own = np.concatenate([own_upper.ravel(), own_lower.ravel()])

        # Sides of the QP, affine in p: simple bounds on v, then rows for x(1..N), then rows for u(1..N-1).
        p, part, pred = self.data.p.size, self.data.slices, self.prediction
        select = np.eye(p)
        x_spread, u_spread = np.zeros((N * nx, p)), np.zeros((N * nu, p))
        x_spread[:, part["radius"]] = self._spread
        u_rows = spread(self.prediction, model.K)[: (N - 1) * nu]  # K x(t), t = 1..N-1; u(0) is K x + v(0) exactly
        u_spread[nu:, part["radius"]] = u_rows
        u_own_upper = np.concatenate([np.zeros(nu), own_tube(pred, model.K)[: N - 1].ravel()])
        u_own_lower = np.concatenate([np.zeros(nu), own_tube(pred, -model.K)[: N - 1].ravel()])
        H, F = pred.quadratic(cost)
        data = np.vstack(
            [
                F,
                select[part["c_upper"]],
                select[part["x_upper"]] - x_spread - pred.x_p,
                -u_spread - pred.u_p,
                select[part["c_lower"]],
                select[part["x_lower"]] + x_spread - pred.x_p,
                u_spread - pred.u_p,
            ]
        )
        zeros = np.zeros(N * nu)
        data0 = np.concatenate(
            [
                zeros,
                zeros,
                -own_upper.ravel(),
                np.tile(model.input_upper, N) - u_own_upper,
                zeros,
                own_lower.ravel(),
                np.tile(model.input_lower, N) + u_own_lower,
            ]
        )
        self.qp = ParametricQp(H, np.vstack([pred.x_v, pred.u_v]), data, data0)
        self._no_memory = np.zeros((0, 0, nu, nx))
        self._no_width = np.zeros((N, nu))

    def solve(self) -> LocalPlan:
        """Solve for the data in force.

        Raises
        ------
        InfeasibleError, NumericalError
        """
        self.qp.update(self.data.p)
        solution = self.qp.solve()
        return self.plan(solution.v, solution.objective, solution.iterations)

    def plan(self, v: Vector, objective: float = np.nan, iterations: int = 0) -> LocalPlan:
        """Plan and tube that follow from the stacked inputs v (N nu,) with the data in force."""
        N, nx = self.N, self.model.nx
        neighbours = self._spread @ self.data.radius.ravel()
        own = self._own
        return LocalPlan(
            v.reshape(N, -1),
            self._no_memory,
            self.prediction.nominal(v),
            (own[N * nx :] + neighbours).reshape(N, nx),
            (own[: N * nx] + neighbours).reshape(N, nx),
            self._no_width,
            objective,
            iterations,
        )


def spread(prediction: Prediction, rows: Matrix) -> Matrix:
    """Matrix (N m, N ng) that maps the half-widths r(0..N-1) to the half-widths of rows @ x(t), t = 1..N."""
    N, ng = prediction.N, prediction.model.ng
    through: Matrix = np.einsum("mi,tisg->tmsg", rows, prediction.from_zeta)
    return np.abs(through).reshape(N * len(rows), N * ng)


def own_tube(prediction: Prediction, rows: Matrix) -> Matrix:
    """Support (N, m) of rows @ x(t), t = 1..N, over the own disturbances: sum over tau < t of support_W(rows A^tau)."""
    steps = np.array([prediction.model.disturbance_support(rows @ power) for power in prediction.powers[:-1]])
    return np.cumsum(steps, axis=0)
