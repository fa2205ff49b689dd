import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.models.delayed import DelayProcess
from rmpc_ros.mpc.autotune import MoveRegression, refine
from rmpc_ros.mpc.loop_quality import LoopModel
from rmpc_ros.mpc.pid import PidSettings
from rmpc_ros.mpc.pid_loop import PidLoop
from rmpc_ros.mpc.simc import half_rule, relay_experiment, simc, tyreus_luyben
from rmpc_ros.studies import pid_autotune

PLANT = DelayProcess(2.0, (3.0,), 1.0)


def log_of(settings, regression, plant, noise, seed=0):
    rng = np.random.default_rng(seed)
    sampled, loop, before = plant.sampled(settings.period), PidLoop(settings), 0.0
    x = np.zeros(sampled.A.shape[0])
    loop.start(0.0, 0.0, 0.0)
    for target in np.repeat(rng.normal(size=8), 60):
        y = float((sampled.C @ x)[0]) + noise * rng.normal()
        u = loop.step(float(target), y)
        regression.update(float(target) - y, y, u - before)
        x, before = sampled.A @ x + sampled.B[:, 0] * (u + 0.2 * rng.normal()), u


def test_regression_recovers_a_pid_from_its_own_moves():
    for plant, sign in ((PLANT, 1.0), (DelayProcess(-2.0, (3.0,), 1.0), -1.0)):
        settings = PidSettings(0.4 * sign, 0.15 * sign, 0.2 * sign, 0.2)
        regression = MoveRegression(0.2, sign=sign, filter_time=0.5)
        log_of(settings, regression, plant, noise=0.01)
        np.testing.assert_allclose(regression.solve(), (0.4 * sign, 0.15 * sign, 0.2 * sign), rtol=1e-6)


def test_forgetting_follows_a_change_of_the_controller():
    old, new = PidSettings(0.4, 0.15, 0.2, 0.2), PidSettings(0.2, 0.05, 0.1, 0.2)
    for forgetting, close in ((1.0, False), (0.98, True)):
        regression = MoveRegression(0.2, forgetting)
        log_of(old, regression, PLANT, 0.0)
        log_of(new, regression, PLANT, 0.0, seed=1)
        assert np.allclose(regression.solve(), (0.2, 0.05, 0.1), rtol=0.05) == close


def test_a_log_without_excitation_or_too_short_is_refused():
    quiet = MoveRegression(0.2)
    for _ in range(200):
        quiet.update(0.0, 1.0, 0.0)
    with pytest.raises(DataError, match="excitation"):
        quiet.solve()
    short = MoveRegression(0.2)
    with pytest.raises(DataError, match="at least 50"):
        short.solve()
    with pytest.raises(DataError, match="finite"):
        short.update(float("nan"), 0.0, 0.0)
    with pytest.raises(ConfigError, match="forgetting"):
        MoveRegression(0.2, 0.0)


def test_judged_figures_equal_a_simulation():
    settings = PidSettings(0.5, 0.12, 0.2, 0.1, filter_time=0.05, setpoint_weight=0.6)
    quality = LoopModel(PLANT, 0.1).judge(settings)
    plant, loop = PLANT.sampled(0.1), PidLoop(settings)
    x, errors, inputs = np.zeros(plant.A.shape[0]), [], [0.0]
    loop.start(0.0, 0.0, 0.0)
    for _ in range(880):
        y = float((plant.C @ x)[0])
        errors.append(1.0 - y)
        inputs.append(loop.step(1.0, y))
        x = plant.A @ x + plant.B[:, 0] * inputs[-1]
    assert quality.iae_setpoint == pytest.approx(0.1 * np.sum(np.abs(errors)), rel=1e-6)
    # `start` at set-point 0 makes the first step's proportional kick part of the simulation too
    assert quality.tv_setpoint == pytest.approx(np.sum(np.abs(np.diff(inputs))), rel=1e-6)
    assert not LoopModel(PLANT, 0.1).judge(PidSettings(5.0, 1.0, 0.0, 0.1)).stable


def test_simc_gives_skogestads_settings():
    settings = simc(DelayProcess(1.0, (20.0,), 0.95), 0.1)  # theta + Ts/2 = 1
    assert (settings.kp, settings.kp / settings.ki) == pytest.approx((10.0, 8.0))
    second = simc(DelayProcess(1.0, (20.0, 2.0), 0.95), 0.1)
    factor = 1 + 2.0 / 8.0
    assert (second.kp, second.kp / second.ki, second.kd / second.kp) == pytest.approx((10 * factor, 10.0, 1.6))
    ramp = simc(DelayProcess(0.5, (), 0.95, integrating=True), 0.1)
    assert (ramp.kp, ramp.kp / ramp.ki) == pytest.approx((1.0, 8.0))
    reduced = half_rule(DelayProcess(1.0, (6.0, 2.0, 1.0), 0.5), 1)
    assert (reduced.lags[0], reduced.delay) == pytest.approx((7.0, 2.5))


def test_relay_finds_the_ultimate_point():
    cycle = relay_experiment(PLANT, 0.02)
    omega = 2 * np.pi / cycle.ultimate_period
    assert np.angle(-PLANT.response([omega])[0]) == pytest.approx(0.0, abs=0.15)
    assert cycle.ultimate_gain * abs(PLANT.response([omega])[0]) == pytest.approx(1.0, rel=0.2)
    assert LoopModel(PLANT, 0.02).judge(tyreus_luyben(cycle, 0.02)).stable
    with pytest.raises(DataError, match="limit cycle"):
        relay_experiment(PLANT, 0.02, hysteresis=5.0)


def test_refinement_keeps_the_limits_and_beats_its_start():
    loops = [LoopModel(PLANT, 0.1), LoopModel(PLANT.perturbed(1.3, 1.0, 1.3), 0.1, points=150)]
    reference = loops[0].judge(simc(PLANT, 0.1))
    result = refine(loops, PidSettings(0.2, 0.02, 0.0, 0.1), reference, ms_limit=1.6, evaluations=60)
    assert result.quality.stable and result.quality.ms <= 1.6 and result.ensemble_ms <= 3.0
    assert result.quality.iae_load < result.start_quality.iae_load


def test_tuned_pid_beats_simc_at_no_larger_ms(tmp_path):
    result = pid_autotune.run({"plants": 2, "seed": 1, "evaluations": 60, "random_plants": 10}, tmp_path)
    assert result["plants_better"] == 2
    assert result["unstable_loops"] == 0
    assert (tmp_path / "table.md").read_text().count("|") > 20
