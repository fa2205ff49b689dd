"""The modelling interface: the compiled data equal the readable model, policies hold on vertices, errors are named."""

import cvxpy as cp
import numpy as np
import pytest
from test_sets_basic import SETS

from rmpc_ros.errors import ConfigError, IllScaledError, InfeasibleError, SetError, UnboundedError
from rmpc_ros.robust.horizon import LinearHorizon
from rmpc_ros.robust.policy import FORMS, AffinePolicy, structure
from rmpc_ros.robust.readable import readable
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.budget import Budget
from rmpc_ros.sets.combine import Product
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.sets.lifting import Saturation


def random_program(uncertain, seed, cost="worst", form="full"):
    """Two steps of a random system whose disturbance stacks two members of a set; bounds that act."""
    rng = np.random.default_rng(seed)
    nx, nu, N = 2, 2, 2
    A = rng.normal(size=(nx, nx))
    A *= 1.1 / np.max(np.abs(np.linalg.eigvals(A)))
    system = LinearHorizon(A, rng.normal(size=(nx, nu)), 0.1 * np.eye(nx), N)
    p = UncertainProgram()
    noise = p.members("noise", Product([uncertain] * N))
    w = p.uncertain("w", noise, covariance=0.1 * np.eye(2 * N))
    x0 = p.parameter("x0", nx)
    u = p.decide("u", structure(form, N, nu, nx), w)
    X = system.states(x0, u, w)
    p.forall(X <= 2.0, "upper")
    p.forall(-1.0 * X <= 2.0, "lower")
    p.forall(u <= 3.0, "input")
    p.forall(u >= -3.0, "input")
    costs = {
        "worst": lambda: p.worst(rng.normal(size=(1, X.rows)) @ X) + 0.1 * p.worst_one_norm(u),
        "inf": lambda: p.worst_inf_norm(X) + 0.1 * p.nominal_one_norm(u),
        "nominal_inf": lambda: p.nominal_inf_norm(X) + 0.1 * p.nominal_one_norm(u),
        "nominal": lambda: p.nominal_squares(X) + 0.1 * p.nominal_squares(u),
        "expected": lambda: p.expected_squares(X) + 0.1 * p.expected_squares(u),
        "squares": lambda: p.worst_squares(X, 2.0) + p.expected_squares(u),
    }
    p.minimise(costs[cost]())
    return p


def reference(p, sets, parameters):
    problem, _ = readable(p, sets, parameters)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    assert problem.status == cp.OPTIMAL
    return problem.value


def random_rows(uncertain, seed):
    """Two adaptive decisions, random rows on them, a worst-case and an expected cost, one parameter."""
    rng = np.random.default_rng(seed)
    p = UncertainProgram()
    w = p.uncertain("w", p.members("noise", uncertain), covariance=0.1 * np.eye(2))
    known = p.parameter("known", 1)
    u = p.decide("u", np.arange(4).reshape(2, 2), w)
    room = 4.0 + 2.0 * uncertain.size()
    p.forall(rng.normal(size=(2, 2)) @ u + rng.normal(size=(2, 2)) @ w <= room + rng.normal(size=(2, 1)) @ known)
    p.forall(-1.0 * u <= room)
    p.minimise(p.worst(rng.uniform(0.5, 1, (1, 2)) @ u + rng.normal(size=(1, 2)) @ w) + 0.2 * p.expected_squares(u))
    return p


