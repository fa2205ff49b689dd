"""Column-and-constraint generation against full vertex enumeration, and its named errors."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from rmpc_ros.errors import DataError, InfeasibleError, NumericalError, SetError, UnboundedError
from rmpc_ros.robust.ccg import ColumnConstraintGeneration
from rmpc_ros.robust.polytope_union import Polytope, PolytopeUnion
from rmpc_ros.robust.schemes import solve_two_stage
from rmpc_ros.robust.subproblem import DualSubproblem, dual_bounds
from rmpc_ros.robust.two_stage import TwoStageProblem
from rmpc_ros.robust.worst_case import WorstCaseSearch, has_complete_recourse
from rmpc_ros.solvers.lp import solve_lp

TRIANGLE = Polytope(np.array([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]]), np.array([0.0, 0.0, 1.0]))


def random_problem(rng, complete, n=2, p=3, q=2, m=4, integer=()):
    """min c'x + ... with covering rows W y >= d + M v - T x; without `complete` y is capped, so that v may kill it."""
    W = rng.uniform(0.1, 2.0, (m, p)) * (rng.uniform(size=(m, p)) < 0.7)
    W[np.arange(m), rng.integers(0, p, m)] += 0.5
    return TwoStageProblem(
        c=rng.uniform(1.0, 3.0, n),
        b=rng.uniform(0.5, 6.0, p),
        T=-rng.uniform(0.2, 1.0, (m, n)),
        W=-W,
        M=rng.normal(size=(m, q)),
        h=-rng.uniform(0.5, 3.0, m),
        lower=0.0,
        upper=10.0,
        integer=integer,
        recourse_lower=0.0,
        recourse_upper=np.inf if complete else rng.uniform(0.5, 1.5, p),
    )


def extensive(problem, points, weights=None):
    """Oracle: one program with a recourse copy per vertex; worst case over all, or weighted sum of group maxima."""
    p = problem
    n, k = p.c.size, p.b.size
    groups = [points] if weights is None else points
    weights = [1.0] if weights is None else weights
    count = sum(len(g) for g in groups)
    width = n + len(groups) + k * count
    rows, low, high = [], [], []
    column = n + len(groups)
    for g, members in enumerate(groups):
        for v in members:
            block = np.zeros((p.h.size + 1, width))
            block[:-1, :n] = p.T
            block[:-1, column : column + k] = p.W
            block[-1, column : column + k] = p.b
            block[-1, n + g] = -1.0
            bounds = p.row_bounds(p.h - p.M @ v)
            rows.append(block)
            low.append(np.append(bounds[0], -np.inf))
            high.append(np.append(bounds[1], 0.0))
            column += k
    first = np.zeros((p.a.size, width))
    first[:, :n] = p.A
    free = np.full(len(groups), np.inf)
    return solve_lp(
        np.concatenate([p.c, weights, np.zeros(k * count)]),
        sparse.csr_array(np.vstack([first, *rows])),
        np.concatenate([np.full(p.a.size, -np.inf), *low]),
        np.concatenate([p.a, *high]),
        np.concatenate([p.lower, -free, np.tile(p.recourse_lower, count)]),
        np.concatenate([p.upper, free, np.tile(p.recourse_upper, count)]),
        p.integer or None,
    ).objective


UNIONS = {
    "one box": PolytopeUnion.boxes([([-1.0, 0.0], [0.5, 1.0])]),
    "two boxes": PolytopeUnion.boxes([([-1.0, 0.0], [0.0, 1.0]), ([0.2, -0.5], [1.0, 0.1])]),
    "polytopes": PolytopeUnion((TRIANGLE, Polytope.box([-1.0, -1.0], [-0.5, 0.2]))),
    "steps": PolytopeUnion.boxes([([-1.0], [0.0]), ([0.3], [0.8])], steps=2),
}


@pytest.mark.parametrize("name", UNIONS)
@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_ccg_equals_full_vertex_enumeration(name, complete, seed):
    union = UNIONS[name]
    problem = random_problem(np.random.default_rng(seed), complete)
    assert has_complete_recourse(problem) is complete
    try:
        expected = extensive(problem, union.vertices())
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            ColumnConstraintGeneration(problem, union).solve()
        return
    result = ColumnConstraintGeneration(problem, union).solve()
    assert result.objective == pytest.approx(expected, rel=2e-6)
    assert result.lower_bound <= expected * (1 + 1e-6)
    assert result.gap <= 3e-6
    assert union.contains(result.worst)


@pytest.mark.parametrize("seed", range(3))
def test_ccg_with_integer_first_stage_equals_enumeration(seed):
    union = UNIONS["two boxes"]
    problem = random_problem(np.random.default_rng(seed + 10), True, integer=[0, 1])
    result = ColumnConstraintGeneration(problem, union).solve()
    assert result.objective == pytest.approx(extensive(problem, union.vertices()), rel=2e-6)
    assert np.allclose(result.x, np.round(result.x), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e8])
