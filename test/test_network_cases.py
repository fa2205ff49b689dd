"""Supply chain, energy hub, rolling horizon: closed form, order of designs, promises, and the studies themselves."""

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.network.cases.energy_hub import energy_network, hourly_prices, read_prosumer
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.cases.supply_chain import closed_form, supply_network
from rmpc_ros.network.design import design_network
from rmpc_ros.network.graph import topology
from rmpc_ros.network.rolling import roll
from rmpc_ros.network.simulate import check_by_simulation, simulate
from rmpc_ros.plants.energy_hub import synthetic_prosumer, two_hour_sums
from rmpc_ros.plants.supply_chain import draw_supply
from rmpc_ros.studies import registry


@pytest.mark.parametrize(("agents", "T", "seed"), [(2, 5, 0), (4, 6, 3)])
def test_chain_without_delay_has_the_closed_form_value_under_both_structures(agents: int, T: int, seed: int) -> None:
    network = supply_network(agents, T, seed=seed)
    value = closed_form(agents, T, 0.2, 0.5, draw_supply(agents, 1, 4, seed))
    for structure in ("centralised", "local"):
        assert design_network(network, structure, epigraph="affine").objective == pytest.approx(value, abs=1e-6)


def test_delay_opens_a_gap_that_saturates_with_the_length_of_the_chain() -> None:
    gaps = []
    for agents in (2, 3, 6, 7):
        network = supply_network(agents, 4, delay=1)
        best = design_network(network, "centralised", epigraph="affine").objective
        gaps.append(design_network(network, "local", epigraph="affine").objective - best)
    assert gaps[0] > 0.1
    assert gaps[3] - gaps[2] < 0.5 * (gaps[1] - gaps[0])


@pytest.mark.parametrize("graph", ["serial", "ring", "star", "mesh"])
def test_contracts_are_kept_in_simulation_on_every_supply_network(graph: str) -> None:
    design = design_network(supply_network(4, 4, products=2, delay=1, graph=graph), "local", epigraph="affine")
    check = check_by_simulation(design, 20, 0, measured_disturbance=True)
    assert check.gauge <= 1 + 1e-6
    assert check.cost_excess <= 1e-6


def test_demand_of_many_factors_cannot_be_read_from_one_stock() -> None:
    design = design_network(supply_network(2, 3), "local", epigraph="affine")
    w = [a.disturbance.sample(np.random.default_rng(0), 3) for a in design.network.agents]
    with pytest.raises(ConfigError, match="must be measured"):
        simulate(design, w)


def hub(size: int = 3, graph: str = "chain") -> tuple:
    prosumers = [synthetic_prosumer(n) for n in range(1, size + 1)]
    prices = two_hour_sums(hourly_prices())
    shape = topology(graph, size)
    return energy_network(prosumers, shape, prices), energy_network(prosumers, shape, prices, exchange=False)


def test_sharing_energy_pays_and_announced_draws_cost_little() -> None:
    together, alone = hub(2)
    values = [
        design_network(together, "centralised", solver="ipm").objective,
        design_network(together, "local").objective,
        design_network(alone, "local").objective,
    ]
    assert values[0] <= values[1] + 1e-5
    assert values[1] < values[2]


def test_draws_stay_inside_their_announcement_though_each_depends_on_the_others() -> None:
    design = design_network(hub(3)[0], "local")
    check = check_by_simulation(design, 20, 0, measured_disturbance=True)
    assert check.violation <= 1e-6
    assert check.gauge <= 1 + 1e-6
    assert check.cost_excess <= 1e-4
    for stages in design.announced.values():
        for announced in stages:
            assert announced is not None
            assert announced.centre == pytest.approx(announced.scale)  # from 0 to 2 alpha


def test_prosumer_files_are_read_in_their_units_and_refused_when_wrong(tmp_path: Path) -> None:
    hours = np.arange(1.0, 25.0)
    for name in ("load", "pv"):
        np.savetxt(tmp_path / f"{name}_power_unit_5.csv", np.array([360 * hours, 36 * hours]), delimiter=",")
    np.savetxt(tmp_path / "battery_unit_5.csv", np.array([9.0, 2.0, 2.0]))
    p = read_prosumer(tmp_path, 5)
    assert p.load[0] == pytest.approx(3.0)
    assert p.load_deviation == pytest.approx(0.05)
    assert p.capacity == 9.0
    with pytest.raises(DataError, match="load_power_unit_6"):
        read_prosumer(tmp_path, 6)
    np.savetxt(tmp_path / "battery_unit_5.csv", np.array([9.0]))
    with pytest.raises(DataError, match="shape"):
        read_prosumer(tmp_path, 5)


@pytest.mark.parametrize("structure", ["centralised", "local"])
def test_solving_again_at_each_step_improves_on_the_worst_case(structure: str) -> None:
    network = supply_network(3, 4, delay=1)
    first = design_network(network, structure, epigraph="affine")
    rng = np.random.default_rng(0)
    for _ in range(2):
        w = [a.disturbance.sample(rng, 4) for a in network.agents]
        assert roll(network, structure, w, "affine", first=first).costs.sum() < first.objective


def test_rolling_horizon_keeps_the_limits_of_the_spring_chain() -> None:
    network = spring_network(topology("chain", 2), T=5)
    rng = np.random.default_rng(1)
    w = [a.disturbance.sample(rng, 4, extreme=True) for a in network.agents]
    run = roll(network, "local", w)
    assert run.violation <= 1e-6
    assert run.costs.sum() <= run.bounds[0] + 1e-6


@pytest.mark.parametrize(
    ("name", "words", "field"),
    [
        ("network-toy", ["sweep=false"], "objective"),
        ("spring-chain", ["T=4", "runs=4", "sweep=true", "sweep_M=2,3", "sweep_T=3,4"], "suboptimality_percent"),
        (
            "supply-chain",
            ["T=3", "runs=4", "rolling_runs=1", "sweep=true", "sweep_agents=2", "sweep_T=3"],
            "closed_form",
        ),
        ("energy-hub", ["prosumers=1,2", "runs=4"], "local_saves_percent"),
        ("admm", ["M=2", "T=4", "iterations=15", "runs=4"], "iterations_to_implementable"),
        ("topologies", ["graphs=ring,star", "sizes=3,4", "T=4"], "rows"),
        ("rolling-horizon", ["T=4", "runs=1"], "rows"),
    ],
)
def test_studies_run_and_report_what_they_name(name: str, words: list[str], field: str, tmp_path: Path) -> None:
    study = registry.load("study", name)
    result = study.run(registry.parse_settings(study, words), tmp_path)
    assert result[field] is not None
    assert list(tmp_path.glob("*.png"))
    if "status" in result:
        assert result["status"] == "optimal"
    assert study.table is not None
    assert list(study.table(result))
