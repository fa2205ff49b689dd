"""Bad messages change nothing: the same inputs are applied, every one of them is refused and counted."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rclpy.node import Node
from rmpc_ros.msg import Command, ForecastSet, Measurement
from rmpc_ros.srv import GetPolicy
from ros_plant import PlantHere, begin, end, make, own_domain

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.mpc.backup import PlanFollower
from rmpc_ros.network.journal import Journal
from rmpc_ros.nodes import convert, qos
from rmpc_ros.nodes.agent import AgentNode
from rmpc_ros.nodes.convert_learning import acknowledgement_message
from rmpc_ros.nodes.managed import ManagedNode
from rmpc_ros.nodes.plant import PlantNode
from rmpc_ros.nodes.round import Inputs
from rmpc_ros.nodes.transitions import Transitions

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"
STEPS = 12
BASE = "/reactor_separator"
NOISE = Callable[[int, PlantNode], None]


@pytest.fixture(scope="module", autouse=True)
def ros() -> Iterator[None]:
    with own_domain():
        yield


def run(
    noise: Callable[[dict[str, Any]], NOISE] | None, **changes: dict[str, Any]
) -> tuple[np.ndarray, dict[str, ManagedNode]]:
    """The whole plant in this process for some steps; `noise` speaks between them. Returns what was applied (k, nu)."""
    # Without rounds, whose time depends on how busy the machine is; test_nodes_cooperation is about them.
    alone = {name: {"mode": "robust", **changes.pop(name, {})} for name in load_plant(FILE).agents}
    here = PlantHere(FILE, changes={**alone, **changes}, duration=36.0 * STEPS)
    speak = noise({"node": here.other, "nodes": here.nodes}) if noise else None
    applied = []

    def after(k: int, inputs: dict[str, np.ndarray]) -> None:
        applied.append(np.concatenate([inputs[name] for name in here.config.agents]))
        if speak:
            speak(k, here.plant)

    here.run(after)
    here.close()
    return np.array(applied), here.nodes


def flood(tools: dict[str, Any]) -> NOISE:
    """Speaks on everybody's topics: good messages with one thing wrong each."""
    node: Node = tools["node"]
    command = node.create_publisher(Command, "reactor1/command", qos.STEP)
    forecast = node.create_publisher(ForecastSet, "reactor2/forecast", qos.PROMISE)
    measurement = node.create_publisher(Measurement, "separator/measurement", qos.STEP)
    heard: dict[str, Any] = {}
    node.create_subscription(Command, "reactor1/command", lambda m: heard.setdefault("command", m), qos.STEP)

    def hear(message: ForecastSet) -> None:
        if message.horizon:
            heard.setdefault("forecast", message)

    node.create_subscription(ForecastSet, "reactor2/forecast", hear, qos.PROMISE)

    def wrong(kind: str, **changes: Any) -> Any:
        message = copy.deepcopy(heard[kind])
        for field, value in changes.items():
            setattr(message, field, value)
        return message

    def speak(k: int, plant: PlantNode) -> None:
        if not {"command", "forecast"} <= set(heard):
            return
        following = {"step": k + 1, "plan_step": k + 1}
        for changes in (
            {"values": [float("nan")], **following},
            {"values": [1e9], **following},
            {"values": [1.2e6, 1.2e6], **following},
            {"agent": "reactor9", **following},
            {"run": "yesterday", **following},
            {"step": k + 50},
            {"step": 0, "plan_step": 0} if k > 3 else {"step": k + 51},
            {"names": ["Q7"], **following},
            {"nominal_states": [0.0], **following},
        ):
            command.publish(wrong("command", **changes))
        later = copy.deepcopy(heard["forecast"].header)
        later.stamp.sec += 10_000_000
        n = len(heard["forecast"].center)
        one = [0.0] * len(heard["forecast"].names)
        for changes in (
            {"center": [float("inf")] * n},
            {"scale": [-1.0] * n},
            {"scale": [1.0]},
            {"scale": [50.0] * n, "step": k},
            {"horizon": 0, "center": one, "scale": one, "step": k},
            {"period": 35.0},
            {"agent": "reactor1"},
            {"header": later},
        ):
            forecast.publish(wrong("forecast", **changes))
        stray = Measurement(header=heard["command"].header, run="r", agent="separator", step=k + 1)
        stray.names, stray.values = ["xA3", "xB3", "T3"], [float("nan")] * 3
        measurement.publish(stray)

    return speak


