"""Policies that move weights: the economics in their targets, and the terminal cost of the agents' MPC."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test
from scipy.optimize import lsq_linear
from short_plant import short_plant

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.learning import LEAST_MOVES, MOVES
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.learning.adoption import Adoption
from rmpc_ros.learning.campaign import Campaigns, deviations_of, observation_size
from rmpc_ros.learning.case import LearningCase, learning_case
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.env import CampaignEnv
from rmpc_ros.learning.evaluate import contestants, evaluate
from rmpc_ros.learning.learner import Learner
from rmpc_ros.learning.ledger import Ledger
from rmpc_ros.learning.local_observation import LocalObservation
from rmpc_ros.learning.local_target import LocalTarget
from rmpc_ros.learning.policy import Actor, Kind, Policy, load_policy
from rmpc_ros.learning.replay import Replay
from rmpc_ros.learning.scenario import draw_scenarios
from rmpc_ros.learning.series import Series
from rmpc_ros.learning.surrogate import Surrogate, fluctuation_seeds, identify_surrogate
from rmpc_ros.learning.together import Together
from rmpc_ros.learning.train import Algorithm, TrainOptions, train
from rmpc_ros.learning.update import Update
from rmpc_ros.learning.weights import arranged, economic_pull, weight_factors
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.cooperation import Cooperation
from rmpc_ros.network.ladder import LadderAgent
from rmpc_ros.network.rounds import followers_of, negotiate
from rmpc_ros.network.system import design_agents

Designs = dict[str, AgentDesign]
ECONOMIC, TERMINAL = MOVES.index("economic_weight"), MOVES.index("terminal_weight")


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped campaign plant with short campaigns and windows."""
    return short_plant(tmp_path_factory.mktemp("plant"), days=3, window=8, average=4)


@pytest.fixture(scope="module")
def case(plant: Path) -> LearningCase:
    return learning_case(load_plant(plant)).moving(MOVES)


@pytest.fixture(scope="module")
def days(case: LearningCase) -> RobustDays:
    return RobustDays(case)


@pytest.fixture(scope="module")
def surrogate(case: LearningCase, days: RobustDays) -> Surrogate:
    return identify_surrogate(case, days, seed=0, windows=30)


@pytest.fixture(scope="module")
def loop() -> tuple[PlantConfig, Designs]:
    config = load_plant(shipped_plant("reactor_separator"))
    config = config.model_copy(update={"simulation": config.simulation.model_copy(update={"model": "linear"})})
    return config, design_agents(config)


def fill(problem: FixedFeedback, design: AgentDesign, seed: int) -> None:
    """Data of a step away from the target, inside the invariant box."""
    generator, data, nx = np.random.default_rng(seed), problem.data, design.nx
    data.x[:] = generator.uniform(-0.6, 0.6, nx) * design.terminal[:nx]
    data.x_ref[:] = generator.uniform(-0.6, 0.6, nx) * design.terminal[:nx]
    data.u_ref[:] = design.model.K @ data.x_ref + generator.uniform(-0.3, 0.3, design.nu) * design.terminal[nx:]
    data.radius[:] = 0.001
    data.x_upper[:], data.c_upper[:] = design.terminal[:nx], design.terminal[nx:]
    data.x_lower[:], data.c_lower[:] = -design.terminal[:nx], -design.terminal[nx:]


