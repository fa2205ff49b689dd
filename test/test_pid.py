import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.models.delayed import DelayProcess
from rmpc_ros.mpc import pid
from rmpc_ros.mpc.pid import PidSettings, gains_from_law, velocity_law
from rmpc_ros.mpc.pid_loop import PidLoop, PidMpcLoop
from rmpc_ros.mpc.pid_mpc import (
    OutputLimits,
    augment,
    blend,
    condense,
    pid_cost,
    rotated_cost,
    tracking_cost,
)
from rmpc_ros.studies import pid_matching

LOOP = PidSettings(2.0, 0.4, 1.5, 0.5, filter_time=0.3, setpoint_weight=0.7, derivative_weight=0.2)
PLANT = DelayProcess(1.0, (10.0,), 2.2)


def simulate(loop, plant, setpoint, load, steps):
    x, y, u = np.zeros(plant.A.shape[0]), np.zeros(steps), np.zeros(steps)
    for k in range(steps):
        y[k] = (plant.C @ x)[0]
        u[k] = loop.step(setpoint[k], y[k])
        x = plant.A @ x + plant.B[:, 0] * (u[k] + load[k])
    return y, u


def test_sampled_process_has_the_frequency_response_of_its_state_space_form():
    for process in (
        PLANT,
        DelayProcess(-2.0, (3.0, 1.0), 1.3, lead=-0.5),
        DelayProcess(0.3, (2.0,), 1.0, integrating=True),
    ):
        sampled = process.sampled(0.5)
        omega = np.array([0.03, 0.4, 2.0])
        z = np.exp(1j * omega * 0.5)
        direct = [(sampled.C @ np.linalg.solve(v * np.eye(len(sampled.A)) - sampled.A, sampled.B))[0, 0] for v in z]
        np.testing.assert_allclose(sampled.response(omega), direct, rtol=1e-9)
        hold = (1 - np.exp(-1j * omega * 0.5)) / (1j * omega * 0.5)  # slow signals see the plant and the hold
        np.testing.assert_allclose(direct[0], process.response(omega[:1])[0] * hold[0], rtol=1e-3)


def test_step_moves_by_the_velocity_law_while_no_limit_acts():
    rng = np.random.default_rng(1)
    state = pid.start(LOOP, 0.3, 0.1, 2.0)
    for _ in range(20):
        r, y = rng.normal(size=2)
        xi = np.array([y - r, state.measurement - r, state.setpoint - r, state.derivative])
        value, new = pid.step(LOOP, state, r, y)
        assert value - state.applied == pytest.approx(-velocity_law(LOOP) @ xi, abs=1e-12)
        state = new


def test_unfiltered_law_is_the_textbook_velocity_form():
    plain = PidSettings(2.0, 0.4, 1.5, 0.5, derivative_weight=1.0)
    rng = np.random.default_rng(2)
    e = rng.normal(size=4)
    state = pid.start(plain, e[0], 0.0, 0.0)
    for value in e[1:3]:
        _, state = pid.step(plain, state, value, 0.0)
    move = pid.step(plain, state, e[3], 0.0)[0] - state.applied
    expected = 2.0 * (e[3] - e[2]) + 0.4 * 0.5 * e[3] + 1.5 / 0.5 * (e[3] - 2 * e[2] + e[1])
    assert move == pytest.approx(expected, abs=1e-12)


def test_gains_are_recovered_from_the_law():
    np.testing.assert_allclose(gains_from_law(velocity_law(LOOP), LOOP), (2.0, 0.4, 1.5), atol=1e-12)
    with pytest.raises(ConfigError, match="kp from kd"):
        gains_from_law(velocity_law(LOOP), PidSettings(1, 0, 0, 1, setpoint_weight=0.5, derivative_weight=0.5))


def test_start_continues_the_input_in_force():
    state = pid.start(LOOP, 3.0, 3.0, 17.0)
    value, _ = pid.step(LOOP, state, 3.0, 3.0)
    assert value == pytest.approx(17.0, abs=1e-12)


def test_back_calculation_leaves_saturation_at_once_and_overshoots_less():
    plant = PLANT.sampled(0.5)
    limits = {"input_lower": -1.3, "input_upper": 1.3}
    fast = PidSettings(3.0, 0.4, 0.0, 0.5, **limits)
    wound = PidSettings(3.0, 0.4, 0.0, 0.5, tracking_time=1e9, **limits)
    target, load = np.ones(300), np.zeros(300)
    kept, _ = simulate(PidLoop(fast), plant, target, load, 300)
    lost, _ = simulate(PidLoop(wound), plant, target, load, 300)
    assert kept.max() - 1 < 0.5 * (lost.max() - 1)


def test_tracking_another_actuator_keeps_the_next_move_near_what_was_applied():
    loop = PidLoop(PidSettings(1.0, 0.5, 0.0, 0.5, tracking_time=0.5))
    loop.start(1.0, 1.0, 0.0)
    loop.step(1.0, 0.0)
    for _ in range(5):
        loop.track(-4.0)
    assert loop.step(1.0, 0.0) == pytest.approx(-4.0 + 0.5 * 0.5, abs=1e-9)