def test_a_flood_of_bad_messages_changes_no_actuator_value_and_is_counted() -> None:
    quiet, _ = run(None)
    loud, nodes = run(flood)
    assert quiet.shape == loud.shape == (STEPS, 3)
    assert np.array_equal(quiet, loud)
    refused = dict(nodes["plant"].diagnostics.rejected)
    classes = {
        "not finite",
        "wrong value",
        "wrong length",
        "unknown agent",
        "other run",
        "future",
        "stale",
        "wrong names",
    }
    assert classes <= set(refused)
    assert all(refused[c] >= 3 for c in classes)
    for name in ("reactor1", "separator"):
        heard = dict(nodes[name].diagnostics.rejected)
        assert {"not finite", "wrong value", "wrong length", "unknown agent", "promise refused"} <= set(heard)
    said = {s.name.rpartition("/")[2]: s for s in nodes["plant"].diagnostics.statuses()}["plant: messages"]
    assert int({v.key: v.value for v in said.values}["rejected"]) == sum(refused.values())


def test_the_future_is_refused_once_the_clock_is_known() -> None:
    _, nodes = run(flood)
    assert nodes["reactor1"].diagnostics.rejected["future"] >= 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plant": "nowhere.yaml"}, "cannot be read"),
        ({"agent": "reactor9"}, "reactor9.*give one of reactor1, reactor2, separator"),
        ({"neighbour_wait": 3.0}, r"waits 3 s for neighbours.*below its deadline.*of 2\.5 s"),
    ],
)
def test_a_wrong_parameter_is_one_clear_error(changes: dict[str, Any], words: str, capfd: Any) -> None:
    spec = bringup.node_specs(load_plant(FILE), FILE, run="r")[0]
    node = make(spec, **changes)
    assert not node.start()
    assert node.exit_status == 1
    node.destroy_node()
    import re

    assert re.search(words, capfd.readouterr().err)


def test_on_the_clock_every_state_needs_a_sensor(tmp_path: Path, capfd: Any) -> None:
    text = FILE.read_text(encoding="utf-8")
    unwired = tmp_path / "plant.yaml"
    unwired.write_text(text.replace("      - {topic: xA, type: std_msgs/Float64, state: xA1}\n", ""), encoding="utf-8")
    spec = bringup.node_specs(load_plant(unwired), unwired, run="r")[0]
    node = make(spec, timing="free")
    assert not node.start()
    node.destroy_node()
    assert "needs a sensor for xA1" in capfd.readouterr().err


def test_on_the_clock_nothing_is_estimated_and_that_is_said(tmp_path: Path, capfd: Any) -> None:
    estimating = tmp_path / "plant.yaml"
    estimating.write_text(FILE.read_text(encoding="utf-8") + "\nestimator: {}\n", encoding="utf-8")
    spec = bringup.node_specs(load_plant(estimating), estimating, run="r")[0]
    node = make(spec, timing="free")
    assert not node.start()
    node.destroy_node()
    assert "timing 'free' has no estimator" in capfd.readouterr().err


def test_a_parameter_out_of_its_range_is_refused_with_what_is_allowed() -> None:
    spec = bringup.node_specs(load_plant(FILE), FILE, run="r")[0]
    with pytest.raises(ConfigError, match=r"timing = 'sometimes'; give one of lockstep, free"):
        make(spec, timing="sometimes")
    with pytest.raises(ConfigError, match=r"give a float from -1 to 600"):
        make(spec, deadline=1e6)
    with pytest.raises(ConfigError, match=r"give a str"):
        make(spec, agent=7)


