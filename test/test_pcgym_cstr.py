"""pc-gym's stirred-tank task as we restate it, and what plays it."""

import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, NumericalError
from rmpc_ros.plants import cstr
from rmpc_ros.studies import pcgym_cstr
from rmpc_ros.studies._pcgym_cstr import (
    ACTOR,
    COOLANT,
    FEED,
    FIRST_INPUT,
    PUBLISHED,
    START,
    Called,
    Oracle,
    Replay,
    RobustMpc,
    Rollout,
    Task,
    error_radius,
    physics,
)

SMALL = {"population": 4, "iterations": 1, "episodes": 1, "other_tanks": 1, "rounds": 1}


@pytest.fixture(scope="module")
def plant():
    return physics()


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = dict(pcgym_cstr.STUDY.defaults) | SMALL
    return pcgym_cstr.run(settings, tmp_path_factory.mktemp("study"))


def test_the_return_is_the_sum_of_squared_gaps_of_99_states(plant) -> None:
    episode = Task(plant).play(Replay(np.full(99, FIRST_INPUT)))
    x, total = START, 0.0
    for k in range(99):
        x = plant.advance(x, [FIRST_INPUT], FEED, np.ones(2))
        total -= 1e3 * (x[0] - PUBLISHED[k + 1]) ** 2
    assert episode.reward == pytest.approx(total, rel=1e-12)
    assert episode.states.shape == (100, 2)
    # the same constant input in pc-gym 0.1.8 itself, casadi integrator, r_scale 1000, run once beside this: 298.5 K
    assert Task(plant).play(Replay(np.full(99, 298.5))).reward == pytest.approx(-90.39325, abs=2e-3)


def test_a_late_set_point_is_shown_late(plant) -> None:
    task = Task(plant, late=1)
    assert [task.shown(k) for k in (0, 50, 51)] == [0.85, 0.85, 0.90]


def test_the_oracle_reproduces_the_published_return_with_the_published_timing(plant) -> None:
    oracle = Oracle(17)
    assert Task(plant, late=1).play(oracle).reward == pytest.approx(-11.83, abs=0.006)
    assert Task(plant, late=0).play(oracle).reward == pytest.approx(-9.325, abs=0.006)


def test_an_oracle_that_ipopt_cannot_solve_is_an_error(plant) -> None:
    with pytest.raises(NumericalError, match="IPOPT ended with"):
        Oracle(3).plan(np.array([np.nan, 330.0]), np.full(3, 0.85))


@pytest.mark.parametrize("late", [0, 1])
def test_robust_mpc_earns_what_the_oracle_does_and_keeps_the_limits(plant, late) -> None:
    task = Task(plant, late=late)
    episode = task.play(RobustMpc(plant, error_radius(plant, 8, 0.03, 0.95, 1)))
    assert episode.reward == pytest.approx(task.play(Oracle(20)).reward, abs=5e-4)
    assert episode.inputs.min() >= COOLANT[0] and episode.inputs.max() <= COOLANT[1]


def test_the_return_does_not_hang_on_the_seed_of_the_calibration(plant) -> None:
    returns = [Task(plant, late=1).play(RobustMpc(plant, error_radius(plant, 8, 0.03, 0.95, s))).reward for s in (2, 3)]
    assert returns[0] == pytest.approx(returns[1], abs=1e-9)
    assert min(returns) >= pcgym_cstr.PUBLISHED_ORACLE


def test_a_policy_of_zeros_is_the_tuned_controller(plant) -> None:
    radius = error_radius(plant, 8, 0.05, 0.95, 1)
    tuned, zero = (Task(plant).play(RobustMpc(plant, radius, v)) for v in (None, np.zeros(ACTOR.size)))
    assert np.array_equal(tuned.inputs, zero.inputs)


def test_the_error_seen_removes_the_offset_on_a_tank_that_differs(plant) -> None:
    task = Task(plant, np.full(100, 0.86), factors=np.array([1.02, 0.98]))
    final = task.play(RobustMpc(plant, error_radius(plant, 8, 0.05, 0.95, 1))).states[-1, 0]
    assert final == pytest.approx(0.86, abs=2e-4)


