"""What is sent arrives unchanged, and what is damaged is refused by name before anything else sees it."""

import timeit
from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from rmpc_ros.srv import GetPolicy

from rmpc_ros.errors import MessageError
from rmpc_ros.mpc.backup import BackupPlan
from rmpc_ros.network.decision import StepReport
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.nodes import convert
from rmpc_ros.nodes.checks import Layout, Peers, Window

RUN = "run-7"
LAYOUT = Layout(("T", "xA"), ("Q",), ("T", "xA", "Q - law"), 36.0)
PEERS = Peers(RUN, {"reactor1": LAYOUT, "reactor2": LAYOUT})
NOW = Window(first_step=3, last_step=8, earliest=30.0, latest=40.0)


def stamp() -> Time:
    return Time(sec=36, nanosec=500_000_000)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def a_forecast(**changes) -> ForecastSet:
    draw = rng()
    shape = (6, 3)
    forecast = ForecastSet(
        agent="reactor1",
        step=5,
        period=36.0,
        names=LAYOUT.promised,
        center=draw.normal(size=shape),
        scale=draw.uniform(size=shape),
        terminal_center=draw.normal(size=3),
        terminal_scale=draw.uniform(size=3),
        iteration=2,
        transform=draw.normal(size=(3, 3)),
    )
    return replace(forecast, **changes)


def a_plan(memory: bool = True) -> BackupPlan:
    draw, N = rng(), 4
    return BackupPlan(
        step=4,
        nominal_inputs=draw.normal(size=(N, 1)),
        nominal_states=draw.normal(size=(N + 1, 2)),
        gain=draw.normal(size=(1, 2)),
        memory_gain=draw.normal(size=(N, N, 1, 2)) if memory else np.zeros((0, 0, 1, 2)),
        terminal_state=draw.normal(size=2),
        terminal_input=draw.normal(size=1),
        input_lower=np.array([-5.0]),
        input_upper=np.array([5.0]),
    )


def a_command(memory: bool = True) -> convert.Command:
    return convert.Command("reactor1", 5, "certified", np.array([1.25]), a_plan(memory))


def a_report() -> convert.Report:
    step = StepReport(
        "backup",
        "infeasible",
        1.5,
        2.5,
        0.75,
        {"T": 0.5, "Q": -0.1},
        rng().uniform(size=(5, 2)),
        True,
        "x",
        "cooperative",
    )
    return convert.Report("reactor2", 5, step, (1, 2, 3, 4, 5), 9)


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def test_whether_a_promise_was_kept_without_a_measurement_is_not_known_on_the_other_side_either():
    report = a_report()
    blind = replace(report, step_report=replace(report.step_report, cost=float("nan"), promise_kept=None))
    message = over_the_wire(convert.report_message(blind, stamp(), RUN))
    assert not message.promise_kept  # who looks at this field alone does not count the step as kept
    heard = convert.report_from(message, PEERS)
    assert heard.step_report.promise_kept is None and not heard.step_report.promise_broken
    for kept in (True, False):
        known = replace(report, step_report=replace(report.step_report, promise_kept=kept))
        heard = convert.report_from(over_the_wire(convert.report_message(known, stamp(), RUN)), PEERS)
        assert heard.step_report.promise_kept is kept and heard.step_report.promise_broken is not kept


MAKE = {
    "forecast": lambda: convert.forecast_message(a_forecast(), stamp(), RUN),
    "measurement": lambda: convert.measurement_message(
        convert.Measurement("reactor1", 5, np.array([470.0, 0.2])), LAYOUT, stamp(), RUN
    ),
    "command": lambda: convert.command_message(a_command(), LAYOUT, stamp(), RUN),
    "report": lambda: convert.report_message(a_report(), stamp(), RUN),
}
READ = {
    "forecast": convert.forecast_from,
    "measurement": convert.measurement_from,
    "command": convert.command_from,
    "report": convert.report_from,
}


def same(left, right) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return np.shape(left) == np.shape(right) and np.array_equal(left, right, equal_nan=True)
    if hasattr(left, "__dataclass_fields__"):
        return type(left) is type(right) and all(
            same(getattr(left, name), getattr(right, name)) for name in left.__dataclass_fields__
        )
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return bool(left == right) or (left != left and right != right)


@pytest.mark.parametrize("transform", [None, np.eye(3)])
@pytest.mark.parametrize("kind", ["proposal", "commitment", "acknowledgement"])
def test_a_forecast_set_arrives_as_it_was_sent(kind: str, transform) -> None:
    acknowledged = "reactor2" if kind == "acknowledgement" else ""
    sent = a_forecast(kind=kind, transform=transform, acknowledged_agent=acknowledged)
    received = convert.forecast_from(over_the_wire(convert.forecast_message(sent, stamp(), RUN)), PEERS, NOW)
    assert same(sent, received)


def test_a_measurement_arrives_as_it_was_sent() -> None:
    sent = convert.Measurement("reactor2", 7, np.array([470.0, 0.2]))
    message = convert.measurement_message(sent, LAYOUT, stamp(), RUN)
    assert same(sent, convert.measurement_from(over_the_wire(message), PEERS, NOW))