def test_parameters_are_described_and_read_only_but_for_the_mode() -> None:
    node = make(bringup.node_specs(load_plant(FILE), FILE, run="r")[0])
    assert isinstance(node, AgentNode)
    for name in node.values:
        descriptor = node.describe_parameter(name)
        assert descriptor.description
        assert descriptor.read_only == (name != "mode")
    assert node.describe_parameter("deadline").floating_point_range[0].to_value == 600.0
    node.destroy_node()


def test_an_inactive_node_hears_and_does_nothing() -> None:
    node = make(bringup.node_specs(load_plant(FILE), FILE, run="r")[0], autostart=False)
    assert node.trigger_configure().name == "SUCCESS"
    assert node._ears == []
    assert node.trigger_activate().name == "SUCCESS"
    node.tick(time.monotonic() + 5.0)  # partners that are not there are not waited for for ever
    # Two neighbours' promises, measurements and rounds, the own measurement, what was applied.
    assert len(node._ears) == 8
    assert node.trigger_deactivate().name == "SUCCESS"
    assert node._ears == []
    node.trigger_shutdown()
    node.destroy_node()


def test_a_learner_can_be_deactivated_and_activated_again(tmp_path: Path) -> None:
    node = make(bringup.learner_spec(load_plant(FILE), FILE, "r", tmp_path), autostart=False)
    assert node.trigger_configure().name == "SUCCESS"
    for _ in range(2):
        assert node.trigger_activate().name == "SUCCESS"
        node.tick(time.monotonic())
        assert node.trigger_deactivate().name == "SUCCESS"
    node.trigger_shutdown()
    node.destroy_node()


def test_an_acknowledgement_of_a_step_to_come_does_not_empty_the_outbox(tmp_path: Path) -> None:
    node = make(
        bringup.node_specs(load_plant(FILE), FILE, run="r")[0],
        autostart=False,
        mode="robust",
        outbox=str(tmp_path / "outbox"),
    )
    assert isinstance(node, AgentNode)
    begin(node)
    (part,) = [part for part in node.parts if isinstance(part, Transitions)]
    node.round.own(7, node.design.steady_state, 0.0)
    node.round.take()
    for step in (10**9, 5):
        part._on_acknowledgement(acknowledgement_message({node.agent: step}, node.stamp(), "r"))
    assert node.diagnostics.rejected["future"] == 1
    assert part._outbox.acknowledged == 5
    end(node)


def test_an_agent_believes_its_own_sensors_and_sound_promises_and_gives_its_word_only_on_disk() -> None:
    node = make(bringup.node_specs(load_plant(FILE), FILE, run="r")[0], autostart=False, mode="robust")
    assert isinstance(node, AgentNode)
    begin(node)
    other = node.peers.agents["reactor2"]
    stray = convert.Measurement("reactor2", 0, node.designs["reactor2"].steady_state)
    node._on_measurement(convert.measurement_message(stray, other, node.stamp(), "r"))
    assert node.diagnostics.rejected["unknown agent"] == 1 and not node.round.due(np.inf)

    sound = node.designs["reactor2"].terminal_promise(0)
    inflated = replace(sound, scale=2 * sound.scale, terminal_scale=2 * sound.terminal_scale)
    inputs = Inputs(0, node.design.steady_state, {}, (inflated, sound), ())
    assert node._believed(inputs).promises == (sound,)
    assert node.diagnostics.rejected["promise refused"] == 1

    decision = node.controller.step(0, node.design.steady_state, {})
    assert node._commit(decision, True) is decision.forecast and node.renewed(decision)
    afresh = replace(decision, forecast=replace(decision.forecast, iteration=1))
    assert node._commit(afresh, False) is afresh.forecast and not node.renewed(afresh)
    end(node)


