"""The support-vector set, its quadratic program, calibration by order statistics, and sets fitted by quantiles."""

from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
from scipy import stats

from rmpc_ros.errors import DataError, SetError
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.calibrate import calibrate, calibration_samples_needed, order_index, violation_interval
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import fit_set
from rmpc_ros.sets.svc import SupportVectorSet, learn_shape
from rmpc_ros.sets.svc_qp import potential, solve_dual
from rmpc_ros.studies import registry

J = np.arange(1, 21)
SINES = np.column_stack([np.sin(J), 0.5 * np.cos(2 * J)])
RNG = np.random.default_rng(5)
CLOUD = RNG.standard_exponential((260, 3)) @ np.array([[1, 0.4, 0], [0, 1, -0.3], [0, 0, 0.5]])
DIRECTIONS = RNG.standard_normal((12, 3))


@pytest.fixture(scope="module")
def cloud_set():
    return fit_set(CLOUD, "svc", 0.1, 0.9, parameters={"nu": 0.1}).set


def test_reference_values_of_the_program_and_the_support():
    shape, found = learn_shape(SINES, 0.2)
    assert found["qp_optimum"] == pytest.approx(-2.48859456, abs=1e-7)
    assert shape.theta == pytest.approx(2.46390613, abs=1e-7)
    assert (found["support_vectors"], found["boundary_support_vectors"]) == (18, 16)
    assert float(shape.support([1, 1])) == pytest.approx(0.74487706, abs=1e-7)


@pytest.mark.parametrize(("n", "nu"), [(30, 0.5), (60, 0.05), (60, 0.21), (40, 1.0), (25, 0.01)])
def test_structured_program_equals_the_dense_one(n, nu):
    x = np.random.default_rng(n).standard_normal((n, 3))
    dual = solve_dual(x, nu)
    distance = np.abs(x[:, None] - x[None]).sum(axis=2)
    a = cp.Variable(n)
    kernel = 40.0 - distance  # constants above every range make it positive definite
    problem = cp.Problem(
        cp.Minimize(cp.quad_form(a, cp.psd_wrap(kernel)) - 40 * cp.sum(a)), [a >= 0, a <= 1 / (n * nu), cp.sum(a) == 1]
    )
    problem.solve(solver=cp.CLARABEL, tol_gap_rel=1e-10, tol_gap_abs=1e-10, tol_feas=1e-10)
    assert dual.objective == pytest.approx(problem.value, abs=1e-6)
    assert dual.residual < 1e-7


def test_equal_points_do_not_stop_the_program():
    x = np.repeat(np.random.default_rng(0).standard_normal((20, 2)), 2, axis=0)
    dual = solve_dual(x, 0.3)
    assert dual.weights.sum() == pytest.approx(1)
    assert dual.objective == pytest.approx(-dual.weights @ potential(x, dual.weights, x))


def test_potential_by_sorting_equals_the_double_sum():
    knots, points, a = RNG.standard_normal((30, 4)), RNG.standard_normal((9, 4)), RNG.random(30)
    slow = (np.abs(points[:, None] - knots[None]).sum(axis=2) * a).sum(axis=1)
    assert potential(knots, a, points) == pytest.approx(slow)


def test_share_outside_is_near_nu():
    data = np.random.default_rng(1).standard_normal((1000, 2))
    shape, _ = learn_shape(data, 0.1)
    assert 1 - shape.contains(data).mean() == pytest.approx(0.1, abs=0.012)


def test_knapsack_supports_equal_the_cones(cloud_set):
    for a in DIRECTIONS:
        assert UncertaintySet._optimum(cloud_set, a)[0] == pytest.approx(float(cloud_set.support(a)), abs=1e-6)


def test_maximisers_are_members_on_the_boundary(cloud_set):
    points = cloud_set.maximisers(DIRECTIONS)
    assert np.sum(points * DIRECTIONS, axis=1) == pytest.approx(cloud_set.support(DIRECTIONS))
    assert cloud_set.level(points) == pytest.approx(cloud_set.theta)
    axes = cloud_set.maximisers(np.vstack([np.eye(3), -np.eye(3)]))
    assert np.all(cloud_set.contains(axes))


def test_counterpart_gives_the_support(cloud_set):
    bound = cp.Variable()
    cp.Problem(cp.Minimize(bound), cloud_set.counterpart(cp.Constant(DIRECTIONS[0]), bound)).solve(solver=cp.CLARABEL)
    assert bound.value == pytest.approx(float(cloud_set.support(DIRECTIONS[0])), abs=1e-5)


def test_rays_end_on_the_boundary_and_samples_are_members(cloud_set):
    boundary = cloud_set.sample(50, 0, "boundary")
    assert cloud_set.level(boundary) == pytest.approx(cloud_set.theta)
    assert np.all(cloud_set.contains(cloud_set.sample(50, 0)))


def test_scaling_is_about_the_centre(cloud_set):
    center = cloud_set.center()
    twice = cloud_set.scaled(2.0)
    expected = 2 * cloud_set.support(DIRECTIONS) - DIRECTIONS @ center
    assert twice.support(DIRECTIONS) == pytest.approx(expected)
    assert cloud_set.scaled(0.0).support(DIRECTIONS) == pytest.approx(DIRECTIONS @ center, abs=1e-9)


def test_json_and_message_are_exact():
    fitted = fit_set(CLOUD, "svc", 0.1, 0.9)
    again = FittedSet.from_message(fitted.to_message())
    assert np.array_equal(again.set.support(DIRECTIONS), fitted.set.support(DIRECTIONS))
    assert again.certificate == fitted.certificate