@pytest.mark.parametrize("complete", [True, False])
def test_units_of_costs_and_rows_change_nothing(scale, complete):
    union = UNIONS["two boxes"]
    problem = random_problem(np.random.default_rng(1 if complete else 0), complete)
    base = ColumnConstraintGeneration(problem, union).solve().objective
    dear = replace(problem, c=problem.c * scale, b=problem.b * scale)
    assert ColumnConstraintGeneration(dear, union).solve().objective == pytest.approx(base * scale, rel=1e-5)
    by = np.array([scale, 1.0, 1.0 / scale, 1.0])
    rows = {name: getattr(problem, name) * by[:, None] for name in ("T", "W", "M")}
    mixed = replace(problem, h=problem.h * by, **rows)
    assert ColumnConstraintGeneration(mixed, union).solve().objective == pytest.approx(base, rel=1e-5)
    tiny = replace(problem, c=problem.c * scale, T=problem.T * scale, upper=np.asarray(problem.upper) / scale)
    found = ColumnConstraintGeneration(tiny, union).solve()
    assert found.objective == pytest.approx(base, rel=1e-5)
    assert problem.c @ (found.x * scale) <= base * (1 + 1e-6)


def test_assumed_multiplier_bounds_never_decide_the_result():
    """Far too small a first bound: the homogeneous certificate finds it out and the search repairs itself."""
    problem = TwoStageProblem(  # expensive tail: y1 covers the first unit at 1, y2 the rest at 1000
        c=[0.0], b=[1.0, 1000.0], T=[[0.0]], W=[[-1.0, -1.0]], M=[[1.0]], h=[0.0], lower=0.0, upper=0.0,
        recourse_lower=0.0, recourse_upper=[1.0, 50.0],
    )  # fmt: skip
    union = PolytopeUnion.boxes([([0.0], [0.5]), ([3.0], [4.0])])
    search = WorstCaseSearch(problem, union)
    assert not search.complete and not search.proven
    search._limit = 1e-3  # below every true multiplier
    finding = search.worst(np.zeros(1))
    assert finding.cost == pytest.approx(3001.0) and finding.bound == pytest.approx(3001.0, rel=1e-5)
    assert finding.v.tolist() == [4.0]


def test_enumeration_and_one_program_find_the_same():
    union = UNIONS["steps"]
    problem = random_problem(np.random.default_rng(5), True)
    one = ColumnConstraintGeneration(problem, union, "monolithic").solve()
    each = ColumnConstraintGeneration(problem, union, "enumeration").solve()
    assert one.objective == pytest.approx(each.objective, rel=2e-6)
    assert each.subproblems == union.count * each.iterations
    assert one.subproblems == one.iterations


def test_restricting_a_search_restricts_the_worst_case():
    union = UNIONS["two boxes"]
    problem = random_problem(np.random.default_rng(6), True)
    search = WorstCaseSearch(problem, union)
    x = np.ones(2)
    both = search.worst(x).cost
    single = [search.worst(x, [k]).cost for k in range(2)]
    assert both == pytest.approx(max(single))
    for k in range(2):
        assert single[k] == pytest.approx(WorstCaseSearch(problem, union.subset(k)).worst(x).cost)
        vertices = union.polytopes[k].vertices()
        assert single[k] == pytest.approx(max(search.recourse(x, v).cost for v in vertices))


def test_warm_start_needs_no_more_iterations_and_gives_the_same():
    union = UNIONS["two boxes"]
    problem = random_problem(np.random.default_rng(7), True)
    solver = ColumnConstraintGeneration(problem, union)
    cold_count = solver.solve().iterations
    moved = replace(problem, h=problem.h - 0.05)
    solver.update(moved)
    warm = solver.solve()
    cold = ColumnConstraintGeneration(moved, union).solve()
    assert warm.objective == pytest.approx(cold.objective, rel=2e-6)
    assert warm.iterations <= cold_count


def test_log_bounds_are_monotone_and_meet():
    result = ColumnConstraintGeneration(random_problem(np.random.default_rng(8), False), UNIONS["two boxes"]).solve()
    lower = [r.lower_bound for r in result.log]
    assert all(b >= a - 1e-6 for a, b in pairwise(lower))
    assert result.log[-1].added == "stop" and result.log[-1].iteration == result.iterations
    assert result.log[-1].subproblems == result.subproblems


def test_infeasible_problem_names_scenarios_and_rows():
    problem = TwoStageProblem(
        c=[1.0], b=[1.0], T=[[-1.0]], W=[[-1.0]], M=[[1.0]], h=[0.0], lower=0.0, upper=1.0,
        recourse_lower=0.0, recourse_upper=1.0, row_names=["demand"],
    )  # fmt: skip
    with pytest.raises(InfeasibleError, match="demand") as caught:
        ColumnConstraintGeneration(problem, PolytopeUnion.boxes([([0.0], [3.0])])).solve()
    certificate = caught.value.details["scenarios"]
    assert certificate.max() == 3.0
    with pytest.raises(InfeasibleError):  # the certificate alone proves it
        extensive(problem, certificate)