def test_input_and_move_limits_hold_exactly():
    rng = np.random.default_rng(3)
    loop = PidLoop(PidSettings(5.0, 1.0, 2.0, 0.5, input_lower=-1.0, input_upper=2.0, move_limit=0.3))
    loop.start(0.0, 0.0, 0.0)
    u = np.array([0.0, *(loop.step(0.0, y) for y in rng.normal(size=200))])
    assert u.min() >= -1.0 and u.max() <= 2.0 and np.abs(np.diff(u)).max() <= 0.3 + 1e-12


@pytest.mark.parametrize(
    "words", [{"kp": -1.0}, {"period": 0.0}, {"setpoint_weight": 1.5}, {"input_upper": -2.0, "input_lower": 1.0}]
)
def test_wrong_settings_are_refused(words):
    with pytest.raises(ConfigError):
        PidSettings(**{"kp": 1.0, "ki": 0.1, "kd": 0.0, "period": 1.0, **words})


def test_a_missing_measurement_is_refused_not_integrated():
    with pytest.raises(DataError, match="measurement = nan"):
        pid.step(LOOP, pid.start(LOOP, 0, 0, 0), 1.0, float("nan"))


def test_pid_mpc_has_the_pid_gains_for_every_horizon_and_cost():
    for process, settings in pid_matching.PLANTS.values():
        errors = pid_matching.gain_errors(process, settings, (1, 5, 20))
        assert max(errors["cross term"].values()) <= 1e-10
        assert max(errors["rotated"].values()) <= 1e-10
        assert errors["rotated_smallest_eigenvalue"] > 0


def test_pid_mpc_keeps_a_limit_the_pid_breaks_and_moves_alike_elsewhere(tmp_path):
    result = pid_matching.run({"horizons": [1, 5], "horizon": 20, "steps": 80}, tmp_path)
    assert result["max_gain_error"] <= 1e-10
    assert result["pid_violates"]
    assert result["max_pid_mpc_violation"] <= 1e-9
    assert result["max_move_difference_elsewhere"] <= 1e-9
    assert all(p["limited_steps"] and p["free_steps"] for p in result["plants"].values())
    assert (tmp_path / "pid-matching.png").exists()


def test_pid_mpc_moves_like_the_pid_even_with_a_wrong_model_and_loads():
    rng = np.random.default_rng(4)
    target, load = np.repeat(rng.normal(size=6), 25), np.repeat(rng.normal(size=10), 15)
    plant, wrong = PLANT.sampled(0.5), PLANT.perturbed(1.3, 0.7, 1.2).sampled(0.5)
    settings = PidSettings(2.0, 0.25, 1.0, 0.5, filter_time=0.2, setpoint_weight=0.8)
    one = simulate(PidLoop(settings), plant, target, load, 150)[1]
    two = simulate(PidMpcLoop(wrong, settings, OutputLimits(), 10), plant, target, load, 150)[1]
    np.testing.assert_allclose(one, two, atol=1e-8)


def test_an_impossible_output_limit_never_breaks_an_input_limit():
    plant = PLANT.sampled(0.5)
    settings = PidSettings(2.0, 0.25, 0.0, 0.5, input_lower=-0.5, input_upper=1.5, move_limit=0.4)
    loop = PidMpcLoop(plant, settings, OutputLimits(upper=1.1), 12)
    y, u = simulate(loop, plant, np.ones(80), np.where(np.arange(80) > 40, 3.0, 0.0), 80)
    assert y.max() > 1.2  # the load is stronger than the input
    assert u.min() >= -0.5 - 1e-9 and u.max() <= 1.5 + 1e-9 and np.abs(np.diff(u)).max() <= 0.4 + 1e-9


def test_blend_goes_from_the_pid_to_the_mpc():
    settings = PidSettings(2.0, 0.25, 1.0, 0.5, filter_time=0.2)
    system = augment(PLANT.sampled(0.5), settings)
    other = tracking_cost(system, 1.0, 0.5)
    gains = [condense(system, blend(system, a, other), 30).gain() for a in (1.0, 0.5, 0.0)]
    np.testing.assert_allclose(gains[0], system.K, atol=1e-10)
    np.testing.assert_allclose(gains[2][0, -2:], 0.0, atol=1e-10)  # the MPC has no use for the PID's memory
    long = condense(system, other, 60).gain()
    np.testing.assert_allclose(gains[2], long, atol=1e-8)  # with its terminal cost the horizon does not matter
    assert 0 < np.linalg.norm(gains[1] - gains[0]) < np.linalg.norm(gains[2] - gains[0]) + 1e-12


def test_an_unstable_pid_has_no_definite_cost():
    system = augment(PLANT.sampled(0.5), PidSettings(40.0, 5.0, 0.0, 0.5))
    assert np.linalg.matrix_rank(pid_cost(system).Q) == 1
    with pytest.raises(ConfigError, match="spectral radius"):
        rotated_cost(system)


def test_pid_and_model_must_share_their_period():
    with pytest.raises(ConfigError, match="sampled at"):
        augment(PLANT.sampled(0.25), LOOP)
