"""The local robust problems against brute force: tubes, feedback forms, the plan written as state feedback."""

import itertools

import cvxpy as cp
import numpy as np
import pytest

from rmpc_ros.errors import InfeasibleError
from rmpc_ros.mpc.backup import BackupPlan, PlanFollower, memory_as_state_feedback
from rmpc_ros.mpc.feedback import AffineFeedback
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import LocalModel
from rmpc_ros.mpc.soft import SoftBackup
from rmpc_ros.network.invariant import invariant_boxes, one_step_growth
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.studies.bench.step import fill, system


def controller(form, horizon, own=True, seed=3):
    model, cost = system(seed)
    disturbances = ((np.eye(4)[:, :2], Box([-0.01, -0.02], [0.03, 0.02])),) if own else ()
    model = LocalModel(model.A, model.B, model.K, model.G[:, :2], disturbances, model.input_lower, model.input_upper)
    if form == "fixed":
        return FixedFeedback(model, cost, horizon)
    return AffineFeedback(model, cost, horizon, toeplitz=form == "toeplitz")


def load(c, state=(0.3, -0.2, 0.1, 0.2), target=(0.5, 0.5, -0.5, 0.2)):
    fill(c.data, np.array(state), np.array(target), 0.02)
    c.data.zeta[:] = 0.01


def roll(c, plan, zeta_signs, own_vertices):
    """One realisation of the policy: states x(0..N) and deviations c(0..N-1)."""
    model, N = c.model, c.N
    E, members = model.disturbances[0]
    x, w = [c.data.x.copy()], []
    actions = []
    for t in range(N):
        feedback = sum((plan.M[t, s] @ w[s] for s in range(t)), np.zeros(model.nu)) if plan.M.size else 0.0
        action = plan.v[t] + feedback
        zeta = c.data.zeta[t] + zeta_signs[t] * c.data.radius[t]
        after = model.A @ x[-1] + model.B @ action + model.G @ zeta + E @ own_vertices[t]
        nominal = model.A @ x[-1] + model.B @ action + model.G @ c.data.zeta[t]
        w.append(after - nominal - E @ members.center() if plan.M.size else after - nominal)
        x.append(after)
        actions.append(action)
    return np.array(x), np.array(actions)


@pytest.mark.parametrize("form", ["fixed", "toeplitz", "full"])
def test_tube_holds_every_vertex_and_is_reached(form):
    c = controller(form, 3)
    load(c)
    plan = c.solve()
    members = c.model.disturbances[0][1]
    corners = members.vertices()
    low, high = np.full((3, 4), np.inf), np.full((3, 4), -np.inf)
    for signs in itertools.product((-1.0, 1.0), repeat=6):
        for choice in itertools.product(range(4), repeat=3):
            x, action = roll(c, plan, np.array(signs).reshape(3, 2), corners[list(choice)])
            low, high = np.minimum(low, x[1:]), np.maximum(high, x[1:])
            u = x[:-1] @ c.model.K.T + action
            assert np.all(u <= c.model.input_upper + 1e-6) and np.all(u >= c.model.input_lower - 1e-6)
            assert np.all(np.abs(action - plan.v) <= plan.c_width + 1e-7)
    assert low == pytest.approx(plan.x[1:] - plan.tube_lower, abs=1e-9)
    assert high == pytest.approx(plan.x[1:] + plan.tube_upper, abs=1e-9)


def test_fixed_feedback_agrees_with_a_readable_model_of_the_same_problem():
    c = controller("fixed", 6)
    load(c)
    c.data.x_upper[:] = 0.45
    plan = c.solve()
    model, N = c.model, c.N
    v, x = cp.Variable((N, model.nu)), cp.Variable((N + 1, model.nx))
    cost, constraints = 0.0, [x[0] == c.data.x]
    weights = system(3)[1]
    E, members = model.disturbances[0]
    width_upper, width_lower = np.zeros(model.nx), np.zeros(model.nx)
    rows = np.eye(model.nx)
    for t in range(N):
        u = model.K @ x[t] + v[t]
        constraints += [x[t + 1] == model.A @ x[t] + model.B @ v[t] + model.G @ c.data.zeta[t]]
        power = np.linalg.matrix_power(model.A, t)
        if t:
            tube_u = np.zeros(model.nu)
            tube_l = np.zeros(model.nu)
            for s in range(t):
                back = model.K @ np.linalg.matrix_power(model.A, t - 1 - s)
                tube_u += np.abs(back @ model.G) @ c.data.radius[s] + members.support(back @ E)
                tube_l += np.abs(back @ model.G) @ c.data.radius[s] + members.support(-back @ E)
            constraints += [u <= model.input_upper - tube_u, u >= model.input_lower + tube_l]
        else:
            constraints += [u <= model.input_upper, u >= model.input_lower]
        width_upper += np.abs(power @ model.G) @ c.data.radius[0] + members.support(rows @ power @ E)
        width_lower += np.abs(power @ model.G) @ c.data.radius[0] + members.support(-rows @ power @ E)
        constraints += [x[t + 1] <= c.data.x_upper[t] - width_upper, x[t + 1] >= c.data.x_lower[t] + width_lower]
        constraints += [v[t] <= c.data.c_upper[t], v[t] >= c.data.c_lower[t]]
        Q = weights.P if t == N - 1 else weights.Q
        cost += cp.quad_form(x[t + 1] - c.data.x_ref, Q) + cp.quad_form(u - c.data.u_ref, weights.R)
    problem = cp.Problem(cp.Minimize(cost), constraints)
    problem.solve(solver=cp.CLARABEL)
    assert plan.v == pytest.approx(v.value, abs=1e-5)


