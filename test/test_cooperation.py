"""Rounds of cooperation reach the joint optimum, move only the aim, and cost nothing but performance when they fail."""

from dataclasses import replace

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.closed_loop import run
from rmpc_ros.network.cooperation import Cooperation, Proposal
from rmpc_ros.network.joint_plan import JointPlan
from rmpc_ros.network.rounds import Rounds, followers_of, negotiate
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies import cooperation as study
from rmpc_ros.studies.registry import parse_settings


@pytest.fixture(scope="module")
def product():
    config = load_plant(shipped_plant("reactor_separator_product"))
    return config, design_agents(config)


@pytest.fixture(scope="module")
def chain():
    config = load_plant(shipped_plant("spring_chain"))
    return config, design_agents(config)


def looked(config, designs, away=0.5, **options):
    """Agents off their steady states that have looked at step 0, and their sides of the negotiation, begun."""
    generator = np.random.default_rng(3)
    opts = config.network.cooperation.model_copy(update=options)
    agents = {n: Agent(d) for n, d in designs.items()}
    states = {
        n: d.physical_states(away * d.terminal[: d.nx] * generator.uniform(-1, 1, d.nx)) for n, d in designs.items()
    }
    followers = followers_of(designs)
    sides = {n: Cooperation(d, followers[n], opts) for n, d in designs.items()}
    for n, agent in agents.items():
        agent.start(0)
        agent.look(0, states[n], {o: states[o] for o in designs[n].neighbours})
        sides[n].begin(0, agent.fixed)
    return agents, sides, states


@pytest.mark.parametrize("plant", ["product", "chain"])
def test_rounds_reach_the_joint_optimum(plant, request):
    config, designs = request.getfixturevalue(plant)
    _, sides, _ = looked(config, designs, rounds=200, tolerance=1e-5)
    negotiate(sides)
    desk = JointPlan(sides)
    desk.load()
    best, optimum = desk.solve()
    value = desk.value({n: side.plan for n, side in sides.items()})
    assert -1e-7 <= (value - optimum) / optimum < 1e-4
    assert max(np.max(np.abs(sides[n].plan - best[n])) for n in sides) < 2e-3  # of the distance to a limit


def test_the_joint_value_is_the_sum_of_the_agents_own_costs_on_the_joint_trajectory(product):
    """Written anew: simulate the coupled nominal network and add up stage and terminal costs."""
    config, designs = product
    agents, sides, _ = looked(config, designs)
    desk = JointPlan(sides)
    desk.load()
    generator = np.random.default_rng(0)
    plans = {n: 0.1 * generator.normal(size=side.plan.shape) for n, side in sides.items()}
    x = {n: agents[n].fixed.data.x.copy() for n in designs}
    total = 0.0
    N = config.controller.horizon
    for t in range(N):
        after = {}
        for n, d in designs.items():
            zeta = np.zeros(d.model.ng)
            for o, other in d.neighbours.items():
                zeta[other.columns] = np.concatenate([x[o], plans[o][t]])
            u = d.model.K @ x[n] + plans[n][t] - d.u_ref
            after[n] = d.model.A @ x[n] + d.model.B @ plans[n][t] + d.model.G @ zeta
            e = after[n] - d.x_ref
            total += u @ d.cost.R @ u + e @ (d.cost.P if t == N - 1 else d.cost.Q) @ e
        x = after
    assert desk.value(plans) == pytest.approx(total, rel=1e-9)


def test_a_negotiated_plan_is_followed_exactly_because_it_keeps_the_own_rows(product):
    config, designs = product
    agents, sides, states = looked(config, designs)
    negotiate(sides)
    for n, agent in agents.items():
        agent.aim = sides[n].plan
        decision = agent.step(0, states[n], {o: states[o] for o in designs[n].neighbours})
        d = designs[n]
        wanted = d.physical_inputs(d.model.K @ d.normalise(states[n]) + sides[n].plan[0])
        assert decision.mode == "optimal"
        assert np.allclose(decision.input, wanted, atol=1e-6 * d.scale[d.nx :])
        assert agent.aim is None  # for one step only


