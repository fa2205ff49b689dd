"""On ROS: a set-point is a parameter, and moving it makes an agent ask its neighbours for a larger promise."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rmpc_ros.msg import ForecastSet
from ros_plant import PlantHere, begin, end, make, own_domain

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.network.journal import Journal
from rmpc_ros.network.proposal import from_record
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.agent import AgentNode
from rmpc_ros.nodes.monitor import MonitorNode
from rmpc_ros.run import setpoint

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"
STEPS, MOVED = 18, 5
Say = Callable[[int, dict[str, Any]], None]


@pytest.fixture(scope="module", autouse=True)
def ros() -> Iterator[None]:
    with own_domain():
        yield


def run(
    say: Say, folder: Path | None, client: Sequence[str] = (), steps: int = STEPS
) -> tuple[dict[str, Any], dict[str, list[ForecastSet]], str]:
    """Plant, agents and monitor in this process; `say` after every step, then a client that asks reactor1.

    Returns nodes, what agents have said, and the client's output.
    """
    agents = load_plant(FILE).agents
    journals = {name: {"journal": str(folder / name)} for name in agents} if folder is not None else {}
    here = PlantHere(FILE, ("agent", "plant", "monitor"), journals, duration=36.0 * steps)
    spoken: dict[str, list[ForecastSet]] = defaultdict(list)
    for name in agents:
        here.other.create_subscription(ForecastSet, f"{name}/forecast", spoken[name].append, qos.PROMISE)
    here.run(lambda k, inputs: say(k, here.nodes))
    output = ""
    if client:
        words = [sys.executable, "-m", "rmpc_ros.nodes.setpoint_client", f"{here.base}/reactor1/agent/", *client]
        asking = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        here.until(lambda: asking.poll() is not None)
        output = asking.communicate(timeout=5)[0]
    here.close()
    return here.nodes, spoken, output


def numbers(node: AgentNode, part: str) -> dict[str, str]:
    (status,) = [s for s in node.diagnostics.statuses() if s.name.endswith(f": {part}")]
    return {value.key: value.value for value in status.values}


def test_a_moved_set_point_is_proposed_acknowledged_adopted_and_told(tmp_path: Path) -> None:
    results = []

    def move(k: int, nodes: dict[str, Any]) -> None:
        agent = nodes["reactor1"]
        if k == MOVED:
            resting = float(agent.design.steady_state[2])
            results.append(agent.set_parameters([Parameter("setpoint.T1", value=resting + 5.0)])[0])
            results.append(agent.set_parameters([Parameter("setpoint.T1", value=resting + 0.03)])[0])
            results.append(agent.set_parameters([Parameter("setpoint.T1", value=float("nan"))])[0])

    nodes, spoken, told_client = run(move, tmp_path, ["xA1=0.5", "T1=446.3"])
    far, near, bad = results
    assert not far.successful and "in this direction at most T1 = " in far.reason
    assert near.successful
    answer = json.loads(told_client)  # all or none
    assert not answer["success"] and "xA1 = 0.5" in answer["message"]
    assert answer["setpoints"]["T1"] == pytest.approx(float(nodes["reactor1"].design.steady_state[2]) + 0.03)
    assert not bad.successful and "finite" in bad.reason
    reactor1 = nodes["reactor1"]
    assert reactor1.controller.design.x_ref[2] == pytest.approx(0.03 / reactor1.design.scale[2])

    proposals = [m for m in spoken["reactor1"] if m.kind == ForecastSet.PROPOSAL]
    number = proposals[0].iteration
    assert number == proposals[0].step > MOVED
    for name in ("reactor2", "separator"):
        answers = [m for m in spoken[name] if m.kind == ForecastSet.ACKNOWLEDGEMENT]
        assert {(m.acknowledged_agent, m.iteration) for m in answers} >= {("reactor1", number)}
    commitments = {m.step: m for m in spoken["reactor1"] if m.kind == ForecastSet.COMMITMENT}
    adopted = min(step for step, m in commitments.items() if m.adopted == number)
    assert number < adopted <= number + 8
    assert all(m.settled < number for step, m in commitments.items() if step <= number)
    told = numbers(reactor1, "proposals")
    assert int(told["adopted"]) >= 1 and int(told["newest_adopted"]) >= number
    assert int(numbers(nodes["reactor2"], "proposals")["acknowledged"]) >= 1
    assert from_record(Journal(tmp_path / "reactor1").read().payload)[0].adopted >= number

    monitor = nodes["monitor"]
    assert isinstance(monitor, MonitorNode)
    assert all(w.broken == 0 and w.violations == 0 and w.checked > STEPS - 5 for w in monitor.watched.values())
    assert all(not nodes[name].diagnostics.rejected for name in ("reactor1", "reactor2", "separator", "monitor"))


@pytest.mark.parametrize("word", ["T1", "=4", "T1=warm", "T1=nan"])
def test_a_set_point_that_is_no_number_is_refused_before_anybody_is_asked(word: str) -> None:
    with pytest.raises(ConfigError, match="write STATE=VALUE"):
        setpoint.move("reactor1", [word], None, None)


def test_a_set_point_of_nobody_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="no agent 'reactor9'; there are reactor1, reactor2, separator"):
        setpoint.move("reactor9", [], None, FILE)


def test_without_a_journal_an_agent_neither_asks_nor_answers() -> None:
    def move(k: int, nodes: dict[str, Any]) -> None:
        if k == MOVED:
            agent = nodes["reactor1"]
            value = float(agent.design.steady_state[2]) + 0.03
            assert agent.set_parameters([Parameter("setpoint.T1", value=value)])[0].successful

    nodes, spoken, _ = run(move, None, steps=MOVED + 4)
    kinds = {m.kind for messages in spoken.values() for m in messages}
    assert kinds == {ForecastSet.COMMITMENT}
    assert numbers(nodes["reactor1"], "proposals")["proposed"] == "0"
    assert np.any(nodes["reactor1"].controller.design.x_ref)


def test_a_set_point_that_somebody_else_refuses_changes_nothing() -> None:
    spec = bringup.node_specs(load_plant(FILE), FILE, run="r")[0]
    node = make(spec, autostart=False)
    refusing = [False]
    node.add_on_set_parameters_callback(  # asked last
        lambda _: SetParametersResult(successful=not refusing[0], reason="not today")
    )
    begin(node)
    before, refusing[0] = node.controller.design.x_ref, True
    wish = Parameter("setpoint.T1", value=float(node.design.steady_state[2]) + 0.03)
    result = node.set_parameters([wish])[0]
    assert not result.successful and result.reason == "not today"
    assert np.array_equal(node.controller.design.x_ref, before)
    refusing[0] = False
    assert node.set_parameters([wish])[0].successful
    moved = node.controller.design.x_ref
    assert not np.array_equal(moved, before)
    node.trigger_deactivate()
    assert node.trigger_activate().name == "SUCCESS"  # the parameters count when it is active again
    assert np.array_equal(node.controller.design.x_ref, moved)
    assert not node.set_parameters([Parameter("setpoint.T1", value=float("nan"))])[0].successful
    end(node)


def test_a_node_that_could_not_begin_hears_nothing_and_can_begin_later() -> None:
    spec = bringup.node_specs(load_plant(FILE), FILE, run="r")[0]
    node = make(spec, **{"autostart": False, "setpoint.T1": 500.0})
    assert node.trigger_configure().name == "SUCCESS"
    assert node.trigger_activate().name == "FAILURE"  # the set-point is not certified
    assert node._ears == []
    assert node.set_parameters([Parameter("mode", value="pid")])[0].successful  # no part listens to this any more
    resting = Parameter("setpoint.T1", value=float(node.design.steady_state[2]))
    assert node.set_parameters([resting, Parameter("mode", value="robust")])[0].successful
    assert node.trigger_activate().name == "SUCCESS"
    heard = len(node._ears)
    node.trigger_deactivate()
    assert node.trigger_activate().name == "SUCCESS" and len(node._ears) == heard
    end(node)
