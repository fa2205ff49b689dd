"""The economic plan in the main program: `rmpc train --algo value` stores it, `rmpc evaluate` compares it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from short_plant import short_plant

from rmpc_ros.cli import main
from rmpc_ros.config import load_plant
from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns, observation_size
from rmpc_ros.learning.case import LearningCase, learning_case
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.evaluate import actor_of, contestants, evaluate
from rmpc_ros.learning.plan import Plan, load_learned, load_plan
from rmpc_ros.learning.policy import Actor, Policy, load_policy
from rmpc_ros.learning.scenario import draw_scenarios
from rmpc_ros.learning.train import TrainOptions
from rmpc_ros.learning.value_training import train_plan


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_plant(tmp_path_factory.mktemp("plant"), days=4, window=6, average=3)


@pytest.fixture(scope="module")
def case(plant: Path) -> LearningCase:
    return learning_case(load_plant(plant))


OPTIONS = TrainOptions(
    None,
    seed=2,
    iterations=2,
    campaigns=64,
    windows=40,
    population=8,
    algorithm="value",
    reference_iterations=1,
    reference_campaigns=2,
    horizon=1,
)


@pytest.fixture(scope="module")
def trained(case: LearningCase, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return train_plan(case, OPTIONS, folder).plan, folder / "policy.json"


def test_a_stored_plan_plans_the_same_days(case: LearningCase, trained: tuple[Plan, Path]) -> None:
    plan, path = trained
    again = load_learned(path)
    assert isinstance(again, Plan) and again.version == OPTIONS.iterations and again.training["seed"] == 2
    targets, model = RobustDays(case).targets, plan.planner(case, RobustDays(case).targets)
    other, blind = again.planner(case, targets), again.planner(case, targets, with_value=False)
    campaigns = Campaigns(case, targets, model._surrogate, draw_scenarios(case, range(40)))
    observations = campaigns.reset()
    differs = False
    while not campaigns.done:
        actions = model.act(observations, campaigns)
        assert np.array_equal(actions, other.act(observations, campaigns))
        differs = differs or not np.array_equal(actions, blind.act(observations, campaigns))
        observations, _ = campaigns.step(actions)
    assert differs  # the value says something


def test_a_stopped_training_of_a_plan_goes_on_to_the_same_file(
    case: LearningCase, trained: tuple[Plan, Path], tmp_path: Path
) -> None:
    def cut_off(what: str, done: int, wanted: int) -> None:
        if what == "policy" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_plan(case, OPTIONS, tmp_path, progress=cut_off)
    train_plan(case, OPTIONS, tmp_path, resume=True)
    assert (tmp_path / "policy.json").read_bytes() == trained[1].read_bytes()


def test_a_damaged_changed_or_foreign_plan_is_refused(
    case: LearningCase, trained: tuple[Plan, Path], tmp_path: Path
) -> None:
    plan, path = trained
    text, wrong = path.read_text(encoding="utf-8"), tmp_path / "wrong.json"
    wrong.write_text(text.replace('"horizon": 1', '"horizon": 2'), encoding="utf-8")
    with pytest.raises(DataError, match="checksum"):
        load_learned(wrong)
    wrong.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        load_plan(wrong)
    with pytest.raises(DataError, match="kind 'plan'"):
        load_policy(path)
    actor = Actor("constant", 3, observation_size(case), 2)
    Policy("p", actor, np.zeros(actor.size)).save(wrong)
    assert isinstance(load_learned(wrong), Policy)
    with pytest.raises(DataError, match="rmpc train --algo value"):
        load_plan(wrong)
    with pytest.raises(DataError, match="days"):
        dataclasses.replace(plan, horizon=0)
    other = dataclasses.replace(plan, value=dataclasses.replace(plan.value, floor=0.5))
    with pytest.raises(DataError, match="activities"):
        other.planner(case, RobustDays(case).targets)


def test_the_command_trains_a_plan_and_evaluate_shows_it_beside_shorter_and_longer_ones(
    plant: Path, trained: tuple[Plan, Path], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", str(plant), "--algo", "value", "--days", "1", "--iterations", "2", "--windows", "40"]
    for refused in (["--actor", "affine"], ["--days", "99"]):
        assert main([*arguments, *refused, "--out", str(tmp_path), "--json"]) != 0
        assert refused[0] in capsys.readouterr().err
    monkeypatch.setattr("rmpc_ros.learning.command.usual_options", lambda algorithm: OPTIONS)  # small baselines
    assert main([*arguments, "--seed", "2", "--out", str(tmp_path), "--json"]) == 0
    said, path = json.loads(capsys.readouterr().out), tmp_path / "policy.json"
    assert said["horizon"] == 1 and said["parameters"] == 18 and len(said["curve"]) == 2
    assert path.read_bytes() == trained[1].read_bytes()
    assert main(["evaluate", str(plant), "--policy", str(path), "--seeds", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for label in ("campaign", "harsh"):
        rows = result[label]
        assert list(rows)[4:] == ["plan_1_days", "plan_4_days", "plan_1_days_with_value"]
        assert all(row["violation_hours"] == 0 and row["promises_broken"] == 0 for row in rows.values())
        short, long, own = (rows[name]["profit_per_hour"] for name in list(rows)[4:])
        share = rows["plan_1_days_with_value"]["share_of_longer_plans_gain"]
        assert share is None if long <= short else share == pytest.approx((own - short) / (long - short))
        assert rows["plan_1_days_with_value"]["gain_by_training_seed"].keys() == {"2"}
    with pytest.raises(DataError, match="is for plant"):
        evaluate(plant, [dataclasses.replace(trained[0], plant="other")], 2)


def test_each_plan_in_the_table_is_what_its_name_says(case: LearningCase, trained: tuple[Plan, Path]) -> None:
    targets = RobustDays(case).targets
    made: list[tuple[int, bool]] = []

    class Noted(Plan):
        def planner(self, case, targets, horizon=None, with_value=True):
            made.append((horizon, with_value))
            return super().planner(case, targets, horizon, with_value)

    plan = Noted(**{f.name: getattr(trained[0], f.name) for f in dataclasses.fields(Plan)})
    rows = {name: actor_of(case, targets, policy, row) for name, (row, policy) in contestants([plan]).items()}
    assert list(rows)[4:] == ["plan_1_days", "plan_4_days", "plan_1_days_with_value:2"]
    assert made == [(1, False), (4, False), (1, True)]
