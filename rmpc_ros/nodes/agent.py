"""The agent node: messages in, one call of the controller, messages out.

Lockstep: the plant's measurement k starts step k as soon as the neighbours' news for it has come (see `round`).
Free-running: step k starts when every wired sensor has spoken in period k of the node's clock, and is decided when the
neighbours' news has come; both at a fixed phase of the period at the latest, with what is there.

What leaves the node leaves in this order: command and actuators, journal, promise, report. A new promise describes the
plan of the command it comes with, so it may only be made when that command will be in force:
- a decision that comes later than `deadline` after its measurement, or free-running in the last fifth of the period, is
  dropped;
- where the actuators say what they did (a simulated plant does), their word about the step before must be the agent's
  own command. If it is not (the agent has just come back, or was late) the command goes out with the old promise, and
  the next step will tell;
- free-running nobody waits for the agent: such a promise is held back until the actuators have done what it rests on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rmpc_ros.errors import ConfigError, DataError, MessageError, PromiseError, RmpcError
from rmpc_ros.msg import AgentReport, Command, ForecastSet, Measurement
from rmpc_ros.network import forecast as core
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.carry import carried
from rmpc_ros.network.decision import MODES, Decision
from rmpc_ros.network.journal import Journal, facts_of
from rmpc_ros.network.ladder import LadderAgent
from rmpc_ros.network.proposal import from_record, to_record
from rmpc_ros.nodes import convert, joining, qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.checks import Layout, Peers, Window
from rmpc_ros.nodes.cooperation import Rounds
from rmpc_ros.nodes.designed import designed
from rmpc_ros.nodes.diagnostics import ERROR, OK, WARN
from rmpc_ros.nodes.free import LATEST, PHASE, FreeRunning
from rmpc_ros.nodes.managed import ManagedNode
from rmpc_ros.nodes.modes import MODE, Modes
from rmpc_ros.nodes.parameters import Param
from rmpc_ros.nodes.process import main as run_node
from rmpc_ros.nodes.proposals import Proposals
from rmpc_ros.nodes.resource import Shares
from rmpc_ros.nodes.round import Inputs, Round
from rmpc_ros.nodes.setpoints import Setpoints
from rmpc_ros.nodes.transitions import Transitions
from rmpc_ros.nodes.updates import Updates
from rmpc_ros.nodes.wiring import Wire
from rmpc_ros.srv import GetPolicy

if TYPE_CHECKING:
    from rmpc_ros.nodes.estimation import Estimating

CONNECT = 10.0  # seconds to wait for a recorder


def peers_of(designs: Mapping[str, AgentDesign], run: str) -> Peers:
    """Layouts of all agents' messages."""
    return Peers(run, {name: Layout(d.state_names, d.input_names, d.names, d.period) for name, d in designs.items()})