def test_a_shorter_promise_may_not_hide_an_enlargement_behind_its_end() -> None:
    from rmpc_ros.errors import PromiseError
    from rmpc_ros.network.commitment import check_successor
    from rmpc_ros.network.forecast import ForecastSet as Promise

    def promise(step: int, horizon: int) -> Promise:
        tube, box = np.full((horizon + 1, 1), 0.1), np.ones(1)
        return Promise("a", step, 36.0, ("x",), 0 * tube, tube, 0 * box, box)

    check_successor(promise(3, 5), promise(4, 4))  # ends where the old one ends
    with pytest.raises(PromiseError, match="enlarged its promise for x at step 8"):
        check_successor(promise(3, 5), promise(4, 3))
    with pytest.raises(PromiseError, match="enlarged"):
        check_successor(promise(3, 5), promise(3, 0))


def test_a_damaged_epoch_does_not_become_everybodys() -> None:
    from rmpc_ros.errors import PromiseError
    from rmpc_ros.network.commitment import LARGEST_JUMP, check_successor
    from rmpc_ros.network.forecast import ForecastSet as Promise

    def promise(step: int, epoch: int) -> Promise:
        tube, box = np.full((4, 1), 0.1), np.ones(1)
        return Promise("a", step, 36.0, ("x",), 0 * tube, tube, 0 * box, box, iteration=epoch)

    check_successor(promise(3, 7), promise(4, 7 + LARGEST_JUMP))
    with pytest.raises(PromiseError, match="epoch 4000000000; epoch 7 is in force"):
        check_successor(promise(3, 7), promise(4, 4_000_000_000))


def test_a_late_decision_is_dropped_and_nothing_about_it_is_promised() -> None:
    promised: list[tuple[str, int]] = []

    def slow_down(tools: dict[str, Any]) -> NOISE:
        for name in ("reactor1", "reactor2"):
            take = lambda m, name=name: promised.append((name, m.step))  # noqa: E731
            tools["node"].create_subscription(ForecastSet, f"{name}/forecast", take, qos.PROMISE)

        def speak(k: int, plant: PlantNode) -> None:
            if k == 3:
                tools["nodes"]["reactor1"].deadline = 0.0  # nothing is in time any more

        return speak

    others = {name: {"neighbour_wait": 0.1} for name in ("reactor2", "separator")}
    _, nodes = run(slow_down, plant={"deadline": 1.0}, **others)
    late, plant = nodes["reactor1"], nodes["plant"]
    assert isinstance(late, AgentNode) and isinstance(plant, PlantNode)
    assert late.late >= 1
    assert {step for name, step in promised if name == "reactor1"} == {0, 1, 2, 3}
    assert {step for name, step in promised if name == "reactor2"} == set(range(STEPS))
    assert plant.silent == {"reactor1"}
    assert plant.away_steps["reactor1"] == STEPS - 4
    assert plant.deadlines_missed == {"reactor1": 1, "reactor2": 0, "separator": 0}


def test_after_a_late_decision_the_controller_continues_what_the_actuators_did() -> None:
    node = make(bringup.node_specs(load_plant(FILE), FILE, run="r")[0], autostart=False, mode="pid")
    assert isinstance(node, AgentNode)
    begin(node)
    rest = node.design.steady_state
    hot = rest + np.array([0.0, 0.0, 1.0])
    for step, state, began in ((0, hot, np.inf), (1, hot, -np.inf), (2, rest, np.inf)):
        node._decide(Inputs(step, state, {}, (), ()), began, node.deadline)
        if step == 0:
            plan = node._decision.plan
    assert node.late == 1 and node._decision.step == 2
    assert node._decision.input == pytest.approx(PlanFollower(plan).input(1, hot))
    end(node)


def test_on_the_clock_the_deadline_is_a_share_of_the_periods_wall_time() -> None:
    config = load_plant(FILE)
    for speed, deadline in ((1.0, 2.5), (120.0, 0.24)):  # half of network.deadline; 0.8 of 36 s / 120
        specs = bringup.node_specs(config, FILE, run="r", timing="free", speed=speed)
        node = make(specs[0], autostart=False)
        assert isinstance(node, AgentNode)
        assert node.trigger_configure().name == "SUCCESS"
        assert node.deadline == pytest.approx(deadline)
        node.trigger_shutdown()
        node.destroy_node()