@pytest.mark.parametrize("memory", [True, False])
def test_a_command_and_its_plan_arrive_as_they_were_sent(memory: bool) -> None:
    sent = a_command(memory)
    message = over_the_wire(convert.command_message(sent, LAYOUT, stamp(), RUN))
    assert same(sent, convert.command_from(message, PEERS, NOW))


def test_a_report_arrives_as_it_was_sent() -> None:
    sent = a_report()
    assert same(sent, convert.report_from(over_the_wire(convert.report_message(sent, stamp(), RUN)), PEERS, NOW))


def test_a_report_without_a_measurement_may_say_unknown() -> None:
    nan = float("nan")
    sent = a_report()
    sent = replace(sent, step_report=replace(sent.step_report, cost=nan, margins={"T": nan}, promise_kept=None))
    assert same(sent, convert.report_from(over_the_wire(convert.report_message(sent, stamp(), RUN)), PEERS, NOW))


def test_the_service_answers_with_the_policy_in_force() -> None:
    plan = a_plan()
    answer = over_the_wire(convert.fill_policy(GetPolicy.Response(), "reactor1", "optimal", plan, LAYOUT))
    assert answer.success and (answer.plan_step, answer.horizon) == (plan.step, plan.horizon)
    assert (tuple(answer.names), tuple(answer.state_names)) == (LAYOUT.inputs, LAYOUT.states)
    for name in ("nominal_inputs", "nominal_states", "memory_gain", "terminal_state", "terminal_input", "input_lower"):
        assert np.array_equal(getattr(answer, name), getattr(plan, name).ravel()), name
    assert np.array_equal(answer.backup_gain, plan.gain.ravel())


def test_no_policy_yet_is_said_and_not_made_up() -> None:
    answer = over_the_wire(convert.fill_policy(GetPolicy.Response(), "reactor1", "optimal", None, LAYOUT))
    assert not answer.success and "not decided a step yet" in answer.message and len(answer.backup_gain) == 0


COMMON = [
    ("run", "run-6", "other run", "run"),
    ("agent", "reactor9", "unknown agent", "agent"),
    ("step", 2, "stale", "step"),
    ("step", 9, "future", "step"),
    ("step", 2**64 - 1, "future", "step"),
    ("header.stamp.sec", 20, "stale", "header.stamp"),
    ("header.stamp.sec", 50, "future", "header.stamp"),
]
BAD = {
    "forecast": [
        ("names", ["xA", "T", "Q - law"], "wrong names", "names"),
        ("names", ["T"], "wrong names", "names"),
        ("names", [], "wrong names", "names"),
        ("center[4]", float("nan"), "not finite", "center"),
        ("scale[17]", float("inf"), "not finite", "scale"),
        ("scale[3]", -1e-9, "wrong value", "scale"),
        ("transform[0]", float("-inf"), "not finite", "transform"),
        ("terminal_center[2]", float("nan"), "not finite", "terminal_center"),
        ("terminal_scale[0]", -1.0, "wrong value", "terminal_scale"),
        ("center", [1.0] * 17, "wrong length", "center"),
        ("center", [], "wrong length", "center"),
        ("scale", [1.0] * 19, "wrong length", "scale"),
        ("transform", [1.0] * 8, "wrong length", "transform"),
        ("terminal_center", [1.0], "wrong length", "terminal_center"),
        ("terminal_scale", [1.0] * 4, "wrong length", "terminal_scale"),
        ("horizon", 6, "wrong length", "center"),
        ("horizon", 2**32 - 1, "wrong value", "horizon"),
        ("period", 35.0, "wrong value", "period"),
        ("period", float("nan"), "not finite", "period"),
        ("shape", "ball", "wrong value", "shape"),
        ("kind", 3, "wrong value", "kind"),
        ("kind", 2, "unknown agent", "acknowledged_agent"),
        ("settled", 4_000_000_000, "wrong value", "settled"),
        ("acknowledged_agent", "reactor2", "unknown agent", "acknowledged_agent"),
    ],
    "measurement": [
        ("names", ["T"], "wrong names", "names"),
        ("values[1]", float("nan"), "not finite", "values"),
        ("values[0]", float("-inf"), "not finite", "values"),
        ("values", [1.0], "wrong length", "values"),
        ("values", [1.0] * 3, "wrong length", "values"),
    ],
    "command": [
        ("names", ["F"], "wrong names", "names"),
        ("state_names", ["xA", "T"], "wrong names", "state_names"),
        ("mode", 5, "wrong value", "mode"),
        ("plan_step", 6, "future", "plan_step"),
        ("values[0]", float("nan"), "not finite", "values"),
        ("values[0]", 5.001, "wrong value", "values"),
        ("values[0]", -5.001, "wrong value", "values"),
        ("values", [], "wrong length", "values"),
        ("nominal_inputs[0]", float("inf"), "not finite", "nominal_inputs"),
        ("nominal_inputs", [1.0] * 3, "wrong length", "nominal_inputs"),
        ("nominal_states", [1.0] * 8, "wrong length", "nominal_states"),
        ("nominal_states[9]", float("nan"), "not finite", "nominal_states"),
        ("horizon", 3, "wrong length", "nominal_inputs"),
        ("horizon", 2**32 - 1, "wrong length", "nominal_inputs"),
        ("backup_gain", [1.0], "wrong length", "backup_gain"),
        ("backup_gain[1]", float("nan"), "not finite", "backup_gain"),
        ("memory_gain", [1.0], "wrong length", "memory_gain"),
        ("memory_gain[31]", float("nan"), "not finite", "memory_gain"),
        ("terminal_state", [], "wrong length", "terminal_state"),
        ("terminal_state[0]", float("nan"), "not finite", "terminal_state"),
        ("terminal_input", [1.0, 1.0], "wrong length", "terminal_input"),
        ("terminal_input[0]", float("inf"), "not finite", "terminal_input"),
        ("input_lower[0]", 6.0, "wrong value", "input_lower"),
        ("input_lower", [], "wrong length", "input_lower"),
        ("input_upper[0]", float("nan"), "not finite", "input_upper"),
    ],
    "report": [
        ("mode", 200, "wrong value", "mode"),
        ("margins", [1.0], "wrong length", "margins"),
        ("margins[0]", float("inf"), "not finite", "margins"),
        ("margin_names", ["T"], "wrong length", "margins"),
        ("promise_width", [1.0] * 9, "wrong length", "promise_width"),
        ("promise_width[1]", float("nan"), "not finite", "promise_width"),
        ("promise_width[1]", -0.1, "wrong value", "promise_width"),
        ("solve_ms", -1.0, "wrong value", "solve_ms"),
        ("step_ms", float("nan"), "not finite", "step_ms"),
        ("cost", float("inf"), "not finite", "cost"),
    ],
}
CASES = [(kind, *case) for kind, cases in BAD.items() for case in COMMON + cases]


