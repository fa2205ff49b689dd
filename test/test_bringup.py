"""One list of nodes for every way to start them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmpc_ros import bringup
from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.errors import ConfigError

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"


@pytest.fixture(scope="module")
def config() -> PlantConfig:
    return load_plant(FILE)


def test_every_agent_gets_a_node_in_its_own_namespace(config: PlantConfig, tmp_path: Path) -> None:
    specs = bringup.node_specs(config, FILE, run="r", bag=tmp_path / "bag", journals=tmp_path, namespace="hall")
    names = [f"{s.namespace}/{s.name}" for s in specs]
    assert names == [
        "/hall/reactor_separator/reactor1/agent",
        "/hall/reactor_separator/reactor2/agent",
        "/hall/reactor_separator/separator/agent",
        "/hall/reactor_separator/recorder",
        "/hall/reactor_separator/monitor",
        "/hall/reactor_separator/plant",
    ]
    assert len({s.label for s in specs}) == len(specs)
    assert all(s.parameters["run"] == "r" for s in specs)
    assert next(s for s in specs if s.kind == "plant").parameters["steps"] == 200


def test_an_edge_controller_runs_one_agent_on_the_machines_clock(config: PlantConfig) -> None:
    (spec,) = bringup.node_specs(config, FILE, run="r", only=["reactor2"], timing="free", simulated=False)
    assert (spec.label, spec.parameters["use_sim_time"], spec.parameters["timing"]) == ("reactor2", False, "free")


def test_what_the_plant_file_does_not_have_is_refused(config: PlantConfig) -> None:
    with pytest.raises(ConfigError, match="no agent 'reactor9'; there are reactor1"):
        bringup.node_specs(config, FILE, run="r", only=["reactor9"])
    with pytest.raises(ConfigError, match="no agent 'x'"):
        bringup.node_specs(config, FILE, run="r", kills=["x@1:2"])
    for wrong in ("reactor1", "reactor1@5", "reactor1@a:3", "@3:4", "reactor1@-1:4"):
        with pytest.raises(ConfigError, match="AGENT@STEP:STEPS"):
            bringup.parse_kill(wrong)


def test_every_wired_topic_is_recorded_once(config: PlantConfig) -> None:
    topics = bringup.topics(config)
    names = [t.name for t in topics]
    assert len(names) == len(set(names))
    assert "/reactor_separator/reactor1/temperature" in names
    assert "/reactor_separator/separator/heat" in names
    assert "/diagnostics" in names


def test_the_summary_holds_what_a_report_needs(config: PlantConfig) -> None:
    agent = bringup.summary(config, run="r")["agents"]["reactor1"]
    assert [s["name"] for s in agent["states"]] == ["xA1", "xB1", "T1"]
    assert agent["transform"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert agent["states"][2]["upper"] - agent["states"][2]["lower"] == pytest.approx(20.0)


def test_a_run_shorter_than_a_period_is_refused_not_run_without_end() -> None:
    with pytest.raises(ConfigError, match="at least one period"):
        bringup.node_specs(load_plant(FILE), FILE, run="r", duration=10.0)


def test_a_real_plant_is_not_controlled_with_the_model_error_of_a_linear_simulation(tmp_path: Path) -> None:
    file = tmp_path / "linear.yaml"
    file.write_text(FILE.read_text(encoding="utf-8").replace("model: nonlinear", "model: linear"), encoding="utf-8")
    linear = load_plant(file)
    assert bringup.node_specs(linear, file, run="r", only=["reactor1"])
    with pytest.raises(ConfigError, match="perfect linear model"):
        bringup.node_specs(linear, file, run="r", only=["reactor1"], simulated=False)
