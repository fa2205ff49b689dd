"""Robust MPC with fixed feedback: tightened constraints around a nominal trajectory.

With u = K x + c and c = v(t) decided now, the deviation e = x - xbar obeys e+ = A e + G dzeta + w whatever v is, so
row'x(t) <= b for all members holds iff

    row'xbar(t) <= b - sum_{s<t} |row' A^{t-1-s} G| r(s) - sum_{tau<t} support_W(row' A^tau)          (math.md 2.1, 3.2)

The tightening is one matrix-vector product in the neighbours' half-widths r; what remains is a nominal QP in v.
W enters through its support in the directions row' A^tau alone, so that another set is a change of numbers (`tighten`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rmpc_ros.mpc.local import Cost, LocalModel, LocalPlan, Matrix, Prediction, StepData, Vector
from rmpc_ros.solvers.qp import DenseQp


class FixedFeedback:
    """Compiled problem of one agent; fill `data`, call `solve`.

    Parameters
    ----------
    model, cost, horizon : see `LocalModel`, `Cost`; N >= 1

    Attributes
    ----------
    directions : (N, nx+nu, nx) the rows of x and of u = K x times A^tau, tau = 0..N-1: where the tube asks for supports
    terminal_weight : factor of the cost's P in force
    """

    form = "fixed"

    def __init__(self, model: LocalModel, cost: Cost, horizon: int) -> None:
        self.model, self.N = model, horizon
        self.prediction = pred = Prediction(model, horizon)
        self.data: StepData = pred.data
        nx, nu, N = model.nx, model.nu, horizon
        self._cost, self.terminal_weight = cost, 1.0
        self._quadratics = {1.0: self._quadratic(1.0)}
        H, self._F, self._to_cost = self._quadratics[1.0]
        self.qp = DenseQp(H, np.vstack([pred.x_v, pred.u_v]))
        # Rows: v(0..N-1), x(1..N), u(0..N-1). The first input sees the measured state itself: no tube.
        self._drive = np.vstack([np.zeros((N * nu, pred.x_d.shape[1])), pred.x_d, pred.u_d])
        x_spread = spread(pred, np.eye(nx))
        u_spread = np.vstack([np.zeros((nu, x_spread.shape[1])), spread(pred, model.K)[: (N - 1) * nu]])
        self._spread = np.vstack([np.zeros((N * nu, x_spread.shape[1])), x_spread, u_spread])
        self.directions = np.concatenate([pred.powers[:-1], model.K @ pred.powers[:-1]], axis=1)
        self._x_rows = slice(N * nu, N * (nu + nx))
        self._upper, self._lower = np.zeros(N * (2 * nu + nx)), np.zeros(N * (2 * nu + nx))
        self.tighten(*self.supports(model.disturbance_support))
        self._no_memory, self._no_width = np.zeros((0, 0, nu, nx)), np.zeros((N, nu))

    def supports(self, support: Callable[[Matrix], Vector]) -> tuple[Matrix, Matrix]:
        """Support (N, nx+nu) of w, and of -w, along the rows of x and of u = K x after tau = 0..N-1 further steps.

        Parameters
        ----------
        support : support function of a set of w (normalised), rows (m, nx) -> (m,)
        """
        rows = self.directions.reshape(-1, self.model.nx)
        shape = self.directions.shape[:2]
        return support(rows).reshape(shape), support(-rows).reshape(shape)

    def tighten(self, upper: Matrix, lower: Matrix, center: Vector | None = None) -> None:
        """Reckon with another set of the own disturbance from now on; data, not structure: the QP stays compiled.

        Parameters
        ----------
        upper, lower : (N, nx+nu) as `supports` gives them
        center : (nx,) what the nominal motion reckons with in every step; the tube is about it. Default 0
        """
        N, nx, nu = self.N, self.model.nx, self.model.nu
        along = self.directions @ (np.zeros(nx) if center is None else center)

        def summed(steps: Matrix) -> Vector:
            """Sums over tau < t as the rows of the problem want them; the first input sees the measured state."""
            total = np.cumsum(steps, axis=0)
            return np.concatenate([np.zeros(N * nu), total[:, :nx].ravel(), np.zeros(nu), total[:-1, nx:].ravel()])

        own_upper, own_lower, self._offset = summed(upper - along), summed(lower + along), summed(along)
        bounds = np.zeros(N * (nu + nx))
        self._upper[:] = np.concatenate([bounds, np.tile(self.model.input_upper, N)]) - own_upper
        self._lower[:] = np.concatenate([bounds, np.tile(self.model.input_lower, N)]) + own_lower
        self._x_own_upper, self._x_own_lower = own_upper[self._x_rows], own_lower[self._x_rows]
        self._offset_cost = self._to_cost @ self._offset[N * nu :]

    def weigh_terminal(self, factor: float) -> None:
        """Plan with `factor` times the terminal weight P from now on; 1 is the design's.

        The cost alone changes: rows, tubes and with them everything that is promised stay as they are. The quadratic is
        put together here, not in `solve`, and DAQP goes on from the last active set.

        Raises
        ------
        NumericalError
            The weighed problem cannot be factorised. The factor in force stays.
        """
        if factor == self.terminal_weight:
            return
        built = self._quadratics[factor] if factor in self._quadratics else self._quadratic(factor)
        H, F, to_cost = built
        self.qp.reweigh(H)
        if factor != 1.0:  # kept: the design's and the newest, between which an agent on the ladder goes to and fro
            self._quadratics = {1.0: self._quadratics[1.0], factor: built}
        self._F, self._to_cost, self.terminal_weight = F, to_cost, factor
        self._offset_cost = to_cost @ self.offset

    def _quadratic(self, factor: float) -> tuple[Matrix, Matrix, Matrix]:
        """H, and the linear cost per known datum and per offset, with `factor` times the terminal weight."""
        cost = replace(self._cost, P=factor * self._cost.P)
        return *self.prediction.quadratic(cost), self.prediction.offset_cost(cost)

    def solve(self) -> LocalPlan:
        """Solve for the data in force.

        Raises
        ------
        InfeasibleError, NumericalError
        """
        self.qp.update(*self.sides())
        solution = self.qp.solve()
        return self.plan(solution.v, solution.rows[self._x_rows], solution.objective, solution.iterations)

    @property
    def offset(self) -> Vector:
        """What the centre of the disturbance set moves: x(1..N), then u(0..N-1), (N nx + N nu,)."""
        return self._offset[self.N * self.model.nu :]

    def follow(self, aim: Matrix) -> LocalPlan:
        """The plan that keeps all rows and comes closest to wanted inputs (N, nu), in the metric of the own cost.

        Raises
        ------
        InfeasibleError, NumericalError
        """
        _, upper, lower = self.sides()
        self.qp.update(-(self.qp.H @ aim.ravel()), upper, lower)
        solution = self.qp.solve()
        return self.plan(solution.v, solution.rows[self._x_rows], solution.objective, solution.iterations)

    def sides(self) -> tuple[Vector, Vector, Vector]:
        """Linear cost, upper and lower sides of the QP for the data in force; refreshes nominal motion and tube."""
        data = self.data
        self._moved = self._drive @ data.drive + self._offset
        self._widened = self._spread @ data.widths
        upper = data.upper + self._upper
        upper -= self._moved
        upper -= self._widened
        lower = data.lower + self._lower
        lower -= self._moved
        lower += self._widened
        return self._F @ data.known + self._offset_cost + data.toll, upper, lower

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
