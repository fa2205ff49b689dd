"""Messages to objects and back: forecast sets, measurements, commands, reports, policies.

`*_message` makes a message from an object, `*_from` checks a message and makes an object from it; it raises
`MessageError` naming the field before any of the content is used. Learning messages: `convert_learning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from std_msgs.msg import Header

import rmpc_ros.msg as msg
from rmpc_ros.mpc.backup import BackupPlan
from rmpc_ros.network.decision import CONTROLLERS, MODES, Mode, StepReport, kept_word
from rmpc_ros.network.forecast import ForecastSet, Kind
from rmpc_ros.nodes.checks import ANY_TIME, PERIOD_TOLERANCE, Check, Layout, Peers, Window, packed

Vector = NDArray[np.float64]

FRAME = "plant"  # RViz's fixed frame
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order of the message's constants
LONGEST_HORIZON = 100_000  # steps; a larger one is a damaged message, not a promise


@dataclass(frozen=True)
class Measurement:
    """States (nx,) that one agent measured at a step, in the plant file's units."""

    agent: str
    step: int
    values: Vector


@dataclass(frozen=True)
class Command:
    """Input (nu,) for a step and the plan to follow while the agent is silent."""

    agent: str
    step: int
    mode: Mode
    input: Vector
    plan: BackupPlan


@dataclass(frozen=True)
class Report:
    """A step's report with the agent's counters: steps per mode (in the order of MODES) and refused messages."""

    agent: str
    step: int
    step_report: StepReport
    mode_counts: tuple[int, ...]
    rejected_messages: int


def header(stamp: Time, frame: str = FRAME) -> Header:
    """Header of an outgoing message."""
    return Header(stamp=stamp, frame_id=frame)


# -- forecast sets ----------------------------------------------------------------------------------------------------
def forecast_message(forecast: ForecastSet, stamp: Time, run: str) -> msg.ForecastSet:
    """Message of a forecast set."""
    out = msg.ForecastSet(header=header(stamp), run=run, agent=forecast.agent, step=forecast.step)
    out.iteration, out.adopted, out.settled = forecast.iteration, forecast.adopted, forecast.settled
    out.kind = KINDS.index(forecast.kind)
    out.period = float(forecast.period)
    out.horizon = forecast.horizon
    out.shape = forecast.shape
    out.names = list(forecast.names)
    out.center = packed(forecast.center)
    out.scale = packed(forecast.scale)
    if forecast.transform is not None:
        out.transform = packed(forecast.transform)
    out.terminal_center = packed(forecast.terminal_center)
    out.terminal_scale = packed(forecast.terminal_scale)
    out.acknowledged_agent = forecast.acknowledged_agent
    return out


def forecast_from(message: msg.ForecastSet, peers: Peers, window: Window = ANY_TIME) -> ForecastSet:
    """Checked forecast set of a message.

    Raises
    ------
    MessageError
        The message is not a promise that `peers` can have made in `window`.
    """
    check = Check(message)
    layout = check.origin(peers)
    step = check.time(window)
    names = check.names("names", layout.promised)
    n, rows = len(names), int(message.horizon) + 1
    if rows > LONGEST_HORIZON + 1:
        raise check.refuse("wrong value", "horizon", f"{message.horizon}; at most {LONGEST_HORIZON} steps")
    period = check.number("period")
    if abs(period - layout.period) > PERIOD_TOLERANCE * layout.period:
        raise check.refuse("wrong value", "period", f"{period:.9g} s; expected {layout.period:.9g} s")
    if message.shape != "box":
        raise check.refuse("wrong value", "shape", f"'{message.shape}'; allowed: 'box'")
    kind = check.choice("kind", KINDS)
    acknowledged = str(message.acknowledged_agent)
    allowed = tuple(dict.fromkeys((*peers.agents, *peers.others))) if kind == "acknowledgement" else ("",)
    if acknowledged not in allowed:
        want = f"expected one of {', '.join(allowed)}" if allowed[0] else f"a {kind} has none"
        raise check.refuse("unknown agent", "acknowledged_agent", f"'{acknowledged}'; {want}")
    if message.adopted > message.settled:
        raise check.refuse("wrong value", "adopted", f"{message.adopted} lies after settled = {message.settled}")
    if message.settled > step:  # numbers are steps: believed, it would end what was acknowledged and may be adopted yet
        raise check.refuse("wrong value", "settled", f"{message.settled} lies after step {step}")
    return ForecastSet(
        agent=str(message.agent),
        step=step,
        period=layout.period,
        names=names,
        center=check.floats("center", (rows, n)),
        scale=check.floats("scale", (rows, n), low=0.0),
        terminal_center=check.floats("terminal_center", (n,)),
        terminal_scale=check.floats("terminal_scale", (n,), low=0.0),
        kind=kind,
        iteration=int(message.iteration),
        shape="box",
        transform=check.floats("transform", (n, n)) if len(message.transform) else None,
        acknowledged_agent=acknowledged,
        adopted=int(message.adopted),
        settled=int(message.settled),
    )


