import casadi as ca
import numpy as np
import pytest

from rmpc_ros.errors import ConfigError
from rmpc_ros.models.estimator import Estimate, ExtendedKalman, Sensors, error_box, with_disturbance_states
from rmpc_ros.models.moving_horizon import MovingHorizon
from rmpc_ros.models.physics import Physics
from rmpc_ros.models.sensor_faults import FaultDetector
from rmpc_ros.plants import cstr
from rmpc_ros.studies import estimation

A = np.array([[0.9, 0.2], [-0.1, 0.95]])
B = np.array([[0.0], [0.5]])


def linear_physics():
    x, u, d, theta = (ca.MX.sym(s, n) for s, n in (("x", 2), ("u", 1), ("d", 1), ("theta", 0)))
    end = ca.DM(A) @ x + ca.DM(B) @ u + ca.vertcat(d, 0.0)
    return Physics("two tanks", ("a", "b"), ("u",), ("leak",), (), 1.0, ca.Function("F", [x, u, d, theta], [end]))


def kalman(states=(0, 1), noise=(0.1, 0.1), **words):
    sensors = Sensors(tuple(f"s{k}" for k in states), states, np.array(noise))
    return ExtendedKalman(linear_physics(), np.array([0.05, 0.05]), sensors, **words)


def run(filter_, steps, seed, missing=0.0, spoil=lambda k, y: y, leak=0.0):
    rng = np.random.default_rng(seed)
    x, estimate = np.array([1.0, 0.0]), Estimate(np.zeros(2), np.eye(2))
    errors, deviations = [], []
    for k in range(steps):
        u = np.array([np.sin(0.2 * k)])
        x = A @ x + B @ u + 0.05 * rng.normal(size=2) + [leak, 0.0]
        noise = filter_.sensors.noise
        y = x[list(filter_.sensors.states)] + noise * rng.normal(size=noise.size)
        y[rng.random(y.size) < missing] = np.nan
        prior = filter_.predicted(estimate, u, [0.0])
        estimate = filter_.corrected(prior, spoil(k, y))
        errors.append(estimate.mean - x)
        deviations.append(estimate.deviation)
    return np.array(errors), np.array(deviations)


def test_filter_equals_the_kalman_filter_on_a_linear_plant():
    f = kalman(huber=1e9)
    P, mean = np.eye(2), np.zeros(2)
    rng = np.random.default_rng(0)
    estimate = Estimate(mean, P)
    for k in range(10):
        y, u = rng.normal(size=2), np.array([0.3 * k])
        mean, P = A @ mean + B @ u, A @ P @ A.T + 0.05**2 * np.eye(2)
        G = P @ np.linalg.inv(P + 0.01 * np.eye(2))
        mean, P = mean + G @ (y - mean), P - G @ P
        estimate = f.corrected(f.predicted(estimate, u, [0.0]), y)
        np.testing.assert_allclose(estimate.mean, mean, atol=1e-10)
        np.testing.assert_allclose(estimate.covariance, P, atol=1e-10)


def test_error_box_holds_the_error_with_missing_and_partial_measurements():
    errors, deviations = run(kalman((1,), (0.1,)), 1500, 1, missing=0.3)
    box = np.array([error_box(d, 0.95) for d in deviations[50:]])
    covered = np.mean(np.all(np.abs(errors[50:]) <= box, axis=1))
    assert 0.93 <= covered <= 0.995
    assert np.sqrt(np.mean(errors[50:, 0] ** 2)) < 0.5  # the unmeasured state is known through the other


def test_spikes_move_the_robust_filter_little():
    def spoil(k, y):
        return y + np.array([30.0, 0.0]) if k % 10 == 5 else y

    plain, _ = run(kalman(huber=1e9), 300, 2, spoil=spoil)
    robust, _ = run(kalman(), 300, 2, spoil=spoil)
    assert np.sqrt(np.mean(robust[20:] ** 2)) < 0.1 * np.sqrt(np.mean(plain[20:] ** 2))


def test_an_unmeasured_disturbance_is_found_as_a_state():
    extended = with_disturbance_states(linear_physics(), ("leak",), [0.0])
    assert extended.states == ("a", "b", "leak") and extended.disturbances == ()
    f = ExtendedKalman(extended, np.array([0.05, 0.05, 0.01]), Sensors(("a", "b"), (0, 1), np.array([0.1, 0.1])))
    rng = np.random.default_rng(3)
    x, estimate = np.zeros(2), Estimate(np.zeros(3), np.eye(3))
    for _ in range(400):
        x = A @ x + 0.02 * rng.normal(size=2) + [0.4, 0.0]
        estimate = f.corrected(f.predicted(estimate, [0.0]), x + 0.1 * rng.normal(size=2))
    assert estimate.mean[2] == pytest.approx(0.4, abs=0.1)
    with pytest.raises(ConfigError, match="wants leak"):
        kalman().predicted(Estimate(np.zeros(2), np.eye(2)), [0.0])
    with pytest.raises(ConfigError, match="no disturbance wind"):
        with_disturbance_states(linear_physics(), ("wind",), [0.0])


