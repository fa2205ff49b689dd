"""Learning on top of the controllers: rewards, certified targets, campaigns, policies, training, evaluation."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test
from short_plant import short_plant

from rmpc_ros.cli import main
from rmpc_ros.config import load_plant
from rmpc_ros.config.learning import LEAST_MOVES
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.learning.campaign import Campaigns, deviations_of, observation_size
from rmpc_ros.learning.case import LearningCase, learning_case
from rmpc_ros.learning.cross_entropy import CemOptions, CemState, first_state, iterate
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.economics import TERMS, reward_terms, total
from rmpc_ros.learning.env import CampaignEnv
from rmpc_ros.learning.evaluate import Outcome, contestants, evaluate, live, mean_outcome, myopic
from rmpc_ros.learning.experience import TRAINING_SEEDS
from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.learning.objectives import campaign_objective
from rmpc_ros.learning.policy import KINDS, Actor, Policy, load_policy
from rmpc_ros.learning.rollouts import Workers
from rmpc_ros.learning.scenario import aged, draw_scenarios
from rmpc_ros.learning.surrogate import Surrogate, identify_surrogate
from rmpc_ros.learning.train import TrainOptions, train


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped campaign plant with short campaigns and windows."""
    return short_plant(tmp_path_factory.mktemp("plant"), days=3, window=8, average=4)


@pytest.fixture(scope="module")
def case(plant: Path) -> LearningCase:
    return learning_case(load_plant(plant))


@pytest.fixture(scope="module")
def days(case: LearningCase) -> RobustDays:
    return RobustDays(case)


@pytest.fixture(scope="module")
def surrogate(case: LearningCase, days: RobustDays) -> Surrogate:
    return identify_surrogate(case, days, seed=0, windows=40)


# -- economics ---------------------------------------------------------------------------------------------------------
def test_reward_is_the_sum_of_its_named_terms_and_each_has_its_price(case: LearningCase) -> None:
    prices = case.learning.prices
    states, inputs = case.steady.copy(), np.array([1e6, 2e6, 3e6])
    states[case.product], states[case.quality] = 0.7, prices.quality.limit + 0.01
    terms = reward_terms(case, states, inputs, 1.1, 0.9, 0.5, 0.01)
    assert tuple(terms) == TERMS
    assert terms["product"] == pytest.approx(1.1 * prices.product.price * prices.product.flow * 0.7)
    assert terms["steam"] == pytest.approx(-0.9 * prices.steam.price * 6e6)
    assert terms["emissions"] == pytest.approx(-prices.steam.emission_factor * prices.steam.emission_price * 6e6)
    assert terms["quality"] == -prices.quality.penalty
    assert terms["violation"] == -0.5 * prices.violation
    assert terms["catalyst"] == pytest.approx(-prices.regeneration * 0.01 / 0.04 / 24)
    assert total(terms) == pytest.approx(sum(float(v) for v in terms.values()))


def test_a_name_that_does_not_exist_is_named_with_its_place(tmp_path: Path) -> None:
    text = shipped_plant("reactor_separator_campaign").read_text(encoding="utf-8")
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace("{state: xB3, flow", "{state: xZ3, flow"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"wrong\.yaml.*xZ3"):
        learning_case(load_plant(path))
    path.write_text(text.replace("regeneration: 30000", "regeneration: -1"), encoding="utf-8")
    with pytest.raises(ConfigError, match="regeneration"):
        load_plant(path)
    with pytest.raises(ConfigError, match="no key 'campaign'"):
        learning_case(load_plant(shipped_plant("reactor_separator")))


# -- scenarios ---------------------------------------------------------------------------------------------------------
def test_the_same_seed_is_the_same_campaign_and_harsh_only_ages_faster(case: LearningCase) -> None:
    mild, again, harsh = (draw_scenarios(case, [3, 4], h) for h in (False, False, True))
    for name in ("supply", "product", "steam"):
        assert np.array_equal(getattr(mild, name), getattr(again, name))
        assert np.array_equal(getattr(mild, name), getattr(harsh, name))
    assert harsh.decay == pytest.approx(case.learning.campaign.catalyst.harsh * mild.decay)
    assert not np.array_equal(mild.product[0], mild.product[1])