def test_radius_grows_with_the_difference_between_tank_and_model(plant) -> None:
    exact, differing = (error_radius(plant, 4, factors, 0.95, 3) for factors in (0.0, 0.05))
    assert np.all(exact < [2e-4, 0.02])  # what the linearisation misses
    assert np.all(differing > 10 * exact)


def test_a_plan_that_is_kept_is_predicted_exactly_and_moves_to_first_order(plant) -> None:
    rollout, plan, u = Rollout(plant, 5), np.array([299.0, 300.0, 298.0, 298.0, 301.0]), 300.5
    error = np.array([1e-3, -0.1])

    def lived(inputs):
        x, rows = START, []
        for coolant in inputs:
            x = plant.advance(x, [coolant], FEED, np.ones(2)) + error
            rows.append(x)
        return np.array(rows)

    def predicted(inputs):
        ahead = rollout(START, error, plan, u)
        return ahead.free + ahead.response @ np.diff(inputs, prepend=u)

    assert predicted(plan) == pytest.approx(lived(plan), abs=1e-9)
    aside = np.array([0.3, -1.0, 0.5, 0.2, -0.4])
    misses = [np.abs(predicted(plan + s * aside) - lived(plan + s * aside)).max(axis=0) for s in (1e-1, 1e-2)]
    assert np.all(misses[1] < 0.02 * misses[0])  # second order


def test_fixed_memory_calls_equal_the_models_own(plant) -> None:
    import casadi as ca

    x, u = ca.SX.sym("x", 2), ca.SX.sym("u")
    end = plant.function(x, u, FEED, np.ones(2))
    called = Called(ca.Function("f", [x, u], [ca.horzcat(end, ca.jacobian(end, x))]))
    value = called(START, np.array([299.0])).copy()
    assert value[:, 0] == pytest.approx(plant.advance(START, [299.0], FEED, np.ones(2)), rel=1e-14)
    step = 1e-4
    moved = [called(START + step * e, np.array([299.0]))[:, 0].copy() for e in np.eye(2)]
    assert value[:, 1:] == pytest.approx(np.array([(m - value[:, 0]) / step for m in moved]).T, rel=1e-2)


def test_study_reports_returns_ratios_and_what_was_reached(result) -> None:
    assert result["reward_robust"] >= pcgym_cstr.PUBLISHED_ORACLE
    for name in ("robust", "learned"):
        assert result[f"time_ratio_{name}"] == pytest.approx(result["step_ms"][name] / result["step_ms"]["oracle"])
        expected = result[f"reward_{name}"] >= -11.83 and result[f"time_ratio_{name}"] <= 0.05
        assert result["reached"][name] == expected
        late = result[f"reward_{name}_published_timing"] >= -11.83 and result[f"time_ratio_{name}"] <= 0.05
        assert result["reached_published_timing"][name] == late
    assert result["reward_whole_trajectory_known"] == pytest.approx(-3.270, abs=0.01)
    assert result["reward_whole_trajectory_known"] > result["reward_oracle"] > result["reward_oracle_published_timing"]
    assert result["temperature_margin_K"] > 0
    assert any("oracle" in line for line in pcgym_cstr.table(result))


def test_training_is_reproducible_from_the_seed(plant) -> None:
    settings = dict(pcgym_cstr.STUDY.defaults) | SMALL | {"population": 2}
    radius = error_radius(plant, 8, 0.05, 0.95, 1)
    first, second = (pcgym_cstr.train(plant, radius, settings)[0] for _ in range(2))
    assert np.array_equal(first, second) and np.any(first != 0)


def test_impossible_settings_are_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="episodes = 0"):
        pcgym_cstr.run(dict(pcgym_cstr.STUDY.defaults) | {"episodes": 0}, tmp_path)


def test_the_task_uses_the_plants_room_numbers() -> None:
    assert cstr.PARAMETERS["E_over_R"] == 8750.0 and cstr.PARAMETERS["k0"] == 7.2e10