# -- measurements -----------------------------------------------------------------------------------------------------
def measurement_message(measurement: Measurement, layout: Layout, stamp: Time, run: str) -> msg.Measurement:
    """Message of a measurement."""
    out = msg.Measurement(header=header(stamp), run=run, agent=measurement.agent, step=measurement.step)
    out.names = list(layout.states)
    out.values = packed(measurement.values)
    return out


def measurement_from(
    message: msg.Measurement, peers: Peers, window: Window = ANY_TIME, partial: bool = False
) -> Measurement:
    """Checked measurement of a message.

    Parameters
    ----------
    partial : values may be missing (NaN)

    Raises
    ------
    MessageError
        The message does not fit `peers` and `window`, or a value is not finite.
    """
    check = Check(message)
    layout = check.origin(peers)
    step = check.time(window)
    names = check.names("names", layout.states)
    return Measurement(str(message.agent), step, check.floats("values", (len(names),), nan=partial))


# -- commands and policies --------------------------------------------------------------------------------------------
def command_message(command: Command, layout: Layout, stamp: Time, run: str) -> msg.Command:
    """Message of a command.

    Raises
    ------
    MessageError
        The input is not finite or outside the plan's limits: it must never reach an actuator.
    """
    out = msg.Command(header=header(stamp), run=run, agent=command.agent, step=command.step)
    out.mode = MODES.index(command.mode)
    out.values = packed(command.input)
    _write_plan(out, command.plan, layout)
    check = Check(out)
    _inside(check, check.floats("values", (len(layout.inputs),)), command.plan)
    return out


def command_from(message: msg.Command, peers: Peers, window: Window = ANY_TIME) -> Command:
    """Checked command of a message: what it says lies within the limits it carries.

    Raises
    ------
    MessageError
        The message does not fit `peers` and `window`, or its input or plan cannot be followed.
    """
    check = Check(message)
    layout = check.origin(peers)
    step = check.time(window)
    if message.plan_step > step:
        raise check.refuse("future", "plan_step", f"{message.plan_step}; the command is for step {step}")
    plan = _read_plan(message, check, layout)
    values = check.floats("values", (len(layout.inputs),))
    _inside(check, values, plan)
    mode = check.choice("mode", MODES)
    return Command(str(message.agent), step, mode, values, plan)


def fill_policy(response: Any, agent: str, mode: Mode, plan: BackupPlan | None, layout: Layout) -> Any:
    """Fill the response of srv/GetPolicy with the policy in force; returns the response."""
    response.agent = agent
    response.success = plan is not None
    if plan is None:
        response.message = f"agent '{agent}' has not decided a step yet"
        return response
    response.mode = MODES.index(mode)
    _write_plan(response, plan, layout)
    return response


