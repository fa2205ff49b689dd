"""Two rates: a tightened nominal problem every period, its feedback re-optimised in the background.

    c(t) = v(t) + sum_{s<t} M(t-s) w(s)

For a held Toeplitz feedback M the tubes are numbers, so every period solves a QP of nominal size in v alone
(`HeldFeedback`). Meanwhile `AffineFeedback` looks for a better M on a copy of the data. What it finds is swapped in
only when certified on the data in force at that moment: the tightened problem with the new M is solved, checked, and
costs no more than with the old one. Otherwise the old M stays, and that is counted. Past disturbances are already in
the measured state, so v is free of M's memory: changing M needs no transition.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from rmpc_ros.errors import SolverError
from rmpc_ros.mpc.feedback import AffineFeedback
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import Cost, LocalModel, LocalPlan, Matrix, StepData, Vector


class HeldFeedback(FixedFeedback):
    """Tightened nominal problem around a feedback M on the disturbances, (N, N, nu, nx) strictly causal.

    Rows, data and cost are those of `FixedFeedback` (M = 0); `hold` replaces the tubes.
    """

    def __init__(self, model: LocalModel, cost: Cost, horizon: int) -> None:
        super().__init__(model, cost, horizon)
        self.hold(np.zeros((horizon, horizon, model.nu, model.nx)))

    def hold(self, M: Matrix) -> None:
        """Use the feedback M from now on.

        Raises
        ------
        ValueError
            Wrong shape, a value that is not finite, or reaction to the present or future.
        """
        model, N = self.model, self.N
        nx, nu = model.nx, model.nu
        if M.shape != (N, N, nu, nx) or not np.all(np.isfinite(M)):
            raise ValueError(f"feedback of shape {M.shape}, finite: {np.all(np.isfinite(M))}; wanted {(N, N, nu, nx)}")
        if any(np.any(M[t, t:]) for t in range(N)):
            raise ValueError("the feedback is not strictly causal")
        X = np.zeros((N + 1, N, nx, nx))
        for t in range(N):
            X[t + 1] = model.A @ X[t] + model.B @ M[t]
            X[t + 1, t] = np.eye(nx)
        c, x, u = M, X[1:], model.K @ X[:-1] + M
        self._spread = np.vstack([self._response(part) for part in (c, x, u)])
        own_upper, own_lower = (
            np.concatenate([self._own(sign * part).ravel() for part in (c, x, u)]) for sign in (1.0, -1.0)
        )
        bounds = np.zeros(N * (nu + nx))
        self._upper = np.concatenate([bounds, np.tile(model.input_upper, N)]) - own_upper
        self._lower = np.concatenate([bounds, np.tile(model.input_lower, N)]) + own_lower
        self._x_own_upper, self._x_own_lower = own_upper[self._x_rows], own_lower[self._x_rows]
        self._c_own = np.maximum(own_upper, own_lower)[: N * nu]
        self.M = M

    def _response(self, part: Matrix) -> Matrix:
        """(N m, N ng): half-widths of rows part[t, s] w(s), summed over s, per half-width of the neighbours."""
        through = np.abs(part @ self.model.G)
        return np.asarray(np.swapaxes(through, 1, 2).reshape(self.N * part.shape[2], self.N * self.model.ng))

    def _own(self, part: Matrix) -> Matrix:
        """(N, m): support of the same rows over the own disturbances."""
        N, m, nx = self.N, part.shape[2], self.model.nx
        support = self.model.disturbance_support(part.reshape(-1, nx)).reshape(N, N, m)
        return np.asarray(support.sum(axis=1))

    def plan(
        self, v: Vector, states: Vector | None = None, objective: float = np.nan, iterations: int = 0
    ) -> LocalPlan:
        """Plan of `FixedFeedback` with the feedback in force and its width."""
        plan = super().plan(v, states, objective, iterations)
        width = (self._widened[: self._c_own.size] + self._c_own).reshape(self.N, -1)
        return LocalPlan(plan.v, self.M, plan.x, plan.tube_lower, plan.tube_upper, width, objective, iterations)


class TwoRateController:
    """Fast nominal problem, slow feedback; the interface of the other controllers (`data`, `solve`).

    Parameters
    ----------
    model, cost, horizon : see `LocalModel`, `Cost`
    worse : largest accepted increase of the nominal cost by a swap, relative to 1 + cost

    Attributes
    ----------
    swapped, refused : how many feedbacks were swapped in, and how many were found but not certified or not found
    """

    form = "two_rate"

    def __init__(self, model: LocalModel, cost: Cost, horizon: int, worse: float = 1e-6) -> None:
        self.model, self.N, self._worse = model, horizon, worse
        self._now, self._trial = HeldFeedback(model, cost, horizon), HeldFeedback(model, cost, horizon)
        self._slow = AffineFeedback(model, cost, horizon, toeplitz=True)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feedback")
        self._search: Future[LocalPlan] | None = None
        self.swapped = self.refused = 0

    @property
    def data(self) -> StepData:
        """Data of the step, filled in place."""
        return self._now.data

    @property
    def feedback(self) -> Matrix:
        """The feedback in force, (N, N, nu, nx)."""
        return self._now.M

    def solve(self) -> LocalPlan:
        """One period: take over a finished search if certified, start the next one, solve the nominal problem.

        Raises
        ------
        InfeasibleError, NumericalError
            Of the nominal problem with the feedback in force.
        """
        if self._search is not None and self._search.done():
            self._take_over(self._search)
            self._search = None
        if self._search is None:
            self._slow.data.copy_from(self.data)
            self._search = self._worker.submit(self._slow.solve)
        return self._now.solve()

    def _take_over(self, search: Future[LocalPlan]) -> None:
        try:
            found = search.result()
            self._trial.data.copy_from(self.data)
            self._trial.hold(found.M)
            new = self._trial.solve().objective
        except SolverError:
            self.refused += 1
            return
        try:
            old = self._now.solve().objective
        except SolverError:
            old = np.inf  # the feedback in force has no solution here: anything certified is better
        if new <= old + self._worse * (1 + abs(old)):
            self._trial, self._now = self._now, self._trial
            self.swapped += 1
        else:
            self.refused += 1

    def wait(self) -> None:
        """Block until the running search has ended (tests and shutdown; a control loop never waits)."""
        if self._search is not None:
            self._search.exception()

    def close(self) -> None:
        """End the background thread."""
        self._worker.shutdown(wait=True, cancel_futures=True)
