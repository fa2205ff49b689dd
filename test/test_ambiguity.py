"""Expected worst case over subsets: limits, forms, oracles; Wasserstein limits."""

from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest
from test_ccg import UNIONS, extensive, random_problem

from rmpc_ros.errors import DataError, InfeasibleError, SetError
from rmpc_ros.robust.ambiguity import ExpectedWorstCase
from rmpc_ros.robust.ccg import ColumnConstraintGeneration
from rmpc_ros.robust.kl import divergence, sample_ball, worst_expectation, worst_probabilities
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.wasserstein import WassersteinProgram

UNION = UNIONS["two boxes"]
P0 = np.array([0.7, 0.3])


@pytest.mark.parametrize("rho", [1e-6, 0.01, 0.1, 0.5])
def test_worst_probabilities_equal_the_conic_optimum(rho):
    rng = np.random.default_rng(1)
    z, p0 = rng.normal(size=4) * 10, rng.dirichlet(np.ones(4))
    p = cp.Variable(4)
    problem = cp.Problem(cp.Maximize(z @ p), [cp.sum(p) == 1, cp.sum(cp.rel_entr(p, p0)) <= rho])
    expected = problem.solve(solver=cp.CLARABEL)
    mine = worst_probabilities(z, p0, rho)
    assert divergence(mine, p0) <= rho + 1e-12
    assert z @ mine == pytest.approx(expected, abs=1e-5)


def test_kl_ball_limits():
    z, p0 = np.array([1.0, 5.0, 3.0, 5.0]), np.array([0.4, 0.1, 0.4, 0.1])
    assert worst_expectation(z, p0, 0.0) == pytest.approx(p0 @ z)
    assert worst_expectation(z, p0, 100.0) == 5.0
    assert worst_expectation(z, p0, -np.log(0.2)) == 5.0
    assert worst_expectation(z, p0, -np.log(0.2) - 0.01) < 5.0
    assert worst_expectation([2.0, 9.0], [1.0, 0.0], 50.0) == 2.0  # no mass, no scenario
    assert worst_expectation(z + 1e9, p0, 0.1) - 1e9 == pytest.approx(worst_expectation(z, p0, 0.1), abs=1e-5)


def test_sampled_vectors_lie_in_the_ball():
    p0 = np.array([0.4, 0.3, 0.2, 0.1])
    for rho in (0.0, 0.05, 3.0):
        members = sample_ball(p0, rho, 500, np.random.default_rng(0))
        assert np.allclose(members.sum(axis=1), 1.0) and np.all(members >= -1e-15)
        assert max(divergence(p, p0) for p in members) <= rho + 1e-9
    assert np.max(sample_ball(p0, 3.0, 2000, np.random.default_rng(0))[:, 3]) > 0.7


@pytest.mark.parametrize("bad", [([0.5, 0.6], 0.1), ([1.2, -0.2], 0.1), ([0.5, 0.5], -1.0), ([0.5, 0.5], np.nan)])
def test_wrong_balls_are_refused(bad):
    with pytest.raises(DataError, match="KL ball"):
        worst_probabilities([1.0, 2.0], *bad)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("integer", [(), (0, 1)])
def test_zero_radius_is_the_expectation_of_the_vertex_oracle(complete, integer):
    problem = random_problem(np.random.default_rng(2), complete, integer=integer)
    groups = [p.vertices() for p in UNION.polytopes]
    try:
        expected = extensive(problem, groups, P0)
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            ExpectedWorstCase(problem, UNION, P0, 0.0).solve()
        return
    assert ExpectedWorstCase(problem, UNION, P0, 0.0).solve().objective == pytest.approx(expected, rel=3e-6)


@pytest.mark.parametrize("integer", [(), (0, 1)])
def test_both_forms_and_both_inner_solvers_agree(integer):
    problem = random_problem(np.random.default_rng(3), True, integer=integer)
    values = [
        ExpectedWorstCase(problem, UNION, P0, 0.1, form, inner).solve().objective
        for form in ("fixed", "plain")
        for inner in ("cuts", "conic")
    ]
    assert np.ptp(values) <= 3e-6 * abs(values[0])