# -- the terminal weight in the robust problem -------------------------------------------------------------------------
def test_a_weighed_problem_is_the_one_designed_with_that_weight_and_keeps_its_rows(
    loop: tuple[PlantConfig, Designs],
) -> None:
    design = loop[1]["reactor2"]
    problem, tuned = design.build_fixed(), design.build_fixed()
    moved = 0.0
    for n, factor in enumerate((0.1, 10.0, 1e-3, 1e3, 1.0)):
        problem.weigh_terminal(factor)
        cost = replace(design.cost, P=factor * design.cost.P)
        fresh = FixedFeedback(design.model, cost, design.horizon)
        for seed in range(5):
            for each in (problem, fresh, tuned):
                fill(each, design, 10 * n + seed)
            weighed, wanted, before = problem.solve(), fresh.solve(), tuned.solve()
            assert np.allclose(weighed.v, wanted.v, rtol=0, atol=1e-9)
            assert weighed.objective == pytest.approx(wanted.objective, abs=1e-9)
            for own, other in zip(problem.sides()[1:], tuned.sides()[1:], strict=True):
                assert np.array_equal(own, other)  # what is allowed does not depend on it
            assert np.array_equal(weighed.tube_upper, before.tube_upper)
            moved = max(moved, float(np.abs(weighed.v - before.v).max()))
    assert problem.terminal_weight == 1.0 and np.allclose(weighed.v, before.v, rtol=0, atol=1e-12)
    assert moved > 0.01  # and what is chosen does


def test_a_weighed_problem_takes_another_set_as_a_fresh_one_does(loop: tuple[PlantConfig, Designs]) -> None:
    design = loop[1]["reactor1"]
    problem = design.build_fixed()
    fresh = FixedFeedback(design.model, replace(design.cost, P=5.0 * design.cost.P), design.horizon)
    upper, lower = problem.supports(design.model.disturbance_support)
    center = 0.3 * upper[0, : design.nx]
    problem.tighten(upper, lower, center)
    problem.weigh_terminal(5.0)
    fresh.tighten(upper, lower, center)
    for each in (problem, fresh):
        fill(each, design, 3)
    assert np.allclose(problem.solve().v, fresh.solve().v, rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", [np.nan, np.inf, 0.0, -1.0, 1e4])
def test_an_agent_refuses_a_terminal_weight_out_of_bounds(loop: tuple[PlantConfig, Designs], factor: float) -> None:
    agent = Agent(loop[1]["reactor1"])
    agent.set_terminal_weight(2.0)
    with pytest.raises(DataError, match=r"'reactor1'.*allowed: 0\.001 to 1000"):
        agent.set_terminal_weight(factor)
    assert agent.fixed.terminal_weight == 2.0


def test_other_feedback_says_that_its_weight_is_compiled_in(loop: tuple[PlantConfig, Designs], tmp_path: Path) -> None:
    agent = Agent(replace(loop[1]["reactor1"], form="toeplitz"))
    agent.set_terminal_weight(1.0)
    with pytest.raises(DataError, match=r"'toeplitz'.*only 'fixed'"):
        agent.set_terminal_weight(2.0)
    text = shipped_plant("reactor_separator_campaign").read_text(encoding="utf-8")
    path = tmp_path / "toeplitz.yaml"
    path.write_text(text.replace("feedback: fixed", "feedback: toeplitz"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"learning\.actions\.terminal_weight.*compiled in"):
        load_plant(path)


def test_a_policys_terminal_weight_is_in_force_on_the_learned_rung_alone(loop: tuple[PlantConfig, Designs]) -> None:
    agent = LadderAgent(loop[1]["reactor1"], {}, "robust")
    agent.set_terminal_weight(4.0)
    assert agent.fixed.terminal_weight == 1.0
    agent.start(0)
    state = agent.design.steady_state
    for step, mode, factor in ((0, "learned", 4.0), (1, "cooperative", 1.0), (2, "learned", 4.0)):
        agent.set_mode(mode)
        agent.step(step, state)
        assert agent.fixed.terminal_weight == factor


def test_agents_negotiate_with_the_weights_in_force(loop: tuple[PlantConfig, Designs]) -> None:
    config, designs = loop
    options, followers = config.network.cooperation, followers_of(designs)
    scaled = {n: replace(d, cost=replace(d.cost, P=8.0 * d.cost.P)) for n, d in designs.items()}
    plans = []
    for chosen, factor in ((designs, 8.0), (scaled, 1.0), (designs, 1.0)):
        sides = {n: Cooperation(d, followers[n], options) for n, d in chosen.items()}
        for n, side in sides.items():
            agent = Agent(chosen[n])
            agent.start(0)
            agent.look(0, chosen[n].physical_states(0.4 * chosen[n].terminal[:-1]))
            agent.set_terminal_weight(factor)
            side.weigh_terminal(factor)
            side.begin(0, agent.fixed)
        negotiate(sides)
        plans.append(np.concatenate([side.plan for side in sides.values()]))
    assert np.allclose(plans[0], plans[1], rtol=0, atol=1e-8)
    assert np.abs(plans[0] - plans[2]).max() > 1e-4


# -- what the plant file says ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("factors: [0.1, 10]", "factors: [2, 10]", "hold 1"),
        ("factors: [0.1, 10]", "factors: [0, 10]", "terminal_weight.factors"),
        ("factors: [0.25, 4], money: 60", "factors: [0.25, 4]", "money"),
        ("span: 0.6", "span: 0.6\n    moves: [back_off, setpoint]", "in the order"),
        ("span: 0.6", "span: 0.6\n    moves: [setpoint]", "the first two"),
        ("span: 0.6", "span: 0.6\n    moves: [setpoint, back_off, price]", "moves"),
    ],
)
def test_wrong_bounds_and_moves_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = shipped_plant("reactor_separator_campaign").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"wrong\.yaml.*{words}"):
        load_plant(path)


