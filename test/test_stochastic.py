"""Stochastic MPC: cuts find the counterpart's optimum, every method takes every feedback, sets keep their promise."""

import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, DataError, InfeasibleError
from rmpc_ros.mpc.stage_sets import StageSet, groups_of
from rmpc_ros.mpc.stochastic import METHODS, StochasticMpc, samples_needed, worst_in_box
from rmpc_ros.robust.cuts import CuttingPlanes, worst_member, worst_sample
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.sets.lifting import Saturation
from rmpc_ros.studies import building_energy, two_mass_spring


def by_cuts(members, cuts):
    p = UncertainProgram()
    w, x0 = p.uncertain("w", p.members("noise", members)), p.parameter("x0", 1)
    u = p.decide("u", np.array([[-1, -1], [0, -1]]), w)
    X = np.array([[1.0], [1.0]]) @ x0 + np.array([[1.0, 0.0], [1.0, 1.0]]) @ (u + w)
    p.minimise(p.nominal_squares(X - 1.0) + 0.1 * p.nominal_squares(u))
    if cuts:
        return CuttingPlanes(p, [(X <= 0.5, worst_member(members)), (-X <= 0.5, worst_member(members))])
    p.forall(X <= 0.5)
    p.forall(-X <= 0.5)
    return p.compile()


@pytest.mark.parametrize("members", [Box([-0.2, -0.3], [0.2, 0.1]), Ellipsoid([0.0, 0.0], [[0.2, 0], [0.1, 0.2]], 1.0)])
def test_cuts_find_the_optimum_of_the_counterpart(members):
    cuts, compiled = by_cuts(members, True), by_cuts(members, False)
    for x0 in (0.4, -0.9, 0.1):
        assert cuts.solve(x0=[x0]).objective == pytest.approx(compiled.solve(x0=[x0]).objective, abs=2e-5)
    with pytest.raises(InfeasibleError):
        p = by_cuts(Box([-2.0, -2.0], [2.0, 2.0]), True)
        p.solve(x0=[0.0])


def test_worst_sample_is_the_worst():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    directions = np.random.default_rng(1).normal(size=(5, 3))
    assert np.sum(worst_sample(rows)(directions) * directions, axis=1) == pytest.approx((directions @ rows.T).max(1))


def test_sample_counts_are_the_published_ones_and_the_sets_do_not_depend_on_the_horizon():
    assert [samples_needed(m, 5, 1, 0.05, 0.1) for m in METHODS] == [45, 400, 282]
    assert samples_needed("box", 5, 1, 0.05, 0.05) == 311
    assert len({samples_needed("support_vectors", N, 1, 0.05, 0.05) for N in (5, 10, 15)}) == 1
    problem = two_mass_spring.problem(3, 1.0)
    with pytest.raises(DataError, match="59 samples"):
        StochasticMpc(problem, "support_vectors", np.eye(3), np.eye(3), Saturation("tanh", 1.0))


@pytest.fixture(scope="module")
def noise():
    """380 training and calibration stretches of three steps, and 20 000 more."""
    settings = two_mass_spring.STUDY.defaults
    rng = np.random.default_rng(0)
    return two_mass_spring.noise(380, 3, settings, rng), two_mass_spring.noise(20_000, 3, settings, rng)


def controller(data, method, feedback, shape="rows"):
    problem = two_mass_spring.problem(3, 5.0)
    return StochasticMpc(
        problem, method, data[:80], data[80:], Saturation("tanh", 0.015), 0.1, 0.1, feedback=feedback, shape=shape
    )


