"""Predictive control with unions: promise kept at the vertices, brute-force optimum, bimodal disturbance used."""

import numpy as np
import pytest
from test_ccg import extensive

from rmpc_ros.errors import InfeasibleError, SetError
from rmpc_ros.mpc.ccg_mpc import UnionController
from rmpc_ros.mpc.local import LocalModel
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.sets.box import Box

# a reactor-like agent: composition and temperature, one heat input; the feed is either lean and cold or rich and hot
BIMODAL = PolytopeUnion.boxes([([-0.10, -0.06], [-0.06, -0.02]), ([0.05, 0.04], [0.09, 0.08])])


def controller(horizon=3, union=BIMODAL):
    A, B = np.array([[0.9, -0.1], [0.05, 0.85]]), np.array([[0.02], [0.3]])
    K = np.array([[-0.1, -0.9]])
    model = LocalModel(
        A=A + B @ K, B=B, K=K, G=np.array([[0.05], [0.02]]),
        disturbances=((np.eye(2), Box([-0.01, -0.01], [0.01, 0.01])),),
        input_lower=np.array([-1.0]), input_upper=np.array([1.0]),
    )  # fmt: skip
    made = UnionController(model, np.eye(2), union, horizon, np.array([1.0, 2.0]), np.array([0.1]))
    d = made.data
    d.x_lower[:], d.x_upper[:] = -0.9, 0.9
    d.c_lower[:], d.c_upper[:] = -0.8, 0.8
    d.radius[:] = 0.1
    return made


def test_first_step_keeps_promise_and_limits_for_every_disturbance():
    made = controller()
    model, d = made.model, made.data
    for start in ([0.5, 0.7], [-0.6, 0.3], [0.75, -0.1]):
        d.x[:] = start
        plan = made.solve()
        assert plan.gap <= 2e-4
        assert np.all(np.abs(plan.u) <= 1.0 + 1e-7)
        corners = BIMODAL.vertices()
        for v in corners:
            for w in Box([-0.01, -0.01], [0.01, 0.01]).lower * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]):
                for zeta in (-0.1, 0.1):
                    x = model.A @ d.x + model.B @ plan.c + model.G[:, 0] * zeta + w + v
                    assert np.all(x <= d.x_upper[0] + 1e-7) and np.all(x >= d.x_lower[0] - 1e-7)


def test_objective_is_the_extensive_optimum_and_a_warm_start_changes_nothing():
    made = controller(horizon=2)
    vertices = made.union.vertices()
    for start in ([0.5, 0.7], [0.4, 0.6], [-0.6, 0.3]):
        made.data.x[:] = start
        warm = made.solve()
        assert warm.objective == pytest.approx(extensive(made.problem(), vertices), rel=2e-4)
        cold = controller(horizon=2)
        cold.data.x[:] = start
        assert cold.solve().objective == pytest.approx(warm.objective, rel=2e-4)


def test_the_union_costs_less_than_its_bounding_box():
    """The two modes tie composition to temperature; the box around them adds lean and hot, rich and cold."""
    low, high = np.array([-0.10, -0.06]), np.array([0.09, 0.08])
    made, box = controller(), controller(union=PolytopeUnion.boxes([(low, high)]))
    for each in (made, box):
        each.data.x[:] = [0.2, 0.1]
    assert made.solve().objective < box.solve().objective - 1e-3


def test_closed_loop_with_bimodal_feed_stays_in_its_promise():
    made, rng = controller(), np.random.default_rng(0)
    model, x = made.model, np.array([0.6, 0.6])
    start = x.copy()
    for _ in range(6):
        made.data.x[:] = x
        plan = made.solve()
        w, zeta = rng.uniform(-0.01, 0.01, 2), rng.uniform(-0.1, 0.1)
        x = model.A @ x + model.B @ plan.c + model.G[:, 0] * zeta + w + BIMODAL.sample(1, rng)[0]
        assert np.all(np.abs(x) <= 0.9)
    assert np.sum(np.abs(x)) < np.sum(np.abs(start))


def test_changed_promises_rebuild_and_impossible_ones_are_named():
    made = controller()
    made.data.x[:] = [0.5, 0.5]
    first = made.solve().objective
    made.data.c_lower[:], made.data.c_upper[:] = -0.1, 0.1
    assert made.solve().objective > first - 1e-6
    made.data.x_upper[0] = -0.5
    with pytest.raises(InfeasibleError, match="limit of x"):
        made.solve()
    with pytest.raises(SetError, match="E has shape"):
        UnionController(made.model, np.eye(2)[:, :1], BIMODAL, 3, np.ones(2), np.ones(1))