def test_heat_wears_the_catalyst_and_the_floor_regenerates_it(case: LearningCase) -> None:
    cool, hot = case.steady.copy(), case.steady.copy()
    hot[case.temperatures] += 0.5
    after, lost = aged(case, np.array([0.99, 0.99, 0.961]), np.stack([cool, hot, hot]), np.full(3, 0.01))
    assert lost[1] > lost[0] > 0
    assert after[0] == pytest.approx(0.99 - lost[0])
    assert after[2] == case.learning.campaign.catalyst.fresh


# -- targets -----------------------------------------------------------------------------------------------------------
def test_every_wish_becomes_a_certified_target_and_none_is_nearer(case: LearningCase, days: RobustDays) -> None:
    generator, targets = np.random.default_rng(0), days.targets
    wanted = generator.uniform(-3, 3, (50, 3))
    back_off = generator.uniform(0, 0.5, (50, 3))
    c = targets.nearest(wanted, back_off)
    limit = (1 - back_off) * targets.authority
    assert np.all(np.abs(c) <= limit + 1e-12)
    others = generator.uniform(-1, 1, (2000, 50, 3)) * limit
    distance = np.linalg.norm(c @ targets.D.T - wanted, axis=-1)
    assert np.all(distance <= np.linalg.norm(others @ targets.D.T - wanted, axis=-1) + 1e-9)


def test_a_wish_within_reach_is_met_exactly(days: RobustDays) -> None:
    c = np.array([0.1, -0.05, 0.08])
    found = days.targets.nearest(days.targets.D @ c, np.zeros(3))
    assert found == pytest.approx(c, abs=1e-7)


def test_zero_actions_are_the_plant_files_own_targets(case: LearningCase, days: RobustDays) -> None:
    c = deviations_of(case, days.targets, np.zeros((3, len(LEAST_MOVES))))
    assert np.all(c == 0)
    for agent, (x_ref, u_ref) in days.targets.references(c).items():
        design = days._agents[agent].design
        assert np.array_equal(x_ref, np.zeros(design.nx))
        assert np.array_equal(u_ref, np.zeros(design.nu))


@pytest.mark.parametrize(
    "change", [lambda x, u: (x * np.nan, u), lambda x, u: (x, u + 2.0), lambda x, u: (x + 2.0, u), lambda x, u: (u, x)]
)
def test_an_agent_refuses_a_target_outside_its_certified_set_and_keeps_the_old(days: RobustDays, change) -> None:
    agent = days._agents["reactor1"]
    before = agent.design
    with pytest.raises(DataError, match="reactor1"):
        agent.set_target(*change(np.zeros(3), np.zeros(1)))
    assert agent.design is before


# -- the controllers in the loop ---------------------------------------------------------------------------------------
def test_extreme_actions_never_break_a_limit_or_a_promise(case: LearningCase) -> None:
    days, generator = RobustDays(case), np.random.default_rng(5)
    campaigns = Campaigns(case, days.targets, days, draw_scenarios(case, [1], harsh=True))
    campaigns.reset()
    while not campaigns.done:
        _, terms = campaigns.step(generator.choice([-1.0, 1.0], (1, 3, len(LEAST_MOVES))))
        assert terms["violation"] == 0
    assert days.broken == 0
    assert days.modes["optimal"] == 3 * days.steps


def test_moving_a_set_point_moves_the_plant_that_way(case: LearningCase, days: RobustDays) -> None:
    settled = {}
    for sign in (-1.0, 1.0):
        actions = np.zeros((3, len(LEAST_MOVES)))
        actions[:, 0] = sign
        days.restart(np.array([0]))
        c = deviations_of(case, days.targets, actions)[None]
        for _ in range(3):
            day = days.day(c, np.array([0.98]), np.array([0.98]))
        settled[sign] = day.states[0, case.moved]
    assert np.all(settled[1.0] - settled[-1.0] > 0.3)


def test_environment_passes_pettingzoos_own_tests_with_the_real_controllers(case: LearningCase) -> None:
    env = CampaignEnv(case)
    parallel_api_test(env, num_cycles=4)
    observations, _ = env.reset(seed=3)
    seen = [observations]
    for _ in range(3):
        observations, rewards, ended, cut, infos = env.step(
            {a: np.zeros(len(LEAST_MOVES)) for a in env.possible_agents}
        )
        seen.append(observations)
        assert len(set(rewards.values())) == 1
        info = infos["separator"]
        assert rewards["separator"] == pytest.approx(sum(info[name] for name in TERMS))
    assert all(cut.values()) and not any(ended.values()) and env.agents == []
    assert not np.allclose(seen[0]["reactor1"], seen[1]["reactor1"])