def test_known_support_is_intersected():
    parameters = {"n_calibration": 0, "nu": 0.2, "box": [-1.0, 1.0, -0.6, 0.3]}
    with pytest.raises(DataError, match="row 3"):
        fit_set(SINES, "svc", 0.1, 0.9, parameters=parameters)
    inside = SINES[SINES[:, 1] <= 0.3]
    cut = fit_set(inside, "svc", 0.1, 0.9, parameters=parameters).set
    free = fit_set(inside, "svc", 0.1, 0.9, parameters={"n_calibration": 0, "nu": 0.2}).set
    assert float(cut.support([0, 1])) <= min(0.3, float(free.support([0, 1]))) + 1e-7


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"nu": 0.0}, "nu"),
        ({"nu": 1.5}, "nu"),
        ({"l_factor": 1.0}, "l_factor"),
        ({"n_calibration": 5}, "at least 22"),
        ({"n_calibration": 2.5}, "whole number"),
    ],
)
def test_wrong_parameters_are_refused_by_name(parameters, words):
    with pytest.raises(DataError, match=words):
        fit_set(CLOUD, "svc", 0.1, 0.9, parameters=parameters)


def test_too_few_samples_are_refused_with_the_number_needed():
    with pytest.raises(DataError, match="give at least 63 samples"):
        fit_set(SINES, "svc", 0.05, 0.95)


def test_an_empty_set_is_refused(cloud_set):
    with pytest.raises(SetError, match="empty"):
        cloud_set.with_level(0.0)
    with pytest.raises(SetError, match="sum to one"):
        SupportVectorSet([[0.0, 0.0]], [0.5], np.eye(2), 1.0)


def test_an_uncalibrated_set_promises_nothing():
    certificate = fit_set(CLOUD, "svc", 0.1, 0.9, parameters={"n_calibration": 0}).certificate
    assert certificate.confidence is None and certificate.epsilon is None
    assert certificate.statement.startswith("No promise")


@pytest.mark.parametrize(("epsilon", "confidence", "needed"), [(0.05, 0.95, 59), (0.05, 0.9, 45), (0.1, 0.9, 22)])
def test_least_calibration_samples(epsilon, confidence, needed):
    assert calibration_samples_needed(epsilon, confidence) == needed
    assert order_index(needed, epsilon, confidence) == needed
    with pytest.raises(DataError, match=str(needed)):
        calibrate(np.arange(needed - 1.0), epsilon, confidence)


@pytest.mark.parametrize("n", [59, 92, 93, 200, 1000, 5000])
def test_order_statistic_is_the_least_that_keeps_the_promise(n):
    k = order_index(n, 0.05, 0.95)
    assert stats.binom.sf(k - 1, n, 0.95) <= 0.05 < stats.binom.sf(k - 2, n, 0.95)


def test_violation_of_a_calibrated_level_has_the_beta_distribution():
    rng = np.random.default_rng(2)
    violations = [1 - calibrate(rng.random(200), 0.1, 0.9).level for _ in range(2000)]
    k = order_index(200, 0.1, 0.9)
    assert stats.kstest(violations, stats.beta(201 - k, k).cdf).pvalue > 0.001


def test_interval_of_a_share_matches_scipy():
    exact = stats.binomtest(7, 120).proportion_ci(0.95, "exact")
    assert violation_interval(7, 120, 0.95) == pytest.approx((exact.low, exact.high))
    assert violation_interval(0, 59, 0.9)[1] == pytest.approx(1 - 0.05 ** (1 / 59))


@pytest.mark.parametrize("family", ["svc", "ellipsoid", "box", "budget", "zonotope"])
def test_calibrated_set_covers_with_promised_confidence(family):
    rng = np.random.default_rng(9)
    mix = np.array([[1.0, 0.6], [0.0, 0.8]])
    truth = rng.standard_normal((4000, 2)) @ mix
    runs, beyond = 60, 0
    for seed in range(runs):
        shown = fit_set(rng.standard_normal((120, 2)) @ mix, family, 0.1, 0.9, seed=seed).set
        beyond += 1 - shown.contains(truth).mean() > 0.1
    assert beyond / runs <= 0.1 + 3 * np.sqrt(0.09 / runs)


@pytest.mark.parametrize("family", ["ellipsoid", "box", "budget", "zonotope"])
def test_fitted_by_quantiles_holds_its_calibration_samples(family):
    fitted = fit_set(CLOUD, family, 0.1, 0.9)
    assert fitted.set.contains(CLOUD).mean() >= 0.85
    assert fitted.certificate.confidence == 0.9 and fitted.certificate.thresholds["k"] > 0
    again = FittedSet.from_dict(fitted.to_dict())
    assert np.array_equal(again.set.support(DIRECTIONS), fitted.set.support(DIRECTIONS))


def test_small_calibration_study_agrees_with_theory(tmp_path: Path):
    study = registry.load("study", "svc-calibration")
    settings = {**study.defaults, "runs": 40, "n_train": 100, "n_test": 3000, "n_calibration_large": 300}
    result = study.run(settings, tmp_path)
    assert result["mean_violation"] == pytest.approx(1 / 60, abs=4 * np.sqrt(2.7e-4 / 40))
    assert result["more_samples"]["mean_violation"] > result["mean_violation"]
    assert result["size_ratio"] < 1
    assert (tmp_path / "svc_calibration.png").stat().st_size > 1000
    assert len(list(study.table(result))) == 5


def test_rays_of_a_parallelotope_agree_with_the_cones():
    shown = fit_set(CLOUD, "zonotope", 0.1, 0.9).set
    assert shown.reach(DIRECTIONS) == pytest.approx(UncertaintySet.reach(shown, DIRECTIONS), abs=1e-6)
