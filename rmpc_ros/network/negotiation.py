"""What an agent has to say about larger promises: when it proposes one, and which of its neighbours' it bears.

The rules are in `proposal`; here are the three questions that take a solver.

**Which proposals to bear.** The agent solves its problem with the hull of everything offered; if that fails, with one
offer (another one each step); if that fails, without. So an acknowledgement is a solved robust problem. What was
offered and not borne is tried again at the next step.

**Which set to propose.** For a horizon after its target has moved an agent also solves its problem with its own promise
relaxed to its invariant box, from step k + NOTICE on. Where that plan leaves the promise noticeably, it proposes
hull(promise, relaxed tube + margin).  A proposal that was not acknowledged by everybody within a horizon is withdrawn,
and the next one asks for half as much.

**What it takes to bear more.** Promises are tight, so who is offered a larger set often cannot keep its own promise
with it. It then proposes what it would take: the tube of its own plan under the offer. That is smaller than the offer
by the coupling, so such chains die out; each is agreed on before the offer is borne, which is what the NOTICE is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from rmpc_ros.errors import SolverError
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import LocalPlan, Matrix, StepData
from rmpc_ros.network.agent_design import AgentDesign, Controller
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.proposal import Held, Proposer, acknowledgement

ANSWER = 2  # steps until an adoption on a perfect network: there, and back
NOTICE = 4  # steps until a wanted enlargement begins: so that who needs more room for it can get that agreed on before
THRESHOLD = 0.05  # of the invariant box: a smaller enlargement is not worth asking for
LEAST = 0.2  # of the enlargement that is wanted: less is not asked for


class Negotiation:
    """One agent's side of all its negotiations.

    Parameters
    ----------
    design : of the agent
    followers : agents that rely on it; None: not known, so it never proposes
    tubes : the agent's problem with fixed feedback, for the tube of a plan under other data
    """

    def __init__(self, design: AgentDesign, followers: Iterable[str] | None, tubes: FixedFeedback) -> None:
        self.proposer = Proposer(followers or ())
        self.counts = {"acknowledged": 0, "refused": 0}
        self._asks = followers is not None
        self._patience = design.horizon
        self._horizon = design.horizon
        self._wanting = 0  # steps for which the target counts as moved
        self._share = 1.0  # of the wanted enlargement that is proposed
        self._helping = False  # what is pending is to bear an offer
        self._borne: frozenset[str] = frozenset()  # whose offers the last decision bears
        self.tubes = tubes
        self._needed: tuple[Matrix, Matrix] | None = None  # reach of the last plan under the offers it does not bear

    # -- the own promise ----------------------------------------------------------------------------------------------
    def begin(self, promise: ForecastSet) -> None:
        """Take up a promise that is in force."""
        self.proposer.begin(promise)
        self._borne = frozenset()

    def target_moved(self) -> None:
        """The own promise may bind for a horizon from now on."""
        self._wanting, self._share = self._horizon, 1.0

    def promise(self, promise: ForecastSet, step: int) -> ForecastSet:
        """The promise to keep at a step: enlarged by what everybody has acknowledged."""
        proposer = self.proposer
        proposer.stepped(step)
        if proposer.pending is None:
            return promise
        if not proposer.missing:
            if not self._helping:
                self._wanting = 0 if self._share == 1.0 else self._horizon
                self._share = 1.0
            return proposer.adopt(promise)
        if step - proposer.pending.step > self._patience:
            proposer.withdraw()
            if not self._helping:
                self._share /= 2
                self._wanting = self._horizon if self._share >= LEAST else 0
        return promise

    # -- the neighbours' ----------------------------------------------------------------------------------------------
    def solve(
        self,
        step: int,
        neighbours: Mapping[str, Held],
        data: StepData,
        fill: Callable[[frozenset[str]], None],
        solve: Callable[[], LocalPlan],
    ) -> LocalPlan:
        """Solve with as many of the offered sets as can be borne.

        Parameters
        ----------
        step : of the decision
        neighbours : what is held of each
        data : of the problem
        fill : brings the neighbours' sets into it, with the offers of those named; without any, they are there
        solve : the problem

        Raises
        ------
        SolverError
            It is not solved even without the offers.
        """
        self._borne, self._needed = frozenset(), None
        offers = sorted(n for n, held in neighbours.items() if held.offer is not None and held.offer.step < step)
        if not offers:
            if self._helping:
                self.proposer.withdraw()  # nobody asks any more
            return solve()
        trials = [frozenset(offers)]
        if len(offers) > 1:
            trials.append(frozenset({offers[step % len(offers)]}))
        for trial in trials:
            fill(trial)
            try:
                plan = solve()
            except SolverError:
                self.counts["refused"] += len(trial)
                continue
            self._borne = trial
            return plan
        tubes = self.tubes
        fill(trials[0])
        tubes.data.copy_from(data)
        fill(frozenset())
        plan = solve()
        tubes.sides()
        self._needed = tubes.plan(plan.v.ravel()).reach()
        return plan

    def bear_all(self, step: int, neighbours: Mapping[str, Held]) -> None:
        """The own promise is the invariant box: it bears whatever neighbours offer inside theirs."""
        self._needed = None
        self._borne = frozenset(
            n for n, held in neighbours.items() if held.offer is not None and held.offer.step < step
        )

    def bear_nothing(self) -> None:
        """The step was decided without a solver: no offer is borne."""
        self._borne, self._needed = frozenset(), None

    def acknowledged(self, neighbours: Mapping[str, Held]) -> list[ForecastSet]:
        """Everything that is held beyond the commitments, with what the last decision bears."""
        now = {n: held.answered() if n in self._borne else held for n, held in neighbours.items()}
        return [proposal for held in now.values() for proposal in held.acknowledged]

    # -- messages out -------------------------------------------------------------------------------------------------
    def answers(self, neighbours: dict[str, Held], promise: ForecastSet) -> list[ForecastSet]:
        """Acknowledgements to send; from now on the hulls are held. Repeated until the proposals are settled."""
        for name in self._borne:
            neighbours[name] = neighbours[name].answered()
            self.counts["acknowledged"] += 1
        self._borne = frozenset()
        return [acknowledgement(proposal, promise) for proposal in self.acknowledged(neighbours)]

    def proposal(self, promise: ForecastSet, design: AgentDesign, controller: Controller) -> ForecastSet | None:
        """The pending proposal, or a new one where the promise just made binds; None where there is nothing to ask.

        `controller` has the data of the step that was just decided.
        """
        proposer = self.proposer
        if proposer.pending is not None:
            return proposer.pending
        if not self._asks or not proposer.may_propose(promise.step):
            return None
        wanted, self._helping = None, self._needed is not None
        if self._needed is not None:
            wanted = enlarged(promise, design, *self._needed, ANSWER, 0.0)
        elif self._wanting > 0:
            self._wanting -= 1
            wanted = self._wanted(promise, design, controller)
        return None if wanted is None else proposer.propose(wanted)

    def _wanted(self, promise: ForecastSet, design: AgentDesign, controller: Controller) -> ForecastSet | None:
        """The promise with the share of what the relaxed plan would like beyond it; None where that is little."""
        data, nx = controller.data, design.nx
        lower, upper = _relaxed(promise, design, NOTICE)
        bounds = (data.x_lower, data.x_upper, data.c_lower, data.c_upper)
        kept = [values.copy() for values in bounds]
        data.x_lower[:], data.x_upper[:] = lower[1:, :nx], upper[1:, :nx]
        data.c_lower[:], data.c_upper[:] = lower[:-1, nx:], upper[:-1, nx:]
        try:
            low, high = controller.solve().reach()
        except SolverError:  # the promise that was just made stands; it is asked again at the next step
            return None
        finally:
            for values, before in zip(bounds, kept, strict=True):
                values[:] = before
        return enlarged(promise, design, low, high, NOTICE, THRESHOLD, self._share)


def enlarged(
    promise: ForecastSet,
    design: AgentDesign,
    low: Matrix,
    high: Matrix,
    notice: int,
    threshold: float,
    share: float = 1.0,
) -> ForecastSet | None:
    """A promise enlarged towards a plan's reach and a margin, from `notice` steps on; None where that is little.

    Parameters
    ----------
    promise : just made
    low, high : (N, nx+nu) see `LocalPlan.reach`
    notice : the first inputs that may differ are those of this many steps later
    threshold : of the invariant box, of the largest enlargement
    share : of the enlargement
    """
    nx, margin = design.nx, design.margin * design.terminal
    lower, upper = _relaxed(promise, design, design.horizon + 1)
    wide_lower, wide_upper = _relaxed(promise, design, notice)
    more_lower, more_upper = lower.copy(), upper.copy()
    more_lower[1:, :nx], more_upper[1:, :nx] = low[:, :nx] - margin[:nx], high[:, :nx] + margin[:nx]
    more_lower[:-1, nx:], more_upper[:-1, nx:] = low[:, nx:] - margin[nx:], high[:, nx:] + margin[nx:]
    more_lower, more_upper = np.clip(more_lower, wide_lower, lower), np.clip(more_upper, upper, wide_upper)
    growth = np.maximum(lower - more_lower, more_upper - upper) / design.terminal
    if float(np.max(growth)) <= threshold:
        return None
    lower, upper = lower + share * (more_lower - lower), upper + share * (more_upper - upper)
    return design.forecast(promise.step, lower, upper, 0)


def _relaxed(promise: ForecastSet, design: AgentDesign, notice: int) -> tuple[Matrix, Matrix]:
    """Bounds (N+1, nx+nu) of the promise, widened to the invariant box for inputs from `notice` steps on."""
    nx, box = design.nx, design.terminal
    center, scale = promise.window(promise.step, design.horizon + 1)
    lower, upper = design.normalise_box(center, scale)
    lower[notice + 1 :, :nx], upper[notice + 1 :, :nx] = -box[:nx], box[:nx]
    lower[notice:, nx:], upper[notice:, nx:] = -box[nx:], box[nx:]
    return lower, upper
