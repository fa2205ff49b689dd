"""One user of a shared resource: what it wishes at a price, what it gives away, and what limits its input.

Its wish comes from its own robust problem, without its share but with its input's limits,

    c = argmin_q  f(q) + rho/2 |q - target|^2,     q(t) = largest use at t of the plan and its tube,

f(q) the best own cost with that use. Prices l and targets are those of exchange ADMM (`dual_decomposition`): every user
computes them alike from everybody's wishes, one iteration per step. A statement of step k is used at k + DELAY, so that
everybody has it, and iterations of DELAY interleaved sequences run side by side.

The agent's own plan pays these prices too, so it comes to use what it wishes for and no more.

What counts are shares. A user gives what it has beyond its target and beyond what its committed plan may use, for steps
that are DELAY away, to who has less than its target. Targets come from `safe_shares`: nobody's wish, however large,
moves a target below a guaranteed part. A user that is silent, or has been caught lying (`accusations`), gets nothing
and gives nothing: in everybody's reckoning it wishes for what it has.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import PromiseError, SolverError
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import Matrix, Vector
from rmpc_ros.network.accusations import Accusations
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.dual_decomposition import safe_shares
from rmpc_ros.network.shared_resource import DELAY, Book, ResourceDesign, Statement
from rmpc_ros.solvers.qp import DenseQp

SILENT = 5  # steps without a statement after which a user's wish is what it has


class UseProblem:
    """An agent's wish for a resource: the participant of `dual_decomposition.share_resource`.

    Parameters
    ----------
    design, fixed : of the agent; `fixed` gives the structure
    resource, index : which input draws, and how much
    """

    def __init__(self, design: AgentDesign, fixed: FixedFeedback, resource: ResourceDesign, index: int) -> None:
        N, nu = fixed.N, design.nu
        n = resource.inputs[index]
        self._unit = resource.weights[index] * design.scale[design.nx + n]
        self._steady = resource.weights[index] * design.steady_input[n]
        self._limit = design.model.input_upper[n]
        self._scale, self._rho = resource.scale, resource.rho
        self._through = fixed.prediction.u_v[n::nu] * self._unit  # (N, N nu): use per nominal deviation
        H = fixed.qp.H + self._rho / self._scale**2 * self._through.T @ self._through
        self._u_rows = np.arange(N * (nu + design.nx) + n, N * (2 * nu + design.nx), nu)
        self._qp = DenseQp(H, fixed.qp.A)
        self._most = resource.most[index]

    def begin(self, fixed: FixedFeedback) -> None:
        """Take over the data of a step."""
        f, upper, self._lower = fixed.sides()
        self._f = f - fixed.data.toll  # here prices enter by the exchange
        self._upper = upper.copy()
        self._upper[self._u_rows] -= fixed.data.upper[self._u_rows]  # without the share
        # Row and tube: K xbar + v + tube <= limit, so the use beyond `through v` is limit - side.
        self._base = self._steady + self._unit * (self._limit - self._upper[self._u_rows])

    def solve(self, targets: Vector) -> Vector:
        """Wish (N,) for targets (N,), in the resource's unit.

        Raises
        ------
        InfeasibleError, NumericalError
        """
        pull: Vector = self._rho / self._scale**2 * (self._base - targets) @ self._through
        self._qp.update(self._f + pull, self._upper, self._lower)
        return np.asarray(np.minimum(self.use(self._qp.solve().v), self._most), float)

    def toll(self, prices: Vector) -> Vector:
        """Linear cost (N nu,) of the nominal deviations at prices (N,)."""
        return np.asarray(prices @ self._through)

    def use(self, v: Vector) -> Vector:
        """Largest use (N,) of the nominal deviations (N nu,) and their tube."""
        return np.asarray(self._base + self._through @ v, float)


class ResourceUser:
    """One agent's dealings with one resource.

    Parameters
    ----------
    design, fixed : of the agent
    resource : design of the resource
    lie : for tests of the others: "greedy" wishes for twice what it can use, "silent" stops answering after ten
        steps, "overdraw" ignores its share, "counterfeit" gives what it has not

    Attributes
    ----------
    book : what has been given, as far as heard
    prices : (N,) newest, cost per unit
    accused : whom this user has caught
    failed : wishes that could not be computed
    """

    def __init__(self, design: AgentDesign, fixed: FixedFeedback, resource: ResourceDesign, lie: str = "") -> None:
        self.design, self.resource, self._lie = design, resource, lie
        self.index = resource.users.index(design.name)
        self.horizon = fixed.N
        self.book = Book(resource, self.horizon)
        self.problem = UseProblem(design, fixed, resource, self.index)
        self.accused = Accusations()
        self.failed = 0
        self.prices, self._priced = np.zeros(self.horizon), 0
        m = len(resource.users)
        self._past: dict[int, dict[str, Statement]] = {}  # by step, everybody's and one's own
        # Slack of the exchange per sequence, with the step of its first column.
        self._slack = [(0, np.full(self.horizon, resource.capacity / (m + 1))) for _ in range(DELAY)]
        self._last_heard = dict.fromkeys(resource.users, 0)
        self._trusted: list[bool] = []  # who took part in the step before
        self._anew = -DELAY  # step at which prices began anew
        self._quiet = 0  # first step at which this user takes part

    def rejoin(self, step: int) -> None:
        """Begin at a step without knowing what was given before.

        Until the horizon has passed it lives on the guaranteed part, which is all the backup law needs, and is silent.
        """
        self._quiet = step + self.horizon

    # -- before the decision ------------------------------------------------------------------------------------------
    def hear(self, said: Statement) -> None:
        """Another user's statement. A lie is remembered under its name and not used.

        Raises
        ------
        PromiseError
            See `Book.check`.
        """
        try:
            claimed = said.taken[self.index]
            here, there = self.book.columns(said)
            gave = self.book.given[self.index, self.resource.users.index(said.agent), here]
            if np.any(claimed[there] > gave + 1e-6 * self.resource.capacity):
                raise PromiseError(f"'{said.agent}' says it has taken {self.resource.name} that was never given to it")
            self.book.hear(said)
        except PromiseError as error:
            self.accused.name(said.agent, self.book.step, str(error))
            raise
        self._past.setdefault(said.step, {})[said.agent] = said
        self._last_heard[said.agent] = max(said.step, self._last_heard[said.agent])

    def limit(self, step: int) -> Vector:
        """Share in force (N,) for step .. step+N-1, in the resource's unit."""
        self.book.advance(step)
        self.accused.advance(step)
        for agent in self.book.unproven:
            self.accused.name(agent, step, f"'{agent}' rests on gifts of {self.resource.name} that nobody has made")
        if step < self._quiet:
            return np.full(self.horizon, self.resource.guaranteed[self.index])
        return np.asarray(self.book.shares()[self.index])

    def apply(self, step: int, fixed: FixedFeedback) -> None:
        """Let the share limit the agent's problem at this step."""
        share = np.full(self.horizon, np.inf) if self._lie == "overdraw" else self.limit(step)
        n, weight = self.resource.inputs[self.index], self.resource.weights[self.index]
        limit = (share / weight - self.design.steady_input[n]) / self.design.scale[self.design.nx + n]
        if self._lie == "overdraw":
            self.limit(step)
        fixed.data.u_room[:, n] = np.minimum(limit - self.design.model.input_upper[n], 0.0)
        prices = _aligned(self.prices, self._priced, step, self.horizon)
        fixed.data.toll[:] = 0.0 if self._lie else self.problem.toll(prices)

    # -- after it -----------------------------------------------------------------------------------------------------
    def state(self, step: int, fixed: FixedFeedback, decision: Decision | None) -> Statement | None:
        """Prices, wish and gifts of this step; `decision` None, or not optimal: nothing is given.

        None where nothing is said.
        """
        self.problem.begin(fixed)
        everybody = self._wishes(step)
        targets = self._iterate(step, everybody)
        mine = self.index
        try:
            wish = self.problem.solve(targets)
        except SolverError:
            self.failed += 1
            wish = self.book.shares()[mine].copy()
        wish = np.maximum(wish, 0.0)
        if self._lie == "greedy":
            wish = np.full(self.horizon, 2 * self.resource.most[mine])
        elif decision is not None and decision.mode == "optimal" and step >= self._quiet:
            self._give(decision, wish, everybody)
        given = self.book.given[mine].copy()
        if self._lie == "counterfeit" and step >= 10:
            given[(mine + 1) % len(given), DELAY:] += self.resource.fair[mine]
        said = Statement(
            self.design.name,
            self.resource.name,
            step,
            step,
            wish,
            self.prices.copy(),
            given,
            self.book.given[:, mine].copy(),
        )
        self._past.setdefault(step, {})[self.design.name] = said
        for old in [k for k in self._past if k < step - 2 * DELAY]:
            del self._past[old]
        if step < self._quiet or (self._lie == "silent" and step >= 10):
            return None
        return said

    @property
    def suspects(self) -> dict[str, str]:
        """Who is reckoned with as if it wished for what it has, and why."""
        silent = {
            user: f"'{user}' has not stated its use of {self.resource.name} for {SILENT} steps"
            for user in self.resource.users
            if user != self.design.name and self.book.step - self._last_heard[user] > SILENT + DELAY
        }
        return silent | self.accused.reasons

    def _believed(self) -> list[bool]:
        """Who takes part: not caught lying, heard of lately."""
        return [user not in self.suspects for user in self.resource.users]

    def _wishes(self, step: int) -> Matrix:
        """Everybody's wishes (m, N) of step - DELAY for the steps from now on; who is out wishes for what it has."""
        heard = self._past.get(step - DELAY, {})
        wishes = self.book.shares()
        for i, (user, believed) in enumerate(zip(self.resource.users, self._believed(), strict=True)):
            said = heard.get(user) or (self.book.newest.get(user) if user != self.design.name else None)
            if believed and said is not None:
                wishes[i] = _aligned(said.wish, said.first, step, self.horizon)
        return wishes

    def _iterate(self, step: int, wishes: Matrix) -> Vector:
        """One iteration of exchange ADMM on the wishes of step - DELAY; returns the own target (N,)."""
        resource, m = self.resource, len(self.resource.users)
        heard = self._past.get(step - DELAY, {})
        believed = dict(zip(resource.users, self._believed(), strict=True))
        if list(believed.values()) != self._trusted:
            self._trusted, self._anew = list(believed.values()), step
        known = [_aligned(s.price, s.first, step, self.horizon) for a, s in heard.items() if believed[a]]
        if step < self._anew + DELAY or not known:  # a price that somebody drove up who is out now means nothing
            known = [np.zeros(self.horizon)]
        price = np.asarray(np.median(known, axis=0), float)  # which one user's word cannot move far
        per_unit = resource.rho / resource.scale**2
        first, slack = self._slack[step % DELAY]
        slack = _aligned(slack, first, step, self.horizon)
        gap = (wishes.sum(axis=0) + slack - resource.capacity) / (m + 1)
        price = price + per_unit * gap
        self.prices, self._priced = price, step
        pull = gap + price / per_unit
        self._slack[step % DELAY] = step, np.maximum(0.0, slack - pull)
        return np.asarray(wishes[self.index] - pull)

    def _give(self, decision: Decision, wish: Vector, wishes: Matrix) -> None:
        """Enter gifts for the steps that are DELAY or more away."""
        resource, mine = self.resource, self.index
        shares = self.book.shares()
        believed = np.array(self._believed())
        asked = np.where(believed[:, None], wishes, shares)
        asked[mine] = wish
        capacity = np.full(self.horizon, resource.capacity)
        targets = safe_shares(np.maximum(asked, 0.0), capacity, np.tile(resource.guaranteed[:, None], self.horizon))
        nominal = (decision.plan.nominal_inputs - self.design.steady_input) / self.design.scale[self.design.nx :]
        states = np.array([self.design.normalise(x) for x in decision.plan.nominal_states[:-1]])
        planned = self.problem.use((nominal - states @ self.design.model.K.T).ravel())
        keep = np.maximum(np.maximum(targets[mine], planned), resource.guaranteed[mine])
        room = 1e-6 * resource.capacity  # a share is met up to the solver's tolerance
        spare = np.maximum(shares[mine] - keep - room, 0.0)
        over = np.maximum(shares - targets, 0.0)
        over[~believed] = 0.0
        want = np.maximum(targets - shares, 0.0)
        want[~believed] = 0.0
        want[mine] = 0.0
        total = want.sum(axis=0)
        mine_of_it = total * over[mine] / np.maximum(over.sum(axis=0), 1e-12)
        amount = np.minimum(spare, mine_of_it)
        gifts = want / np.maximum(total, 1e-12) * amount
        gifts[:, :DELAY] = 0.0
        gifts[gifts < room] = 0.0  # crumbs
        self.book.give(self.design.name, gifts)


def _aligned(values: Vector, first: int, step: int, count: int) -> Vector:
    """Values about steps first, first + 1, .. as values about step .. step + count - 1; the last one goes on."""
    at = np.clip(np.arange(step, step + count) - first, 0, len(values) - 1)
    return np.asarray(values[at], float)