def test_kl_value_is_the_minimum_of_the_convex_program_over_all_vertices():
    problem = random_problem(np.random.default_rng(4), True)
    x, z = cp.Variable(2), cp.Variable(2)
    t, scale, s = cp.Variable(), cp.Variable(nonneg=True), cp.Variable(2)
    constraints = [x >= problem.lower, x <= problem.upper, P0 @ s <= scale]
    for k, polytope in enumerate(UNION.polytopes):
        constraints.append(cp.ExpCone(z[k] - t, scale, s[k]))
        for v in polytope.vertices():
            y = cp.Variable(3, nonneg=True)
            constraints += [problem.T @ x + problem.W @ y <= problem.h - problem.M @ v, z[k] >= problem.b @ y]
    expected = cp.Problem(cp.Minimize(problem.c @ x + t + 0.2 * scale), constraints).solve(solver=cp.CLARABEL)
    found = ExpectedWorstCase(problem, UNION, P0, 0.2, inner="conic").solve()
    assert found.objective == pytest.approx(expected, rel=1e-5)
    assert found.extra["cones"] == 2


def test_objective_grows_with_the_radius_up_to_the_robust_one():
    problem = random_problem(np.random.default_rng(5), True)
    values = [ExpectedWorstCase(problem, UNION, P0, rho).solve().objective for rho in (0.0, 0.05, 0.2, 0.8, 20.0)]
    assert all(b >= a - 1e-5 for a, b in pairwise(values))
    assert values[-1] == pytest.approx(ColumnConstraintGeneration(problem, UNION).solve().objective, rel=3e-6)


def test_number_of_cones_is_fixed_in_one_form_and_grows_in_the_other():
    problem = random_problem(np.random.default_rng(6), False)
    fixed = ExpectedWorstCase(problem, UNION, P0, 0.1).solve()
    plain = ExpectedWorstCase(problem, UNION, P0, 0.1, "plain").solve()
    assert fixed.extra["cones"] == 2
    assert plain.extra["cones"] >= 2 and plain.extra["cones"] % 2 == 0


@pytest.mark.parametrize("complete", [True, False])
def test_wasserstein_limits_are_the_sample_average_and_the_worst_case(complete):
    problem = random_problem(np.random.default_rng(1), complete)
    samples = UNION.sample(4, np.random.default_rng(0))
    small = WassersteinProgram(problem, UNION, samples, 1e-9).solve()
    large = WassersteinProgram(problem, UNION, samples, 1e3).solve()
    if complete:
        average = extensive(problem, [[v] for v in samples], np.full(4, 0.25))
        assert small.objective == pytest.approx(average, rel=3e-5)
    robust = ColumnConstraintGeneration(problem, UNION).solve().objective
    assert large.objective == pytest.approx(robust, rel=3e-5)
    assert small.objective <= large.objective + 1e-6


def test_wasserstein_worst_case_equals_a_fine_grid_in_one_dimension():
    problem = random_problem(np.random.default_rng(9), True, q=1)
    union = PolytopeUnion.boxes([([-1.0], [0.0]), ([0.4], [1.0])])
    sample, price = np.array([[0.5]]), 0.7
    program = WassersteinProgram(problem, union, sample, 0.3)
    x = np.array([0.3, 0.2])
    found = program.search.worst(x, None, True, sample[0], price)
    grid = np.concatenate([np.linspace(-1, 0, 401), np.linspace(0.4, 1, 241)])
    oracle = max(program.search.recourse(x, np.array([v])).cost - price * abs(v - 0.5) for v in grid)
    assert found.cost == pytest.approx(oracle, abs=1e-6)


def test_wasserstein_refuses_samples_outside_and_wrong_radii():
    problem = random_problem(np.random.default_rng(1), True)
    with pytest.raises(SetError, match="outside"):
        WassersteinProgram(problem, UNION, np.array([[9.0, 9.0]]), 0.1)
    with pytest.raises(DataError, match="radius"):
        WassersteinProgram(problem, UNION, UNION.sample(2, np.random.default_rng(0)), -0.1)
    with pytest.raises(SetError, match="boxes"):
        WassersteinProgram(problem, UNIONS["polytopes"], np.array([[0.1, 0.1]]), 0.1).solve()