def test_environment_refuses_what_is_not_an_action(case: LearningCase, days: RobustDays, surrogate: Surrogate) -> None:
    env = CampaignEnv(case, surrogate, days.targets)
    env.reset(seed=0)
    with pytest.raises(DataError, match="separator"):
        env.step({"reactor1": np.zeros(2), "reactor2": np.zeros(2), "separator": np.array([np.nan, 0.0])})


def test_environment_is_reproducible_by_seed(case: LearningCase, days: RobustDays, surrogate: Surrogate) -> None:
    parallel_seed_test(lambda: CampaignEnv(case, surrogate, days.targets), num_cycles=5)


# -- surrogate ---------------------------------------------------------------------------------------------------------
def test_surrogate_predicts_windows_it_has_not_seen(case: LearningCase, days: RobustDays, surrogate: Surrogate) -> None:
    spread = np.abs(surrogate.theta[1:6, case.moved]).sum(axis=0)  # what targets, catalyst and feed move
    assert np.all(surrogate.error[case.moved] < 0.5 * spread)
    again = Surrogate.from_dict(json.loads(json.dumps(surrogate.to_dict())))
    c = np.array([[0.1, -0.2, 0.05]])
    one, two = (s.day(c, np.array([0.97]), np.array([0.98])) for s in (surrogate, again))
    assert np.array_equal(one.states, two.states)
    with pytest.raises(DataError, match="theta"):
        Surrogate.from_dict(surrogate.to_dict() | {"theta": [[1.0]]})


def test_campaigns_side_by_side_do_not_touch_each_other(
    case: LearningCase, days: RobustDays, surrogate: Surrogate
) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 3, len(LEAST_MOVES)))
    together = Campaigns(case, days.targets, surrogate, draw_scenarios(case, [0, 1, 2, 3]))
    together.reset()
    observations, terms = together.step(actions)
    for s in range(4):
        alone = Campaigns(case, days.targets, surrogate, draw_scenarios(case, [s]))
        alone.reset()
        seen, paid = alone.step(actions[s : s + 1])
        assert seen[0] == pytest.approx(observations[s])
        assert total(paid)[0] == pytest.approx(total(terms)[s])


# -- policies ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_untrained_policies_are_the_tuned_controllers_and_all_are_bounded(case: LearningCase, kind: str) -> None:
    generator = np.random.default_rng(0)
    actor = Actor(kind, 3, observation_size(case), len(LEAST_MOVES))
    observations = generator.standard_normal((5, 7, 3, actor.observations))
    start = np.tile(actor.start(generator), (5, 1))
    assert np.all(actor.act(start, observations) == 0)
    wild = 50 * generator.standard_normal((5, actor.size))
    actions = actor.act(wild, observations)
    assert actions.shape == (5, 7, 3, len(LEAST_MOVES))
    assert np.all(np.abs(actions) <= 1) and np.any(np.abs(actions) > 0.5)
    alone = Policy("p", actor, wild[2]).act(observations[2])
    assert alone == pytest.approx(actions[2])