def test_more_feedback_never_costs_more():
    plans = {}
    for form in ("fixed", "toeplitz", "full"):
        c = controller(form, 5, own=False) if form == "fixed" else controller(form, 5)
        if form == "fixed":
            c = controller("fixed", 5)
        load(c, target=(1.4, 1.0, -1.0, 0.5))
        c.data.x_upper[:], c.data.x_lower[:] = 0.5, -0.6
        plan = c.solve()
        cost = system(3)[1]
        centre = np.array([0.01, 0.0])  # of the own disturbance; fixed feedback keeps it in the tube instead
        x = plan.x.copy()
        if form == "fixed":
            for t in range(c.N):
                x[t + 1] += sum(
                    np.linalg.matrix_power(c.model.A, t - s) @ c.model.disturbances[0][0] @ centre for s in range(t + 1)
                )
        u = x[:-1] @ c.model.K.T + plan.v
        e, f = x[1:] - c.data.x_ref, u - c.data.u_ref
        stage = sum(row @ cost.Q @ row for row in e[:-1]) + e[-1] @ cost.P @ e[-1] + sum(r @ cost.R @ r for r in f)
        plans[form] = stage
    assert plans["full"] <= plans["toeplitz"] + 2e-2
    assert plans["toeplitz"] <= plans["fixed"] + 2e-2


def test_policy_with_memory_is_the_same_written_as_state_feedback():
    c = controller("full", 5)
    load(c)
    plan = c.solve()
    assert np.abs(plan.M).max() > 1e-4
    follower = PlanFollower(
        BackupPlan(
            7,
            plan.v + plan.x[:-1] @ c.model.K.T,
            plan.x,
            c.model.K,
            memory_as_state_feedback(plan.M, c.model.A, c.model.B),
            np.zeros(4),
            np.zeros(2),
            np.full(2, -50.0),
            np.full(2, 50.0),
        )
    )
    rng = np.random.default_rng(0)
    x, action = roll(c, plan, rng.uniform(-1, 1, (5, 2)), c.model.disturbances[0][1].sample(5, rng))
    for t in range(5):
        assert follower.input(7 + t, x[t]) == pytest.approx(c.model.K @ x[t] + action[t], abs=1e-8)
    assert follower.input(7 + 40, x[2]) == pytest.approx(c.model.K @ x[2])


def test_plan_refuses_steps_before_it_and_states_that_are_not_finite():
    plan = BackupPlan(
        3,
        np.zeros((2, 1)),
        np.zeros((3, 1)),
        np.ones((1, 1)),
        np.zeros((0, 0, 1, 1)),
        *(np.zeros(1),) * 2,
        -np.ones(1),
        np.ones(1),
    )
    with pytest.raises(ValueError, match="before the plan"):
        PlanFollower(plan).input(2, np.zeros(1))
    with pytest.raises(ValueError, match="not finite"):
        PlanFollower(plan).input(3, np.array([np.inf]))


def test_a_set_of_any_family_tightens_by_its_support_function():
    model, cost = system(3)
    ball = Ellipsoid(np.zeros(4), 0.02 * np.eye(4), 1.0)
    c = FixedFeedback(
        LocalModel(model.A, model.B, model.K, model.G, ((np.eye(4), ball),), *(model.input_lower, model.input_upper)),
        cost,
        4,
    )
    load(c)
    c.data.radius[:] = 0.0
    plan = c.solve()
    expected = sum(0.02 * np.linalg.norm(np.linalg.matrix_power(model.A, t), axis=1) for t in range(4))
    assert plan.tube_upper[-1] == pytest.approx(expected)


@pytest.mark.parametrize("form", ["fixed", "toeplitz"])
def test_infeasible_is_said_and_only_the_backup_controller_softens(form):
    c = controller(form, 5)
    load(c)
    c.data.x_upper[:], c.data.x_lower[:] = 1e-3, -1e-3
    with pytest.raises(InfeasibleError):
        c.solve()
    if form == "fixed":
        plan = SoftBackup(c).solve()
        u = plan.x[:-1] @ c.model.K.T + plan.v
        assert np.all(np.abs(u) <= 1 + 1e-6)


def test_invariant_boxes_are_invariant_and_enlarging_keeps_it():
    rng = np.random.default_rng(1)
    A = 0.7 * np.eye(4) + 0.03 * rng.normal(size=(4, 4))
    B = 0.2 * rng.normal(size=(4, 2))
    w, gamma = np.full(4, 0.01), np.full(2, 0.02)
    blocks = ([slice(0, 2), slice(2, 4)], [slice(0, 1), slice(1, 2)])
    rows = np.vstack([np.eye(4), -np.eye(4)])
    for room in (1.0, 1.4):
        boxes = invariant_boxes(A, B, w, np.ones(2), gamma, *blocks, rows, np.ones(8), room)
        assert np.all(one_step_growth(A, B, boxes, w, gamma) <= 1 + 1e-7)
        assert np.all(boxes.K[0, 2:] == 0) and np.all(boxes.K[1, :2] == 0)
    with pytest.raises(InfeasibleError, match="coordinates"):
        invariant_boxes(A, B, 50 * w, np.ones(2), gamma, *blocks, rows, np.ones(8))