def test_a_senseless_aim_breaks_no_promise(product):
    """Whatever is aimed at, the decision keeps the own promise and every limit."""
    config, designs = product
    generator = np.random.default_rng(5)

    class Nonsense:
        def __call__(self, step, agents):
            for agent in agents.values():
                agent.aim = generator.uniform(-100, 100, (config.controller.horizon, agent.design.nu))

    agents = {n: Agent(d) for n, d in designs.items()}
    result = run(agents, make_plant(config, seed=0), 60, cooperation=Nonsense())
    assert result.violations == 0 and result.promises_broken == 0
    assert result.modes["optimal"] == 180


def test_who_does_not_cooperate_is_taken_at_its_promise(product):
    """Two cooperate, the third is fixed: they find the optimum for the trajectory it has promised."""
    config, designs = product
    agents, sides, _ = looked(config, designs, rounds=200, tolerance=1e-7)
    away = {"separator": Proposal("separator", 0, 0, last=True)}
    members = {n: side for n, side in sides.items() if n != "separator"}
    negotiate(members, away)
    for n in members:
        other = designs[n].neighbours["separator"]
        edge = members[n]._edges_copy["separator"]
        assert np.allclose(edge.w, agents[n].fixed.data.zeta[:, other.columns], atol=1e-4)


def test_a_lost_message_in_one_round_is_mended_in_the_next(product):
    config, designs = product
    _, sides, _ = looked(config, designs, rounds=200, tolerance=1e-6)
    generator = np.random.default_rng(0)
    for number in range(150):
        said = {n: side.propose() for n, side in sides.items()}
        for side in sides.values():
            lost = number < 40 and generator.random() < 0.3
            side.take({} if lost else said)
    desk = JointPlan(sides)
    desk.load()
    _, optimum = desk.solve()
    assert (desk.value({n: side.plan for n, side in sides.items()}) - optimum) / optimum < 1e-4


@pytest.mark.parametrize("damage", ["shape", "nan", "huge", "missing"])
def test_a_message_with_nonsense_in_it_is_refused(product, damage):
    config, designs = product
    _, sides, _ = looked(config, designs)
    said = sides["reactor2"].propose()
    block = said.own["reactor1"].copy()
    if damage == "shape":
        block = block[1:]
    elif damage == "nan":
        block[2, 1] = np.nan
    elif damage == "huge":
        block[2, 1] = 1e9
    own = {} if damage == "missing" else {"reactor1": block}
    sides["reactor1"].check(said)
    with pytest.raises(DataError, match="'reactor2'"):
        sides["reactor1"].check(replace(said, own=own))


def test_other_feedback_forms_are_refused(product):
    config, designs = product
    with pytest.raises(ConfigError, match="feedback 'full'"):
        Cooperation(replace(designs["reactor1"], form="full"), ["reactor2"], config.network.cooperation)


def test_one_desk_is_for_everybody(product):
    config, designs = product
    with pytest.raises(ConfigError, match="2 of 3"):
        Rounds(designs, config.network.cooperation, members=["reactor1", "reactor2"], joint=True)


def test_study_cooperation_saves_where_the_product_counts(tmp_path):
    settings = parse_settings(study.STUDY, ["seeds=2", "steps=12", "cases=product"])
    result = study.STUDY.run(settings, tmp_path)
    case = result["cases"]["product"]
    assert case["cooperative"]["saved_percent"] > 2
    assert case["cooperative"]["violations"] == case["cooperative"]["promises_broken"] == 0
    assert case["negotiation"]["objective_gap"] < 1e-3
    assert (tmp_path / result["figure"]).is_file()
    assert any("saves" in line for line in study.table(result))
