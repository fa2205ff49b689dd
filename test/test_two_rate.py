"""Two rates: tubes of a held feedback are true, only certified feedback is swapped in."""

import numpy as np
import pytest
from test_local_mpc import load, roll

from rmpc_ros.errors import InfeasibleError
from rmpc_ros.mpc.feedback import AffineFeedback
from rmpc_ros.mpc.local import LocalModel
from rmpc_ros.mpc.two_rate import HeldFeedback, TwoRateController
from rmpc_ros.sets.box import Box
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


def test_robust_benchmark_agrees_with_cvxpy_and_rsome(tmp_path):
    settings = {**robust.STUDY.defaults, "horizons": [4], "forms": ["full"], "states": 2, "cvxpy_states": 1}
    result = robust.run({**settings, "rsome_states": 1, "loop_states": 3}, tmp_path)
    for entry in result["programs"].values():
        assert entry["largest_relative_difference"] < 1e-6
        assert entry["blocks"] == entry["states"] == 2 and entry["new_set_over_bare"] > 0
    assert "rsome_ms" in result["programs"]["full N=4 linear"]
