"""Generated plant files: read by the same reader as any other, with a guarantee, and kept in a closed loop."""

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.cli import main
from rmpc_ros.config import PlantConfig, parse_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.cases.energy_hub import energy_network, hourly_prices
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.cases.supply_chain import supply_network
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.graph import topology
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant, reactor_train
from rmpc_ros.plants.energy_hub import synthetic_prosumer, two_hour_sums
from rmpc_ros.plants.generate import generators, plant_file
from rmpc_ros.plants.supply_chain import draw_supply, stocks
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
    assert_kept(closed_loop(parse_plant(plant_file("spring_chain", {"agents": 4, "seed": 3})), 150))


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


# -- supply chain and energy hub --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("graph", "delay"), [("serial", 1), ("ring", 0), ("mesh", 2), ("star", 0)])
def test_stocks_that_order_from_each_other_keep_their_promises(graph: str, delay: int):
    config = parse_plant(plant_file("supply_chain", {"graph": graph, "agents": 4, "products": 2, "delay": delay}))
    assert_kept(closed_loop(config, 100))


def test_an_order_leaves_the_suppliers_stock_at_once_and_arrives_a_delay_later():
    plant = make_plant(parse_plant(plant_file("supply_chain", {"agents": 2, "delay": 2})))
    steady = {name: plant.linear.steady_input[plant.linear.columns(name)] for name in plant.names}
    levels = []
    for step in range(4):
        levels.append([plant.true_state()[name][0] for name in ("stock1", "stock2")])
        more = steady["stock2"] + (0.5 if step == 0 else 0.0)
        plant.step({"stock1": steady["stock1"], "stock2": more}, plant.linear.steady_disturbance)
    np.testing.assert_allclose(levels, [[0, 0], [-0.5, 0], [-0.5, 0], [-0.5, 0.5]], atol=1e-9)


@pytest.mark.parametrize("graph", ["serial", "complete"])
def test_prosumers_that_draw_from_each_other_keep_their_promises(graph: str):
    config = parse_plant(plant_file("energy_hub", {"graph": graph}))
    result = closed_loop(config, 100)
    assert_kept(result)
    assert np.ptp(result.states, axis=0).min() > 0.1  # the batteries are used


def test_what_one_prosumer_draws_another_loses_in_the_same_step():
    plant = make_plant(parse_plant(plant_file("energy_hub", {"agents": 2})))
    inputs = {name: plant.linear.steady_input[plant.linear.columns(name)].copy() for name in plant.names}
    before = plant.state.copy()
    inputs["prosumer1"][1] += 0.1
    plant.step(inputs, plant.linear.steady_disturbance)
    np.testing.assert_allclose(plant.state - before, [0.1, -0.1], atol=1e-9)


def test_the_offline_stocks_and_batteries_are_those_of_the_plant_files():
    parameters = draw_supply(4, 2, 4, 7)
    offline = supply_network(4, products=2, seed=7, graph="mesh").agents
    for agent, stock in zip(offline, stocks("mesh", parameters), strict=True):
        np.testing.assert_array_equal(agent.D, stock.blending)
        assert {c.sender: -c.matrix[0, 0] for c in agent.couplings} == stock.taken
    config = parse_plant(plant_file("energy_hub", {"agents": 3, "seed": 2}))
    people = [synthetic_prosumer(n, 2) for n in (1, 2, 3)]
    hub = energy_network(people, topology("chain", 3), two_hour_sums(hourly_prices()))
    for agent in hub.agents:
        np.testing.assert_array_equal(config.linear.input_block(agent.name, agent.name), agent.D)
        assert config.state_limits(agent.name)[1][0] == pytest.approx(agent.constraints[0].upper[0], abs=1e-6)
        assert {f"prosumer{c.sender + 1}" for c in agent.couplings} == set(config.agents[agent.name].neighbours)


# -- reactor train ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("reactors", "parallel"), [(1, 0), (3, 0), (4, 1)])
def test_a_reactor_train_rests_at_its_operating_point(reactors: int, parallel: int):
    model = reactor_train.build({"reactors": reactors, "parallel": parallel})
    assert len(model.states) == 4 * reactors + 3 * (1 if parallel else reactors - 1)
    rest = model.derivative(model.nominal_state, model.nominal_input, model.nominal_disturbance)
    np.testing.assert_allclose(rest, 0.0, atol=1e-9)


def test_a_reactor_train_keeps_its_material_and_vents_its_gas():
    model = reactor_train.build({"reactors": 2})
    names, inputs = list(model.state_names), list(model.input_names)
    x, u = model.nominal_state, model.nominal_input
    u[[inputs.index(name) for name in ("vent1", "vent2", "out2")]] = 0.0
    after = model.stepper(60.0).advance(x, u, model.nominal_disturbance)
    volumes = [names.index(name) for name in ("V1", "S1", "V2")]
    fed = sum(u[inputs.index(f"feed{n}")] for n in (1, 2)) / 60
    assert np.sum(after[volumes] - x[volumes]) == pytest.approx(fed, rel=1e-6)
    assert after[names.index("P2")] > x[names.index("P2")]  # the gas space shrinks and nothing leaves


@pytest.mark.parametrize("layout", ["series", "parallel"])
def test_a_reactor_train_keeps_its_promises(layout: str):
    config = parse_plant(plant_file("reactor_train", {"layout": layout}))
    assert_kept(closed_loop(config, 200))


def test_a_train_that_is_too_long_for_its_valves_says_so():
    with pytest.raises(ConfigError, match="the valve out7 would have to be open by 1"):
        plant_file("reactor_train", {"reactors": 7})
    with pytest.raises(ConfigError, match="give 0"):
        reactor_train.build({"parallel": 2})
