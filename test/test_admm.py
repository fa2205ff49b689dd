"""Negotiated sets: the joint optimum is reached, half-converged sets are repaired or refused."""

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, InfeasibleError
from rmpc_ros.network.admm import AdmmOptions, Negotiation
from rmpc_ros.network.cases.energy_hub import energy_network, hourly_prices
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.design import design_network
from rmpc_ros.network.design_local import form_label
from rmpc_ros.network.graph import topology
from rmpc_ros.network.primitive import ball
from rmpc_ros.network.repair import implement, repair
from rmpc_ros.network.set_form import PointForm
from rmpc_ros.network.simulate import check_by_simulation
from rmpc_ros.plants.energy_hub import synthetic_prosumer, two_hour_sums
from rmpc_ros.studies import registry
from rmpc_ros.studies.bench.admm import nominal


def test_stress_case_reaches_the_joint_optimum_in_25_rounds_and_is_implementable() -> None:
    network = spring_network(topology("chain", 4))
    joint = design_network(network, "local").objective
    negotiation = Negotiation(network)
    steps = [negotiation.iterate() for _ in range(25)]
    assert steps[-1].objective == pytest.approx(joint, rel=1e-3)
    design = implement(negotiation)
    assert design is not None
    assert joint - 1e-5 <= design.objective <= joint * 1.005
    check = check_by_simulation(design, 20, 0)
    assert check.violation <= 1e-6
    assert check.gauge <= 1 + 1e-5
    assert check.cost_excess <= 1e-6


@pytest.mark.parametrize(
    "options",
    [
        AdmmOptions("parallel"),
        AdmmOptions("parallel", horizon_growth=1.2, balance=True),
        AdmmOptions("sequential", rho=0.5, horizon_growth=1.1),
        AdmmOptions("sequential", balance=True),
    ],
)
def test_every_variant_approaches_the_joint_optimum(options: AdmmOptions) -> None:
    network = spring_network(topology("ring", 3), T=5)
    joint = design_network(network, "local").objective
    negotiation = Negotiation(network, options)
    steps = [negotiation.iterate() for _ in range(40)]
    assert steps[-1].objective == pytest.approx(joint, rel=5e-3)
    assert steps[-1].primal < 0.1 * steps[0].primal


def test_warm_start_continues_where_the_last_negotiation_stopped() -> None:
    network = spring_network(topology("chain", 2), T=5)
    first = Negotiation(network, AdmmOptions(max_iterations=80)).run()
    assert first.converged
    again = Negotiation(network, AdmmOptions(max_iterations=80), state=first.state).run()
    assert again.converged
    assert len(again.steps) <= 3


def test_shifted_state_is_a_better_start_for_the_next_step_than_nothing() -> None:
    network = spring_network(topology("chain", 3), T=6)
    negotiation = Negotiation(network)
    for _ in range(30):
        negotiation.iterate()
    moved = network.tail(0, [a.A @ a.x0 for a in network.agents])
    joint = design_network(moved, "local").objective
    warm = Negotiation(moved, state=negotiation.shifted_state())
    cold = Negotiation(moved)
    errors = {}
    for name, run in (("warm", warm), ("cold", cold)):
        errors[name] = np.mean([abs(run.iterate().objective - joint) for _ in range(4)])
    assert errors["warm"] < errors["cold"]


def test_sets_that_cannot_be_mended_are_reported_as_not_yet() -> None:
    network = spring_network(topology("chain", 2), T=8)
    negotiation = Negotiation(network)
    negotiation.iterate()
    negotiation.state.values[:] = 50.0  # centres far outside every limit: no widening helps
    assert implement(negotiation) is None
    assert repair(negotiation).design is None


def test_agents_exchange_only_the_numbers_of_their_sets() -> None:
    network = spring_network(topology("chain", 3), T=5)
    negotiation = Negotiation(network)
    stages = network.horizon - 1  # the first stage is a known point
    assert negotiation.size == 3 * stages * 4
    assert [i.size for i in negotiation.ids] == [2 * stages * 4, 3 * stages * 4, 2 * stages * 4]


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="dual_step"):
        AdmmOptions(dual_step=1.7)
    with pytest.raises(ConfigError, match="known: sequential"):
        AdmmOptions(mode="random")  # type: ignore[arg-type]


def test_nominal_networks_negotiate_plain_trajectories() -> None:
    """With points for sets the negotiation is ordinary distributed MPC: it reaches the joint nominal optimum."""
    network = nominal(spring_network(topology("chain", 3), T=5))
    forms = {(i, s.name): PointForm(s, form_label(i, s), network.horizon) for i, s in network.sent_signals()}
    joint = design_network(network, "local", forms=forms)
    assert joint.objective == pytest.approx(design_network(network, "centralised").objective, rel=1e-5)
    negotiation = Negotiation(network, AdmmOptions("parallel", rho=2.0), forms=forms)
    steps = [negotiation.iterate() for _ in range(60)]
    assert steps[-1].objective == pytest.approx(joint.objective, rel=1e-3)


def test_benchmark_reports_ratios_of_one_run(tmp_path: Path) -> None:
    study = registry.load("bench", "admm")
    result = study.run(registry.parse_settings(study, ["rounds=3", "T=5"]), tmp_path)
    assert result["ours_nominal_ms"] < result["ours_robust_ms"]
    assert result["times_faster_than_agentlib"] > 0
    assert study.table is not None
    assert list(study.table(result))


def test_prosumers_agree_on_draws_of_the_same_stage() -> None:
    prosumers = [synthetic_prosumer(n) for n in (1, 2)]
    network = energy_network(prosumers, topology("chain", 2), two_hour_sums(hourly_prices()))
    joint = design_network(network, "local").objective
    negotiation = Negotiation(network, AdmmOptions(rho=30.0))
    for _ in range(20):
        negotiation.iterate()
    design = implement(negotiation)
    assert design is not None
    assert design.objective == pytest.approx(joint, rel=1e-3)


def test_ball_shaped_sets_are_negotiated_too() -> None:
    network = spring_network(topology("chain", 2), T=4)
    joint = design_network(network, "local", ball(2)).objective
    negotiation = Negotiation(network, shape=ball(2))
    for _ in range(20):
        step = negotiation.iterate()
    assert step.objective == pytest.approx(joint, rel=1e-3)


def test_complete_graph_of_five_is_infeasible_locally_and_never_called_implementable() -> None:
    network = spring_network(topology("complete", 5))
    with pytest.raises(InfeasibleError):
        design_network(network, "local", solver="ipm")
    negotiation = Negotiation(network, AdmmOptions("parallel"))
    for _ in range(3):
        negotiation.iterate()
    assert implement(negotiation) is None
