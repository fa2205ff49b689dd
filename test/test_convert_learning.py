"""Transitions and versioned updates arrive unchanged, or are refused by name."""

import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message

from rmpc_ros.errors import MessageError
from rmpc_ros.learning.transition import Versions
from rmpc_ros.learning.update import SUBJECTS, Update
from rmpc_ros.nodes.checks import Layout, Peers, Window, packed
from rmpc_ros.nodes.convert_learning import (
    Transition,
    acknowledgement_from,
    acknowledgement_message,
    checksum,
    transition_from,
    transition_message,
    update_from,
    update_message,
)

PEERS = Peers(
    "run-7",
    {
        "reactor1": Layout(("T", "xA"), ("Q",), (), 36.0),
        "reactor2": Layout(("T", "xA"), ("Q",), (), 36.0),
        "separator": Layout(("T", "xA", "xB"), ("Q",), (), 36.0),
    },
)
KINDS = ("ellipsoid", "setpoint")


def stamp() -> Time:
    return Time(sec=180)


def a_transition() -> Transition:
    draw = np.random.default_rng(5)
    return Transition(
        agent="reactor1",
        step=5,
        state=draw.normal(size=2),
        next_state=draw.normal(size=2),
        input=draw.normal(size=1),
        neighbours={"separator": draw.normal(size=3), "reactor2": draw.normal(size=2)},
        disturbance=draw.normal(size=2),
        rewards={"cost": -1.5, "violation": 0.0},
        versions=Versions(3, 0, 7),
    )


def an_update(subject) -> Update:
    content = {"center": [1.0, 2.5], "shape": [[1.0, 0.1], [0.1, 2.0]], "name": "größer"}
    return Update(subject, "reactor_separator", ("reactor1",), 4, "ellipsoid", content, {"confidence": 0.95})


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def test_a_transition_arrives_as_it_was_sent() -> None:
    sent = a_transition()
    message = over_the_wire(transition_message(sent, PEERS, stamp(), previous=3))
    received = transition_from(message, PEERS, Window(last_step=5))
    assert message.previous == 3
    assert received.versions == sent.versions
    assert list(received.neighbours) == list(sent.neighbours)
    for name, values in sent.neighbours.items():
        assert np.array_equal(received.neighbours[name], values)
    for field in ("state", "next_state", "input", "disturbance"):
        assert np.array_equal(getattr(received, field), getattr(sent, field)), field
    assert (received.agent, received.step, received.rewards) == (sent.agent, sent.step, sent.rewards)


def test_a_transition_of_an_agent_without_neighbours_arrives() -> None:
    sent = Transition("reactor1", 0, np.ones(2), np.ones(2), np.ones(1), {}, np.zeros(2), {})
    received = transition_from(over_the_wire(transition_message(sent, PEERS, stamp())), PEERS)
    assert received.neighbours == {}
    assert received.rewards == {}


@pytest.mark.parametrize(
    ("field", "value", "reason", "named"),
    [
        ("run", "run-6", "other run", "run"),
        ("agent", "reactor9", "unknown agent", "agent"),
        ("step", 6, "future", "step"),
        ("state_names", ["xA", "T"], "wrong names", "state_names"),
        ("input_names", [], "wrong names", "input_names"),
        ("state", [1.0], "wrong length", "state"),
        ("next_state", [1.0, float("nan")], "not finite", "next_state"),
        ("input", [float("inf")], "not finite", "input"),
        ("neighbours", ["separator", "reactor9"], "unknown agent", "neighbours"),
        ("neighbours", ["separator", "separator"], "wrong names", "neighbours"),
        ("neighbours", ["reactor2", "separator"], "wrong length", "neighbour_sizes"),
        ("neighbour_sizes", [3], "wrong length", "neighbour_sizes"),
        ("neighbour_states", [1.0] * 4, "wrong length", "neighbour_states"),
        ("neighbour_states", [1.0] * 4 + [float("nan")], "not finite", "neighbour_states"),
        ("disturbance_estimate", [], "wrong length", "disturbance_estimate"),
        ("reward_names", ["cost", "cost"], "wrong names", "reward_names"),
        ("rewards", [1.0], "wrong length", "rewards"),
        ("rewards", [1.0, float("nan")], "not finite", "rewards"),
        ("previous", 5, "wrong value", "previous"),
        ("previous", -2, "wrong value", "previous"),
        ("set_version", 2**63, "wrong value", "set_version"),
        ("model_version", 2**64 - 1, "wrong value", "model_version"),
        ("policy_version", 2**63, "wrong value", "policy_version"),
    ],
)
def test_a_damaged_transition_is_refused_by_name(field: str, value, reason: str, named: str) -> None:
    message = transition_message(a_transition(), PEERS, stamp())
    floats = field in ("state", "next_state", "input", "neighbour_states", "disturbance_estimate", "rewards")
    setattr(message, field, packed(value) if floats else value)
    with pytest.raises(MessageError) as refused:
        transition_from(over_the_wire(message), PEERS, Window(last_step=5))
    assert str(refused.value).startswith(f"{reason}: ")
    assert f"field {named}: " in str(refused.value)