def test_a_move_without_bounds_is_named_and_two_actions_are_the_default(plant: Path) -> None:
    shipped = learning_case(load_plant(plant))
    assert shipped.moves == LEAST_MOVES
    bare = shipped.learning.actions.model_copy(update={"terminal_weight": None})
    without = replace(shipped, learning=shipped.learning.model_copy(update={"actions": bare}))
    with pytest.raises(ConfigError, match=r"terminal_weight.*bounded are, in this order, setpoint, back_off, economic"):
        without.moving(MOVES)
    with pytest.raises(ConfigError, match="price"):
        shipped.moving([*LEAST_MOVES, "price"])
    with pytest.raises(DataError, match="'terminal_weight', for which the plant file has no bounds"):
        weight_factors(bare, "terminal_weight", np.ones((3, 4)))


def test_factors_are_bounded_and_one_for_no_action(case: LearningCase) -> None:
    actions = np.zeros((5, 3, 4))
    actions[:, :, TERMINAL] = np.array([-9.0, -1.0, 0.0, 0.5, 7.0])[:, None]
    factors = weight_factors(case.learning.actions, "terminal_weight", actions)
    assert factors is not None
    assert factors[:, 0] == pytest.approx([0.1, 0.1, 1.0, np.sqrt(10.0), 10.0])
    assert np.all(factors[2] == 1.0) and factors.min() >= 0.1 and factors.max() <= 10.0
    assert weight_factors(case.learning.actions, "terminal_weight", actions[..., :2]) is None
    columns = arranged(np.array([[1.0, 2.0, 3.0]]), (*LEAST_MOVES, "terminal_weight"))
    assert np.array_equal(columns, [[1.0, 2.0, 0.0, 3.0]])
    with pytest.raises(DataError, match="3 actions per agent for the 2 moves"):
        arranged(np.ones((1, 3)), LEAST_MOVES)


# -- the economics in the targets --------------------------------------------------------------------------------------
def test_the_economic_weight_gives_the_optimum_of_the_target_problem_with_it(
    case: LearningCase, days: RobustDays
) -> None:
    generator, targets, chosen = np.random.default_rng(1), days.targets, case.learning.actions
    actions, markets = generator.uniform(-1, 1, (40, 3, 4)), generator.uniform(0.5, 1.5, (2, 40))
    c = deviations_of(case, targets, actions, *markets)
    plain = deviations_of(case, targets, actions[..., :2])
    pull = economic_pull(chosen, targets.slopes, actions, *markets)
    for n in range(40):
        second = actions[n, :, 1]
        span = np.where(second >= 0, chosen.most_back_off - chosen.back_off, chosen.back_off)
        limit = (1 - chosen.back_off - span * second) * targets.authority
        # |D c - w|^2 - e'c is |D c - (w + D^-T e/2)|^2 up to a constant
        wish = chosen.span * actions[n, :, 0] + np.linalg.solve(targets.D.T, pull[n] / 2)
        best = lsq_linear(targets.D, wish, (-limit, limit), tol=1e-12).x
        assert np.allclose(c[n], best, atol=1e-6)
        assert np.all(np.abs(c[n]) <= limit + 1e-12)
    assert np.abs(c - plain).max() > 0.05


