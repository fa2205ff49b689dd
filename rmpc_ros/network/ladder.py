"""The ladder: one agent, five controllers, from the operator's PID up, changed between two steps without a bump.

    pid          industrial PID on the agent's own states (`mpc.pid`)
    pid_mpc      the same PID written as an MPC that sees limits (`mpc.pid_mpc`)
    robust       the robust problem inside the own promise (`network.agent`)
    cooperative  robust, and the agents agree about the objective (`takes_part`)
    learned      cooperative, and a policy moves the targets (`learns`)

The two lower rungs guarantee nothing. They announce the invariant box, a new epoch begins when one takes over from an
MPC (its promise was narrower), and a state that is measured outside the box is declared in the usual way.

A transfer at step k continues the input  u* : what the PID in charge would apply now, or the backup law at the measured
state with the deviation c of the step before. The new controller starts from it: PIDs set their integral by it, MPCs
get the bound |u_k - u*| <= d on the first input of their certified problem. d is half a per cent of the input's range
in the first step, twice that in the second, and so on, until it is no bound any more.

A PID may hold an input that no promise allows: further from the backup law than the authority. The MPC then glides:
u = u* moved by d towards the authority, as long as the next state is sure to come no nearer to a limit than half-way
from the invariant box, whatever neighbours do inside their promises and disturbances in their set. These steps are
still uncertified, as the PID's were. Where that is not sure, or the problem has no solution with the bound, safety
wins: what is certified is applied at once, and the bump is reported. Neither a PID nor a glide takes more of a shared
resource than the agent's share.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from rmpc_ros.config.sections import Mode as Controller
from rmpc_ros.config.sections import PidLoop
from rmpc_ros.errors import ConfigError, SolverError
from rmpc_ros.mpc.backup import BackupPlan, PlanFollower
from rmpc_ros.mpc.local import LocalPlan, Vector
from rmpc_ros.mpc.pid_bank import Bank, PidBank, PidMpcBank
from rmpc_ros.network.agent import Agent, Seen
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.announcement import law_for_ever, promise_of
from rmpc_ros.network.decision import CONTROLLERS, Decision, StepReport
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.loop_design import design_loops, reach

BUMP = 0.005  # of an input's range: largest change at a transfer that a controller chooses
CERTIFIED: tuple[Controller, ...] = ("robust", "cooperative", "learned")


@dataclass(frozen=True)
class Transfer:
    """A change of controller, as it happened.

    Attributes
    ----------
    step : the first step of the new controller
    before, after : controllers
    change : (nu,) input applied minus the one that continues the old controller, as a share of the input's range
    move : (nu,) input applied minus the one of the step before, as a share of the input's range
    """

    step: int
    before: Controller
    after: Controller
    change: Vector
    move: Vector

    @property
    def bump(self) -> float:
        """Largest |change| of an input, in percent of its range."""
        return 100.0 * float(np.max(np.abs(self.change)))

    def __str__(self) -> str:
        return f"from {self.before} to {self.after}, input changed by {self.bump:.2g} % of its range"


class LadderAgent(Agent):
    """An agent whose controller can be changed while it runs.

    Parameters
    ----------
    design : AgentDesign
    loops : the plant file's section `pid` of the agent, by input
    controller : rung to start on
    followers : see `Agent`

    Attributes
    ----------
    transfer : the newest change of controller; None before the first

    Raises
    ------
    ConfigError
        The first rung is a PID's and the agent has none.
    """

    def __init__(
        self,
        design: AgentDesign,
        loops: Mapping[str, PidLoop] | None = None,
        controller: str = "robust",
        followers: Iterable[str] | None = None,
    ) -> None:
        super().__init__(design, followers)
        self.transfer: Transfer | None = None
        self._banks: dict[Controller, Bank] = {}
        self._no_loops = ""
        try:
            designs = design_loops(design, loops or {})
        except ConfigError as error:
            self._no_loops = str(error)  # told to who asks for them: the MPCs do not need them
        else:
            self._banks = {"pid": PidBank(designs), "pid_mpc": PidMpcBank(designs)}
        self._file_target = design.x_ref, design.u_ref
        self._policy_target = self._file_target
        self._policy_weight = 1.0  # of the terminal cost
        self._in_charge = self._wanted = self.check_mode(controller)
        self._fresh = True  # the loops have not begun
        self._range = (design.input_upper - design.input_lower) / design.scale[design.nx :]
        self._authority = design.terminal[design.nx :]
        self._deviation = np.zeros(design.nu)  # from the backup law, of the input applied last
        self._ramp: Vector | None = None  # half-width (nu,) of the bound on the first input; None: no bound
        self._about = np.zeros(design.nu)  # deviation it is about
        self._continued = np.zeros(design.nu)  # u* of the newest transfer
        self._changed: Controller | None = None  # who was in charge before this step
        self._before: tuple[Vector, Vector, Vector, Vector | None, Controller | None, Transfer | None] | None = (
            None  # what the newest decision changed
        )

    def start(
        self, step: int, promise: ForecastSet | None = None, acknowledged: Iterable[ForecastSet] = ()
    ) -> ForecastSet:
        """As `Agent.start`; without a promise it is a new run, and nothing is left of an earlier one."""
        if promise is None:
            nu = self.design.nu
            self._last_input, self._deviation = np.zeros(nu), np.zeros(nu)
            self._fresh, self._ramp, self.transfer, self._changed = True, None, None, None
            self._take_charge(self._wanted)
        return super().start(step, promise, acknowledged)

    # -- the rung -----------------------------------------------------------------------------------------------------
    @property
    def mode(self) -> Controller:
        """The controller that decides from the next step on."""
        return self._wanted

    @property
    def may_take_part(self) -> bool:
        """Whether `takes_part` may hold once the coming step has been looked at."""
        return bool({self._in_charge, self._wanted} & {"cooperative", "learned"})

    @property
    def takes_part(self) -> bool:
        """Whether the agent takes part in cooperation about the objective in the step that was looked at last."""
        return self._in_charge in ("cooperative", "learned")

    @property
    def learns(self) -> bool:
        """Whether a policy's targets are in force."""
        return self._wanted == "learned"

    def set_mode(self, mode: str) -> None:
        """Change the controller from the next step on.

        Raises
        ------
        ConfigError
            See `check_mode`: the one in force stays.
        """
        self._wanted = self.check_mode(mode)

    def check_mode(self, mode: str) -> Controller:
        """The rung of a name, if this agent can stand on it.

        Raises
        ------
        ConfigError
            Unknown, or a PID's where the agent has none.
        """
        known = {word: word for word in CONTROLLERS}
        if mode not in known:
            raise ConfigError(f"mode of agent '{self.design.name}' = {mode!r}; give one of {', '.join(CONTROLLERS)}")
        wanted = known[mode]
        if wanted not in CERTIFIED and wanted not in self._banks:
            raise ConfigError(f"agent '{self.design.name}' cannot change to {wanted}: {self._no_loops}")
        return wanted

    def set_target(self, x_ref: Vector, u_ref: Vector) -> None:
        """As `Agent.set_target`; in force on the rung `learned` alone, and kept for when it is climbed."""
        super().set_target(x_ref, u_ref)  # raises where it is not certified
        self._policy_target = x_ref.copy(), u_ref.copy()
        self._take_charge(self._in_charge)

    def set_terminal_weight(self, factor: float) -> None:
        """As `Agent.set_terminal_weight`; in force on the rung `learned` alone, and kept for when it is climbed."""
        super().set_terminal_weight(factor)  # raises where it is not allowed
        self._policy_weight = factor
        self._take_charge(self._in_charge)

    def set_setpoint(self, x_ref: Vector, u_ref: Vector) -> None:
        """Move the operator's target, which every rung but `learned` aims for; bounds as in `Agent.set_target`."""
        super().set_target(x_ref, u_ref)
        self._file_target = x_ref.copy(), u_ref.copy()
        self._take_charge(self._in_charge)

    def actuated(self, values: Vector) -> None:
        """Note what the actuators did in the step before, where they say so; (nu,) physical."""
        if not np.all(np.isfinite(values)):
            return
        u = self._normalised(values)
        if np.allclose(u, self._last_input, rtol=0.0, atol=1e-9):
            return
        self._deviation = self._deviation + u - self._last_input
        self._last_input, self._fresh = u, True  # the loops begin anew from there
        self._about = self._deviation.copy()

    def dropped(self, step: int, state: Vector, plan: BackupPlan | None) -> None:
        """Forget a decision that came too late: the actuators ran the plan of an earlier one.

        What they did is reckoned until `actuated` says it: the plan on the state that was measured here.

        Parameters
        ----------
        step : of the decision
        state : (nx,) measured, physical; not finite where nothing was
        plan : that the actuators have; None before the first
        """
        if self._before is None:
            return
        self._last_input, self._deviation, self._about, self._ramp, self._changed, self.transfer = self._before
        self._before, self._fresh = None, True
        if self._changed is not None:  # the change has not taken place either: the next step begins it again
            self._take_charge(self._changed)
            self._changed = None
        if plan is None or not np.all(np.isfinite(state)):
            return
        u = self._normalised(PlanFollower(plan).input(step, state))
        self._last_input, self._deviation = u, u - self.design.model.K @ self.design.normalise(state)
        self._about = self._deviation.copy()

    # -- the control step ---------------------------------------------------------------------------------------------
    def look(
        self, step: int, state: Vector | None, neighbour_states: Mapping[str, Vector] | None = None
    ) -> Seen | None:
        """As `Agent.look`; a wanted change of controller takes place here, before anything of the step is decided."""
        measured = state is not None and bool(np.all(np.isfinite(state)))
        looked = self._seen is not None and self._seen.step == step
        if state is not None and measured and not looked and self._wanted != self._in_charge:
            self._change(step, state)
        return super().look(step, state, neighbour_states)

    def step(self, step: int, state: Vector | None, neighbour_states: Mapping[str, Vector] | None = None) -> Decision:
        """Decide for one step with the controller in charge; see `Agent.step`."""
        began = time.perf_counter()
        seen = self.look(step, state, neighbour_states)
        previous = self._last_input.copy()
        self._before = previous, self._deviation, self._about, self._ramp, self._changed, self.transfer
        if self._in_charge in CERTIFIED:
            c = self._glide() if seen is not None else None
            if c is None:
                decision = super().step(step, state, neighbour_states)
            else:
                assert state is not None and seen is not None
                u = self.design.model.K @ seen.x + c
                why = f"{self._in_charge} glides from an input that no promise allows into its authority"
                decision = self._uncertified(seen, state, u, "not called", 0.0, why, began)
        elif seen is None:
            decision = self._hold(super().step(step, state, neighbour_states))
        else:
            assert state is not None
            decision = self._loop_step(seen, state, began)
        return self._told(decision, seen, previous)

    def _told(self, decision: Decision, seen: Seen | None, previous: Vector) -> Decision:
        """Remember what was decided, and say who decided it."""
        u = self._normalised(decision.input)
        self._last_input = u
        if seen is not None:
            self._deviation = u - self.design.model.K @ seen.x
            if self._ramp is not None:  # opens about what was applied
                self._about, self._ramp = self._deviation.copy(), self._ramp + BUMP * self._range
                if np.all(self._ramp >= self._authority + np.abs(self._about)):
                    self._ramp = None
        reason = decision.report.reason
        if self._changed is not None and seen is not None:
            shares = (u - self._continued) / self._range, (u - previous) / self._range
            self.transfer, self._changed = Transfer(decision.step, self._changed, self._in_charge, *shares), None
            reason = "; ".join(part for part in (reason, str(self.transfer)) if part)
        return replace(decision, report=replace(decision.report, controller=self._in_charge, reason=reason))

    # -- transfers ----------------------------------------------------------------------------------------------------
    def _change(self, step: int, state: Vector) -> None:
        """Prepare the new controller to continue the input of the old one."""
        design = self.design
        x = design.normalise(state)
        old, new = self._in_charge, self._wanted
        law = design.model.K @ x
        if old in CERTIFIED or self._fresh:
            u_star = law + self._deviation
        else:
            u_star = self._banks[old].step(self._setpoint(), self._loop_states(state))
        self._continued = np.clip(u_star, design.model.input_lower, design.model.input_upper)
        self._changed = old
        self._take_charge(new)
        if new in CERTIFIED:
            self._about, self._ramp = self._continued - law, BUMP * self._range
            return
        self._ramp = None
        self._begin(state, self._continued)
        if old in CERTIFIED:
            self._promise_for(step)
            self._start_afresh(self.epoch + 1, f"{new} takes over and promises no more than the invariant box")

    def _take_charge(self, controller: Controller) -> None:
        """The controller, its target and terminal weight: the policy's on the rung `learned`, else the plant file's."""
        self._in_charge = controller
        x_ref, u_ref = self._policy_target if controller == "learned" else self._file_target
        super().set_terminal_weight(self._policy_weight if controller == "learned" else 1.0)
        self.design = replace(self.design, x_ref=x_ref, u_ref=u_ref)

    def _begin(self, state: Vector, applied: Vector) -> None:
        self._banks[self._in_charge].start(self._setpoint(), self._loop_states(state), applied)
        self._fresh = False

    def _solve(self, x: Vector) -> LocalPlan:
        """With the first input bounded after a transfer; without the bound where it cannot be kept."""
        if self._ramp is None:
            return super()._solve(x)
        data, aim = self.controller.data, self.aim
        lower, upper = data.c_lower[0].copy(), data.c_upper[0].copy()
        data.c_lower[0] = np.clip(self._about - self._ramp, lower, upper)
        data.c_upper[0] = np.clip(self._about + self._ramp, lower, upper)
        try:
            return super()._solve(x)
        except SolverError:
            data.c_lower[0], data.c_upper[0] = lower, upper
            self.aim = aim
            return super()._solve(x)

    def _glide(self) -> Vector | None:
        """Deviation (nu,) from the backup law on the way to the authority; None where it is not needed or not safe.

        It is safe where the next state comes no nearer to a limit than half-way from the invariant box, whatever the
        neighbours do inside their promises.
        """
        authority, ramp = self._authority, self._ramp
        if ramp is None or np.all(np.abs(self._about) <= authority + ramp):
            return None
        data, model, nx = self.controller.data, self.design.model, self.design.nx
        c = np.clip(np.clip(self._about, -authority, authority), self._about - ramp, self._about + ramp)
        law = model.K @ data.x
        c = np.minimum(c, self._share() - law)
        u = law + c
        middle = model.A @ data.x + model.B @ c + model.G @ data.zeta[0]
        around = np.abs(model.G) @ data.radius[0]
        upper = middle + around + model.disturbance_support(np.eye(nx))
        lower = middle - around - model.disturbance_support(-np.eye(nx))
        box = self.design.terminal[:nx]
        zone = np.maximum(box, (box + 1.0) / 2.0)  # 1 is the limit
        safe = np.all(upper <= zone) and np.all(lower >= -zone)
        inside = np.all(u >= model.input_lower) and np.all(u <= model.input_upper)
        return c if safe and inside else None

    # -- the lower rungs ----------------------------------------------------------------------------------------------
    def _loop_step(self, seen: Seen, state: Vector, began: float) -> Decision:
        """One step of a PID or PID-MPC."""
        if self._fresh:
            self._begin(state, self._last_input)
        bank = self._banks[self._in_charge]
        solving = time.perf_counter()
        u = bank.step(self._setpoint(), self._loop_states(state))
        solve_ms = 1e3 * (time.perf_counter() - solving)
        if self._changed is not None:
            inside = np.clip(u, self._continued - BUMP * self._range, self._continued + BUMP * self._range)
            if not np.array_equal(inside, u):
                bank.track(inside)
                u = inside
        share = self._share()
        if np.any(u > share):  # its integral does not run against the share
            u = np.minimum(u, share)
            bank.track(u)
        status = "not called" if self._in_charge == "pid" else ("optimal" if not bank.trouble else "failed")
        return self._uncertified(seen, state, u, status, solve_ms, bank.trouble, began)

    def _uncertified(
        self, seen: Seen, state: Vector, u: Vector, status: str, solve_ms: float, why: str, began: float
    ) -> Decision:
        """Decision for an input u (nu,), normalised, that no certificate covers: it promises the invariant box."""
        design, step = self.design, seen.step
        self._seen, self.aim = None, None
        if self.design.in_invariant_box(seen.x):
            self.negotiation.bear_all(step, self.neighbourhood.held)
        else:
            self.negotiation.bear_nothing()
        reason = "; ".join(part for part in (self._restart_reason, why) if part)
        self._promise = promise_of(design, step, seen.x, seen.lower, seen.upper, self.epoch)
        plan = law_for_ever(design, step, state)  # what the actuator side runs while the agent is silent
        self._follower, self._certified = PlanFollower(plan), False
        self._announced, self._restart_reason = self.epoch, ""
        physical = np.clip(design.physical_inputs(u), design.input_lower, design.input_upper)
        report = StepReport(
            "uncertified",
            status,
            solve_ms,
            1e3 * (time.perf_counter() - began),
            design.stage_cost(seen.x, physical),
            design.margins(state, physical),
            design.promise_width(self._promise.scale[1:]),
            seen.kept,
            reason,
        )
        self._promise = self.negotiation.proposer.sign(self._promise)
        return Decision(step, "uncertified", physical, self._promise, plan, report)

    def _hold(self, decision: Decision) -> Decision:
        """Without a measurement the PID holds its output, as operators know it; its integral does not run."""
        held = self.design.physical_inputs(self._last_input)
        most = np.minimum(self.design.input_upper, self.design.physical_inputs(self._share()))
        u = np.clip(held, self.design.input_lower, most)
        reason = f"{decision.report.reason}; {self._in_charge} holds its last input"
        margins = self.design.margins(np.full(self.design.nx, np.nan), u)
        return replace(decision, input=u, report=replace(decision.report, reason=reason, margins=margins))

    # -- units --------------------------------------------------------------------------------------------------------
    def _normalised(self, values: Vector) -> Vector:
        design = self.design
        return np.asarray((values - design.steady_input) / design.scale[design.nx :])

    def _loop_states(self, state: Vector) -> Vector:
        return np.asarray((state - self.design.steady_state) / reach(self.design))

    def _setpoint(self) -> Vector:
        return self._loop_states(self.design.physical_states(self.design.x_ref))