def test_policy_files_are_checked_before_they_are_used(tmp_path: Path) -> None:
    actor = Actor("affine", 3, 13, 2)
    policy = Policy("p", actor, np.linspace(-1, 1, actor.size), 7, {"best_constant": np.zeros(6)}, {}, {"seed": 1})
    path = tmp_path / "policy.json"
    policy.save(path)
    read = load_policy(path)
    assert (read.version, read.plant, read.actor, read.training) == (7, "p", actor, {"seed": 1})
    assert np.array_equal(read.parameters, policy.parameters)
    document = json.loads(path.read_text())
    changed = json.loads(json.dumps(document))
    changed["content"]["parameters"][0] += 1e-9
    for text, why in (
        (json.dumps(changed), "checksum"),
        (json.dumps(document | {"version": 8}), "checksum"),
        (json.dumps(document | {"format": 99}), "format"),
        (json.dumps({"format": 1}), "not complete"),
        (path.read_text()[:-20], "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=why):
            load_policy(path)
    with pytest.raises(DataError, match="finite"):
        Policy("p", actor, np.full(actor.size, np.nan))


# -- cross-entropy -----------------------------------------------------------------------------------------------------
def test_cross_entropy_finds_a_maximum_and_resumes_exactly(tmp_path: Path) -> None:
    goal = np.array([0.3, -0.7, 1.2])

    def objective(x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return -np.sum((x - goal) ** 2, axis=1) + 1e-3 * generator.standard_normal()

    options = CemOptions(population=40)
    straight = first_state(np.zeros(3), options, 1)
    for _ in range(25):
        iterate(straight, objective, options)
    assert straight.mean == pytest.approx(goal, abs=0.03)
    stopped = first_state(np.zeros(3), options, 1)
    for _ in range(10):
        iterate(stopped, objective, options)
    stopped.save(tmp_path / "c.json", {"seed": 1})
    resumed = CemState.load(tmp_path / "c.json", {"seed": 1})
    for _ in range(15):
        iterate(resumed, objective, options)
    assert np.array_equal(resumed.mean, straight.mean)
    assert resumed.curve == straight.curve
    with pytest.raises(DataError, match="belongs to"):
        CemState.load(tmp_path / "c.json", {"seed": 2})


def test_training_improves_is_reproducible_and_resumes(case: LearningCase, plant: Path, tmp_path: Path) -> None:
    options = TrainOptions(
        kind="affine",
        seed=3,
        iterations=6,
        campaigns=6,
        windows=40,
        population=30,
        reference_iterations=6,
        reference_campaigns=6,
    )
    trained = train(case, options, tmp_path / "a")
    targets = RobustDays(case).targets
    objective = campaign_objective(case, targets, trained.surrogate, trained.policy.actor, 40)
    zero_and_learned = np.stack([np.zeros(trained.policy.actor.size), trained.policy.parameters])
    zero, learned = objective(zero_and_learned, np.random.default_rng(99))
    assert learned > zero

    def cut_off(what: str, done: int, wanted: int) -> None:
        if what == "policy" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(case, options, tmp_path / "b", progress=cut_off)
    assert not (tmp_path / "b" / "policy.json").exists()
    assert json.loads((tmp_path / "b" / "checkpoint.json").read_text())["iteration"] == 3
    resumed = train(case, options, tmp_path / "b", resume=True)
    assert np.array_equal(resumed.policy.parameters, trained.policy.parameters)
    assert resumed.curve == trained.curve
    with pytest.raises(DataError, match="belongs to another"):
        train(case, dataclasses.replace(options, seed=4), tmp_path / "b", resume=True)
    with pytest.raises(DataError, match="nothing to resume"):
        train(case, options, tmp_path / "none", resume=True)


def test_no_constant_of_the_grid_beats_the_best_constant(
    case: LearningCase, days: RobustDays, surrogate: Surrogate, tmp_path: Path
) -> None:
    options = TrainOptions(
        iterations=4, campaigns=8, windows=40, population=20, reference_iterations=4, reference_campaigns=8
    )
    best = train(case, options, tmp_path).policy.references["best_constant"]
    actor = Actor("constant", 3, observation_size(case), len(LEAST_MOVES))
    ends = np.array([[i, -1, j, -1, k, -1] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], float)
    values = campaign_objective(case, days.targets, surrogate, actor, 24)(
        np.vstack([best, np.zeros(6), ends]), np.random.default_rng([29, 0])
    )
    assert values[0] >= values[1:].max() - 2.0


def test_training_and_held_out_campaigns_never_meet(
    case: LearningCase, days: RobustDays, surrogate: Surrogate, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def spy(case: LearningCase, seeds: list[int], harsh: bool = False):
        drawn.extend(seeds)
        return draw_scenarios(case, seeds, harsh)

    monkeypatch.setattr("rmpc_ros.learning.experience.draw_scenarios", spy)
    actor = Actor("constant", 3, observation_size(case), len(LEAST_MOVES))
    objective = campaign_objective(case, days.targets, surrogate, actor, 8)
    for seed in range(3):
        objective(np.zeros((2, actor.size)), np.random.default_rng(seed))
    assert len(set(drawn)) == 24
    assert min(drawn) >= TRAINING_SEEDS
    with pytest.raises(DataError, match="training"):
        evaluate(Path("any.yaml"), [Policy("p", actor, np.zeros(actor.size))], 2, first_seed=TRAINING_SEEDS - 1)


# -- evaluation --------------------------------------------------------------------------------------------------------
def test_evaluation_is_paired_and_prints_one_object(
    plant: Path, case: LearningCase, days: RobustDays, surrogate: Surrogate, tmp_path: Path, capsys
) -> None:
    actor = Actor("affine", 3, observation_size(case), len(LEAST_MOVES))
    references = {"nominal_optimal": np.ones(6), "best_constant": np.zeros(6)}
    policy = Policy(case.config.plant.name, actor, np.zeros(actor.size), 1, references, surrogate.to_dict())
    path = tmp_path / "policy.json"
    policy.save(path)
    assert main(["evaluate", str(plant), "--policy", str(path), "--seeds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for label in ("campaign", "harsh"):
        rows = result[label]
        assert list(rows) == ["published", "nominal_optimal", "best_constant", "myopic", "learned_affine"]
        for name in ("published", "learned_affine"):  # both zero here: the same as the reference, seed by seed
            assert rows[name]["gain_over_best_constant"] == pytest.approx(0.0, abs=1e-3)
        assert all(row["violation_hours"] == 0 and row["promises_broken"] == 0 for row in rows.values())
    shared = evaluate(plant, [policy], 2, Workers(2))
    for label in ("campaign", "harsh"):
        for name, row in shared[label].items():
            assert row["profit_per_hour"] == pytest.approx(result[label][name]["profit_per_hour"], abs=1e-2)
    with pytest.raises(DataError, match="at least 2"):
        evaluate(plant, [policy], 1)
    with pytest.raises(DataError, match="is for plant"):
        evaluate(plant, [dataclasses.replace(policy, plant="other")], 2)
    with pytest.raises(DataError, match="surrogate"):
        evaluate(plant, [dataclasses.replace(policy, surrogate={})], 2)
    with pytest.raises(DataError, match="two policies"):
        evaluate(plant, [policy, policy], 2)


def test_policies_that_differ_in_the_trainings_seed_are_one_row(case: LearningCase) -> None:
    def policy(kind: str, algorithm: str, seed: int) -> Policy:
        actor = Actor(kind, 3, observation_size(case), len(LEAST_MOVES))
        references = {"nominal_optimal": np.ones(6), "best_constant": np.zeros(6)}
        return Policy(
            "p", actor, np.zeros(actor.size), 1, references, {"any": 1}, {"algorithm": algorithm, "seed": seed}
        )

    trained = [policy("affine", "cem", 0), policy("network", "mappo", 0), policy("network", "mappo", 1)]
    trained += [policy("network", "consensus", 0), policy("network", "cem", 0)]
    rows = [row for row, _ in contestants(trained).values()]
    assert rows[:4] == ["published", "nominal_optimal", "best_constant", "myopic"]
    assert rows[4:] == [
        "learned_affine",
        "learned_network",
        "learned_network",
        "learned_consensus",
        "learned_network_cem",
    ]
    one, two = (
        Outcome(profit, {"product": profit}, 0.0, hours, 2.0, 1, 10, broken, 0)
        for profit, hours, broken in ((1.0, 24.0, 0), (3.0, 0.0, 1))
    )
    both = mean_outcome([one, two])
    assert (both.profit, both.terms, both.quality_hours, both.steps, both.broken) == (
        2.0,
        {"product": 2.0},
        12.0,
        20,
        1,
    )


def test_myopic_earns_most_today_and_wears_the_catalyst_most(
    case: LearningCase, days: RobustDays, surrogate: Surrogate
) -> None:
    act = myopic(case, days.targets, surrogate)
    greedy, still = (
        live(case, days.targets, surrogate, a, 0, True)
        for a in (act, lambda observations, campaigns: np.zeros((1, 3, len(LEAST_MOVES))))
    )
    assert greedy.profit - greedy.terms["catalyst"] > still.profit - still.terms["catalyst"]


def test_confidence_interval_is_students() -> None:
    low, high = confidence_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    half = 3.182446305284263 * np.sqrt(5 / 3) / 2
    assert (low, high) == (pytest.approx(2.5 - half), pytest.approx(2.5 + half))


def test_wrong_words_are_answered_with_the_right_ones(capsys) -> None:
    plant = str(shipped_plant("reactor_separator_campaign"))
    assert main(["train", plant, "--algo", "magic"]) == 1
    assert "cem" in capsys.readouterr().err
    assert main(["train", plant, "--actor", "magic"]) == 1
    assert "affine" in capsys.readouterr().err


def test_benchmark_prints_what_it_promises(tmp_path: Path, capsys) -> None:
    small = ["windows=34", "days=2", "campaigns=20", "batch=50", "batches=2", "ros_steps=300"]
    assert main(["bench", "marl", "--set", *small, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for name in ("surrogate_agent_steps_per_s", "mpc_plant_steps_per_s", "ingest_per_s", "policy_ms"):
        assert result[name] > 0
    assert result["surrogate_speedup"] > 10
