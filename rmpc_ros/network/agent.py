"""One agent of the network: what it does in a control step, top to bottom in `Agent.step`.

The agent measures its state, knows what its neighbours promised, plans inside its own last promise, and announces a new
promise inside the old one. Safety does not rest on a solver: last step's committed policy (the candidate) keeps every
promise whatever the neighbours do inside theirs, so it is followed whenever a new problem is not solved (math.md 3.2).

Modes, best first:
    optimal    the new robust problem was solved and checked
    certified  the candidate is followed, or the backup law where it keeps the promise
    backup     neither keeps the own promise (the truth left a set): the softened problem, in a new epoch where it must
    safe       nothing better is known: the configured input
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from rmpc_ros.errors import ConfigError, DataError, PromiseError, SolverError
from rmpc_ros.mpc.backup import PlanFollower
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import LocalPlan, Matrix, Vector
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.announcement import backup_plan, exceeds, narrowed, promise_of, widened
from rmpc_ros.network.commitment import TOLERANCE
from rmpc_ros.network.decision import Decision, Mode, StepReport
from rmpc_ros.network.fallback import Fallback
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.negotiation import Negotiation
from rmpc_ros.network.neighbourhood import Neighbourhood
from rmpc_ros.network.residual_set import ResidualMean, ResidualSet
from rmpc_ros.network.set_in_force import SetInForce
from rmpc_ros.network.setpoint import check_target, shown
from rmpc_ros.sets.base import UncertaintySet

NOTICED = 1e-3  # change of a target, relative to the terminal half-width
LARGEST_WEIGHT = 1e3  # factor of the terminal weight, and its inverse: beyond, the solver's tolerance would be felt


@dataclass(frozen=True)
class Seen:
    """What `Agent.look` took in: normalised state (nx,), the own promise's bounds (N+1, nx+nu), whether it was kept."""

    step: int
    x: Vector
    lower: Matrix
    upper: Matrix
    kept: bool