def test_on_the_clock_a_timer_that_fires_late_leaves_less_than_the_deadline() -> None:
    spec = bringup.node_specs(load_plant(FILE), FILE, run="r", timing="free", speed=1.0)[0]
    node = make(spec, autostart=False, mode="robust")
    assert isinstance(node, AgentNode)
    begin(node)
    free = node.free
    assert free is not None
    free._begun = True
    taken: list[int] = []
    free.readings.recent = lambda since, age, before: node.design.steady_state  # type: ignore[method-assign, assignment]
    for step, part in ((0, 0.3), (1, 0.9), (2, 0.79), (3, 0.3)):
        node.now = lambda at=36.0 * (step + part): at  # type: ignore[method-assign, misc]
        free._on_clock()
        taken.append(node._decision.step)
    assert taken == [0, 0, 2, 3] and node.late == 1
    end(node)


def test_an_agent_whose_command_was_not_applied_repeats_its_promise() -> None:
    horizons: dict[int, int] = {}

    def interfere(tools: dict[str, Any]) -> NOISE:
        tools["node"].create_subscription(
            ForecastSet, "reactor1/forecast", lambda m: horizons.__setitem__(m.step, m.horizon), qos.PROMISE
        )

        def swap(k: int, plant: PlantNode) -> None:
            choose = plant.actuators["reactor1"].input

            def other(step: int, measured: np.ndarray) -> Any:
                u, source = choose(step, measured)
                return (u + 1.0 if step == 6 else u), source

            if k == 5:
                plant.actuators["reactor1"].input = other  # type: ignore[method-assign]

        return swap

    _, nodes = run(interfere)
    assert nodes["reactor1"].diagnostics.rejected.total() == 0
    horizon = horizons[5]
    assert {step: h for step, h in horizons.items() if h != horizon} == {7: horizon - 1}


def test_a_promise_that_cannot_be_written_is_not_published(tmp_path: Path) -> None:
    horizons: dict[int, int] = {}

    def fill_the_disk(tools: dict[str, Any]) -> NOISE:
        tools["node"].create_subscription(
            ForecastSet, "reactor1/forecast", lambda m: horizons.__setitem__(m.step, m.horizon), qos.PROMISE
        )

        def full(payload: bytes) -> None:
            raise OSError(28, "No space left on device")

        def speak(k: int, plant: PlantNode) -> None:
            if k == 4:
                tools["nodes"]["reactor1"].journal.write = full

        return speak

    journal = tmp_path / "reactor1.journal"
    applied, nodes = run(fill_the_disk, reactor1={"journal": str(journal)})
    quiet, _ = run(None)
    assert np.array_equal(applied[:6], quiet[:6])  # the command does not wait for the disk
    horizon = horizons[4]
    assert [horizons[k] for k in (5, 6, 7)] == [
        horizon - 1,
        horizon - 2,
        horizon - 3,
    ]  # the promise of step 4, repeated
    said = {s.name.rpartition("/")[2]: s for s in nodes["reactor1"].diagnostics.statuses()}["agent: journal"]
    assert "No space left on device" in said.message
    assert Journal(journal).read() is not None


def test_the_policy_in_force_can_be_read_through_the_service() -> None:
    answers: list[Any] = []

    def ask(tools: dict[str, Any]) -> NOISE:
        client = tools["node"].create_client(GetPolicy, "reactor1/agent/get_policy")

        def speak(k: int, plant: PlantNode) -> None:
            if k == 4:
                client.call_async(GetPolicy.Request()).add_done_callback(lambda done: answers.append(done.result()))

        return speak

    _, nodes = run(ask)
    agent = nodes["reactor1"]
    assert isinstance(agent, AgentNode)
    (answer,) = answers
    assert answer.success and 4 <= answer.plan_step <= STEPS
    gain = agent.design.physical_gain(agent.design.model.K)
    assert np.reshape(answer.backup_gain, gain.shape) == pytest.approx(gain)