@pytest.mark.parametrize("feedback", ["full", "scaled", "fixed"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_every_feedback_and_keeps_hard_input_limits(noise, method, feedback):
    mpc = controller(noise[0], method, feedback)
    calm = mpc.step(np.zeros(4), np.full(12, 0.38))
    assert not calm.backup and abs(calm.input[0]) < 0.1
    far = mpc.step(np.array([0.0, 0.0, 2.0, 0.0]), np.full(12, 0.38))
    assert far.backup and abs(far.input[0]) == pytest.approx(1.6, abs=1e-4)


def test_more_feedback_never_costs_more_on_the_same_samples(noise):
    start = np.array([0.1, 0.5, -0.1, -0.1])
    costs = []
    for feedback in ("fixed", "scaled", "full"):
        mpc = controller(noise[0], "box", feedback)  # its samples do not depend on the feedback
        costs.append(mpc._solver.solve(x0=start, offset=np.zeros(12), bound=np.full(12, 0.38)).objective)
    assert np.all(np.diff(costs) <= 1e-5)


@pytest.mark.parametrize(("feedback", "shape"), [("fixed", "rows"), ("scaled", "rows"), ("scaled", "joint")])
def test_rows_of_a_stage_hold_together_with_the_promised_probability(noise, feedback, shape):
    data, fresh = noise
    mpc = controller(data, "support_vectors", feedback, shape)
    lifted = mpc.saturation.lift(fresh)
    for stage in mpc.stage_sets:
        assert sum(group.rows.size for group in stage.groups) == 4
        assert 0.001 < np.mean(~stage.contains(lifted)) < 0.1
        directions = np.empty((4, 6))
        for group in stage.groups:
            directions[group.rows] = group.basis[:, 0]
        worst = stage.worst(directions)
        for group, members in zip(stage.groups, stage.sets, strict=True):
            assert np.all(members.contains(worst[group.rows] @ group.basis))


def test_one_set_per_direction_is_tighter_than_one_for_all_where_there_are_many():
    rng = np.random.default_rng(2)
    training, fresh = rng.standard_t(4, (200, 8)), rng.standard_t(4, (59, 8))
    rows = list(np.eye(8)[:, None, :])
    apart, together = (
        StageSet(groups_of(rows, joint), training, fresh, 0.05, 0.05, 0.95).worst(np.eye(8)).diagonal()
        for joint in (False, True)
    )
    assert np.all(apart < together)


def test_an_outlier_on_the_harmless_side_widens_nothing():
    rng = np.random.default_rng(3)
    training, fresh = rng.normal(size=(100, 2)), rng.normal(size=(59, 2))
    hurt, harmless = fresh.copy(), fresh.copy()
    hurt[0], harmless[0] = [0.0, 40.0], [0.0, -40.0]
    up = groups_of([np.array([[0.0, 2.0]])], False)
    plain, wide, same = (
        StageSet(up, training, data, 0.05, 0.05, 0.95).worst(np.array([[0.0, 1.0]]))[0, 1]
        for data in (fresh, hurt, harmless)
    )
    assert wide > 39.9 and plain < 5.0 and same <= plain
    inside = 0.3 * fresh  # no growth at all: the flat of the level function is the set, not a point of it
    flat = StageSet(up, training, inside, 0.05, 0.05, 0.95)
    assert np.all(inside[:, 1] <= flat.worst(np.array([[0.0, 1.0]]))[0, 1])
    both = [np.array([[0.0, 1.0]]), np.array([[0.0, -1.0]])]
    assert len(groups_of(both, False)) == 2
    free = [np.vstack([row, 0 * row]) for row in both]  # either sign may occur: opposite rows share a set
    assert len(groups_of(free, False)) == 1


@pytest.mark.parametrize("kind", ["tanh", "clip"])
def test_worst_member_of_a_saturated_box_is_the_worst(kind):
    rng = np.random.default_rng(1)
    saturation, lower, upper = Saturation(kind, 0.5), np.array([-2.0, -0.3, 0.1]), np.array([1.0, 0.2, 3.0])
    directions = rng.normal(size=(50, 6))
    found = worst_in_box(lower, upper, saturation)(directions)
    assert np.allclose(found[:, 3:], saturation(found[:, :3]))
    grid = lower + np.linspace(0, 1, 4001)[:, None] * (upper - lower)
    best = sum(
        np.max(directions[:, [i]] * grid[:, i] + directions[:, [3 + i]] * saturation(grid[:, i]), axis=1)
        for i in range(3)
    )
    assert np.all(found[:, :3] >= lower) and np.all(found[:, :3] <= upper)
    assert np.all(np.sum(directions * found, axis=1) >= best - 1e-12)


def test_unknown_choices_are_refused_by_name(noise):
    with pytest.raises(ConfigError, match="'some'"):
        controller(noise[0], "box", "some")
    with pytest.raises(ConfigError, match="'round'"):
        controller(noise[0], "box", "full", "round")


def test_two_mass_spring_study_compares_on_equal_terms(tmp_path):
    settings = {**two_mass_spring.STUDY.defaults, "horizons": [4], "steps": 12, "runs": [2], "seed": 0}
    result = two_mass_spring.run(settings, tmp_path)
    here = result["horizons"]["4"]
    assert {"average_cost", "average_cost_ci95", "cpu_s", "samples", "violations", "backup_steps"} <= set(here["drmpc"])
    assert here["drmpc"]["samples"] == 59 and here["ssmpc"]["samples"] == samples_needed(
        "scenarios", 4, 1, 0.05, 0.05, settings["feedback"]
    )
    difference = here["drmpc"]["average_cost"] - here["rmpc"]["average_cost"]
    assert here["drmpc_minus_rmpc"]["mean"] == pytest.approx(difference)
    assert here["runs"] == 2 and here["drmpc_minus_rmpc"]["share_cheaper"] in (0.0, 0.5, 1.0)
    assert 0 < here["set_violation_mean"] < 0.05
    assert (tmp_path / "two_mass_spring.png").stat().st_size > 1000
    assert any("drmpc" in line for line in two_mass_spring.table(result))


def test_runs_are_given_once_or_for_each_horizon():
    given = {"horizons": [5, 10, 15]}
    assert two_mass_spring.draws({**given, "runs": [7]}) == [7, 7, 7]
    assert two_mass_spring.draws({**given, "runs": [3, 2, 1]}) == [3, 2, 1]
    with pytest.raises(ConfigError, match="runs"):
        two_mass_spring.draws({**given, "runs": [3, 2]})


def test_building_energy_study_on_two_days(tmp_path):
    settings = {**building_energy.STUDY.defaults, "hours": 48, "runs": 1}
    result = building_energy.run(settings, tmp_path)
    methods = result["methods"]
    assert result["hours"] == 48 and methods["drmpc"]["samples"] == 45 and methods["rmpc"]["samples"] == 282
    assert methods["drmpc"]["energy_total"] == pytest.approx(sum(methods["drmpc"]["energy_w_per_m2"]))
    assert all(methods[name]["worst_shortfall_degC"] < 1.0 for name in ("drmpc", "ssmpc", "rmpc"))
    assert np.all(np.diff(result["forecast_error_std_degC"]) > 0)
    assert any("ssmpc" in line for line in building_energy.table(result))


def test_forecasts_use_only_the_past():
    rng = np.random.default_rng(0)
    outdoor = rng.normal(size=24 * 9)
    before = building_energy.forecasts(outdoor, 5, 0.9)[24 * 8]
    changed = outdoor.copy()
    changed[24 * 8 + 1 :] += 100.0
    assert np.array_equal(building_energy.forecasts(changed, 5, 0.9)[24 * 8], before)
