"""Worst cases by optimality conditions: equal to the dual form; integer recourse against brute force."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from test_ccg import UNIONS, extensive, random_problem

from rmpc_ros.errors import DataError, InfeasibleError
from rmpc_ros.robust.ccg import ColumnConstraintGeneration
from rmpc_ros.robust.kkt import KktSearch
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.schemes import solve_two_stage
from rmpc_ros.robust.two_stage import TwoStageProblem


@pytest.mark.parametrize("name", UNIONS)
@pytest.mark.parametrize("complete", [True, False])
def test_optimality_conditions_equal_full_vertex_enumeration(name, complete):
    union = UNIONS[name]
    problem = random_problem(np.random.default_rng(1), complete)
    try:
        expected = extensive(problem, union.vertices())
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            ColumnConstraintGeneration(problem, union, subproblem="kkt").solve()
        return
    result = ColumnConstraintGeneration(problem, union, subproblem="kkt").solve()
    assert result.objective == pytest.approx(expected, rel=4e-6)
    assert result.gap <= 4e-6


def integer_recourse(rng):
    """One machine hour costs 1, extra shifts of 1.5 hours cost 2 (integer, at most two), overtime 3."""
    return TwoStageProblem(
        c=[1.0], b=[2.0, 3.0], T=[[-1.0], [0.0]], W=[[-1.5, -1.0], [1.0, 0.4]],
        M=[[1.0, 0.3], [0.0, 0.5]], h=[-rng.uniform(0.5, 1.0), 3.0], lower=0.0, upper=10.0,
        recourse_lower=0.0, recourse_upper=[2.0, 6.0], recourse_integer=[0],
    )  # fmt: skip


def brute_force(problem, x, v):
    """Q(x, v) of `integer_recourse` by trying every number of shifts."""
    costs = []
    for shifts in (0, 1, 2):
        overtime = max(0.0, v[0] + 0.3 * v[1] - x - 1.5 * shifts - problem.h[0])
        if overtime <= 6.0 and shifts + 0.4 * overtime + 0.5 * v[1] <= 3.0:
            costs.append(2.0 * shifts + 3.0 * overtime)
    return min(costs, default=np.inf)


@pytest.mark.parametrize("seed", range(2))
def test_integer_recourse_equals_brute_force_over_a_grid(seed):
    problem = integer_recourse(np.random.default_rng(seed))
    union = PolytopeUnion.boxes([([0.0, 0.0], [1.0, 1.0]), ([1.8, 0.0], [2.2, 0.5])])
    search = KktSearch(problem, union)
    grid = np.array(
        [*product(np.linspace(0, 1, 41), np.linspace(0, 1, 5)), *product(np.linspace(1.8, 2.2, 41), [0.0, 0.25, 0.5])]
    )
    for first in (0.0, 1.6):
        x = np.array([first])
        costs = [brute_force(problem, first, v) for v in grid]
        assert costs[7] == pytest.approx(search.recourse(x, grid[7]).cost, abs=1e-6)
        found = search.worst(x)
        assert found.cost >= max(costs) - 1e-5  # at least as bad as every grid point
        again = search.recourse(x, found.v).cost  # HiGHS lets rows be violated by 1e-6, another way from another start
        assert found.cost == pytest.approx(again, abs=5e-6)
        assert found.cost <= max(costs) + 0.1  # and a grid point lies close
        assert union.contains(found.v)


def test_nested_scheme_finds_the_best_first_stage():
    problem = integer_recourse(np.random.default_rng(0))
    union = PolytopeUnion.boxes([([0.0, 0.0], [1.0, 1.0]), ([1.8, 0.0], [2.2, 0.5])])
    result = solve_two_stage(problem, union, gap=1e-5)
    search = KktSearch(problem, union)
    scan = [x + search.worst(np.array([x])).cost for x in np.linspace(0, 3, 7)]
    assert result.objective <= min(scan) + 1e-4
    assert result.objective == pytest.approx(result.x[0] + search.worst(result.x).cost, rel=1e-4)
    assert result.lower_bound <= result.objective + 1e-9
    relaxed = ColumnConstraintGeneration(replace(problem, recourse_integer=()), union).solve()
    assert relaxed.objective <= result.objective + 1e-5


def test_worst_case_of_integer_recourse_may_lie_inside():
    """Recourse pays the distance of v in [0, 2] to the nearer of 0 and 2: no vertex is the worst, 1 is."""
    problem = TwoStageProblem(  # y0 in {0, 1} picks the end; y1 >= v - 2 y0, y2 >= 2 y0 - v
        c=[0.0], b=[0.0, 1.0, 1.0], T=[[0.0], [0.0]], W=[[-2.0, -1.0, 0.0], [2.0, 0.0, -1.0]],
        M=[[1.0], [-1.0]], h=[0.0, 0.0], lower=0.0, upper=0.0,
        recourse_lower=0.0, recourse_upper=[1.0, 5.0, 5.0], recourse_integer=[0],
    )  # fmt: skip
    result = ColumnConstraintGeneration(problem, PolytopeUnion.boxes([([0.0], [2.0])])).solve()
    assert result.worst[0] == pytest.approx(1.0, abs=1e-5)
    assert result.objective == pytest.approx(1.0, abs=1e-5)


def test_unbounded_integer_free_recourse_is_named():
    problem = TwoStageProblem(
        c=[1.0], b=[0.0], T=[[-1.0]], W=[[-1.0]], M=[[1.0]], h=[0.0], lower=0.0, recourse_lower=0.0
    )
    with pytest.raises(DataError, match="upper bound"):
        ColumnConstraintGeneration(problem, PolytopeUnion.boxes([([0.0], [1.0])]), subproblem="kkt").solve()
    with pytest.raises(DataError, match="continuous"):
        ColumnConstraintGeneration(
            integer_recourse(np.random.default_rng(0)),
            PolytopeUnion.boxes([([0.0, 0.0], [1.0, 1.0])]),
            subproblem="dual",
        )