def test_more_weight_earns_more_today_and_less_weight_less(case: LearningCase, days: RobustDays) -> None:
    targets, earned = days.targets, []
    for side in (-1.0, 0.0, 1.0):
        actions = np.zeros((3, 4))
        actions[:, ECONOMIC] = side
        c = deviations_of(case, targets, actions, 1.2, 0.9)
        slopes = 1.2 * targets.slopes["product"] + 0.9 * targets.slopes["steam"] + targets.slopes["emissions"]
        earned.append(float(slopes.sum(axis=0) @ c))
    assert earned[0] < earned[1] - 0.5 and earned[2] > earned[1] + 0.5
    assert earned[1] == 0.0  # no action: the file's set-points


def test_slopes_are_those_of_the_agents_own_rewards(case: LearningCase, days: RobustDays) -> None:
    """By differences: the reward of the plant at rest, without penalties, with and without a small deviation."""
    targets, prices = days.targets, case.learning.prices
    c = np.array([0.01, -0.02, 0.03])
    x = {n: x_ref for n, (x_ref, _) in targets.references(c).items()}
    product = steam = 0.0
    for name, (_, u_ref) in targets.references(c).items():
        design = days._agents[name].design
        moved = design.physical_states(x[name]) - design.steady_state
        if prices.product.state in design.state_names:
            index = design.state_names.index(prices.product.state)
            product += prices.product.price * prices.product.flow * moved[index]
        steam -= prices.steam.price * float((design.physical_inputs(u_ref) - design.steady_input).sum())
    assert targets.slopes["product"].sum(axis=0) @ c == pytest.approx(product)
    assert targets.slopes["steam"].sum(axis=0) @ c == pytest.approx(steam)


def test_an_agent_alone_finds_the_optimum_of_its_own_target_problem(loop: tuple[PlantConfig, Designs]) -> None:
    config, designs = loop
    assert config.learning is not None
    chosen = config.learning.actions
    for design in designs.values():
        target, generator = LocalTarget(config, design), np.random.default_rng(4)
        rest = np.zeros(design.model.ng), np.zeros(design.nx)
        for action in generator.uniform(-1, 1, (10, 4)):
            _, c = target.choose(action, *rest)
            span = chosen.most_back_off - chosen.back_off if action[1] >= 0 else chosen.back_off
            limit = (1 - chosen.back_off - span * action[1]) * design.terminal[-1]
            grid = np.linspace(-limit, limit, 20_001)
            per_c = design.inverse_transform[target.moved] * design.scale[: design.nx] @ target._from_c
            pull = economic_pull(chosen, target._slopes, action[None])
            reach = chosen.span * action[0] + target._base
            best = grid[np.argmin((per_c * grid - reach) ** 2 - float(pull[0]) * grid)]
            assert float(c) == pytest.approx(best, abs=2e-4 * design.terminal[-1])


# -- the controllers in the loop ---------------------------------------------------------------------------------------
def test_zero_actions_are_the_tuned_controllers_also_after_others(case: LearningCase) -> None:
    lived = []
    for actions in (np.zeros((1, 3, 2)), np.zeros((1, 3, 4))):
        days = RobustDays(case)
        campaigns = Campaigns(case, days.targets, days, draw_scenarios(case, [4]))
        if actions.shape[-1] == 4:
            campaigns.reset()
            campaigns.step(np.ones((1, 3, 4)))
        campaigns.reset()
        states = []
        while not campaigns.done:
            campaigns.step(actions)
            states.append(campaigns.yesterday.states[0])
        lived.append(np.array(states))
    assert np.allclose(lived[0], lived[1], rtol=1e-12, atol=0)