def test_moving_horizon_equals_the_kalman_filter_where_that_is_optimal_and_keeps_limits():
    f = kalman(huber=1e9)
    window = MovingHorizon(f, Estimate(np.zeros(2), np.eye(2)), 4, huber=1e4, disturbances=[0.0])
    limited = MovingHorizon(kalman(upper=np.array([0.4, 9.0])), Estimate(np.zeros(2), np.eye(2)), 4, disturbances=[0.0])
    rng = np.random.default_rng(4)
    x = np.zeros(2)
    for k in range(10):
        u = np.array([1.0])
        x = A @ x + B @ u + 0.05 * rng.normal(size=2)
        y = x + 0.1 * rng.normal(size=2)
        if k == 6:
            y[0] = np.nan
        mean = window.update(u, y)
        np.testing.assert_allclose(mean, window.estimate.mean, atol=1e-4)
        assert limited.update(u, y)[0] <= 0.4 + 1e-6


def test_moving_horizon_runs_on_the_nonlinear_tank():
    physics = Physics.from_model(cstr.build({}), 3.0)
    sensors = Sensors(("T",), (1,), np.array([0.05]))
    f = ExtendedKalman(
        physics, np.array([1e-3, 0.05]), sensors, lower=np.array([0.0, 250.0]), upper=np.array([1.0, 500.0])
    )
    window = MovingHorizon(f, Estimate(np.array([0.8, 330.0]), np.diag([0.1, 1.0]) ** 2), 5, disturbances=[1.0, 350.0])
    x = np.array([0.85, 327.0])
    for _ in range(40):
        x = physics.advance(x, [302.0], [1.0, 350.0], [])
        mean = window.update([302.0], x[1:])
    assert abs(mean[0] - x[0]) < 0.02 and abs(mean[1] - x[1]) < 0.1


def detect(spoil, steps=120):
    detector = FaultDetector(("a", "b", "c"))
    rng = np.random.default_rng(5)
    seen, trusted_after = {}, None
    for k in range(steps):
        y = rng.normal(size=3)
        y, z = spoil(k, y)
        trusted_after = detector.update(k, y, z, np.ones(3, bool))
        for fault in detector.faults:
            seen.setdefault((fault.sensor, fault.kind), k)
    return seen, trusted_after, detector


@pytest.mark.parametrize(
    ("kind", "spoil", "within"),
    [
        ("stuck", lambda k, y: np.where(np.arange(3) == 1, 0.7 if k >= 50 else y, y), 10),
        ("spike", lambda k, y: y + np.array([0, 12.0 if k == 50 else 0, 0]), 1),
        ("drift", lambda k, y: y + np.array([0, 0.5 * max(k - 50, 0), 0]), 15),
        ("dropout", lambda k, y: np.where((np.arange(3) == 1) & (k >= 50), np.nan, y), 4),
    ],
)
def test_a_fault_gets_its_name_quickly_and_nothing_else_is_blamed(kind, spoil, within):
    seen, _, _ = detect(lambda k, y: (spoil(k, y), spoil(k, y)))
    assert 50 <= seen["b", kind] < 50 + within
    assert {sensor for sensor, _ in seen} == {"b"}


def test_healthy_noise_is_rarely_blamed_and_a_moving_plant_never():
    seen, trusted, _ = detect(lambda k, y: (y, y), steps=2000)
    assert not seen and trusted.all()
    seen, _, _ = detect(lambda k, y: (y + 20.0 * (k == 60), y + 20.0 * (k == 60)), steps=100)
    assert not seen  # all sensors moved together: it was the plant


def test_a_sensor_that_recovers_is_trusted_again():
    def spoil(k, y):
        y = y.copy()
        if 50 <= k < 70:
            y[1] = 0.7
        return y, y

    seen, trusted, detector = detect(spoil)
    assert ("b", "stuck") in seen and not detector.faults and trusted.all()


def test_stuck_temperature_is_named_within_ten_steps_and_constraints_hold(tmp_path):
    settings = {**estimation.STUDY.defaults, "steps": 60, "seeds": 1, "stuck_at": 40, "mhe_steps": 12}
    result = estimation.run(settings, tmp_path)
    assert result["constraint_violations"] == result["promises_broken"] == 0
    assert result["fault"]["sensor"] == "T1" and result["fault"]["kind"] == "stuck"
    assert result["fault_named_after_steps"] <= 10
    assert result["filter"]["composition_rmse"] < result["last_reading"]["composition_rmse"]
    assert result["filter"]["largest_error_over_bound"] < 1
    assert result["mhe"]["temperature_rmse"] < 1.5 * result["mhe"]["filter_temperature_rmse"]
    assert list(estimation.STUDY.table(result))
