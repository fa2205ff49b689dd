"""A running plant whose agents change controllers: by the service, by the parameter, by `rmpc mode`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rmpc_ros.msg import AgentReport
from rmpc_ros.srv import SetMode
from ros_plant import make, own_domain

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.network.journal import Journal, facts_of
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.agent import AgentNode
from rmpc_ros.nodes.process import make_executor

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"
BASE = "/reactor_separator"
PATIENCE = 120.0


class Plant:
    """The whole plant in this process, stepping while it waits for something."""

    def __init__(self, journals: Path) -> None:
        config = load_plant(FILE)
        specs = bringup.node_specs(
            config, FILE, run="r", duration=36.0 * 1_000_000, executor="single", mode="pid", journals=journals
        )
        self.nodes = {s.label: make(s) for s in specs if s.kind in ("agent", "plant")}
        self.operator = Node("operator", use_global_arguments=False)
        self.reports: dict[str, list[AgentReport]] = {name: [] for name in config.agents}
        for name, heard in self.reports.items():
            self.operator.create_subscription(AgentReport, f"{BASE}/{name}/report", heard.append, qos.REPORT)
        self._executor = make_executor("single")
        for node in [*self.nodes.values(), self.operator]:
            self._executor.add_node(node)
        assert all(node.start() for node in self.nodes.values())

    def until(self, done: Any) -> Any:
        """Step the plant until `done()` says something."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = done()
            if found:
                return found
            self._executor.spin_once(timeout_sec=0.1)
        raise AssertionError("the plant did not get there in time")

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.operator.create_client(kind, name)
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def agent(self, name: str) -> AgentNode:
        node = self.nodes[name]
        assert isinstance(node, AgentNode)
        return node

    def reports_of(self, name: str, controller: str) -> list[AgentReport]:
        return [r for r in self.reports[name] if r.controller == controller]

    def close(self) -> None:
        for node in self.nodes.values():
            node.stop()
        for node in [*self.nodes.values(), self.operator]:
            self._executor.remove_node(node)
            node.destroy_node()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with own_domain():
        made = Plant(tmp_path_factory.mktemp("journals"))
        yield made
        made.close()


def test_all_agents_start_on_the_wanted_rung(plant: Plant) -> None:
    plant.until(lambda: all(len(heard) > 3 for heard in plant.reports.values()))
    for heard in plant.reports.values():
        assert heard[-1].controller == "pid" and heard[-1].mode == AgentReport.UNCERTIFIED
    status = {s.name.rpartition("/")[2]: s for s in plant.agent("reactor1").diagnostics.statuses()}["agent: mode"]
    assert "pid decides, which guarantees nothing" in status.message


def test_the_service_changes_the_controller_of_a_running_plant(plant: Plant) -> None:
    answer = plant.call(SetMode, f"{BASE}/reactor1/agent/set_mode", SetMode.Request(mode="robust"))
    assert answer.success and answer.mode == "robust" and answer.message == ""
    plant.until(lambda: plant.reports_of("reactor1", "robust"))
    first = plant.reports_of("reactor1", "robust")[0]
    assert "from pid to robust" in first.reason
    transfer = plant.agent("reactor1").controller.transfer
    assert transfer is not None and transfer.bump < 1.0
    asked = plant.call(SetMode, f"{BASE}/reactor1/agent/set_mode", SetMode.Request())
    assert asked.success and asked.mode == "robust"
    assert plant.reports["reactor2"][-1].controller == "pid"  # one agent at a time


def test_the_parameter_does_the_same_and_tells_the_truth(plant: Plant) -> None:
    wanted = [Parameter("mode", value="cooperative").to_parameter_msg()]
    request = SetParameters.Request(parameters=wanted)
    answer = plant.call(SetParameters, f"{BASE}/reactor2/agent/set_parameters", request)
    assert answer.results[0].successful
    plant.until(lambda: plant.reports_of("reactor2", "cooperative"))
    transfer = plant.agent("reactor2").controller.transfer
    assert transfer is not None and transfer.bump < 1.0
    for name, word in (("reactor1", "robust"), ("reactor2", "cooperative")):
        known = plant.call(GetParameters, f"{BASE}/{name}/agent/get_parameters", GetParameters.Request(names=["mode"]))
        assert known.values[0].string_value == word


def test_a_mode_that_does_not_exist_is_refused_both_ways(plant: Plant) -> None:
    answer = plant.call(SetMode, f"{BASE}/separator/agent/set_mode", SetMode.Request(mode="fuzzy"))
    assert not answer.success and "give one of pid" in answer.message and answer.mode == "pid"
    wanted = [Parameter("mode", value="fuzzy").to_parameter_msg()]
    refused = plant.call(
        SetParameters, f"{BASE}/separator/agent/set_parameters", SetParameters.Request(parameters=wanted)
    )
    assert not refused.results[0].successful and "give one of pid" in refused.results[0].reason
    assert plant.agent("separator").controller.mode == "pid"


def test_the_command_line_reaches_a_plant_that_somebody_else_runs(plant: Plant) -> None:
    words = [sys.executable, "-m", "rmpc_ros.cli", "mode", "separator", "learned", "--plant", str(FILE), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as child:
        plant.until(lambda: child.poll() is not None)
        assert child.stdout is not None and child.stderr is not None
        out, error = child.stdout.read(), child.stderr.read()
    assert child.returncode == 0, error
    assert json.loads(out) == {"agent": "separator", "mode": "learned"}
    plant.until(lambda: plant.reports_of("separator", "learned"))


def test_the_journal_remembers_the_rung_for_a_restart(plant: Plant) -> None:
    record = Journal(Path(plant.agent("reactor1").values["journal"])).read()
    assert record is not None and facts_of(record.payload)["mode"] == "robust"


def test_no_limit_was_passed_on_the_way_to_certified_control(plant: Plant) -> None:
    certified = (AgentReport.OPTIMAL, AgentReport.CERTIFIED)  # the last that left its PID may glide for some steps
    plant.until(lambda: all(heard[-1].mode in certified for heard in plant.reports.values()))
    for heard in plant.reports.values():
        assert min(np.min(report.margins) for report in heard) > 0
