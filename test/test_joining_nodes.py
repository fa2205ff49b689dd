"""On ROS: a mass is connected to a running chain after its neighbour has acknowledged, and cut off again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rmpc_ros.msg import ForecastSet
from ros_plant import PlantHere, begin, end, make, own_domain

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.network.joining import joined_plant
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.agent import AgentNode
from rmpc_ros.nodes.joining import Joining
from rmpc_ros.plants.generate import plant_file
from rmpc_ros.studies.plug_and_play import APART

pytestmark = pytest.mark.processes

STEPS, ASK, LEAVE = 44, 4, 26


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
    with own_domain():
        yield


def run(
    file: Path, say: Callable[[int, dict[str, Any]], None], folder: Path
) -> tuple[dict[str, Any], list[ForecastSet]]:
    """Plant and agents in this process; `say` after every step. Returns nodes and what mass2 has said."""
    period = load_plant(file).period
    here = PlantHere(file, duration=period * STEPS, journals=folder)
    spoken: list[ForecastSet] = []
    here.other.create_subscription(ForecastSet, "mass2/forecast", spoken.append, qos.PROMISE)
    here.run(lambda k, inputs: say(k, here.nodes))
    here.close()
    return here.nodes, spoken


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
    node = make(spec, autostart=False)
    refusing = [False]
    node.add_on_set_parameters_callback(  # asked last
        lambda _: SetParametersResult(successful=not refusing[0], reason="not today")
    )
    begin(node)
    (joining,) = [part for part in node.parts if isinstance(part, Joining)]
    refusing[0] = True
    assert not node.set_parameters([Parameter("joined", value=True)])[0].successful
    assert not joining._wish
    refusing[0] = False
    assert node.set_parameters([Parameter("joined", value=True)])[0].successful
    assert joining._wish
    end(node)


def test_a_plant_file_that_joins_and_cooperates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mass1, mass2, mass3 cooperates"):
        joined_plant(load_plant(write_chain(tmp_path, "cooperative")))
