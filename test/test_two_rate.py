"""Two rates and stochastic MPC: tubes of a held feedback are true, only certified feedback is swapped in."""

import numpy as np
import pytest
from test_local_mpc import load, roll

from rmpc_ros.errors import DataError, InfeasibleError
from rmpc_ros.mpc.feedback import AffineFeedback
from rmpc_ros.mpc.local import LocalModel
from rmpc_ros.mpc.stochastic import METHODS, StochasticMpc, samples_needed
from rmpc_ros.mpc.two_rate import HeldFeedback, TwoRateController
from rmpc_ros.robust.cuts import CuttingPlanes, worst_member, worst_sample
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.sets.lifting import Saturation
from rmpc_ros.studies import building_energy, two_mass_spring
from rmpc_ros.studies.bench import robust
from rmpc_ros.studies.bench.step import system


def model_and_cost(seed=3):
    model, cost = system(seed)
    own = ((np.eye(4)[:, :2], Box([-0.02, -0.02], [0.02, 0.02])),)
    return LocalModel(model.A, model.B, model.K, model.G[:, :2], own, model.input_lower, model.input_upper), cost


def test_tube_of_a_held_feedback_is_that_of_the_optimised_one_and_holds():
    model, cost = model_and_cost()
    search, held = AffineFeedback(model, cost, 5, toeplitz=True), HeldFeedback(model, cost, 5)
    for c in (search, held):
        load(c, target=(1.4, 1.0, -1.0, 0.5))
        c.data.x_upper[:], c.data.x_lower[:] = 0.5, -0.6
    found = search.solve()
    held.hold(found.M)
    plan = held.solve()
    assert np.abs(found.M).max() > 1e-4
    assert plan.tube_upper == pytest.approx(found.tube_upper, abs=1e-9)
    assert plan.c_width == pytest.approx(found.c_width, abs=1e-9)
    assert plan.v == pytest.approx(found.v, abs=1e-3)
    rng = np.random.default_rng(0)
    for _ in range(100):
        x, action = roll(held, plan, np.sign(rng.normal(size=(5, 2))), rng.choice([-0.02, 0.02], (5, 2)))
        u = x[:-1] @ model.K.T + action
        assert np.all(x[1:] <= 0.5 + 1e-6) and np.all(x[1:] >= -0.6 - 1e-6)
        assert np.all(np.abs(u) <= 1 + 1e-6)


def test_feedback_is_swapped_in_only_when_certified():
    model, cost = model_and_cost()
    controller = TwoRateController(model, cost, 5)
    load(controller, state=(0.2, -0.1, 0.1, 0.1), target=(1.4, 1.0, -1.0, 0.5))
    controller.data.x_upper[:], controller.data.x_lower[:] = 0.5, -0.6
    first = controller.solve()
    controller.wait()
    second = controller.solve()
    assert controller.swapped == 1 and np.abs(controller.feedback).max() > 1e-4
    assert second.objective <= first.objective + 1e-6 * (1 + abs(first.objective))
    # The world changes before the next search is taken over: it must not be used where it has no solution.
    held = controller.feedback
    controller.wait()
    controller.data.x_upper[:], controller.data.x_lower[:] = 1e-3, -1e-3
    with pytest.raises(InfeasibleError):
        controller.solve()
    assert controller.refused == 1 and controller.feedback is held
    controller.close()


def test_closed_loop_with_swaps_keeps_its_limits():
    model, cost = model_and_cost()
    controller = TwoRateController(model, cost, 5)
    rng = np.random.default_rng(2)
    x, radius = np.array([0.2, -0.1, 0.1, 0.1]), 0.02
    for step in range(30):
        load(controller, x, target=(0.6, 0.3, -0.3, 0.2))
        controller.data.zeta[:], controller.data.radius[:] = 0.0, radius
        controller.data.x_upper[:], controller.data.x_lower[:] = 0.6, -0.6
        plan = controller.solve()
        if step % 3 == 0:
            controller.wait()
        u = model.K @ x + plan.v[0]
        assert np.all(np.abs(u) <= 1 + 1e-6)
        x = model.A @ x + model.B @ plan.v[0] + model.G @ rng.uniform(-radius, radius, 2)
        x = x + model.disturbances[0][0] @ rng.uniform(-0.02, 0.02, 2)
        assert np.all(np.abs(x) <= 0.6 + 1e-6)
    assert controller.swapped >= 1
    controller.close()


def test_feedback_that_looks_ahead_is_refused():
    held = HeldFeedback(*model_and_cost(), 3)
    M = np.zeros((3, 3, 2, 4))
    M[1, 1, 0, 0] = 0.1
    with pytest.raises(ValueError, match="causal"):
        held.hold(M)


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


def test_full_and_scaled_feedback_keep_hard_input_limits_and_need_backup_far_out():
    settings = two_mass_spring.STUDY.defaults
    rng = np.random.default_rng(0)
    data = two_mass_spring.noise(160, 3, settings, rng)
    for feedback in ("full", "scaled"):
        controller = StochasticMpc(
            two_mass_spring.problem(3, 5.0),
            "support_vectors",
            data[:80],
            data[80:],
            Saturation("tanh", 0.015),
            feedback=feedback,
        )
        calm = controller.step(np.zeros(4), np.full(12, 0.38))
        assert not calm.backup and abs(calm.input[0]) < 0.1
        far = controller.step(np.array([0.0, 0.0, 2.0, 0.0]), np.full(12, 0.38))
        assert far.backup and abs(far.input[0]) == pytest.approx(1.6, abs=1e-4)


def test_two_mass_spring_study_reports_what_is_promised(tmp_path):
    settings = {**two_mass_spring.STUDY.defaults, "horizons": [4], "steps": 12, "runs": 1}
    result = two_mass_spring.run(settings, tmp_path)
    here = result["horizons"]["4"]
    assert {"average_cost", "cpu_s", "samples", "violations", "backup_steps"} <= set(here["drmpc"])
    assert 0 < here["set_violation_mean"] < 0.05
    assert (tmp_path / "two_mass_spring.png").stat().st_size > 1000
    assert any("drmpc" in line for line in two_mass_spring.table(result))


def test_building_energy_study_on_two_days(tmp_path):
    settings = {**building_energy.STUDY.defaults, "hours": 48}
    result = building_energy.run(settings, tmp_path)
    methods = result["methods"]
    assert result["hours"] == 48 and methods["ssmpc"]["samples"] == 400
    assert methods["drmpc"]["energy_total"] < methods["ssmpc"]["energy_total"]
    assert all(m["worst_shortfall_degC"] < 1.0 for m in methods.values())
    assert np.all(np.diff(result["forecast_error_std_degC"]) > 0)


def test_forecasts_use_only_the_past():
    rng = np.random.default_rng(0)
    outdoor = rng.normal(size=24 * 9)
    before = building_energy.forecasts(outdoor, 5, 0.9)[24 * 8]
    changed = outdoor.copy()
    changed[24 * 8 + 1 :] += 100.0
    assert np.array_equal(building_energy.forecasts(changed, 5, 0.9)[24 * 8], before)


def test_robust_benchmark_agrees_with_cvxpy_and_rsome(tmp_path):
    settings = {**robust.STUDY.defaults, "horizons": [4], "forms": ["full"], "states": 2, "cvxpy_states": 1}
    result = robust.run({**settings, "rsome_states": 1, "loop_states": 3}, tmp_path)
    for entry in result["programs"].values():
        assert entry["largest_relative_difference"] < 1e-6
    assert "rsome_ms" in result["programs"]["full N=4 linear"]