@pytest.mark.parametrize("name", SETS)
def test_compiled_program_equals_the_readable_model_for_every_family(name):
    known = np.array([0.3])
    for seed in (0, 1):
        p = random_rows(SETS[name], seed)
        solution = p.compile(1e-8 if name in ("i", "g") else 1e-9).solve(known=known)
        assert solution.objective == pytest.approx(reference(p, {}, {"known": known}), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("name", ["box", "ellipsoid", "budget", "polytope", "zonotope", "cs", "chi2"])
def test_new_set_data_and_states_give_the_same_as_compiling_again(name):
    small = SETS[name].scaled(0.5)
    if small.family != SETS[name].family:
        small = SETS[name]
    p = random_program(SETS[name], 3, "inf")
    compiled = p.compile(1e-9)
    compiled.solve(x0=[0.1, 0.2])
    warm = compiled.solve(noise=Product([small] * 2), x0=[0.3, -0.3])
    cold = random_program(small, 3, "inf").compile(1e-9).solve(x0=[0.3, -0.3])
    assert warm.objective == pytest.approx(cold.objective, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(("solver", "cost"), [("highs", "inf"), ("piqp", "nominal"), ("clarabel", "nominal")])
def test_a_refused_call_does_not_leave_the_solver_with_half_of_the_new_set(solver, cost):
    first, second = Box([-1, -1], [1, 1]), Box([-0.5, -0.4], [0.5, 0.4])
    kept = random_program(first, 3, cost).compile(1e-9, solver)
    kept.solve(x0=[0.1, 0.2])
    with pytest.raises(ConfigError, match="'x0'"):
        kept.solve(noise=Product([second] * 2), x0=[np.nan, 0.0])
    fresh = random_program(second, 3, cost).compile(1e-9, solver)
    assert kept.solve(x0=[0.1, 0.2]).objective == pytest.approx(fresh.solve(x0=[0.1, 0.2]).objective, abs=1e-6)


@pytest.mark.parametrize("cost", ["worst", "inf", "nominal_inf", "nominal", "expected", "squares"])
def test_solvers_agree_where_more_than_one_fits(cost):
    x0 = np.array([0.3, -0.2])
    found = {}
    for solver in ("clarabel", "piqp", "highs"):
        p = random_program(Box([-1, -1], [1, 2]), 5, cost)
        try:
            found[solver] = p.compile(1e-9, solver).solve(x0=x0).objective
        except ConfigError:
            assert solver == "highs" and cost not in ("worst", "inf", "nominal_inf")
    assert len(found) >= 2
    assert max(found.values()) - min(found.values()) < 1e-6


def test_affine_policy_equals_vertex_enumeration_of_the_same_problem():
    """The robust program over a polytope against one copy of all constraints per vertex."""
    base = Budget([0, 0.1], [1, 0.5], 1.2)
    p = random_program(base, 7, "inf")
    value = p.compile(1e-9).solve(x0=[0.4, 0.1]).objective
    corners = Product([base] * 2).vertices()
    q = random_program(base, 7, "inf")
    x = cp.Variable(q.size)
    rows = []
    for c in q.constraints:
        for corner in corners:
            e = c.expression.at(np.concatenate([[1.0], corner]))
            F, number = np.zeros((e.rows, q.size)), np.zeros(e.rows)
            np.add.at(F, (e.row[e.sym >= 0], e.sym[e.sym >= 0]), e.val[e.sym >= 0])
            fixed = e.sym < 0
            values = np.array([np.nan, 1.0, 0.4, 0.1])  # symbols -1 (number), -2, -3 (state)
            np.add.at(number, e.row[fixed], e.val[fixed] * values[-e.sym[fixed]])
            rows.append(F @ x + number <= 0)
    lower = np.concatenate(q.lower)
    rows.append(x[np.isfinite(lower)] >= lower[np.isfinite(lower)])
    objective = q.objective.linear
    weight = np.zeros(q.size)
    np.add.at(weight, objective.sym, objective.val)
    problem = cp.Problem(cp.Minimize(weight @ x), rows)
    problem.solve(solver=cp.CLARABEL)
    assert value == pytest.approx(problem.value, abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_policy_simulated_on_vertices_never_violates(form):
    rng = np.random.default_rng(0)
    A, B, E = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.005], [0.1]]), np.array([[0.0], [0.05]])
    N, x0 = 4, np.array([3.0, 0.0])
    noise = Box(-np.ones(N), np.ones(N))
    p = UncertainProgram()
    w = p.uncertain("w", p.members("noise", noise))
    start = p.parameter("x0", 2)
    u = p.decide("u", structure(form, N, 1, 1), w)
    X = LinearHorizon(A, B, E, N).states(start, u, w)
    p.forall(X[1::2] <= 0.22, "speed")
    p.forall(X[1::2] >= -0.22, "speed")
    p.forall(u <= 1.5, "force")
    p.forall(u >= -1.5, "force")
    p.minimise(p.nominal_squares(X) + 0.01 * p.nominal_squares(u))
    policy = p.compile().solve(x0=x0).policy("u")
    again = AffinePolicy.from_json(policy.to_json())
    reached = 0.0
    for corner in np.vstack([noise.vertices(), rng.uniform(-1, 1, (20, N))]):
        x, inputs = x0, again(corner)
        assert np.array_equal(inputs, policy(corner))
        for t in range(N):
            x = A @ x + B @ inputs[[t]] + E @ corner[[t]]
            assert abs(x[1]) <= 0.22 + 1e-7 and abs(inputs[t]) <= 1.5 + 1e-7
            reached = max(reached, abs(x[1]))
    assert reached == pytest.approx(0.22, abs=1e-5)
    for t in range(N):
        assert not policy.gain[t, t:].any()