class AgentNode(ManagedNode):
    """One agent of the network as a lifecycle node; several may share a process."""

    PARAMETERS: ClassVar[tuple[Param, ...]] = (
        Param("agent", "", "which agent of the plant file; by default the last part of the node's namespace"),
        Param(
            "timing",
            "lockstep",
            "who starts a step: the plant's measurement or the clock",
            choices=("lockstep", "free"),
        ),
        Param("journal", "", "file that holds the newest commitment; none without it"),
        Param("durable", True, "the journal waits for the disk; false: it survives the process, not a power failure"),
        Param(
            "neighbour_wait", -1.0, "most to wait for neighbours in lockstep [s]; -1: the plant file's", low=-1, high=60
        ),
        Param("deadline", -1.0, "a later decision is dropped [s]; -1: half of the plant file's", low=-1, high=600),
        Param("speed", 1.0, "plant time over wall time of a simulated plant, on the clock", low=1e-3, high=1e6),
        Param("recorded", False, "wait for a recorder before the first step"),
        Param("outbox", "", "file of transitions that the learner has not acknowledged; no learner without it"),
        MODE,
    )

    # -- configure ----------------------------------------------------------------------------------------------------
    def configure(self) -> None:
        """Design, controller, publishers, journal."""
        self.config, designs = designed(self.values["plant"])
        self.designs = designs
        base, _, last = self.get_namespace().rpartition("/")
        self.agent = self.values["agent"] or last
        if self.agent not in self.config.agents:
            raise ConfigError(f"parameter agent = {self.agent!r}; give one of {', '.join(self.config.agents)}")
        self.base = base
        self.spec = self.config.agents[self.agent]
        self.design = designs[self.agent]
        self.run = self.values["run"] or self.config.plant.name
        self.peers = peers_of(designs, self.run)
        self.layout = self.peers.agents[self.agent]
        # `applied` is a measurement of the inputs: its names are theirs.
        inputs = Layout(self.layout.inputs, self.layout.inputs, (), self.layout.period)
        self._actuator_side = Peers(self.run, {self.agent: inputs})
        wait, deadline = self.values["neighbour_wait"], self.values["deadline"]
        self.wait = self.config.network.wait if wait < 0 else wait
        self.deadline = self.config.network.deadline / 2 if deadline < 0 else deadline
        if self.values["timing"] == "free":
            wall_period = self.config.period / self.values["speed"]
            self.deadline = min(self.deadline, LATEST * wall_period)
            self.wait = min(self.wait, PHASE * wall_period)
        if self.values["timing"] == "lockstep" and self.wait >= self.deadline:
            raise ConfigError(
                f"agent {self.agent} waits {self.wait:g} s for neighbours (network.wait); give less, below its "
                f"deadline of {self.deadline:g} s (half of network.deadline)"
            )
        self.journal = Journal(Path(self.values["journal"]), self.values["durable"]) if self.values["journal"] else None
        own = f"agent {self.agent}"
        sensors = [Wire(s, list(self.spec.states), f"{own}, sensor {s.topic}") for s in self.spec.sensors]
        self._actuators = [Wire(a, list(self.spec.inputs), f"{own}, actuator {a.topic}") for a in self.spec.actuators]
        self.free = FreeRunning(self, sensors, self._actuators) if self.values["timing"] == "free" else None
        self._command = self.create_publisher(Command, "command", qos.STEP)
        self._forecast = self.create_publisher(ForecastSet, "forecast", qos.PROMISE)
        self._report = self.create_publisher(AgentReport, "report", qos.REPORT)
        self._outputs = [self.create_publisher(wire.kind, wire.topic, qos.SENSOR) for wire in self._actuators]
        self._last: tuple[int, Any, Any] | None = None
        self._told: tuple[object, ...] = ()
        self._policy = self.create_service(GetPolicy, "~/get_policy", self._on_get_policy)
        followers = tuple(
            name
            for name, design in designs.items()
            if self.agent in design.neighbours and self.agent in self.config.agents[name].neighbours
        )
        self.proposals = Proposals(self, followers)
        self.parts: list[AgentPart] = [Modes(self), self.proposals, Setpoints(self)]
        self.parts += [Shares(self, designs), Rounds(self, followers), *joining.parts_of(self)]
        self.estimating: Estimating | None = None
        if self.config.estimator is not None:
            from rmpc_ros.nodes.estimation import Estimating  # as below

            self.estimating = Estimating(self)
            self.parts.insert(0, self.estimating)
        if self.config.adaptation is not None:
            from rmpc_ros.nodes.adaptation import Adapting  # its models take seconds to import: only who learns pays

            self.parts.append(Adapting(self, self.config.adaptation))
        if self.values["outbox"]:
            transitions = Transitions(self)
            self.parts += [transitions, Updates(self, transitions)]

    # -- activate -----------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Promise, then listen."""
        mode = self.mode_word(str(self.get_parameter(MODE.name).value))
        self.controller = LadderAgent(self.design, self.spec.pid, mode, self.proposals.followers)
        self.round = Round(self.spec.neighbours, self.wait, actuators_tell=self.values["timing"] == "lockstep")
        self.counts = dict.fromkeys(MODES, 0)
        self.late = 0
        self._hole = -1  # step of a measurement with a number missing
        self._last = None
        self._sound = False  # the newest decision is on disk, and its plan in force
        self._held: tuple[Decision, Inputs, ForecastSet] | None = None  # until the actuators have done it
        self._promise = self._first_promise()
        self._said = self._promise
        self.publish_forecast(self._promise)
        for name in self.spec.neighbours:
            self.listen(ForecastSet, f"{self.base}/{name}/forecast", partial(self.on_forecast, name), qos.PROMISE)
            self.listen(Measurement, f"{self.base}/{name}/measurement", partial(self._on_neighbour, name), qos.STEP_NOW)
        self._opened, self._begun = time.monotonic(), False
        self._pending: tuple[Inputs, float, float] | None = None  # when it began, and the seconds it has
        opened: list[AgentPart] = []
        try:
            for part in self.parts:
                part.open()
                opened.append(part)
        except RmpcError:
            for part in reversed(opened):
                part.close()
            raise
        self.listen(Measurement, "applied", self._on_applied, qos.STEP_NOW)
        if self.free is not None:
            self.free.open()

    def close(self) -> None:
        """Stop listening; the promise stays in force."""
        self.drain(self._report)
        for part in self.parts:
            part.close()
        self.deafen()
        if self.free is not None:
            self.free.close()
        if self.journal is not None:
            self.journal.close()

    def mode_word(self, word: str) -> str:
        """A mode, or what the plant file says for the empty word."""
        return word or self.spec.mode or self.config.controller.mode

    def _first_promise(self) -> core.ForecastSet:
        """The newest commitment of this run from the journal, or the invariant box for all time."""
        self._resumed = False
        record = self.journal.read() if self.journal is not None else None
        if record is not None and facts_of(record.payload).get("run") == self.run:
            try:
                found, acknowledged = from_record(record.payload)
                self.controller.set_mode(facts_of(record.payload).get("mode", self.controller.mode))
                promise = self.controller.start(found.step, found, acknowledged)
            except (ConfigError, DataError, PromiseError) as error:
                raise ConfigError(
                    f"{self.values['journal']}: {error}; remove it only if no neighbour relies on it"
                ) from error
            self._resumed = True
            self.diagnostics.say(
                "journal",
                OK,
                f"back with the promise of step {promise.step}",
                step=promise.step,
                epoch=promise.iteration,
            )
            return promise
        self.diagnostics.say("journal", OK, "started with the invariant box", journal=self.values["journal"] or "none")
        return self.controller.start(0)

    # -- messages in --------------------------------------------------------------------------------------------------
    def _on_measurement(self, message: Measurement) -> None:
        try:
            heard = convert.measurement_from(
                message,
                self.only(self.agent),
                self.window(first_step=max(self.round.done, self._promise.step, 0)),
                partial=self.estimating is not None,
            )
        except MessageError as error:
            self.diagnostics.reject(str(error))
            step = int(message.step)
            if not str(error).startswith("not finite") or self._hole != step:
                self._hole = step
                return
            # Said twice (the plant asks again): a sensor has dropped out. The step takes place without a measurement.
            heard = convert.Measurement(self.agent, step, np.full(len(self.layout.states), np.nan))
        if not self.round.own(heard.step, heard.values, time.monotonic()):
            self._repeat(heard.step)
            return
        self.decide_when_due()

    def _on_applied(self, message: Measurement) -> None:
        try:
            heard = convert.measurement_from(message, self._actuator_side, self.window())
        except MessageError as error:
            self.diagnostics.reject(str(error))
            return
        self.round.applied(heard.step, heard.values)
        if self._held is not None:
            self._confirm(heard)
        self.decide_when_due()

    def _on_neighbour(self, name: str, message: Measurement) -> None:
        try:
            heard = convert.measurement_from(
                message, self.only(name), self.window(), partial=self.estimating is not None
            )
        except MessageError as error:
            self.diagnostics.reject(str(error))
            return
        self.round.measurement(name, heard.step, heard.values)
        self.decide_when_due()

    def on_forecast(self, name: str, message: ForecastSet) -> None:
        """What an agent says on its `forecast` topic."""
        try:
            forecast = convert.forecast_from(message, self.only(name), self.window())
        except MessageError as error:
            self.diagnostics.reject(str(error))
            return
        if forecast.kind != "commitment":
            self.proposals.heard(forecast)
            return
        if name in self.spec.neighbours:  # who relies on this agent without being relied on is heard too
            self.round.promise(forecast)
            self.decide_when_due()

    @property
    def promise(self) -> core.ForecastSet:
        """The own promise that neighbours know of."""
        return self._promise

    def only(self, name: str) -> Peers:
        """Who may speak on a neighbour's topic."""
        return Peers(self.run, {name: self.peers.agents[name]}, tuple(self.peers.agents))

    def window(self, first_step: int = 0) -> Window:
        """Steps and stamps that are taken now; any, before this node's clock runs."""
        now = self.now()
        return Window.until(now, self.config.period, first_step) if now > 0 else Window(first_step=first_step)

    def _on_get_policy(self, _: Any, response: Any) -> Any:
        decided = self._last is not None
        mode, plan = (self._decision.mode, self._decision.plan) if decided else (MODES[-1], None)
        return convert.fill_policy(response, self.agent, mode, plan, self.layout)

    # -- when to decide -----------------------------------------------------------------------------------------------
    def tick(self, now: float) -> None:
        """Bounded waiting, and this node's line on /diagnostics."""
        if not self._begun:
            self._begin_when_heard(now)
        for part in self.parts:
            part.tick(now)
        self.decide_when_due()
        if self.due(now) or self._news != self._told:
            self._told = self._news
            self._say_how_it_goes()

    @property
    def _news(self) -> tuple[object, ...]:
        """What a person should see at once when it changes."""
        if self._last is None:
            return ()
        report = self._decision.report
        return self._decision.mode, report.controller, report.promise_kept, *sorted(self.round.silent)

    def _begin_when_heard(self, now: float) -> None:
        """Who is not connected yet would miss the first steps: a recorder (most of all after a restart), partners."""
        waited = now - self._opened
        recorder = {f"{self.base}/recorder"} if self.values["recorded"] else set()
        heard = all(self.heard_by(publisher, recorder) for publisher in (self._command, self._forecast, self._report))
        if waited < CONNECT and not (heard and all(part.connected(waited) for part in self.parts)):
            return
        self._begun = True
        if self.free is not None:
            self.free.begin()
        else:
            self.listen(Measurement, "measurement", self._on_measurement, qos.STEP_NOW)

    def decide_when_due(self, at_once: bool = False) -> None:
        """Decide if everything for a step is here, or if it must be now."""
        estimating = self.estimating
        idle = self._pending is None and not (estimating is not None and estimating.busy)
        if idle and (at_once or self.round.due(time.monotonic())):
            if self._held is not None:
                self._take_back("is confirmed by nobody")
            began = self.round.arrived()
            start = self.prepare if estimating is None else estimating.begin
            start(self._believed(self.round.take()), began)
        self.go_on()

    def _believed(self, inputs: Inputs) -> Inputs:
        """The controller takes the promises in; the ones that it refuses are nobody's business any more."""
        believed = []
        for promise in inputs.promises:
            try:
                self.controller.receive(promise)
            except PromiseError as error:
                self.diagnostics.reject(f"promise refused: {error}")
            else:
                believed.append(promise)
        return replace(inputs, promises=tuple(believed))

    def prepare(self, inputs: Inputs, began: float) -> None:
        """Everything the step may use is here."""
        self._pending = inputs, began, self.deadline if self.free is None else self.free.late_after
        for part in self.parts:
            part.prepare(inputs)

    def go_on(self) -> None:
        """Decide the step that is prepared, once every part is ready."""
        if self._pending is not None and all(part.ready(time.monotonic()) for part in self.parts):
            (inputs, began, allowed), self._pending = self._pending, None
            self._decide(inputs, began, allowed)

    # -- the step -----------------------------------------------------------------------------------------------------
    def _decide(self, inputs: Inputs, began: float, allowed: float) -> None:
        decision = self.controller.step(inputs.step, inputs.state, inputs.neighbour_states)
        taken = time.monotonic() - began
        if taken > allowed and (self._last is not None or self._resumed):  # before a first command no plan runs
            self._drop(decision, inputs, taken, allowed)
            return
        self.counts[decision.mode] += 1
        command = self._act(decision)
        promise = self._commit(decision, self._in_force(inputs))
        self._tell(decision, inputs, command, promise, began)
        for part in self.parts:
            part.decided(decision, inputs)

    def _in_force(self, inputs: Inputs) -> bool:
        """Whether what this agent commands is what its actuators do."""
        if inputs.step == 0:
            return True
        if self._last is None:  # it has just come (back): what runs there is not its own
            return False
        if not self.round.actuators_tell:  # real actuators tell nothing: the deadline must do
            return True
        if inputs.applied is None:
            return False
        step, command, _ = self._last
        return step == inputs.step - 1 and np.array_equal(inputs.applied, np.array(command.values))

    def _commit(self, decision: Decision, in_force: bool) -> core.ForecastSet:
        """The promise to publish: the decision's, once it is on disk, or the old one again.

        A new epoch is announced whatever happens: the old promise is broken, and neighbours must know.
        """
        new_epoch = decision.forecast.iteration != self._promise.iteration
        held = self.free is not None and self.round.actuators_tell and not new_epoch  # written when it is confirmed
        journalled = (in_force or new_epoch) and (held or self._journalled(decision))
        self._sound = in_force and journalled
        if self._sound or new_epoch:
            self._promise = decision.forecast
        else:
            self._promise = self.controller.start(decision.step, carried(self._promise, decision.step))
        return self._promise

    def renewed(self, decision: Decision) -> bool:
        """Whether the promise in force is the decision's, on disk, and its plan what the actuators follow.

        Only then others may be told to rely on more than the promise: a new epoch is announced without all that.
        """
        return self._held is None and self._sound and self._promise is decision.forecast

    def _journalled(self, decision: Decision) -> bool:
        if self.journal is None:
            return True
        try:
            self.journal.write(
                to_record(
                    decision.forecast,
                    self.controller.acknowledged(),
                    run=self.run,
                    step=decision.step,
                    mode=self.controller.mode,
                )
            )
        except OSError as error:
            self.diagnostics.say("journal", ERROR, f"cannot write: {error}; the promise is not renewed")
            return False
        return True

    def _drop(self, decision: Decision, inputs: Inputs, taken: float, allowed: float) -> None:
        """Too late to be applied: the last published promise stands, and the last plan runs at the actuators."""
        self.late += 1
        self.controller.start(self._promise.step, self._promise)
        self.controller.dropped(decision.step, inputs.state, self._decision.plan if self._last is not None else None)
        self.diagnostics.say(
            "deadline",
            WARN,
            f"step {decision.step} took {taken:.2g} s of {max(allowed, 0.0):.2g} s and was dropped",
            missed=self.late,
        )

    # -- messages out -------------------------------------------------------------------------------------------------
    def publish_forecast(self, forecast: core.ForecastSet) -> None:
        """Say something on the own `forecast` topic."""
        self._forecast.publish(convert.forecast_message(forecast, self.stamp(), self.run))

    def _act(self, decision: Decision) -> Command:
        """Command and wired actuators: they may go first, because every command keeps the old promise too."""
        stamp = self.stamp()
        what = convert.Command(self.agent, decision.step, decision.mode, decision.input, decision.plan)
        command = convert.command_message(what, self.layout, stamp, self.run)
        self._command.publish(command)
        for wire, publisher in zip(self._actuators, self._outputs, strict=True):
            publisher.publish(wire.message(float(decision.input[wire.index]), stamp, convert.FRAME))
        return command

    def _tell(
        self, decision: Decision, inputs: Inputs, command: Command, promise: core.ForecastSet, began: float
    ) -> None:
        """Promise and report."""
        stamp = command.header.stamp
        forecast = convert.forecast_message(promise, stamp, self.run)
        new_epoch = promise.iteration != self._said.iteration
        self._held = None
        if self.free is not None and self.round.actuators_tell and self.renewed(decision) and not new_epoch:
            self._held = (decision, inputs, forecast)
        else:
            self._promised(decision, forecast)
        self._last = (decision.step, command, forecast)
        self._decision = decision
        counts = tuple(self.counts[mode] for mode in MODES)
        timed = replace(decision.report, step_ms=1e3 * (time.monotonic() - began))
        report = convert.Report(self.agent, decision.step, timed, counts, self.diagnostics.rejected.total())
        self._report.publish(convert.report_message(report, stamp, self.run))

    def _promised(self, decision: Decision, forecast: ForecastSet) -> None:
        """Say the promise, and what may be said beside it."""
        self._said = self._promise
        if self.renewed(decision):
            self.proposals.speak(decision)
        self._forecast.publish(forecast)

    def _confirm(self, applied: convert.Measurement) -> None:
        """Say the promise that was held back, or forget it: the actuators did not do what it rests on."""
        assert self._held is not None and self._last is not None
        (decision, _, forecast), command = self._held, self._last[1]
        if applied.step < decision.step:
            return
        if applied.step == decision.step and np.array_equal(applied.values, np.array(command.values)):
            self._held = None
            if self._journalled(decision):
                self._promised(decision, forecast)
            else:
                self._sound = False
                self._promise = self.controller.start(decision.step, carried(self._said, decision.step))
            return
        self._take_back("came too late for the actuators")

    def _take_back(self, why: str) -> None:
        """The promise that was said last stands; what the actuators did instead they say themselves."""
        assert self._held is not None
        (decision, inputs, _), self._held = self._held, None
        self.late += 1
        self._sound, self._promise = False, self._said
        self.controller.start(self._said.step, self._said)
        self.controller.dropped(decision.step, inputs.state, None)
        self.diagnostics.say("deadline", WARN, f"the command of step {decision.step} {why}", missed=self.late)

    def _repeat(self, step: int) -> None:
        """The plant asks again for a step that was decided: its command was lost on the way."""
        if self._last is not None and self._last[0] == step:
            self._command.publish(self._last[1])
            self._forecast.publish(self._last[2])

    def _say_how_it_goes(self) -> None:
        missed = {"deadlines_missed": self.late, "restarts": self.values["restarts"]}
        if self._last is None:
            self.diagnostics.say("", OK, "waiting for the first measurement", **missed)
            return
        decision = self._decision
        level, word = {
            "optimal": (OK, "optimal"),
            "certified": (OK, "follows its certified policy"),
            "uncertified": (WARN, f"{decision.report.controller} decides, nothing is guaranteed"),
        }.get(
            decision.mode, (WARN if decision.mode == "backup" else ERROR, f"{decision.mode}: {decision.report.reason}")
        )
        if decision.report.promise_broken:
            level, word = ERROR, f"its state left the promised set: {decision.report.reason}"
        silent = ", ".join(sorted(self.round.silent))
        if silent and level == OK:
            level, word = WARN, f"{word}; relies on the last promise of {silent}"
        self.diagnostics.say(
            "",
            level,
            word,
            step=decision.step,
            mode=decision.mode,
            controller=decision.report.controller,
            solve_ms=decision.report.solve_ms,
            step_ms=decision.report.step_ms,
            smallest_margin=min(decision.report.margins.values(), default=float("nan")),
            epoch=decision.forecast.iteration,
            silent_neighbours=silent or "none",
            rejected_messages=self.diagnostics.rejected.total(),
            **missed,
            **{f"steps_{mode}": count for mode, count in self.counts.items()},
        )

    # -- small things -------------------------------------------------------------------------------------------------
    def stamp(self) -> Any:
        """Now, for headers."""
        return self.get_clock().now().to_msg()

    def now(self) -> float:
        """Plant time of this node's clock [s]."""
        return float(self.get_clock().now().nanoseconds) * 1e-9


def main() -> int:
    """`ros2 run rmpc_ros agent`."""
    return run_node("agent", sys.argv)
