"""What an agent has to say about larger promises: when it proposes one, and which of its neighbours' it bears.

The rules are in `proposal`; here are the two questions that take a solver.

**Which set to propose.** For a horizon after its target has moved an agent also solves its problem with its own promise
relaxed to its invariant box from step k + DELAY on: before that no answer can be here. Where that plan leaves the
promise noticeably, it proposes  hull(promise, relaxed tube + room).  A proposal that was not acknowledged by everybody
within a horizon is withdrawn, and the next one asks for half as much.

**Which proposals to bear.** The agent solves its problem with the hull of everything offered; if that fails, with one
offer (another one each step); if that fails, without. So an acknowledgement is a solved robust problem. What was offered
and not borne is offered again by its sender and tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from rmpc_ros.errors import SolverError
from rmpc_ros.mpc.local import LocalPlan, Matrix
from rmpc_ros.network.agent_design import AgentDesign, Controller
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.proposal import Held, Proposer, acknowledgement

DELAY = 2  # steps until an adoption on a perfect network: there, and back
THRESHOLD = 0.05  # of the invariant box: a smaller enlargement is not worth asking for
ROOM = 0.05  # of the invariant box, beyond the relaxed tube: the plan is made anew when the set is adopted
LEAST = 0.2  # of the enlargement that is wanted: less is not asked for


class Negotiation:
    """One agent's side of all its negotiations.

    Parameters
    ----------
    design : of the agent
    followers : agents that rely on it; None: not known, so it never proposes
    """

    def __init__(self, design: AgentDesign, followers: Iterable[str] | None) -> None:
        self.proposer = Proposer(followers or ())
        self.counts = {"acknowledged": 0, "refused": 0}
        self._asks = followers is not None
        self._patience = design.horizon
        self._horizon = design.horizon
        self._wanting = 0  # steps for which the target counts as moved
        self._share = 1.0  # of the wanted enlargement that is proposed
        self._borne: frozenset[str] = frozenset()  # whose offers the last decision bears

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
        if proposer.pending is not None and not proposer.missing:
            self._share = 1.0
            return proposer.adopt(promise)
        if proposer.pending is not None and step - proposer.pending.step > self._patience:
            proposer.withdraw()
            self._share /= 2
            self._wanting = self._horizon if self._share >= LEAST else 0
        return promise

    # -- the neighbours' ----------------------------------------------------------------------------------------------
    def solve(
        self,
        step: int,
        neighbours: Mapping[str, Held],
        fill: Callable[[frozenset[str]], None],
        solve: Callable[[], LocalPlan],
    ) -> LocalPlan:
        """Solve with as many of the offered sets as can be borne.

        Parameters
        ----------
        step : of the decision
        neighbours : what is held of each
        fill : brings the neighbours' sets into the problem, with the offers of those named; without any, they are there
        solve : the problem

        Raises
        ------
        SolverError
            It is not solved even without the offers.
        """
        self._borne = frozenset()
        offers = sorted(n for n, held in neighbours.items() if held.offer is not None and held.offer.step < step)
        trials = [frozenset(offers)] if offers else []
        if len(offers) > 1:
            trials.append(frozenset({offers[step % len(offers)]}))
        for trial in trials:
            fill(trial)
            try:
                plan = solve()
            except SolverError:
                continue
            self._borne = trial
            self.counts["refused"] += len(offers) - len(trial)
            return plan
        if offers:
            self.counts["refused"] += len(offers)
            fill(frozenset())
        return solve()

    def bear_nothing(self) -> None:
        """The step was decided without a solver: no offer is borne."""
        self._borne = frozenset()

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
        if self._wanting == 0 or not self._asks:
            return None
        self._wanting -= 1
        if not proposer.may_propose(promise.step):
            return None
        wanted = _wanted(promise, design, controller, self._share)
        return None if wanted is None else proposer.propose(wanted)


def _wanted(
    promise: ForecastSet, design: AgentDesign, controller: Controller, share: float
) -> ForecastSet | None:
    """The promise with `share` of what the relaxed plan would like beyond it; None where that is little."""
    data, nx, box = controller.data, design.nx, design.terminal
    center, scale = promise.window(promise.step, design.horizon + 1)
    lower, upper = design.normalise_box(center, scale)
    wide_lower, wide_upper = lower.copy(), upper.copy()
    wide_lower[DELAY + 1 :, :nx], wide_upper[DELAY + 1 :, :nx] = -box[:nx], box[:nx]
    wide_lower[DELAY:, nx:], wide_upper[DELAY:, nx:] = -box[nx:], box[nx:]
    bounds = (data.x_lower, data.x_upper, data.c_lower, data.c_upper)
    kept = [values.copy() for values in bounds]
    data.x_lower[:], data.x_upper[:] = wide_lower[1:, :nx], wide_upper[1:, :nx]
    data.c_lower[:], data.c_upper[:] = wide_lower[:-1, nx:], wide_upper[:-1, nx:]
    try:
        low, high = controller.solve().reach()
    except SolverError:  # the promise that was just made stands; it is asked again at the next step
        return None
    finally:
        for values, before in zip(bounds, kept, strict=True):
            values[:] = before
    more_lower, more_upper = lower.copy(), upper.copy()
    more_lower[1:, :nx], more_upper[1:, :nx] = low[:, :nx], high[:, :nx]
    more_lower[:-1, nx:], more_upper[:-1, nx:] = low[:, nx:], high[:, nx:]
    room = ROOM * box
    more_lower = np.clip(more_lower - room, wide_lower, lower)
    more_upper = np.clip(more_upper + room, upper, wide_upper)
    growth = np.maximum(lower - more_lower, more_upper - upper) / box
    if float(np.max(growth)) < THRESHOLD + ROOM:
        return None
    lower, upper = lower + share * (more_lower - lower), upper + share * (more_upper - upper)
    forecast = design.forecast(promise.step, lower, upper, 0)
    return replace(forecast, terminal_center=promise.terminal_center, terminal_scale=promise.terminal_scale)
