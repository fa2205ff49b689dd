"""Robust MPC with fixed feedback: tightened constraints around a nominal trajectory.

With u = K x + c and c = v(t) decided now, the deviation e = x - xbar obeys e+ = A e + G dzeta + w whatever v is, so
row'x(t) <= b for all members holds iff

    row'xbar(t) <= b - sum_{s<t} |row' A^{t-1-s} G| r(s) - sum_{tau<t} support_W(row' A^tau)          (math.md 2.1, 3.2)

The tightening is one matrix-vector product in the neighbours' half-widths r; what remains is a nominal QP in v.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.mpc.local import Cost, LocalModel, LocalPlan, Matrix, Prediction, StepData, Vector
from rmpc_ros.solvers.qp import DenseQp


class FixedFeedback:
    """Compiled problem of one agent; fill `data`, call `solve`.

    Parameters
    ----------
    model, cost, horizon : see `LocalModel`, `Cost`; N >= 1
    """

    form = "fixed"

    def __init__(self, model: LocalModel, cost: Cost, horizon: int) -> None:
        self.model, self.N = model, horizon
        self.prediction = pred = Prediction(model, horizon)
        self.data: StepData = pred.data
        nx, nu, N = model.nx, model.nu, horizon
        H, self._F = pred.quadratic(cost)
        self.qp = DenseQp(H, np.vstack([pred.x_v, pred.u_v]))
        # Rows: v(0..N-1), x(1..N), u(0..N-1). The first input sees the measured state itself: no tube.
        self._drive = np.vstack([np.zeros((N * nu, pred.x_d.shape[1])), pred.x_d, pred.u_d])
        x_spread = spread(pred, np.eye(nx))
        u_spread = np.vstack([np.zeros((nu, x_spread.shape[1])), spread(pred, model.K)[: (N - 1) * nu]])
        self._spread = np.vstack([np.zeros((N * nu, x_spread.shape[1])), x_spread, u_spread])
        own_upper, own_lower = (
            np.concatenate(
                [
                    np.zeros(N * nu),
                    own_tube(pred, sign * np.eye(nx)).ravel(),
                    np.zeros(nu),
                    own_tube(pred, sign * model.K)[: N - 1].ravel(),
                ]
            )
            for sign in (1.0, -1.0)
        )
        bounds = np.zeros(N * (nu + nx))
        self._upper = np.concatenate([bounds, np.tile(model.input_upper, N)]) - own_upper
        self._lower = np.concatenate([bounds, np.tile(model.input_lower, N)]) + own_lower
        self._x_rows = slice(N * nu, N * (nu + nx))
        self._x_own_upper, self._x_own_lower = own_upper[self._x_rows], own_lower[self._x_rows]
        self._no_memory, self._no_width = np.zeros((0, 0, nu, nx)), np.zeros((N, nu))

    def solve(self) -> LocalPlan:
        """Solve for the data in force.

        Raises
        ------
        InfeasibleError, NumericalError
        """
        self.qp.update(*self.sides())
        solution = self.qp.solve()
        return self.plan(solution.v, solution.rows[self._x_rows], solution.objective, solution.iterations)

    def sides(self) -> tuple[Vector, Vector, Vector]:
        """Linear cost, upper and lower sides of the QP for the data in force; refreshes nominal motion and tube."""
        data = self.data
        self._moved = self._drive @ data.drive
        self._widened = self._spread @ data.widths
        upper = data.upper + self._upper
        upper -= self._moved
        upper -= self._widened
        lower = data.lower + self._lower
        lower -= self._moved
        lower += self._widened
        return self._F @ data.known, upper, lower

    def plan(
        self, v: Vector, states: Vector | None = None, objective: float = np.nan, iterations: int = 0
    ) -> LocalPlan:
        """Plan and tube that follow from the stacked inputs v (N nu,) and the data of the last `sides`.

        `states` (N nx,) is what v adds to the states, where it is known already.
        """
        N, nx, rows = self.N, self.model.nx, self._x_rows
        x = np.empty((N + 1, nx))
        x[0] = self.data.x
        flat = x.reshape(-1)[nx:]
        np.add(self.prediction.x_v @ v if states is None else states, self._moved[rows], out=flat)
        widened = self._widened[rows]
        return LocalPlan(
            v.reshape(N, -1),
            self._no_memory,
            x,
            (widened + self._x_own_lower).reshape(N, nx),
            (widened + self._x_own_upper).reshape(N, nx),
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