def test_richer_policies_never_cost_more():
    values = [random_program(Box([-1, -1], [1, 1]), 11, "inf", form).compile().solve(x0=[0.3, 0.3]) for form in FORMS]
    objective = dict(zip(FORMS, (v.objective for v in values), strict=True))
    assert objective["full"] <= objective["toeplitz"] + 1e-7 <= objective["static"] + 2e-7
    assert objective["full"] <= objective["memory"] + 1e-7 <= objective["static"] + 2e-7
    assert objective["full"] < objective["static"] - 1e-3


def test_fixed_feedback_compiles_to_a_problem_of_nominal_size():
    A, B, E = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.005], [0.1]]), 0.02 * np.eye(2)
    N, K = 5, np.array([[-3.0, -3.0]])
    p = UncertainProgram()
    noise = p.members("noise", Ellipsoid(np.zeros(2 * N), np.eye(2 * N), 1.0))
    w, x0 = p.uncertain("w", noise), p.parameter("x0", 2)
    c = p.decide("c", N)
    horizon = LinearHorizon(A, B, E, N, K)
    X = horizon.states(x0, c, w)
    U = horizon.inputs(x0, X, c)
    p.forall(X <= 1.0)
    p.forall(U <= 2.0)
    p.forall(U >= -2.0)
    p.minimise(p.nominal_squares(X) + 0.1 * p.nominal_squares(U))
    compiled = p.compile()
    assert compiled.sizes["variables"] == N
    assert compiled.data.cones == []
    solution = compiled.solve(x0=[0.9, 0.0])
    for other, room in (
        (Ellipsoid(np.zeros(2 * N), 0.5 * np.eye(2 * N), 1.0), 1.0 - 0.01),
        (Box(np.full(2 * N, -0.9), np.full(2 * N, 0.9)), 1.0 - 0.018),  # only numbers: any family will do
    ):
        compiled.update(noise=other, x0=[0.0, 0.0])
        assert compiled.data.rhs[:2] == pytest.approx([room, room], abs=1e-12)  # x(1) sees E w(0) alone
    rng = np.random.default_rng(3)
    for sample in noise.initial.sample(50, rng, "boundary"):
        x = np.array([0.9, 0.0])
        for t in range(N):
            u = K @ x + solution.policy("c").offset[[t]]
            assert abs(u[0]) <= 2.0 + 1e-6
            x = A @ x + B @ u + E @ sample[2 * t : 2 * t + 2]
            assert np.all(x <= 1.0 + 1e-6)


def two_sets(first, second):
    """Two decisions without reaction, two disturbances of their own sets, two parameters, one only in the cost."""
    p = UncertainProgram()
    v, w = (p.uncertain(n, p.members(f"set {n}", members)) for n, members in (("v", first), ("w", second)))
    x0, price = p.parameter("x0", 2), p.parameter("price", 2)
    u = p.decide("u", 2, lower=-9.0, upper=9.0)
    p.forall(u <= 8.0, "no set here")
    p.forall(np.array([[1.0, -2.0], [0.5, 1.0], [-1.0, 0.0]]) @ v + np.ones((3, 2)) @ x0 <= np.ones((3, 1)) @ u[0:1])
    p.forall(np.array([[2.0, 1.0]]) @ v - np.array([[1.0, 3.0]]) @ w <= u[1:2])
    p.minimise(p.economic(u) + p.nominal_squares(price - u))
    return p.compile()


def test_sets_that_enter_as_numbers_change_their_family_and_back():
    box, aside = Box([-1, -1], [1, 1]), Box([-0.2, 0.1], [0.7, 0.4])
    ball = Ellipsoid([0.1, 0.0], [[0.3, 0.0], [0.1, 0.2]], 1.0)
    kept = two_sets(box, box)
    for k, (first, second) in enumerate([(aside, box), (aside, ball), (ball, aside), (box, ball), (aside, aside)]):
        given = {"x0": [0.1 * k, -0.2], "price": [0.3, 0.1 * k]}
        warm = kept.solve(**{"set v": first, "set w": second}, **given)
        cold = two_sets(first, second).solve(**given)
        assert warm.objective == pytest.approx(cold.objective, rel=1e-7, abs=1e-7)
        steps = np.array([[1.0, -2.0], [0.5, 1.0], [-1.0, 0.0]])
        assert warm.values[0] >= np.max(first.support(steps)) + sum(given["x0"]) - 1e-6
        need = first.support([2.0, 1.0]) + second.support([-1.0, -3.0])
        assert warm.values[1] >= need - 1e-6
    with pytest.raises(ConfigError, match="'price' takes 2"):
        kept.solve(price=[np.inf, 0.0])


