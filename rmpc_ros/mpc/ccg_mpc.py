"""Predictive control under a union of disturbance sets, by column-and-constraint generation in every step.

    min_{c(0)} max_{v in U} min_{c(1..N-1)} sum_t |Q (x(t) - x_ref)|_1 + |R (u(t) - u_ref)|_1

over  x(t+1) = A x(t) + B c(t) + G zeta(t) + w(t) + E v(t),  u(t) = K x(t) + c(t)  (`local.py`), with the agent's
promise x(t) in [x_lower, x_upper], its promised deviations c(t) and the input limits. v(t), say a bimodal feed, lies in
a union of polytopes, independent over the steps: K^N subsets in one mixed-integer program per iteration. All other
uncertainty (w, the neighbours' half-widths) tightens the rows by its support under the backup law K.

c(0) is decided now: rows that c(1..) cannot touch (x(1), u(0), c(0)) hold for every v. The recourse sees all of v,
which no controller can, so rows for t >= 2 say that the promise can be kept by somebody who knows the future, not that
this agent will keep it: apply c(0) only, and let the stored candidate stand behind it (math.md 3.1).
Source: seed 001 sections 3.1 and 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import SetError
from rmpc_ros.mpc.local import LocalModel, Prediction, StepData
from rmpc_ros.robust.ccg import ColumnConstraintGeneration
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.two_stage import TwoStageProblem

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

DUST = 1e-9  # of the largest entry; below every tolerance in use


@dataclass(frozen=True)
class UnionPlan:
    """What one step decided.

    Attributes
    ----------
    c : (nu,) deviation from the backup law now
    u : (nu,) input now, K x + c
    objective : proven worst-case cost
    gap : proven relative gap
    worst : (N, k) worst disturbance, subsets : its subset in each step
    iterations, subproblems : of the loop
    """

    c: Vector
    u: Vector
    objective: float
    gap: float
    worst: Matrix
    subsets: tuple[int, ...]
    iterations: int
    subproblems: int


class UnionController:
    """The problem built once; `solve` takes the data of a step and keeps the scenarios of the last (warm start).

    Parameters
    ----------
    model : local model; its `disturbances` are those besides v
    E : (nx, k) how v enters
    union : union of polytopes in R^k for one step
    horizon : N
    Q, R : (nx,), (nu,) non-negative weights of the 1-norms
    gap : relative gap of each solution

    Raises
    ------
    SetError
        The union does not fit E.
    """

    def __init__(
        self, model: LocalModel, E: Matrix, union: PolytopeUnion, horizon: int, Q: Vector, R: Vector, gap: float = 1e-4
    ) -> None:
        if union.steps != 1 or E.shape != (model.nx, union.dim):
            raise SetError(f"E has shape {E.shape}, wanted {(model.nx, union.dim)}; the union has {union.steps} steps")
        self.model, self.N = model, horizon
        self.prediction = Prediction(model, horizon)
        self.union = PolytopeUnion(union.polytopes, horizon)
        nx, nu, N = model.nx, model.nu, horizon
        self._x_w = np.zeros((N, nx, N, nx))  # x(t+1) by w(s)
        for t in range(N):
            for s in range(t + 1):
                self._x_w[t, :, s] = self.prediction.powers[t - s]
        before = np.zeros((N, nx, N, nx))
        before[1:] = self._x_w[:-1]
        self._u_w = np.einsum("ij,tjsk->tisk", model.K, before)
        self._rows_w = np.concatenate([self._x_w.reshape(N * nx, N, nx), self._u_w.reshape(N * nu, N, nx)])
        self._noise = sum(
            (
                np.stack([model.disturbance_support(sign * self._rows_w[:, s]) for sign in (1.0, -1.0)])
                for s in range(N)
            ),
            np.zeros((2, N * (nx + nu))),
        )
        self._spread = np.abs(self._rows_w @ model.G).reshape(N * (nx + nu), -1)  # by the neighbours' half-widths
        by_c = _without_dust(np.vstack([self.prediction.x_v, self.prediction.u_v]))
        by_v = _without_dust((self._rows_w @ E).reshape(N * (nx + nu), -1))
        limits = N * (nx + nu)
        costs = np.diag(np.concatenate([np.tile(Q, N), np.tile(R, N)]))
        above = -np.eye(limits)
        none = np.zeros((limits, limits))
        self._weights = np.diag(costs)
        rows_c = np.vstack([by_c, -by_c, costs @ by_c, -costs @ by_c])
        self._problem = TwoStageProblem(
            c=np.zeros(nu),
            b=np.concatenate([np.zeros((N - 1) * nu), np.ones(limits)]),
            T=rows_c[:, :nu],
            W=np.hstack([rows_c[:, nu:], np.vstack([none, none, above, above])]),
            M=np.vstack([by_v, -by_v, costs @ by_v, -costs @ by_v]),
            h=np.zeros(4 * limits),
            recourse_lower=np.concatenate([np.full((N - 1) * nu, -np.inf), np.zeros(limits)]),
            row_names=self._names(nx, nu),
        )
        self._solver: ColumnConstraintGeneration | None = None
        self._limits = np.zeros(0)
        self._gap = gap

    @property
    def data(self) -> StepData:
        """The data of the step; fill in place, then `solve`."""
        return self.prediction.data

    def problem(self) -> TwoStageProblem:
        """The two-stage problem of the data in force (for other schemes: `solve_two_stage`)."""
        model, d, N = self.model, self.data, self.N
        center = np.concatenate([self.prediction.x_d @ d.drive, self.prediction.u_d @ d.drive])
        wide = self._spread @ d.widths
        high = np.concatenate([d.x_upper.ravel(), np.tile(model.input_upper, N)])
        low = np.concatenate([d.x_lower.ravel(), np.tile(model.input_lower, N)])
        target = np.concatenate([np.tile(d.x_ref, N), np.tile(d.u_ref, N)])
        off = self._weights * (target - center)
        upper = np.concatenate([high - center - wide - self._noise[0], center - wide - self._noise[1] - low, off, -off])
        recourse_low, recourse_high = np.array(self._problem.recourse_lower), np.array(self._problem.recourse_upper)
        free = (N - 1) * model.nu
        recourse_low[:free], recourse_high[:free] = d.c_lower[1:].ravel(), d.c_upper[1:].ravel()
        return replace(
            self._problem,
            h=upper,
            lower=d.c_lower[0],
            upper=d.c_upper[0],
            recourse_lower=recourse_low,
            recourse_upper=recourse_high,
        )

    def solve(self) -> UnionPlan:
        """Decide for the data in force.

        Raises
        ------
        InfeasibleError
            No c(0) keeps promise and limits; the error names rows and scenarios. The caller follows its candidate.
        UnboundedError, NumericalError
        """
        problem = self.problem()
        limits = np.concatenate([problem.recourse_lower, problem.recourse_upper])
        if self._solver is None or not np.array_equal(limits, self._limits):  # they enter the compiled search
            self._limits = limits
            scenarios = [] if self._solver is None else self._solver.scenarios
            self._solver = ColumnConstraintGeneration(problem, self.union, gap=self._gap)
            result = self._solver.solve(scenarios)
        else:
            self._solver.update(problem)
            result = self._solver.solve()
        c = result.x
        return UnionPlan(
            c=c,
            u=self.model.K @ self.data.x + c,
            objective=result.objective,
            gap=result.gap,
            worst=result.worst.reshape(self.N, -1),
            subsets=result.worst_subset,
            iterations=result.iterations,
            subproblems=result.subproblems,
        )

    def _names(self, nx: int, nu: int) -> list[str]:
        what = [f"x[{i}]({t})" for t in range(1, self.N + 1) for i in range(nx)]
        what += [f"u[{i}]({t})" for t in range(self.N) for i in range(nu)]
        return [f"{side} of {name}" for side in ("upper limit", "lower limit", "cost", "cost") for name in what]


def _without_dust(matrix: Matrix) -> Matrix:
    """Entries that are rounding errors set to zero: they say nothing and spoil the scaling of the programs."""
    return np.where(np.abs(matrix) < DUST * np.max(np.abs(matrix), initial=0.0), 0.0, matrix)
