"""Generated plant files: read by the same reader as any other, with a guarantee, and kept in a closed loop."""

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.cli import main
from rmpc_ros.config import PlantConfig, parse_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.graph import topology
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.plants.generate import generators, plant_file
from rmpc_ros.studies.guarantee import vertex_disturbances

CONFIG = Path(__file__).resolve().parents[1] / "config"


def closed_loop(config: PlantConfig, steps: int, seed: int = 1) -> LoopResult:
    """A run with disturbances mostly at the vertices of their set."""
    draw = vertex_disturbances(*config.disturbance_bounds(), seed)
    agents = {name: Agent(design) for name, design in design_agents(config).items()}
    return run(agents, make_plant(config, seed=seed), steps, draw)


def assert_kept(result: LoopResult) -> None:
    assert result.violations == 0
    assert result.promises_broken == 0
    assert result.modes["optimal"] == sum(result.modes.values())


# -- the writer -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_file_that_was_generated_is_what_its_second_line_says(path: Path, capsys: pytest.CaptureFixture):
    text = path.read_text(encoding="utf-8")
    second = text.splitlines()[1]
    if "rmpc plant-file" not in second:
        assert "rmpc plant-file" not in text
        return
    assert main(second.partition("rmpc ")[2].split()) == 0
    assert capsys.readouterr().out == text


def test_the_command_lists_the_plants_it_can_write_and_refuses_others(capsys: pytest.CaptureFixture):
    assert main(["plant-file"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(generators())
    assert main(["plant-file", "cstr"]) == 1
    assert "known: " in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no setting 'agent'"):
        plant_file("spring_chain", {"agent": 3})
    with pytest.raises(ConfigError, match="agents = 1: give at least 2"):
        plant_file("spring_chain", {"agents": 1})


# -- spring chain -----------------------------------------------------------------------------------------------------
def test_a_chain_of_masses_keeps_its_promises():
    assert_kept(closed_loop(parse_plant(plant_file("spring_chain", {"agents": 5, "seed": 3})), 200))


def test_the_offline_network_is_the_plant_files_chain_discretised_by_euler():
    config = parse_plant(plant_file("spring_chain", {"agents": 4}))
    steady = np.zeros(8)
    A, B, _ = config.nonlinear.jacobians(steady, np.zeros(4), np.zeros(8))
    network = spring_network(topology("chain", 4), Ts=0.5)
    for i, agent in enumerate(network.agents):
        rows = slice(2 * i, 2 * i + 2)
        np.testing.assert_allclose(agent.A, np.eye(2) + 0.5 * A[rows, rows], atol=1e-12)
        np.testing.assert_allclose(agent.D, 0.5 * B[rows, i : i + 1], atol=1e-12)
        assert {c.sender for c in agent.couplings} == {j for j in (i - 1, i + 1) if 0 <= j < 4}
        for coupling in agent.couplings:
            np.testing.assert_allclose(coupling.matrix, 0.5 * A[rows, 2 * coupling.sender : 2 * coupling.sender + 2])