def test_the_terminal_weight_changes_how_the_plant_moves(case: LearningCase, days: RobustDays) -> None:
    """Not where it rests: what a quasi-steady surrogate sees of it is nothing."""
    c = np.array([[0.25, -0.25, 0.25]])
    seen = []
    for factor in (0.1, 1.0, 10.0):
        days.restart(np.array([5]))
        seen.append(days.day(c, np.array([0.98]), np.array([0.98]), np.full((1, 3), factor)))
    assert np.abs(seen[0].inputs - seen[2].inputs).max() > 1.0  # kJ/h
    days.day(c, np.array([0.98]), np.array([0.98]))
    assert all(agent.fixed.terminal_weight == 1.0 for agent in days._agents.values())


def test_random_actions_at_their_bounds_break_neither_limits_nor_promises(case: LearningCase) -> None:
    days, generator = RobustDays(case), np.random.default_rng(8)
    for seed in (1, 2):
        campaigns = Campaigns(case, days.targets, days, draw_scenarios(case, [seed], harsh=True))
        campaigns.reset()
        while not campaigns.done:
            _, terms = campaigns.step(generator.choice([-1.0, 1.0], (1, 3, 4)))
            assert terms["violation"] == 0
    assert days.broken == 0 and days.modes["optimal"] == 3 * days.steps


def test_environment_with_four_actions_passes_pettingzoos_test_with_the_real_controllers(case: LearningCase) -> None:
    env = CampaignEnv(case)
    assert all(env.action_space(agent).shape == (4,) for agent in env.possible_agents)
    parallel_api_test(env, num_cycles=4)
    env.reset(seed=0)
    with pytest.raises(DataError, match="4 finite numbers"):
        env.step({agent: np.zeros(2) for agent in env.possible_agents})


# -- training and files ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", ["cem", "consensus"])
def test_four_actions_are_learned_and_the_surrogate_teaches_nothing_about_the_terminal_weight(
    case: LearningCase, surrogate: Surrogate, tmp_path: Path, algorithm: Algorithm
) -> None:
    kind: Kind = "affine" if algorithm == "cem" else "network"
    options = TrainOptions(
        kind,
        iterations=2,
        campaigns=8,
        population=12,
        algorithm=algorithm,
        reference_iterations=2,
        reference_campaigns=4,
    )
    policy = train(case, options, tmp_path, identify=lambda: surrogate).policy
    read = load_policy(tmp_path / "policy.json")
    assert (read.moves, read.actor.actions) == (MOVES, 4)
    assert np.array_equal(read.parameters, policy.parameters)
    observations = np.random.default_rng(0).standard_normal((50, 3, read.actor.observations))
    actions = read.act(observations)
    assert np.all(actions[..., TERMINAL] == 0.0)
    assert np.abs(actions[..., ECONOMIC]).max() > 0
    assert all(values.reshape(3, 4)[:, TERMINAL].tolist() == [0.0] * 3 for values in read.references.values())


def a_policy(case: LearningCase, surrogate: Surrogate, moves: tuple[str, ...], seed: int = 0, **more: object) -> Policy:
    actor = Actor("affine", 3, observation_size(case), len(moves))
    references = {name: np.zeros(3 * len(moves)) for name in ("nominal_optimal", "best_constant")}
    name = case.config.plant.name
    parameters = np.zeros(actor.size)
    return Policy(name, actor, parameters, 1, references, surrogate.to_dict(), {"seed": seed}, moves)  # type: ignore[arg-type]


