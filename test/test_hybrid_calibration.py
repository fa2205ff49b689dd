import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, DataError, InfeasibleError, NumericalError
from rmpc_ros.models.calibration import AdaptiveQuantile, CalibrationSettings, MultiStepCalibrator
from rmpc_ros.mpc import learned
from rmpc_ros.mpc.learned import LearnedMpcSettings, decide
from rmpc_ros.solvers import qp
from rmpc_ros.studies import calibration, hybrid_cstr
from rmpc_ros.studies.bench import learn


@pytest.mark.parametrize("coverage", [0.9, 0.95])
def test_long_run_coverage_holds_through_abrupt_and_slow_drift(coverage):
    rng = np.random.default_rng(0)
    quantile = AdaptiveQuantile(CalibrationSettings(coverage, 0.02, 200))
    for k in range(6000):
        size = (1.0, 5.0, 0.2)[k // 1000 % 3] * (1 + k / 3000)
        quantile.observe(abs(size * rng.normal()))
    assert quantile.coverage == pytest.approx(coverage, abs=0.01)


def test_radius_grows_after_a_change_and_shrinks_again():
    rng = np.random.default_rng(1)
    calibrator = MultiStepCalibrator(1, np.array([50.0]), CalibrationSettings(0.9, 0.02, 100))
    sizes = []
    for k in range(900):
        sizes.append(calibrator.radius(np.ones((1, 1)))[0, 0])
        calibrator.observe(1, np.array([rng.normal() * (4.0 if 300 <= k < 600 else 1.0)]), np.ones(1))
    assert np.median(sizes[350:600]) > 2 * np.median(sizes[200:300])
    assert np.median(sizes[800:]) < 0.6 * np.median(sizes[350:600])


def test_unknown_radius_is_the_physical_cap_and_is_counted():
    calibrator = MultiStepCalibrator(2, np.array([0.3, 7.0]))
    np.testing.assert_array_equal(calibrator.radius(np.ones((2, 2))), [[0.3, 7.0], [0.3, 7.0]])
    assert calibrator.disturbance_set(np.ones(2)).support(np.eye(2)).tolist() == [0.3, 7.0]
    calibrator.observe(1, np.zeros(2), np.ones(2))
    assert calibrator.quantiles[0].infinite == 1
    with pytest.raises(DataError, match="score nan"):
        calibrator.observe(1, np.array([np.nan, 0.0]), np.ones(2))
    with pytest.raises(ConfigError, match="window"):
        CalibrationSettings(window=3)


def _settings(upper):
    return LearnedMpcSettings(
        5,
        np.array([1.0]),
        np.array([1.0]),
        np.array([0.01]),
        np.array([-np.inf]),
        np.array([upper]),
        np.array([-1.0]),
        np.array([1.0]),
        np.array([1.0]),
    )


def test_learned_mpc_keeps_the_radius_from_the_limit_and_its_inputs_inside():
    A, B = np.array([[0.9]]), np.array([[0.3]])
    for radius, expected in ((0.0, 0.8), (0.2, 0.6)):
        x, u = np.zeros(1), np.zeros(1)
        for _ in range(60):
            u = decide(_settings(0.8), x, u, (A @ x + B @ u, A, B), np.full((5, 1), radius)).input
            assert -1.0 <= u[0] <= 1.0
            x = A @ x + B @ u
        assert x[0] == pytest.approx(expected, abs=1e-3)
    impossible = decide(_settings(0.8), np.array([5.0]), np.ones(1), (np.array([4.8]), A, B), np.zeros((5, 1)))
    assert impossible.slack > 1.0 and impossible.input[0] == pytest.approx(-1.0)


def test_limits_out_of_the_inputs_reach_are_left_out_and_the_move_stays_the_same(monkeypatch):
    rng, kept, cases = np.random.default_rng(4), [], []
    within = learned._within_reach
    monkeypatch.setattr(learned, "_within_reach", lambda *a: kept.append(within(*a)) or kept[-1])
    for _ in range(40):
        A, B = rng.uniform(-0.5, 0.9, (2, 2)), rng.uniform(-0.5, 0.5, (2, 2))
        settings = LearnedMpcSettings(
            4,
            rng.uniform(-1, 1, 2),
            np.array([1.0, 0.5]),
            np.array([0.01, 0.02]),
            np.array([-np.inf, -rng.uniform(0.1, 4.0)]),
            np.array([rng.uniform(0.1, 4.0), np.inf]),
            np.array([-1.0, -2.0]),
            np.array([2.0, 1.0]),
            np.array([1.0, 2.0]),
        )
        x, u = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
        arguments = settings, x, u, (A @ x + B @ u, A, B), np.full((4, 2), 0.05)
        cases.append((arguments, decide(*arguments)))
    assert 0.1 < np.mean(kept) < 0.9  # some of each kind
    monkeypatch.setattr(learned, "_within_reach", lambda m, b, a, high, low: np.isfinite(high) | np.isfinite(low))
    for arguments, move in cases:
        everything = decide(*arguments)
        assert move.plan == pytest.approx(everything.plan, abs=1e-6)
        assert move.slack == pytest.approx(everything.slack, abs=1e-6)
    assert max(move.slack for _, move in cases) > 0.01


def test_calibration_study_covers_and_keeps_the_limit(tmp_path):
    settings = {**calibration.STUDY.defaults, "steps": 1500, "seeds": 1, "training": 150, "kind": "linear"}
    result = calibration.run(settings, tmp_path)
    assert abs(result["coverage"]["0.9"] - 0.9) <= 0.02 and abs(result["coverage"]["0.95"] - 0.95) <= 0.02
    assert result["violations"] <= result["epsilon"]
    assert (tmp_path / "calibration.png").exists()


def test_hybrid_online_halves_the_physics_error_after_a_change(tmp_path):
    settings = {
        **hybrid_cstr.STUDY.defaults,
        "plants": ["cstr"],
        "training": 150,
        "phase": 60,
        "kind": "linear",
        "closed_loop_steps": 60,
    }
    plant = hybrid_cstr.run(settings, tmp_path)["plants"]["cstr"]
    assert plant["online_to_physics_after"] <= 0.5
    assert plant["worst_ratio_before_data"] <= 1.1
    assert set(plant["closed_loop"]) == set(plant["prediction_error"]) == set(hybrid_cstr.MODELS)


def test_learning_benchmark_reports_every_part(tmp_path):
    result = learn.run({"repeats": 20, "features": 20, "kind": "linear", "horizon": 3, "loop_steps": 40}, tmp_path)
    assert result["states"] == 3 and result["rebuild_over_swap"] > 3
    assert result["compile_over_adopt"] > 1 and result["control_step_learning_over_plain"] > 0
    assert set(result["parts"]) >= {
        "loop_after_command",
        "adopt_set",
        "update",
        "linearise",
        "swap_in_newer_model",
        "rebuild_functions",
    }


def test_a_dense_program_solved_once_is_the_compiled_one_and_refuses_what_it_refuses():
    rng = np.random.default_rng(6)
    for _ in range(20):
        root, A, f = rng.normal(size=(4, 4)), rng.normal(size=(3, 4)), rng.normal(size=4)
        H, upper = root @ root.T + np.eye(4), rng.uniform(0.05, 1.0, 7)
        program = qp.DenseQp(H, A)
        program.update(f, upper, -upper)
        one, other = qp.solve_dense(H, A, f, upper, -upper), program.solve()
        assert one.v == pytest.approx(other.v, abs=1e-8) and one.objective == pytest.approx(other.objective)
        assert np.max(np.abs(one.rows) - upper) <= 1e-6
    with pytest.raises(InfeasibleError):
        qp.solve_dense(H, np.ones((1, 4)), f, np.array([1, 1, 1, 1, -9.0]), np.array([-1, -1, -1, -1, -10.0]))
    with pytest.raises(NumericalError):
        qp.solve_dense(H, A, np.full(4, np.nan), upper, -upper)