def damage(message, path: str, value):
    """Put a wrong value into a sound message: a field, a part of one, or one entry of an array."""
    *outer, last = path.split(".")
    target = message
    for part in outer:
        target = getattr(target, part)
    name, _, index = last.partition("[")
    if index:
        values = getattr(target, name)
        values[int(index.removesuffix("]"))] = value
    elif isinstance(value, list) and all(isinstance(entry, float) for entry in value) and name not in ("names",):
        setattr(target, name, convert.packed(value))
    else:
        setattr(target, name, value)
    return over_the_wire(message)


@pytest.mark.parametrize(
    ("kind", "path", "value", "reason", "field"), CASES, ids=[f"{c[0]}-{c[1]}-{str(c[2])[:20]}" for c in CASES]
)
def test_a_damaged_message_is_refused_by_name(kind: str, path: str, value, reason: str, field: str) -> None:
    READ[kind](over_the_wire(MAKE[kind]()), PEERS, NOW)  # sound before it is damaged
    with pytest.raises(MessageError) as refused:
        READ[kind](damage(MAKE[kind](), path, value), PEERS, NOW)
    text = str(refused.value)
    assert text.startswith(f"{reason}: ")
    assert f"field {field}: " in text


@pytest.mark.parametrize("bad", [np.array([np.nan]), np.array([5.5]), np.array([1.0, 1.0])])
def test_a_wrong_input_is_not_even_sent(bad) -> None:
    with pytest.raises(MessageError, match="field values"):
        convert.command_message(replace(a_command(), input=bad), LAYOUT, stamp(), RUN)


def test_what_was_read_does_not_change_with_the_message() -> None:
    message = over_the_wire(MAKE["forecast"]())
    forecast = convert.forecast_from(message, PEERS, NOW)
    before = forecast.center.copy()
    message.center[0] += 1.0
    assert np.array_equal(forecast.center, before)


def test_arrays_travel_by_the_fast_path() -> None:
    """Encoding 200 floats and decoding and checking them costs less than assigning them as checked lists."""
    forecast = a_forecast(center=np.ones((34, 3)), scale=np.ones((34, 3)), transform=None)
    peers, message = PEERS, convert.forecast_message(forecast, stamp(), RUN)
    ours = min(timeit.repeat(lambda: convert.forecast_message(forecast, stamp(), RUN), number=200, repeat=5))
    ours += min(timeit.repeat(lambda: convert.forecast_from(message, peers), number=200, repeat=5))

    def slow() -> None:
        out = type(message)(check_fields=True)
        out.center = forecast.center.ravel().tolist()
        out.scale = forecast.scale.ravel().tolist()

    lists = min(timeit.repeat(slow, number=200, repeat=5))
    assert ours < lists, f"{ours / 200 * 1e6:.0f} us against {lists / 200 * 1e6:.0f} us"


def test_numbers_of_proposals_are_steps_of_a_wall_clock_at_short_periods_too() -> None:
    now = int(1.8e9 / 0.1)  # steps since 1970
    sent = a_forecast(step=now, iteration=now - 1, kind="proposal", adopted=now - 9, settled=now - 2)
    received = convert.forecast_from(over_the_wire(convert.forecast_message(sent, stamp(), RUN)), PEERS)
    assert (received.iteration, received.adopted, received.settled) == (now - 1, now - 9, now - 2)