def test_policy_files_name_what_is_moved_and_older_ones_still_load(
    case: LearningCase, surrogate: Surrogate, tmp_path: Path
) -> None:
    two, four = (a_policy(case, surrogate, moves) for moves in (LEAST_MOVES, MOVES))
    for policy in (two, four):
        policy.save(tmp_path / "policy.json")
        assert load_policy(tmp_path / "policy.json").moves == policy.moves
    two.save(tmp_path / "policy.json")
    assert "moves" not in json.loads((tmp_path / "policy.json").read_text())["content"]  # as files were before
    replace(four, named=()).save(tmp_path / "policy.json")
    with pytest.raises(DataError, match="4 actions per agent for the 2 moves"):
        _ = load_policy(tmp_path / "policy.json").moves
    for wrong in (MOVES[:3], ("setpoint",), (*MOVES[:3], "price"), MOVES[::-1]):
        with pytest.raises(DataError, match="moves"):
            replace(four, named=wrong)  # type: ignore[arg-type]


def test_evaluation_pairs_policies_that_move_weights_with_those_that_do_not(
    plant: Path, case: LearningCase, surrogate: Surrogate
) -> None:
    two, four = (a_policy(case, surrogate, moves) for moves in (LEAST_MOVES, MOVES))
    rows = [row for row, _ in contestants([two, four]).values()]
    assert rows[-6:] == [
        *(f"{move}_{end}" for move in MOVES[2:] for end in ("least", "most")),
        "learned_affine",
        "learned_affine+economic_weight+terminal_weight",
    ]
    table = evaluate(plant, [two, four], 2)["harsh"]
    for name in ("learned_affine", "learned_affine+economic_weight+terminal_weight"):  # zero actions
        assert table[name]["gain_over_best_constant"] == pytest.approx(0.0, abs=1e-3)
    assert (
        table["economic_weight_least"]["terms_per_hour"]["catalyst"] > table["published"]["terms_per_hour"]["catalyst"]
    )
    assert all(row["violation_hours"] == row["promises_broken"] == 0 for row in table.values())


def test_evaluation_refuses_what_a_plant_does_not_bound_and_seeds_that_were_trained_on(
    plant: Path, case: LearningCase, surrogate: Surrogate, tmp_path: Path
) -> None:
    text = plant.read_text(encoding="utf-8")
    bare = tmp_path / "bare.yaml"
    bare.write_text("\n".join(line for line in text.splitlines() if "_weight:" not in line), encoding="utf-8")
    with pytest.raises(DataError, match="moves economic_weight, terminal_weight, for which plant"):
        evaluate(bare, [a_policy(case, surrogate, MOVES)], 2)
    assert list(fluctuation_seeds(251)) == [1004, 1005, 1006, 1007]
    with pytest.raises(DataError, match=r"training seed 251.*1004 to 1007"):
        evaluate(plant, [a_policy(case, surrogate, LEAST_MOVES, seed=251)], 5)
    with pytest.raises(DataError, match="two policies"):  # disjoint: the next check
        evaluate(plant, [a_policy(case, surrogate, LEAST_MOVES, seed=251)] * 2, 4)


