"""On ROS: a mass is connected to a running chain after its neighbour has acknowledged, and cut off again."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rmpc_ros.msg import ForecastSet

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.network.joining import joined_plant
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.agent import AgentNode
from rmpc_ros.nodes.joining import Joining
from rmpc_ros.nodes.plant import PlantNode
from rmpc_ros.nodes.process import make_executor, node_class
from rmpc_ros.plants.generate import plant_file
from rmpc_ros.studies.plug_and_play import APART

pytestmark = pytest.mark.processes

STEPS, ASK, LEAVE = 44, 4, 26
RUNS = itertools.count()


def write_chain(folder: Path, mode: str = "robust") -> Path:
    """Two masses in a chain and a third that stands apart and may join."""
    yaml = YAML(typ="safe")
    data = yaml.load(plant_file("spring_chain", {"agents": 3}))
    springs = {name: list(data["plant"]["parameters"][name]) for name in ("k", "d")}
    data["network"] = {**data.get("network", {}), "join": {"agent": "mass3", "parameters": springs}}
    for name in springs:
        data["plant"]["parameters"][name] = [springs[name][0], APART]
    data["controller"]["margins"]["room"] = 1.6
    data["controller"]["mode"] = mode
    data["agents"]["mass2"]["neighbours"] = ["mass1"]
    data["agents"]["mass3"]["neighbours"] = []
    path = folder / f"chain_{mode}.yaml"
    yaml.dump(data, path)
    return path


@pytest.fixture(scope="module", autouse=True)
def ros() -> Iterator[None]:
    from rmpc_ros.run.domain import Domain

    with Domain() as domain, pytest.MonkeyPatch.context() as patch:
        for key, value in domain.environment.items():
            patch.setenv(key, value)
        rclpy.init()
        yield
        rclpy.try_shutdown()


def run(
    file: Path, say: Callable[[int, dict[str, Any]], None], folder: Path
) -> tuple[dict[str, Any], list[ForecastSet]]:
    """Plant and agents in this process; `say` after every step. Returns nodes and what mass2 has said."""
    config = load_plant(file)
    outer = f"join{next(RUNS)}"
    specs = bringup.node_specs(
        config, file, run="r", duration=config.period * STEPS, executor="single", namespace=outer, journals=folder
    )
    nodes: dict[str, Any] = {
        spec.label: node_class(spec.kind)(
            spec.name,
            namespace=spec.namespace,
            parameter_overrides=[Parameter(k, value=v) for k, v in spec.parameters.items()],
            use_global_arguments=False,
        )
        for spec in specs
        if spec.kind in ("agent", "plant")
    }
    ear = Node("ear", namespace=f"/{outer}/{config.plant.name}", use_global_arguments=False)
    spoken: list[ForecastSet] = []
    ear.create_subscription(ForecastSet, "mass2/forecast", spoken.append, qos.PROMISE)
    plant = nodes["plant"]
    executor = make_executor("single")
    for node in [*nodes.values(), ear]:
        executor.add_node(node)
    assert all(node.start() for node in nodes.values())
    advance = plant.sim.step

    def step(*arguments: Any) -> None:
        advance(*arguments)
        say(plant.k, nodes)

    plant.sim.step = step
    until = time.monotonic() + 150
    while plant.exit_status is None and time.monotonic() < until:
        executor.spin_once(timeout_sec=0.1)
    for _ in range(300):
        executor.spin_once(timeout_sec=0.0)
    for node in nodes.values():
        node.stop()
    for node in [*nodes.values(), ear]:
        executor.remove_node(node)
        node.destroy_node()
    assert isinstance(plant, PlantNode) and plant.exit_status == 0
    return nodes, spoken


def test_a_mass_joins_after_its_neighbours_word_and_leaves_again(tmp_path: Path) -> None:
    exists: dict[int, bool] = {}
    margins: list[float] = []
    kept: list[bool] = []

    def say(k: int, nodes: dict[str, Any]) -> None:
        exists[k] = nodes["plant"].connection.exists
        if k in (ASK, LEAVE):
            joined = Parameter("joined", value=k == ASK)
            assert nodes["mass3"].set_parameters([joined])[0].successful
        for name in ("mass1", "mass2", "mass3"):
            report = nodes[name]._decision.report
            kept.append(report.promise_kept)
            margins.append(min(report.margins.values()))

    nodes, spoken = run(write_chain(tmp_path), say, tmp_path)
    connected = [k for k, there in exists.items() if there]
    assert ASK < connected[0] < LEAVE <= connected[-1] < STEPS - 2
    assert connected == list(range(connected[0], connected[-1] + 1))
    answers = [m for m in spoken if m.kind == ForecastSet.ACKNOWLEDGEMENT and m.acknowledged_agent == "mass3"]
    assert answers and min(m.step for m in answers) < connected[0]
    assert all(kept) and min(margins) > 0
    for name in ("mass1", "mass2", "mass3"):
        node = nodes[name]
        assert isinstance(node, AgentNode)
        assert Counter(node.counts)["optimal"] == sum(node.counts.values())
        assert not node.diagnostics.rejected
    (said,) = [s for s in nodes["mass3"].diagnostics.statuses() if s.name.endswith(": joining")]
    assert said.message == "apart"
    (host,) = [s for s in nodes["mass2"].diagnostics.statuses() if s.name.endswith(": proposals")]
    assert int({v.key: v.value for v in host.values}["acknowledged"]) >= 1


def test_a_wish_to_join_that_somebody_else_refuses_is_none(tmp_path: Path) -> None:
    file = write_chain(tmp_path)
    (spec,) = [s for s in bringup.node_specs(load_plant(file), file, run="r") if s.label == "mass3"]
    parameters = [Parameter(k, value=v) for k, v in {**spec.parameters, "autostart": False}.items()]
    node = node_class("agent")(
        "agent", namespace=spec.namespace, parameter_overrides=parameters, use_global_arguments=False
    )
    refusing = [False]
    node.add_on_set_parameters_callback(  # asked last
        lambda _: SetParametersResult(successful=not refusing[0], reason="not today")
    )
    assert node.trigger_configure().name == node.trigger_activate().name == "SUCCESS"
    (joining,) = [part for part in node.parts if isinstance(part, Joining)]
    refusing[0] = True
    assert not node.set_parameters([Parameter("joined", value=True)])[0].successful
    assert not joining._wish
    refusing[0] = False
    assert node.set_parameters([Parameter("joined", value=True)])[0].successful
    assert joining._wish
    node.trigger_deactivate()
    node.trigger_shutdown()
    node.destroy_node()


def test_a_plant_file_that_joins_and_cooperates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mass1, mass2, mass3 cooperates"):
        joined_plant(load_plant(write_chain(tmp_path, "cooperative")))
