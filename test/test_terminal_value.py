"""The economic plan over days, the learned value at its end, and the studies that use them."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from short_plant import short_plant

from rmpc_ros.cli import main
from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns, deviations_of
from rmpc_ros.learning.case import HOURS, LearningCase, learning_case
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.planner import ACTIVITIES, DISCOUNT, Planner, Situation
from rmpc_ros.learning.scenario import draw_scenarios
from rmpc_ros.learning.surrogate import Surrogate, draw_shares, fit_surrogate
from rmpc_ros.learning.terminal_value import (
    KNOTS,
    POWERS,
    Passages,
    TerminalValue,
    fit_value,
    value_features,
)
from rmpc_ros.learning.value_training import ValueTrainer


@pytest.fixture(scope="module")
def case() -> LearningCase:
    return learning_case(load_plant(shipped_plant("reactor_separator_campaign")))


@pytest.fixture(scope="module")
def days(case: LearningCase) -> RobustDays:
    return RobustDays(case)


@pytest.fixture(scope="module")
def surrogate(case: LearningCase, days: RobustDays) -> Surrogate:
    """A made-up plant: heat pays today and wears the catalyst."""
    z = np.concatenate([part for _, part in draw_shares(3, 0, 60)])
    n = len(case.steady)
    y = np.zeros((len(z), n + 9))
    y[:, :n] = case.steady
    y[:, case.moved] += 0.5 * z[:, :3]
    y[:, case.product] += 0.003 * z[:, :3].mean(axis=1) + 0.001 * z[:, 3]
    y[:, case.quality] = case.learning.prices.quality.limit - 0.01
    y[:, n : n + 3] = case.config.linear.steady_input
    return fit_surrogate(case, days.targets.authority, 0, y)


def test_a_plan_of_two_days_is_the_best_of_all_pairs(
    case: LearningCase, days: RobustDays, surrogate: Surrogate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmpc_ros.learning.planner.OFFSETS", np.array([-1.0, 1.0]))
    monkeypatch.setattr("rmpc_ros.learning.planner.ACTIVITIES", 2001)
    planner = Planner(case, days.targets, surrogate, 2)
    learning, catalyst = case.learning, case.learning.campaign.catalyst
    a0, k, supply = catalyst.floor + 0.006, 0.005, learning.campaign.suppliers.values[0]
    product, steam, rho = 1.3, 0.8, learning.campaign.market.persistence
    later = [
        np.mean(m) + rho * (v - np.mean(m))
        for m, v in ((learning.campaign.market.product, product), (learning.campaign.market.steam, steam))
    ]

    def day(candidate: int, activity: float, factors: tuple[float, float]) -> tuple[float, float]:
        c = deviations_of(case, days.targets, planner.candidates[candidate])
        lived = surrogate.day(c, np.array(activity), np.array(supply))
        heat, prices = lived.inputs.sum(), learning.prices
        profit = prices.product.price * prices.product.flow * lived.states[case.product] * factors[0]
        profit -= heat * (prices.steam.price * factors[1] + prices.steam.emission_price * prices.steam.emission_factor)
        warmth = lived.states[case.temperatures].mean() - catalyst.reference
        evening = activity * np.exp(-k * np.exp(catalyst.sensitivity * warmth))
        if evening < catalyst.floor:
            return float(profit - learning.prices.regeneration / HOURS), catalyst.fresh
        return float(profit), float(evening)

    worth = {}
    for first, second in itertools.product(range(len(planner.candidates)), repeat=2):
        today, evening = day(first, a0, (product, steam))
        worth[first, second] = today + DISCOUNT * day(second, evening, (later[0], later[1]))[0]
    best = max(worth, key=worth.__getitem__)[0]
    values = [np.array([v]) for v in (a0, k, supply, product, steam)]
    assert planner.plan(Situation(*values, left=1))[0] == best


def test_the_decay_seen_is_the_campaigns(case: LearningCase, days: RobustDays, surrogate: Surrogate) -> None:
    campaigns = Campaigns(case, days.targets, surrogate, draw_scenarios(case, range(4), harsh=True))
    planner = Planner(case, days.targets, surrogate, 1)
    observations = campaigns.reset()
    assert planner.decay_seen(campaigns) == pytest.approx(case.learning.campaign.catalyst.decay_per_day)
    campaigns.step(planner.act(observations, campaigns))
    assert planner.decay_seen(campaigns) == pytest.approx(campaigns.scenarios.decay)


def test_the_value_is_fitted_exactly_where_it_is_representable(case: LearningCase) -> None:
    catalyst, generator = case.learning.campaign.catalyst, np.random.default_rng(0)
    limits = (catalyst.floor, catalyst.fresh, catalyst.decay_per_day)
    true = TerminalValue(10 * generator.standard_normal((KNOTS, POWERS)), *limits, (1e-4, 1e-1))
    before, after = generator.uniform(catalyst.floor, catalyst.fresh, (2, 4000))
    decay = catalyst.decay_per_day * np.exp(generator.uniform(-0.5, 1.2, 4000))
    reward = true(before, decay) - DISCOUNT * true(after, decay)
    fitted = fit_value(case, Passages(before, decay, reward, after, decay))
    assert fitted(before, decay) == pytest.approx(true(before, decay), abs=0.2)
    assert true(before, decay) == pytest.approx(value_features(before, decay, *limits) @ true.weights.ravel())
    grid = np.linspace(catalyst.floor, catalyst.fresh, 7)[None]
    assert true(grid, decay[:3, None]).shape == (3, 7)
    with pytest.raises(DataError, match="too few"):
        fit_value(case, Passages(*(v[:20] for v in (before, decay, reward, after, decay))))


def test_fresh_catalyst_is_worth_more_and_the_value_is_reproducible(
    case: LearningCase, days: RobustDays, surrogate: Surrogate
) -> None:
    trainers = [ValueTrainer(case, days.targets, surrogate, 1, 40, 3) for _ in range(2)]
    for trainer in trainers:
        trainer.iterate()
        trainer.iterate()
    one, two = (trainer.value for trainer in trainers)
    assert np.array_equal(one.weights, two.weights)
    catalyst = case.learning.campaign.catalyst
    ends = one(np.array([catalyst.floor, catalyst.fresh]), np.array(catalyst.decay_per_day))
    assert ends[1] > ends[0] + 0.3 * case.learning.prices.regeneration / HOURS


def test_a_value_training_that_was_stopped_goes_on_to_the_same_numbers(
    case: LearningCase, days: RobustDays, surrogate: Surrogate, tmp_path: Path
) -> None:
    whole, first, second = (ValueTrainer(case, days.targets, surrogate, 1, 40, 3, lambda p: 1.5) for _ in range(3))
    whole.iterate()
    whole.iterate()
    first.iterate()
    first.save(tmp_path / "checkpoint.json", {"seed": 3})
    with pytest.raises(DataError, match="belongs to"):
        second.load(tmp_path / "checkpoint.json", {"seed": 4})
    second.load(tmp_path / "checkpoint.json", {"seed": 3})
    second.iterate()
    assert np.array_equal(second.result(), whole.result()) and second.curve == whole.curve
    with pytest.raises(DataError, match="no iteration yet"):
        ValueTrainer(case, days.targets, surrogate, 1, 40, 3).result()


def test_the_table_on_a_planners_grid_is_the_value_and_is_not_extrapolated(case: LearningCase) -> None:
    generator, k = np.random.default_rng(2), 0.004
    value = TerminalValue(generator.standard_normal((KNOTS, POWERS)), 0.96, 1.0, k, (0.5 * k, 3 * k))
    grid, decays = np.linspace(0.95, 1.01, ACTIVITIES), k * np.array([0.5, 1.0, 2.2, 3.0])
    assert value.on(grid)(decays) == pytest.approx(value(grid[None], decays[:, None]), abs=5e-3)
    exact = value(grid[None], k * np.array([[0.5], [3.0]]))
    assert value.on(grid)(k * np.array([0.5, 3.0])) == pytest.approx(exact, rel=1e-12)
    beyond = value.on(grid)(k * np.array([0.01, 50.0]))
    assert np.array_equal(beyond, value.on(grid)(k * np.array([0.5, 3.0])))
    again = TerminalValue.from_dict(json.loads(json.dumps(value.to_dict())))
    assert np.array_equal(again.on(grid)(decays), value.on(grid)(decays))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": [[1.0]]}, "shape"),
        ({"weights": [[float("nan")] * POWERS] * KNOTS}, "finite"),
        ({"floor": 1.0}, "in order"),
        ({"seen": [0.0, 1.0]}, "in order"),
        ({"seen": [1.0]}, "not complete"),
        ({"decay": None}, "not complete"),
    ],
)
def test_a_terminal_value_that_cannot_be_one_is_refused(change, named) -> None:
    good = TerminalValue(np.zeros((KNOTS, POWERS)), 0.96, 1.0, 0.004, (0.002, 0.01)).to_dict()
    with pytest.raises(DataError, match=named):
        TerminalValue.from_dict(good | change)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_plant(tmp_path_factory.mktemp("plant"), days=4, window=6, average=3)


def test_study_terminal_value_says_gains_share_and_times(short: Path, tmp_path: Path, capsys) -> None:
    small = ["horizon=1", "campaigns=2", "windows=40", "rounds=1", "training_campaigns=80", f"plant={short}"]
    assert main(["study", "terminal-value", "--json", "--out", str(tmp_path), "--set", *small]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["long_horizon"] == 4
    for label in ("campaign", "harsh"):
        profit = result[label]["profit_per_hour"]
        assert result[label]["gain_over_short"]["long"] == pytest.approx(profit["long"] - profit["short"])
        assert set(result[label]["violation_hours"].values()) == {0.0}
    times = result["solve_ms"]
    assert set(times) == {"short", "long", "short_with_value", "short_again"}
    assert result["solve_time_ratio"] == pytest.approx(times["short_with_value"] / times["short"])
    assert result["long_solve_time_ratio"] > 1


def test_the_same_policy_violates_without_the_robust_layer_only(short: Path, tmp_path: Path, capsys) -> None:
    small = ["iterations=2", "windows=40", "campaigns=1", f"plant={short}"]
    assert main(["study", "interactions", "--json", "--out", str(tmp_path), "--set", *small]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["violation_hours_with_mpc"] == 0
    for label in ("file_limits", "close_limits"):
        for kind in ("learned", "exploring"):
            assert result[label][kind]["mpc"]["promises_broken"] == 0
    assert result["close_limits"]["exploring"]["inputs"]["violation_hours"] > 0
    assert result["close_limits"]["exploring"]["inputs"]["largest_share_of_a_limit"] > 1