# -- on the plant ------------------------------------------------------------------------------------------------------
def constants(values: list[float], **change: object) -> dict[str, object]:
    content = {"agents": 3, "observations": 13, "actions": len(values), "parameters": values * 3, "moves": list(MOVES)}
    return content | change


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "no names": (constants([0.1] * 4, moves=list(LEAST_MOVES)), "4 actions per agent for the 2 moves"),
    "unknown": (constants([0.1] * 3, moves=[*LEAST_MOVES, "price"]), "moves = setpoint, back_off, price"),
    "not a list": (constants([0.1] * 4, moves="setpoint"), "a list is needed"),
    "not words": (constants([0.1] * 4, moves=[1, 2, 3, 4]), "moves = 1, 2, 3, 4"),
    "too many": (constants([0.1] * 5), "actions = 5"),
    "not bounded here": (constants([0.1] * 4), "'terminal_weight', for which this plant's file has no bounds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_updates_that_move_what_they_must_not_are_refused_by_name(loop: tuple[PlantConfig, Designs], name: str) -> None:
    content, words = REFUSED[name]
    adoption = Adoption(loop[1]["reactor1"], LocalObservation(loop[0], "reactor1"), MOVES[:3])
    with pytest.raises(DataError, match=words):
        adoption.check(Update("policy", "reactor_separator", (), 1, "constant", content, {}))


def test_agents_adopt_weights_between_steps_and_lose_them_with_the_policy(loop: tuple[PlantConfig, Designs]) -> None:
    config, designs = loop
    together = Together(config, designs, None)
    together.give(Update("policy", config.plant.name, (), 1, "constant", constants([0.0, 0.0, 0.5, 1.0]), {}))
    first = together.run(15)
    assert {agent.fixed.terminal_weight for agent in together.agents.values()} == {10.0}
    assert all(np.any(agent.design.x_ref) for agent in together.agents.values())
    generator, broken = np.random.default_rng(3), first.violations + first.promises_broken
    for version in range(2, 6):  # whatever they are told next
        values = generator.choice([-1.0, 1.0], 4).tolist()
        together.give(Update("policy", config.plant.name, (), version, "constant", constants(values), {}))
        result = together.run(10)
        broken += result.violations + result.promises_broken
    assert broken == 0 and not together.account.refused
    back = constants([0.0, 0.0], moves=list(LEAST_MOVES))
    together.give(Update("policy", config.plant.name, (), 9, "constant", back, {}))
    together.run(12)
    for name, agent in together.agents.items():
        assert agent.fixed.terminal_weight == 1.0
        assert np.array_equal(agent.design.x_ref, designs[name].x_ref)


def test_the_learner_tries_a_policy_that_moves_weights_and_says_what_it_moves(
    loop: tuple[PlantConfig, Designs], tmp_path: Path
) -> None:
    config, designs = loop
    first = Policy("reactor_separator", Actor("constant", 3, 13, 4), np.tile([1.0, -1.0, 0.5, -1.0], 3), named=MOVES)
    learner = Learner(config, designs, Ledger(tmp_path / "versions.db", "r"), first=first)
    together = Together(config, designs, learner, ("policy",))
    together.run(60)
    canary = learner.ledger.entries("policy")[0]
    assert canary.content["moves"] == list(MOVES) and canary.agents == ("reactor1",)
    assert together.agents["reactor1"].fixed.terminal_weight == pytest.approx(0.1)
    assert together.agents["separator"].fixed.terminal_weight == 1.0
    bare = config.learning.actions.model_copy(update={"terminal_weight": None})  # type: ignore[union-attr]
    other = config.model_copy(update={"learning": config.learning.model_copy(update={"actions": bare})})  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="moves terminal_weight, for which plant"):
        Learner(other, designs, Ledger(tmp_path / "others.db", "r"), first=first)


def test_the_learner_trains_what_the_plant_file_moves_but_not_what_its_replay_cannot_show(
    loop: tuple[PlantConfig, Designs],
) -> None:
    config, designs = loop
    assert config.learning is not None
    moving = config.learning.model_copy(update={"actions": config.learning.actions.model_copy(update={"moves": MOVES})})
    four = config.model_copy(update={"learning": moving})
    generator = np.random.default_rng(0)
    series = Series(four, designs, memory=100)
    replay = Replay(four, series)
    n = sum(design.nx for design in designs.values())
    found = replay.improve(None, np.zeros(n), 1e-3 * generator.standard_normal((30, n)), seed=0)
    columns = found.reshape(-1, 4)
    assert replay.actor.actions == 4 and np.any(columns[:, ECONOMIC]) and not np.any(columns[:, TERMINAL])
    twice = found.copy()
    twice.reshape(-1, 4)[:, TERMINAL] = 1.0
    w = 1e-3 * generator.standard_normal((30, n))
    one, other = replay.rewards(np.stack([found, twice]), np.zeros(n), w).T
    assert np.array_equal(one, other)
