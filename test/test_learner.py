"""The learner without ROS: sets with certificates, policies on trial, roll-back, going on after a death."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.errors import ConfigError, DataError, RmpcError
from rmpc_ros.learning.adoption import Adoption
from rmpc_ros.learning.canary import BATCH, Standing, fault, standing
from rmpc_ros.learning.learner import Learner
from rmpc_ros.learning.ledger import Ledger
from rmpc_ros.learning.local_observation import LocalObservation
from rmpc_ros.learning.local_reward import LocalReward
from rmpc_ros.learning.local_target import LocalTarget
from rmpc_ros.learning.policy import Actor, Policy
from rmpc_ros.learning.replay import Replay
from rmpc_ros.learning.residual_fit import fit_residuals, rows_needed
from rmpc_ros.learning.series import Series
from rmpc_ros.learning.together import Together
from rmpc_ros.learning.transition import Versions
from rmpc_ros.learning.update import Update
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.residual_set import design_bounds
from rmpc_ros.network.system import design_agents
from rmpc_ros.studies.interaction_sets import RUNS, STUDY

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"
Designs = dict[str, AgentDesign]


@pytest.fixture(scope="module")
def plant() -> tuple[PlantConfig, Designs]:
    config = load_plant(FILE)
    assert config.learning is not None
    quick = config.learning.online.model_copy(update={"settle": 10, "trial": 20, "every": 40})
    config = config.model_copy(update={"learning": config.learning.model_copy(update={"online": quick})})
    return config, design_agents(config)


def constant(value: float) -> Policy:
    """All set-points moved the same way, no back-off."""
    return Policy("reactor_separator", Actor("constant", 3, 13, 2), np.tile([value, -1.0], 3))


# -- sets -------------------------------------------------------------------------------------------------------------
def test_a_learned_box_holds_what_its_certificate_promises() -> None:
    generator = np.random.default_rng(0)
    low, high = -5.0 * np.ones(2), 5.0 * np.ones(2)
    outside = []
    for _ in range(30):
        fitted = fit_residuals(generator.normal(size=(150, 2)), low, high, 0.05, 0.9, 1.0, ("a", "b"))
        outside.append(np.mean(~fitted.set.contains(generator.normal(size=(2000, 2)))))
    assert np.mean(np.array(outside) > 0.05) <= 0.1
    certificate = fitted.certificate
    assert (certificate.epsilon, certificate.confidence, certificate.samples) == (0.05, 0.9, 150)
    assert certificate.thresholds["held_out"] == 30


def test_a_learned_box_stays_inside_the_design_and_needs_data_that_do_not_change() -> None:
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(200, 2))
    cut = fit_residuals(rows, -np.ones(2), np.ones(2), 0.05, 0.9, 3.0, ("a", "b"))
    outside = int(np.sum(np.any(np.abs(rows) > 1.0, axis=1)))
    assert cut.certificate.epsilon is None and f"{outside} of the 200" in cut.certificate.statement
    box = cut.set
    assert np.all(box.support(np.eye(2)) <= 1.0) and np.all(box.support(-np.eye(2)) <= 1.0)
    with pytest.raises(DataError, match=f"{rows_needed(0.05, 0.9)} are needed"):
        fit_residuals(rows[:50], -np.ones(2), np.ones(2), 0.05, 0.9, 1.2, ("a", "b"))
    rows[160:] += 20.0
    changed = fit_residuals(rows, -99 * np.ones(2), 99 * np.ones(2), 0.05, 0.9, 1.2, ("a", "b"))
    assert changed.certificate.epsilon is None and "No promise: 40 of the 40" in changed.certificate.statement
    assert changed.set.contains(rows).all()


# -- targets ----------------------------------------------------------------------------------------------------------
def test_whatever_a_policy_wishes_the_target_is_certified(plant: tuple[PlantConfig, Designs]) -> None:
    config, designs = plant
    generator = np.random.default_rng(2)
    for name, design in designs.items():
        agent, target = Agent(design), LocalTarget(config, design)
        reach = np.concatenate([n.terminal for n in design.neighbours.values()])
        for _ in range(50):
            action = generator.uniform(-50, 50, 2)
            zeta = generator.uniform(-3, 3, design.model.ng) * reach
            agent.set_target(*target.references(action, zeta, generator.normal(size=design.nx) * design.terminal[:-1]))
        still = target.references(np.zeros(2), zeta, np.zeros(design.nx))
        assert np.array_equal(still[0], design.x_ref) and np.array_equal(still[1], design.u_ref), name


def test_a_target_reaches_the_wish_where_the_authority_allows_it(plant: tuple[PlantConfig, Designs]) -> None:
    config, designs = plant
    design = designs["reactor1"]
    target = LocalTarget(config, design)
    x, c = target.choose(np.array([0.2, -1.0]), np.zeros(design.model.ng), np.zeros(design.nx))
    moved = design.physical_states(x)[target.moved] - design.steady_state[target.moved]
    assert config.learning is not None
    assert moved == pytest.approx(0.2 * config.learning.actions.span, rel=1e-6)
    assert abs(c) < design.terminal[-1]
    assert np.allclose(x, design.model.A @ x + design.model.B[:, 0] * c)  # it rests there
    _, most = target.choose(np.array([1.0, 1.0]), np.zeros(design.model.ng), np.zeros(design.nx))
    assert abs(most) <= (1 - config.learning.actions.most_back_off) * design.terminal[-1] * (1 + 1e-9)


def test_the_agents_shares_of_the_reward_add_up(plant: tuple[PlantConfig, Designs]) -> None:
    config, designs = plant
    steady, u = config.linear.steady_state, config.linear.steady_input
    total = 0.0
    for name in designs:
        rows, columns = config.linear.rows(name), config.linear.columns(name)
        total += float(LocalReward.of(config, name).total(steady[rows], u[columns]))
    assert config.learning is not None
    prices = config.learning.prices
    heat = float(u.sum())
    expected = prices.product.price * prices.product.flow * steady[7] - prices.steam.price * heat
    expected -= prices.steam.emission_price * prices.steam.emission_factor * heat
    assert total == pytest.approx(expected)
    with pytest.raises(ConfigError, match="no section 'learning'"):
        LocalReward.of(config.model_copy(update={"learning": None}), "reactor1")


# -- what agents refuse -----------------------------------------------------------------------------------------------
def box(lower: Any, upper: Any, family: str = "box") -> dict[str, Any]:
    return {"family": family, "lower": lower, "upper": upper}


def constants(**change: Any) -> dict[str, Any]:
    return {"agents": 3, "observations": 13, "actions": 2, "parameters": [0.1] * 6} | change


SMALL = [1e-6] * 3
REFUSED = {
    "empty box": ("uncertainty", "box", box(SMALL, [-1e-6] * 3), "empty"),
    "larger than the design": ("uncertainty", "box", box([-1.0] * 3, [1.0] * 3), "outside the design's"),
    "wrong dimension": ("uncertainty", "box", box([-1e-6] * 2, [1e-6] * 2), "3 are needed"),
    "words": ("uncertainty", "box", box(["a"] * 3, SMALL), "a list of 3 numbers"),
    "no bounds": ("uncertainty", "box", {"family": "box"}, "a list of 3 numbers"),
    "another family": ("uncertainty", "box", box([-1e-6] * 3, SMALL, "ellipsoid"), "allowed: 'box'"),
    "mean outside": ("model", "residual_mean", {"mean": [9.0, 0.0, 0.0]}, "outside the design's"),
    "mean too long": ("model", "residual_mean", {"mean": [0.0] * 4}, "3 are needed"),
    "huge parameters": ("policy", "constant", constants(parameters=[1e6] * 6), "parameters reach"),
    "too few parameters": ("policy", "constant", constants(parameters=[0.1] * 5), "6 are needed"),
    "another plant's agents": ("policy", "constant", constants(agents=4, parameters=[0.1] * 8), "this plant has 3"),
    "other observations": ("policy", "affine", constants(observations=9, parameters=[0.1] * 18), "this plant has 13"),
    "sizes as words": ("policy", "constant", constants(agents="3"), "whole number"),
    "too few actions": ("policy", "constant", constants(actions=1, parameters=[0.1] * 3), "actions = 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contents_out_of_bounds_are_refused_by_name(plant: tuple[PlantConfig, Designs], case: str) -> None:
    config, designs = plant
    subject, kind, content, words = REFUSED[case]
    adoption = Adoption(designs["reactor1"], LocalObservation(config, "reactor1"))
    update = Update(subject, "reactor_separator", (), 1, kind, content, {})  # type: ignore[arg-type]
    with pytest.raises(RmpcError, match=words):
        adoption.check(update)


def test_contents_inside_the_bounds_are_accepted(plant: tuple[PlantConfig, Designs]) -> None:
    config, designs = plant
    design = designs["reactor1"]
    adoption = Adoption(design, LocalObservation(config, "reactor1"))
    lower, upper = design_bounds(design)
    whole = Update("uncertainty", "p", (), 1, "box", box(lower.tolist(), upper.tolist()), {})
    assert adoption.members(whole).dim == 3
    actor, parameters, _ = adoption.policy(Update("policy", "p", (), 1, "constant", constants(), {}))
    assert (actor.size, parameters.shape) == (6, (6,))


# -- trials -----------------------------------------------------------------------------------------------------------
def test_a_fall_a_near_limit_and_a_violation_are_faults_and_luck_is_not() -> None:
    before = Standing(5.0, 0.5, 6.0, 0.8, 40)
    assert fault(before, Standing(4.0, 0.5, 5.0, 0.8, 40), 2.0, 0.1) == ""
    assert "fell from 5.00 to 3.00" in fault(before, Standing(3.0, 0.5, 4.0, 0.8, 40), 2.0, 0.1)
    assert "came nearer than 0.1" in fault(before, Standing(9.0, 0.5, 9.0, 0.05, 40), 2.0, 0.1)
    assert "violated" in fault(before, Standing(9.0, np.inf, np.inf, -0.01, 1), 2.0, 0.1)
    assert fault(before, Standing(3.0, np.inf, np.inf, 0.8, 5), 2.0, 0.1) == ""  # nothing is known yet
    heavy = Standing(-11.0, 10.0, -2.0, 0.8, 40)  # one batch was so bad that the mean says nothing
    assert "never above -2.00" in fault(before, heavy, 2.0, 0.1)
    short = standing(np.ones(BATCH), np.ones(BATCH))
    assert Standing.from_dict(short.to_dict()) == short and short.error == np.inf


def test_a_bad_policy_is_rolled_back_before_any_violation(plant: tuple[PlantConfig, Designs], tmp_path: Path) -> None:
    config, designs = plant
    ledger = Ledger(tmp_path / "versions.db", "r")
    together = Together(config, designs, Learner(config, designs, ledger, first=constant(-1.0)), ("policy",))
    result = together.run(100)
    stages = [(u.certificate["stage"], u.agents) for _, u in together.account.published if u.subject == "policy"]
    assert stages[:2] == [("canary", ("reactor1",)), ("roll-back", tuple(designs))]
    rollback = ledger.entries("policy")[1]
    assert rollback.certificate["of"] == 1 and "reward beyond the policy before" in rollback.certificate["reason"]
    assert not np.any(rollback.content["parameters"])  # nothing was in force before
    assert together.account.policies[-1] != (1, 0, 0)
    assert result.violations == result.promises_broken == 0


def test_a_good_policy_reaches_everybody_and_earns_more(plant: tuple[PlantConfig, Designs], tmp_path: Path) -> None:
    config, designs = plant
    learner = Learner(config, designs, Ledger(tmp_path / "versions.db", "r"), first=constant(1.0))
    together = Together(config, designs, learner, ("policy",))
    alone = Together(config, designs, None)
    steps = 110
    assert together.run(steps).violations == 0
    alone.run(steps)
    stages = [u.certificate["stage"] for u in learner.ledger.entries("policy")]
    assert stages[:2] == ["canary", "everybody"]
    everybody = next(k for k, v in enumerate(together.account.policies) if v == (2, 2, 2))
    gained = np.array(together.account.rewards) - np.array(alone.account.rewards)
    assert gained[everybody + 15 :].mean() > gained[:20].mean() + 1.0


def test_a_policy_that_nobody_adopts_is_withdrawn(plant: tuple[PlantConfig, Designs], tmp_path: Path) -> None:
    config, designs = plant
    ledger = Ledger(tmp_path / "versions.db", "r")
    together = Together(config, designs, Learner(config, designs, ledger, first=constant(1.0)), ())
    together.run(95)
    assert [u.certificate["stage"] for u in ledger.entries("policy")][:2] == ["canary", "roll-back"]
    assert "not adopted by reactor1" in ledger.entries("policy")[1].certificate["reason"]


def test_an_agent_that_was_away_has_time_to_adopt_again(plant: tuple[PlantConfig, Designs], tmp_path: Path) -> None:
    config, designs = plant
    learner = Learner(config, designs, Ledger(tmp_path / "versions.db", "r"))
    together = Together(config, designs, None)
    together.run(150)
    learner.add(together.transitions)
    whole = learner.series.stretch()
    assert whole is not None
    content = constants(parameters=[0.0] * 6)
    evidence = {"stage": "everybody", "reference": standing(np.zeros(40), np.ones(40)).to_dict(), "made_at": 0}
    policy = Update("policy", config.plant.name, tuple(designs), 3, "constant", content, evidence)
    learner.ledger.enter(policy)
    runs, other = dict.fromkeys(designs, Versions(policy=3)), {"reactor1": Versions()}
    for away, kept in ((1, True), (50, True), (51, False)):
        versions = [runs] * (len(whole.steps) - away) + [runs | other] * away
        update = learner._judge(policy, replace(whole, versions=versions))
        assert (update is None) == kept, away
    assert learner.rollbacks == 1


def test_a_candidate_is_compared_with_what_is_in_force(
    plant: tuple[PlantConfig, Designs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, designs = plant
    together = Together(config, designs, None)
    together.run(90)
    tried = []
    for value in (0.0, -1.0):
        learner = Learner(config, designs, Ledger(tmp_path / f"versions{value}.db", "r"))
        learner.add(together.transitions)
        stretch = learner.series.stretch()
        assert stretch is not None
        bad = constants(parameters=np.tile([value, -1.0 if value else 0.0], 3).tolist())
        evidence = {"stage": "everybody", "reference": {}, "made_at": -500}
        learner.ledger.enter(Update("policy", config.plant.name, tuple(designs), 1, "constant", bad, evidence))
        zeros = np.zeros(learner.replay.actor.size)
        monkeypatch.setattr(learner.replay, "improve", lambda *_, found=zeros: found)  # the file's own targets
        tried.append([u.agents for u in learner._candidate(learner.ledger.entries("policy")[-1], stretch)])
    assert tried == [[], [("reactor1",)]]  # nothing over nothing; much over a bad one


def test_a_replay_of_what_ran_earns_what_the_plant_earned(plant: tuple[PlantConfig, Designs]) -> None:
    config, designs = plant
    policy, together = constant(1.0), Together(config, designs, None, ("policy",))
    content = constants(parameters=policy.parameters.tolist())
    together.give(Update("policy", config.plant.name, (), 1, "constant", content, {}))
    together.run(90)
    series = Series(config, designs, 500)
    series.add(together.transitions)
    lived = series.stretch()
    assert lived is not None
    replayed = Replay(config, series).rewards(policy.parameters[None], lived.x[0], lived.w, policy.actor)[:, 0]
    assert abs((lived.reward - replayed)[40:].mean()) < 1.0  # of 68 that the policy brings


def test_a_replay_of_what_was_in_force_begins_where_the_plant_ran_it(
    plant: tuple[PlantConfig, Designs], tmp_path: Path
) -> None:
    config, designs = plant
    together = Together(config, designs, None)
    together.run(20)
    learner = Learner(config, designs, Ledger(tmp_path / "versions.db", "r"))
    learner.add(together.transitions)
    whole = learner.series.stretch()
    assert whole is not None
    evidence = {"reference": {}, "made_at": 0}
    stages = (("canary", {}), ("everybody", {"canary_version": 1}), ("canary", {}))
    for n, (stage, more) in enumerate(stages):
        content = constants(parameters=[0.1 * n] * 6)
        kept = evidence | {"stage": stage} | more
        learner.ledger.enter(Update("policy", config.plant.name, tuple(designs), n + 1, "constant", content, kept))
    latest = learner.ledger.entries("policy")[-1]
    before = learner._before(latest)
    assert before is not None and before.version == 2
    ran = [0] * 4 + [1] * 3 + [2] * 7 + [3] * (len(whole.steps) - 14)  # nothing, trial, everybody, the next trial
    versions = [dict.fromkeys(designs, Versions(policy=v)) for v in ran]
    lived = learner._lived(before, latest, replace(whole, versions=versions))
    assert int(lived.steps[0]) == int(whole.steps[7])


def test_weights_that_the_data_do_not_tell_stay(plant: tuple[PlantConfig, Designs]) -> None:
    config, designs = plant
    replay = Replay(config, Series(config, designs, 100))
    replay.rewards = lambda parameters, *_, **__: np.zeros((1, len(parameters)))  # type: ignore[method-assign]
    start = np.zeros(replay.actor.size)
    found = replay.improve(start, np.zeros(9), np.zeros((5, 9)), seed=0)
    weights = found[: 2 * replay.actor.actions]  # on the own state and the impurity; the rest says who one is
    assert np.abs(weights).max() < 0.2 < np.abs(found).max()


def test_steps_that_never_become_complete_are_bounded(plant: tuple[PlantConfig, Designs]) -> None:
    config, designs = plant
    together = Together(config, designs, None)
    together.run(40)
    series = Series(config, designs, memory=10)
    series.add(t for t in together.transitions if t.agent != "separator")
    assert (series.newest, sorted(series._partial)) == (-1, list(range(29, 39)))
    series.add(t for t in together.transitions if t.agent == "separator")
    assert len(series) == 10 and series.newest == 38


def test_a_killed_learner_goes_on_where_it_was(plant: tuple[PlantConfig, Designs], tmp_path: Path) -> None:
    config, designs = plant
    path = tmp_path / "versions.db"
    first = Learner(config, designs, Ledger(path, "r"), first=constant(-1.0))
    together = Together(config, designs, first, ("policy",))
    together.run(45)
    assert [u.certificate["stage"] for u in first.ledger.entries("policy")] == ["canary"]
    # Killed in the middle of the trial: the next one has the ledger, and from the store the same transitions.
    second = Learner(config, designs, Ledger(path, "r"), first=constant(-1.0))
    second.add(together.transitions)
    together.learner = second
    together.run(40)
    assert [u.certificate["stage"] for u in second.ledger.entries("policy")][:2] == ["canary", "roll-back"]
    assert [u.version for u in second.ledger.entries("policy")][:2] == [1, 2]
    with pytest.raises(DataError, match="is not newer"):
        second.ledger.enter(second.ledger.entries("policy")[0])


def test_a_given_policy_of_another_plant_is_refused(plant: tuple[PlantConfig, Designs], tmp_path: Path) -> None:
    config, designs = plant
    other = replace(constant(0.5), plant="elsewhere")
    with pytest.raises(ConfigError, match="for plant 'elsewhere'"):
        Learner(config, designs, Ledger(tmp_path / "versions.db", "r"), first=other)


def test_the_study_of_interaction_sets_pairs_its_runs(tmp_path: Path) -> None:
    small = {"seeds": [0], "steps": 165, "training_steps": 80, "block": 55}
    result = STUDY.run(dict(STUDY.defaults) | small, tmp_path)
    tuned, static, online = (result["runs"][name] for name in RUNS)
    assert tuned["gain_per_hour"] == 0.0 and tuned["share_last"] == static["share_last"] == 1.0
    assert online["share_last"] < 1.0 and online["sets_published"] >= 1
    assert all(row["violations"] == 0 for row in (tuned, static, online))
    assert len(online["gain_over_time"]) == 3 and Path(result["picture"]).stat().st_size > 10_000
    assert STUDY.table is not None and any("online over static" in line for line in STUDY.table(result))