def test_a_step_that_no_database_can_hold_is_refused() -> None:
    message = transition_message(a_transition(), PEERS, stamp())
    message.step = 2**63
    with pytest.raises(MessageError, match=r"wrong value: .*, field step: 9223372036854775808"):
        transition_from(over_the_wire(message), PEERS)


def test_an_acknowledgement_arrives_or_is_refused_by_name() -> None:
    steps = {"reactor1": 17, "separator": -1}
    message = over_the_wire(acknowledgement_message(steps, stamp(), "run-7"))
    assert acknowledgement_from(message, PEERS) == steps
    for field, value in (("run", "run-6"), ("agents", ["reactor1", "reactor9"]), ("steps", [1])):
        wrong = acknowledgement_message(steps, stamp(), "run-7")
        setattr(wrong, field, array.array("q", value) if field == "steps" else value)
        with pytest.raises(MessageError, match=f"field {field}: "):
            acknowledgement_from(over_the_wire(wrong), PEERS)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_an_update_arrives_as_it_was_sent(subject) -> None:
    sent = an_update(subject)
    message = over_the_wire(update_message(sent, stamp(), "run-7"))
    assert update_from(message, "reactor_separator", PEERS, KINDS, in_force=3) == sent


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize(
    ("field", "value", "reason", "named"),
    [
        ("run", "run-6", "other run", "run"),
        ("plant", "other", "wrong value", "plant"),
        ("agents", ["reactor1", "reactor9"], "unknown agent", "agents"),
        ("version", 3, "stale", "version"),
        ("version", 0, "stale", "version"),
        ("content_json", '{"center": [1.0]}', "damaged", "sha256"),
        ("sha256", "", "damaged", "sha256"),
        ("certificate_json", "{", "damaged", "certificate_json"),
        ("certificate_json", "[]", "damaged", "certificate_json"),
        ("certificate_json", '{"confidence": NaN}', "not finite", "certificate_json"),
    ],
)
def test_a_damaged_update_is_refused_by_name(subject, field: str, value, reason: str, named: str) -> None:
    message = update_message(an_update(subject), stamp(), "run-7")
    setattr(message, field, value)
    with pytest.raises(MessageError) as refused:
        update_from(over_the_wire(message), "reactor_separator", PEERS, KINDS, in_force=3)
    assert str(refused.value).startswith(f"{reason}: ")
    assert f"field {named}: " in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        *("not json", "[1]", '{"a": Infinity}', '{"a": 1e999}', '{"a": %s}' % ("9" * 400), "[" * 60_000),
        '{"a": "%s"}' % ("x" * 70_000),
    ],
    ids=["text", "list", "infinity", "overflow", "digits", "nested", "oversized"],
)
def test_content_with_a_right_checksum_is_still_checked(content: str) -> None:
    message = update_message(an_update("policy"), stamp(), "run-7")
    message.content_json, message.sha256 = content, checksum(content)
    with pytest.raises(MessageError, match="field content_json"):
        update_from(over_the_wire(message), "reactor_separator", PEERS, KINDS)


def test_an_unknown_kind_is_refused_by_name() -> None:
    message = update_message(an_update("model"), stamp(), "run-7")
    with pytest.raises(MessageError, match="field kind: 'ellipsoid'; allowed: gaussian_process"):
        update_from(over_the_wire(message), "reactor_separator", PEERS, ("gaussian_process",))


def test_numbers_that_are_not_finite_are_not_even_sent() -> None:
    update = an_update("policy")
    update.content["gain"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        update_message(update, stamp(), "run-7")