@pytest.mark.parametrize("kind", ["tanh", "clip"])
def test_saturated_policy_keeps_hard_limits_under_unbounded_noise(kind):
    rng = np.random.default_rng(4)
    N, phi = 3, Saturation(kind, 0.5)
    p = UncertainProgram()
    lifted = phi.lift(0.2 * rng.standard_normal((200, N)))
    learnt = p.members("learnt", Box(lifted.min(axis=0), lifted.max(axis=0)))
    hard = p.members("hard", Box(np.full(2 * N, -phi.limit), np.full(2 * N, phi.limit)))
    both = p.uncertain("lifted", learnt, np.zeros(2 * N), np.cov(lifted.T))
    w, seen = both[:N], both[N:]
    u = p.decide("u", structure("full", N, 1, 1), seen)
    X = LinearHorizon(np.eye(1), np.eye(1), np.eye(1), N).states(p.parameter("x0", 1), u, w)
    p.forall(X <= 2.0)
    p.forall(u <= 0.6, "hard input", over=hard)
    p.forall(u >= -0.6, "hard input", over=hard)
    p.minimise(p.expected_squares(X) + 0.01 * p.expected_squares(u))
    policy = p.compile().solve(x0=[1.0]).policy("u", phi)
    wild = 10 * rng.standard_cauchy((500, N))
    assert np.abs(policy(wild)).max() <= 0.6 + 1e-7
    assert np.abs(policy.gain).max() > 0.05
    assert np.array_equal(AffinePolicy.from_json(policy.to_json())(wild), policy(wild))


def test_expected_cost_is_the_mean_of_the_realised_cost():
    p = random_program(Ellipsoid([0, 0], np.eye(2), 1.0), 2, "expected")
    solution = p.compile().solve(x0=[0.2, 0.1])
    policy = solution.policy("u")
    rng = np.random.default_rng(0)
    rng_system = np.random.default_rng(2)
    A = rng_system.normal(size=(2, 2))
    A *= 1.1 / np.max(np.abs(np.linalg.eigvals(A)))
    B = rng_system.normal(size=(2, 2))
    w = np.sqrt(0.1) * rng.standard_normal((200000, 4))
    u = policy(w)
    x = np.array([0.2, 0.1])
    x1 = x @ A.T + u[:, :2] @ B.T + 0.1 * w[:, :2]
    x2 = x1 @ A.T + u[:, 2:] @ B.T + 0.1 * w[:, 2:]
    realised = np.mean(np.sum(x1**2 + x2**2, axis=1) + 0.1 * np.sum(u**2, axis=1))
    assert solution.objective == pytest.approx(realised, rel=5e-3)


def one_state():
    p = UncertainProgram()
    w = p.uncertain("w", p.members("noise", Box([-1.0], [1.0])))
    return p, w, p.decide("u", 1)


def test_infeasible_names_the_constraints_in_conflict():
    for solver in ("highs", "clarabel", "piqp"):
        p, w, u = one_state()
        p.forall(u + w <= 0.5, "too narrow above")
        p.forall(u + w >= -0.5, "too narrow below")
        p.forall(u <= 100.0, "harmless")
        p.minimise(p.economic(u))
        with pytest.raises(InfeasibleError, match="too narrow above") as caught:
            p.compile(solver=solver).solve()
        assert set(caught.value.details["constraints"]) == {"too narrow above", "too narrow below"}


def test_unbounded_and_ill_scaled_have_their_own_names():
    p, w, u = one_state()
    p.forall(u + w <= 0.5)
    p.minimise(p.economic(u))
    with pytest.raises(UnboundedError):
        p.compile().solve()
    p, w, u = one_state()
    p.forall(1e14 * u + w <= 0.5, "in nanometres")
    p.forall(u >= -1.0)
    with pytest.raises(IllScaledError, match="in nanometres"):
        p.compile()


def test_wrong_data_is_refused_by_name():
    p, w, u = one_state()
    x0 = p.parameter("x0", 2)
    adaptive = p.decide("v", np.array([[0]]), w)
    p.forall(u + adaptive + w + x0[0:1] >= 0.0)
    p.minimise(p.worst(u + adaptive))
    compiled = p.compile()
    with pytest.raises(SetError, match="'noise'"):
        compiled.update(noise=Ellipsoid([0.0], [[1.0]], 1.0))
    with pytest.raises(ConfigError, match="'x0' takes 2"):
        compiled.solve(x0=[1.0])
    with pytest.raises(ConfigError, match="known: noise, x0"):
        compiled.solve(y0=[1.0])
    with pytest.raises(ConfigError, match="not a policy"):
        AffinePolicy.from_json('{"offset": [1]}')