def _write_plan(out: Any, plan: BackupPlan, layout: Layout) -> None:
    out.names = list(layout.inputs)
    out.state_names = list(layout.states)
    out.plan_step = plan.step
    out.horizon = plan.horizon
    out.nominal_inputs = packed(plan.nominal_inputs)
    out.nominal_states = packed(plan.nominal_states)
    out.backup_gain = packed(plan.gain)
    out.memory_gain = packed(plan.memory_gain)
    out.terminal_state = packed(plan.terminal_state)
    out.terminal_input = packed(plan.terminal_input)
    out.input_lower = packed(plan.input_lower)
    out.input_upper = packed(plan.input_upper)


def _read_plan(message: Any, check: Check, layout: Layout) -> BackupPlan:
    nu, nx = len(check.names("names", layout.inputs)), len(check.names("state_names", layout.states))
    N = int(message.horizon)
    memory = N if len(message.memory_gain) else 0
    lower, upper = check.floats("input_lower", (nu,)), check.floats("input_upper", (nu,))
    if (lower > upper).any():
        raise check.refuse("wrong value", "input_lower", f"{lower.tolist()} lies above input_upper {upper.tolist()}")
    return BackupPlan(
        step=int(message.plan_step),
        nominal_inputs=check.floats("nominal_inputs", (N, nu)),
        nominal_states=check.floats("nominal_states", (N + 1, nx)),
        gain=check.floats("backup_gain", (nu, nx)),
        memory_gain=check.floats("memory_gain", (memory, memory, nu, nx)),
        terminal_state=check.floats("terminal_state", (nx,)),
        terminal_input=check.floats("terminal_input", (nu,)),
        input_lower=lower,
        input_upper=upper,
    )


def _inside(check: Check, values: Vector, plan: BackupPlan) -> None:
    if (values < plan.input_lower).any() or (values > plan.input_upper).any():
        limits = f"{plan.input_lower.tolist()} .. {plan.input_upper.tolist()}"
        raise check.refuse("wrong value", "values", f"{values.tolist()} lies outside {limits}")


# -- reports ----------------------------------------------------------------------------------------------------------
def report_message(report: Report, stamp: Time, run: str) -> msg.AgentReport:
    """Message of a report."""
    step = report.step_report
    out = msg.AgentReport(header=header(stamp), run=run, agent=report.agent, step=report.step)
    out.mode = MODES.index(step.mode)
    out.controller = step.controller
    out.solver_status = step.solver_status
    out.solve_ms = float(step.solve_ms)
    out.step_ms = float(step.step_ms)
    out.cost = float(step.cost)
    out.margin_names = list(step.margins)
    out.margins = packed(list(step.margins.values()))
    out.promise_width = packed(step.promise_width)
    out.promise_kept = bool(step.promise_kept)
    out.reason = step.reason
    out.mode_counts = np.array(report.mode_counts, dtype=np.uint64)
    out.rejected_messages = report.rejected_messages
    return out


def report_from(message: msg.AgentReport, peers: Peers, window: Window = ANY_TIME) -> Report:
    """Checked report of a message.

    Raises
    ------
    MessageError
        The message does not fit `peers` and `window`, or a number without meaning is in it.
    """
    check = Check(message)
    nx = len(check.origin(peers).states)
    step = check.time(window)
    rows = len(message.promise_width) // nx
    margins = check.floats("margins", (len(message.margin_names),), nan=True)
    report = StepReport(
        mode=check.choice("mode", MODES),
        solver_status=str(message.solver_status),
        solve_ms=check.number("solve_ms", low=0.0),
        step_ms=check.number("step_ms", low=0.0),
        cost=check.number("cost", nan=True),
        margins=dict(zip(message.margin_names, margins.tolist(), strict=True)),
        promise_width=check.floats("promise_width", (rows, nx), low=0.0),
        promise_kept=kept_word(bool(message.promise_kept), float(message.cost)),
        reason=str(message.reason),
        controller=check.word("controller", CONTROLLERS),
    )
    counts = tuple(int(count) for count in message.mode_counts)
    return Report(str(message.agent), step, report, counts, int(message.rejected_messages))