def test_unbounded_first_stage_and_unbounded_recourse_are_named():
    base = {"T": [[-1.0]], "W": [[-1.0]], "M": [[1.0]], "h": [0.0], "recourse_lower": 0.0}
    union = PolytopeUnion.boxes([([0.0], [1.0])])
    with pytest.raises(UnboundedError, match="first-stage"):
        ColumnConstraintGeneration(TwoStageProblem(c=[-1.0], b=[1.0], **base), union).solve()
    with pytest.raises(UnboundedError, match="recourse") as caught:
        ColumnConstraintGeneration(TwoStageProblem(c=[1.0], b=[-1.0], lower=0.0, **base), union).solve()
    direction = caught.value.details["direction"]
    assert direction[0] > 0 and -direction[0] <= 0  # W d <= 0 and b'd < 0


def test_too_few_iterations_is_an_error_not_an_answer():
    problem = random_problem(np.random.default_rng(0), True)
    with pytest.raises(NumericalError, match="iterations"):
        ColumnConstraintGeneration(problem, UNIONS["two boxes"], max_iterations=1).solve()


def test_wrong_data_are_refused_by_name():
    good = {"c": [1.0], "b": [1.0], "T": [[1.0]], "W": [[-1.0]], "M": [[1.0]], "h": [1.0]}
    with pytest.raises(DataError, match="W has shape"):
        TwoStageProblem(**(good | {"W": [[1.0, 2.0]]}))
    with pytest.raises(DataError, match="not finite"):
        TwoStageProblem(**(good | {"h": [np.inf]}))
    with pytest.raises(DataError, match="lower"):
        TwoStageProblem(**good, lower=2.0, upper=1.0)
    with pytest.raises(DataError, match="integer"):
        TwoStageProblem(**good, integer=[3])
    with pytest.raises(DataError, match="unknown"):
        solve_two_stage(TwoStageProblem(**good), PolytopeUnion.boxes([([0.0], [1.0])]), "hope")
    with pytest.raises(DataError, match="needs rho"):
        solve_two_stage(TwoStageProblem(**good), PolytopeUnion.boxes([([0.0], [1.0])]), "kl", p0=[1.0])
    with pytest.raises(SetError, match="dimension"):
        problem = TwoStageProblem(**good)
        DualSubproblem(problem, UNIONS["one box"], "cost", dual_bounds(problem, "cost"), np.ones(1))


def test_empty_and_unbounded_polytopes_are_refused():
    with pytest.raises(SetError, match="no point"):
        Polytope(np.array([[1.0], [-1.0]]), np.array([0.0, -1.0]))
    with pytest.raises(SetError, match="unbounded"):
        Polytope(np.array([[1.0]]), np.array([0.0]))


def test_vertices_samples_and_location_of_a_union():
    union = UNIONS["polytopes"]
    assert {tuple(v) for v in TRIANGLE.vertices()} == {(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)}
    samples = union.sample(200, np.random.default_rng(0), [0.25, 0.75])
    assert all(union.contains(v) for v in samples)
    owners = np.array([union.locate(v)[0] for v in samples])
    assert 0.6 < np.mean(owners == 1) < 0.9
    with pytest.raises(SetError, match="no subset"):
        union.locate([5.0, 5.0])
    assert PolytopeUnion.boxes([([0.0], [1.0]), ([1.0], [2.0])], 3).count == 8


def test_union_takes_sets_of_the_library():
    from rmpc_ros.sets.box import Box
    from rmpc_ros.sets.ellipsoid import Ellipsoid
    from rmpc_ros.sets.polytope import Polytope as PolytopeSet
    from rmpc_ros.sets.union import UnionSet

    members = [Box([0.0, 0.0], [0.5, 1.0]), PolytopeSet(TRIANGLE.D, TRIANGLE.d)]
    union = PolytopeUnion.from_sets(members)
    for v in np.random.default_rng(0).uniform(-1.2, 1.2, (200, 2)):
        assert union.contains(v) == any(bool(m.contains(v)) for m in members)
    with pytest.raises(SetError, match="ellipsoid"):
        PolytopeUnion.from_sets([Ellipsoid([0.0, 0.0], np.eye(2), 1.0)])
    same = PolytopeUnion.from_union(UnionSet([Box([0.0, 0.0], [0.5, 1.0]), Box([-1.0, -1.0], [-0.5, 0.0])]), steps=2)
    assert same.count == 4 and same.dim == 4
    assert same.contains([0.2, 0.5, -0.7, -0.2]) and not same.contains([0.2, 0.5, 0.7, -0.2])