class Agent:
    """A controller with promises.

    Parameters
    ----------
    design : AgentDesign
        From `rmpc_ros.network.system.design_agents`.
    followers : all agents that rely on this one, whom it asks before it promises more; None: it never asks
    """

    def __init__(self, design: AgentDesign, followers: Iterable[str] | None = None) -> None:
        self.design = design
        self.controller = design.build_controller()
        self._fallback = Fallback(design)
        self._promise: ForecastSet | None = None
        self.neighbourhood = Neighbourhood(design)
        self.negotiation = Negotiation(design, followers, self._fallback.hard)
        self._follower: PlanFollower | None = None
        self._certified = False  # whether the follower's plan keeps the promise, whatever the neighbours do in theirs
        self._announced = 0  # epoch that the neighbours have heard of
        self._restart_reason = ""
        self.disturbance = SetInForce(design, self._fallback.hard, self.controller)
        self._last_input = np.zeros(design.nu)  # normalised
        self._seen: Seen | None = None  # by `look`, until the decision
        self.aim: Matrix | None = None  # negotiated nominal plan (N, nu): the next decision comes close to it

    # -- life ---------------------------------------------------------------------------------------------------------
    def start(
        self, step: int, promise: ForecastSet | None = None, acknowledged: Iterable[ForecastSet] = ()
    ) -> ForecastSet:
        """Begin at a step: with the invariant box for all time, or with a promise that is in force.

        The latter after a restart (the journal's, with the neighbours' proposals that were acknowledged), or where the
        last decision did not come into force. The candidate is void then, and so is a pending proposal; what the
        neighbours have promised stays.

        Raises
        ------
        PromiseError
            The journalled promise is about other quantities than this design's.
        """
        own = self.design.terminal_promise(step)
        if promise is not None:
            if promise.agent != own.agent or promise.names != own.names:
                raise PromiseError(
                    f"the journal holds a promise of '{promise.agent}' about {', '.join(promise.names)}; "
                    f"agent '{own.agent}' promises {', '.join(own.names)}"
                )
            own = promise
        self._promise, self._announced = own, own.iteration
        self._follower, self._certified = None, False
        self._seen, self.aim = None, None
        self.negotiation.begin(own)
        self.neighbourhood.begin(acknowledged, forget=promise is None)
        self._restart_reason = ""
        if self.neighbourhood.newest_epoch > self.epoch:
            self._start_afresh(self.neighbourhood.newest_epoch, "a neighbour started afresh with larger sets")
        return own

    def receive(self, forecast: ForecastSet) -> None:
        """Take a neighbour's new commitment into use, its proposal into consideration, an acknowledgement to account.

        Raises
        ------
        PromiseError
            Unknown sender, older than the one in force, or larger than it in the same epoch without a proposal that was
            acknowledged, or for all time larger than its sender's design allows: the old one stands. A proposal that
            makes no sense.
        """
        if forecast.kind == "acknowledgement":
            if forecast.acknowledged_agent == self.design.name:
                self.negotiation.proposer.acknowledged(forecast)
            return
        self.neighbourhood.receive(forecast)
        if forecast.kind == "proposal":
            return
        if forecast.iteration > self.epoch:
            self._start_afresh(forecast.iteration, f"'{forecast.agent}' started afresh with larger sets")
        self._seen = None

    def speak(self, decision: Decision) -> list[ForecastSet]:
        """What to send beside a decision's commitment, once that is in force and on disk with all of `acknowledged`.

        Acknowledgements of neighbours' proposals, and an own proposal where the promise binds after a change of target.
        """
        spoken = self.negotiation.answers(self.neighbourhood.held, decision.forecast)
        if decision.mode == "optimal":
            proposal = self.negotiation.proposal(decision.forecast, self.design, self.controller)
            spoken += [proposal] if proposal is not None else []
        return spoken

    def acknowledged(self) -> list[ForecastSet]:
        """Neighbours' unsettled proposals that this agent has acknowledged, or will in `speak`."""
        return self.negotiation.acknowledged(self.neighbourhood.held)

    def set_target(self, x_ref: Vector, u_ref: Vector) -> None:
        """Move what the controller aims for, between steps; promises and limits stay as they are.

        Parameters
        ----------
        x_ref : (nx,) normalised, inside the invariant box
        u_ref : (nu,) normalised; its deviation from the backup law at x_ref is inside the authority

        Raises
        ------
        DataError
            Wrong shape, not finite or outside these bounds: the target in force stays.
        """
        design = self.design
        values = check_target(design, x_ref, u_ref)
        moved = values - np.concatenate([design.x_ref, design.u_ref - design.model.K @ design.x_ref])
        if np.any(np.abs(moved) > NOTICED * design.terminal):
            self.negotiation.target_moved()
        self.design = replace(design, x_ref=x_ref.copy(), u_ref=u_ref.copy())

    def set_terminal_weight(self, factor: float) -> None:
        """Plan with `factor` times the design's terminal weight from the next step on; between steps.

        Neither constraints nor tubes nor promises depend on it, so that nothing but the performance does.

        Raises
        ------
        DataError
            Not finite, or outside [1/1000, 1000]; or another factor than 1 and the feedback is not "fixed". The factor
            in force stays.
        """
        if not 1 / LARGEST_WEIGHT <= factor <= LARGEST_WEIGHT:  # also refuses NaN
            raise DataError(
                f"terminal weight of agent '{self.design.name}' = {factor:g} times the design's; allowed: "
                f"{1 / LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}"
            )
        if isinstance(self.controller, FixedFeedback):
            self.controller.weigh_terminal(factor)
        elif factor != 1.0:
            raise DataError(
                f"agent '{self.design.name}' has feedback '{self.design.form}', whose terminal weight is compiled in; "
                "only 'fixed' takes another"
            )

    @property
    def terminal_weight(self) -> float:
        """Factor of the design's terminal weight that is in force."""
        return self.controller.terminal_weight if isinstance(self.controller, FixedFeedback) else 1.0

    def set_disturbance(
        self, members: UncertaintySet | None, mean: ResidualMean | None = None, rate: float = 0.25
    ) -> ResidualSet:
        """Reckon with another set of one-step residuals from the next step on, if it is certified (see `residual_set`).

        Parameters
        ----------
        members : of the residual in the agent's coordinates, physical units; None takes the design's set again
        mean : learned mean of the residual, (x, last u, zeta) -> (nx,), all normalised; `members` is then about what it
            leaves over the horizon. It is asked in every step and moves the set, inside the design's
        rate : most that a bound may move inwards by this call, as a share of the design's half-width

        Returns
        -------
        The set in force now: `members`, or larger where they shrink too fast; never larger than the design's.

        Raises
        ------
        SetError
            Wrong dimension, not finite, not inside the design's set; or the controller's feedback is not "fixed". The
            set in force stays.
        InfeasibleError, NumericalError
            The robust problem has no solution with it for the data in force. The set in force stays; but a set around
            the one in force is always taken, and the next step withdraws a promise that cannot be kept with it.
        """
        if members is None:
            self.disturbance.take_designs()
        else:
            self.disturbance.adopt(members, mean, rate, try_it=self._follower is not None)
        return self.disturbance.present

    def accepts(self, members: UncertaintySet, mean: ResidualMean | None = None, rate: float = 0.25) -> bool:
        """Whether `set_disturbance` would take a set; what is in force stays in force."""
        return self.disturbance.possible(members, mean, rate, try_it=self._follower is not None)

    @property
    def fixed(self) -> FixedFeedback:
        """The tightened nominal problem with the data that were looked at last.

        Raises
        ------
        ConfigError
            The agent has another feedback form.
        """
        if not isinstance(self.controller, FixedFeedback):
            raise ConfigError(f"agent '{self.design.name}' has feedback '{self.design.form}'; 'fixed' is wanted")
        return self.controller

    @property
    def takes_part(self) -> bool:
        """Whether it cooperates about the objective, where the agents do."""
        return True

    @property
    def epoch(self) -> int:
        """How often promises have started afresh."""
        return self._promise.iteration if self._promise is not None else 0

    # -- the control step ---------------------------------------------------------------------------------------------
    def step(self, step: int, state: Vector | None, neighbour_states: Mapping[str, Vector] | None = None) -> Decision:
        """Decide for one step.

        Parameters
        ----------
        step : absolute number of the step
        state : (nx,) measured, physical units; None where no valid measurement came in time
        neighbour_states : those received for this step, physical units
        """
        began = time.perf_counter()
        seen = self.look(step, state, neighbour_states)
        if seen is None:
            return self._without_measurement(step, began)
        assert state is not None
        self._seen = None
        design, x, lower, upper, kept = self.design, seen.x, seen.lower, seen.upper, seen.kept

        # 4. Solve and check; otherwise the candidate, otherwise the backup controller.
        solving = time.perf_counter()
        reason = self._restart_reason
        plan: LocalPlan | None
        mode: Mode
        try:
            plan, mode, status = self._solve_bearing(step, neighbour_states or {}, x), "optimal", "optimal"
        except SolverError as error:
            candidate = self._follower is not None and self._certified
            plan, mode, status, why = self._fallback.without_solution(
                self.controller.data, x, lower, upper, error, candidate
            )
            reason = "; ".join(part for part in (reason, why) if part)
        solve_ms = 1e3 * (time.perf_counter() - solving)

        # 5. Input, new promise, plan for the actuator side.
        if plan is not None:
            self._promise = self._announce(step, plan, lower, upper, mode)
            running = backup_plan(design, step, state, plan)
            self._follower, self._certified = PlanFollower(running), mode in ("optimal", "certified")
            self.disturbance.grown = False
        else:
            assert self._follower is not None
            self._promise = promise_of(design, step, x, lower, upper, self.epoch)  # the old one, one step on
            running = self._follower.plan
        u = self._follower.input(step, state)
        self._last_input = (u - design.steady_input) / design.scale[design.nx :]
        self._announced, self._restart_reason = self.epoch, ""
        width = design.promise_width(self._promise.scale[1:])
        report = StepReport(
            mode,
            status,
            solve_ms,
            1e3 * (time.perf_counter() - began),
            design.stage_cost(x, u),
            design.margins(state, u),
            width,
            kept,
            reason,
        )
        self._promise = self.negotiation.proposer.sign(self._promise)
        return Decision(step, mode, u, self._promise, running, report)

    def look(
        self, step: int, state: Vector | None, neighbour_states: Mapping[str, Vector] | None = None
    ) -> Seen | None:
        """The first half of `step`: takes everything in, so that the controller's data are those of the decision.

        For who negotiates in between; `step` with the same arguments repeats nothing of it. None without a valid
        measurement.
        """
        promise = self._promise_for(step)
        if state is None or not np.all(np.isfinite(state)):
            return None
        if self._seen is not None and self._seen.step == step:
            return self._seen
        design, data = self.design, self.controller.data
        x = design.normalise(state)

        # 1. Have I kept my promise? If not, say so at once with sets that contain the truth.
        kept = promise.contains(step, design.coordinates(state), TOLERANCE)
        if not kept:
            self.disturbance.give_up(f"the promise for step {step} was broken")
            self._start_afresh(self.epoch + 1, f"the state {shown(state)} left the promised set")

        # 2. What the neighbours promised for t = step .. step+N-1, and their states where they were received.
        states = neighbour_states or {}
        for name in self.neighbourhood.outside(step, states):
            self._start_afresh(self.epoch + 1, f"'{name}' is outside the set it promised")
        self.neighbourhood.fill(step, states, data.zeta, data.radius)

        # 3. My own promise for t = step+1 .. step+N, larger where all have agreed; the new last step is free inside the
        # invariant box.
        self._promise = self.negotiation.promise(self._promise_for(step), step)
        data.x[:] = x
        data.x_ref[:], data.u_ref[:] = design.x_ref, design.u_ref
        self.disturbance.move(data, self._last_input)
        lower, upper = self._bounds(step)
        if self.disturbance.grown and not self._solvable():
            self._start_afresh(self.epoch + 1, "the disturbance set grew beyond what was promised with")
            lower, upper = self._bounds(step)
        self._seen = Seen(step, x, lower, upper, kept)
        return self._seen

    # -- parts of the step --------------------------------------------------------------------------------------------
    def _promise_for(self, step: int) -> ForecastSet:
        """The own promise in force; a step that it says nothing about is refused."""
        if self._promise is None:
            raise PromiseError(f"agent '{self.design.name}' was asked to step before it was started")
        if step < self._promise.step:
            raise PromiseError(
                f"agent '{self.design.name}' was asked for step {step}, but its promise in force begins at step "
                f"{self._promise.step}: is its journal of a later or another run?"
            )
        return self._promise

    def _solve(self, x: Vector) -> LocalPlan:
        """Solve with the data in force; x (nx,) is the normalised measured state."""
        del x
        aim, self.aim = self.aim, None
        if aim is not None and isinstance(self.controller, FixedFeedback):
            return self.controller.follow(aim)
        return self.controller.solve()

    def _solve_bearing(self, step: int, states: Mapping[str, Vector], x: Vector) -> LocalPlan:
        """Solve with as many of the neighbours' proposals as can be borne."""
        data, aim = self.controller.data, self.aim

        def fill(offered: frozenset[str]) -> None:
            self.neighbourhood.fill(step, states, data.zeta, data.radius, offered)

        def solve() -> LocalPlan:
            self.aim = aim
            return self._solve(x)

        return self.negotiation.solve(step, self.neighbourhood.held, data, fill, solve)

    def _bounds(self, step: int) -> tuple[Matrix, Matrix]:
        """The own promise as bounds of the problem, (N+1, nx+nu)."""
        nx, data = self.design.nx, self.controller.data
        lower, upper = self._own_promise(step)
        data.x_lower[:], data.x_upper[:] = lower[1:, :nx], upper[1:, :nx]
        data.c_lower[:], data.c_upper[:] = lower[:-1, nx:], upper[:-1, nx:]
        return lower, upper

    def _solvable(self) -> bool:
        """Whether the promise can be kept with a set that has grown since it was made."""
        self._certified = False  # the candidate reckoned with less
        try:
            self.controller.solve()
        except SolverError:
            return False
        return True

    def _own_promise(self, step: int) -> tuple[Matrix, Matrix]:
        """Bounds (N+1, nx+nu) of the own promise for step .. step+N, normalised."""
        assert self._promise is not None
        center, scale = self._promise.window(step, self.design.horizon + 1)
        return self.design.normalise_box(center, scale)

    def _announce(self, step: int, plan: LocalPlan, lower: Matrix, upper: Matrix, mode: Mode) -> ForecastSet:
        """New promise: tube plus margin, cut to the old promise; larger only in a new epoch."""
        epoch = self.epoch
        if mode in ("backup", "safe"):
            if epoch == self._announced and exceeds(self.design, plan, lower, upper):
                epoch += 1  # without one the neighbours refuse what is larger and go on with what is not true
            lower, upper = widened(self.design, plan, lower, upper)
        elif self.neighbourhood.all_in(epoch):
            lower, upper = narrowed(self.design, plan, lower, upper)
        return promise_of(self.design, step, plan.x[0], lower, upper, epoch)

    def _share(self) -> Vector:
        """Upper limits (nu,) of this step's normalised inputs by shares of a resource, where the header would cut."""
        room = self.controller.data.u_room[0]
        return np.where(room < 0.0, self.design.model.input_upper + room, np.inf)

    def _start_afresh(self, epoch: int, reason: str) -> None:
        """Promise the invariant box for all time, in a new epoch; the candidate is void."""
        assert self._promise is not None
        if epoch > self.epoch:
            self._promise = self.design.terminal_promise(self._promise.step, epoch)
        self._follower, self._certified = None, False
        self.negotiation.proposer.withdraw()
        self._restart_reason = "; ".join(part for part in (self._restart_reason, reason) if part)

    def _without_measurement(self, step: int, began: float) -> Decision:
        """No valid measurement: the plan's nominal input if there is one, else the configured safe input.

        Without its feedback a plan guarantees nothing any more, so it is no candidate for the next step.
        """
        assert self._promise is not None
        design = self.design
        reason = f"no valid measurement for step {step}"
        self.negotiation.bear_nothing()
        u = design.safe_input
        if self._follower is not None:
            plan = self._follower.plan
            t = step - plan.step
            u = plan.nominal_inputs[t] if 0 <= t < plan.horizon else plan.terminal_input
        u = np.clip(u, design.input_lower, np.minimum(design.input_upper, design.physical_inputs(self._share())))
        lower, upper = self._own_promise(step)
        self._promise = design.forecast(step, lower, upper, self.epoch)
        self._announced, self._certified = self.epoch, False
        if self._follower is None:
            self.controller.data.x[:] = 0.0  # the law about the steady state, whatever was measured before
            rest = self._fallback.law(self.controller.data)
            self._follower = PlanFollower(backup_plan(design, step, design.steady_state, rest))
        missing = {name: float("nan") for name in design.margins(design.steady_state, u)}
        report = StepReport(
            "safe",
            "not called",
            0.0,
            1e3 * (time.perf_counter() - began),
            float("nan"),
            missing,
            design.promise_width(self._promise.scale[1:]),
            None,
            reason,
        )
        self._promise = self.negotiation.proposer.sign(self._promise)
        return Decision(step, "safe", u, self._promise, self._follower.plan, report)
