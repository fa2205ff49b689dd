"""Families in closed form, combinations, exchange: what holds for every set."""

import copy
import doctest
import importlib
import json
import pickle

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rmpc_ros.errors import MessageError, SetError
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.budget import Budget
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.combine import AffineImage, Intersection, Product, stack
from rmpc_ros.sets.counterpart import CounterpartProgram, RobustRow
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.sets.fit import fit_set
from rmpc_ros.sets.norm_ball import NormBall
from rmpc_ros.sets.polytope import Polytope
from rmpc_ros.sets.singleton import Singleton
from rmpc_ros.sets.zonotope import Zonotope

RNG = np.random.default_rng(11)
CLOUD = RNG.standard_normal((120, 2)) @ np.array([[1.0, 0.4], [0.0, 0.6]])
ATOMS = RNG.integers(0, 2, (120, 2)).astype(float)


def make_sets():
    box, ball = Box([-1, 0], [1, 2]), Ellipsoid([0.2, 1], [[2, 0], [0.5, 1]], 0.7)
    out = {
        "box": box,
        "ellipsoid": ball,
        "budget": Budget([0, 1], [1, 2], 1.5),
        "polytope": Polytope([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1]], [1, 1, 1, 1, 1.5]),
        "norm 1": NormBall([1, 1], 2, 1),
        "norm 2": NormBall([1, 1], 2, 2),
        "norm inf": NormBall([1, 1], 2, "inf"),
        "zonotope": Zonotope([0, 0], [[1, 1, 0.2], [0, 1, -0.5]]),
        "parallelotope": Zonotope([0.5, 0], [[1, 1], [0, 0.7]]),
        "singleton": Singleton([1, 2]),
        "intersection": Intersection([box, ball]),
        "image": AffineImage(Zonotope([0, 0, 0], np.eye(3)), [[1, 2, 0], [3, 4, 1]], [1, 1]),
        "product": Product([Box([-1], [2]), NormBall([0], 1.5, 1)]),
    }
    for family in ("m", "fb", "cs", "lcx", "dy"):
        out[family] = fit_set(CLOUD, family, 0.2, 0.8).set
    out["i"] = fit_set(CLOUD, "i", 0.3, 0.8, parameters={"box": [-5, 5, -5, 5]}).set
    for family in ("chi2", "g"):
        out[family] = fit_set(ATOMS, family, 0.3, 0.8).set
    return out


SETS = make_sets()
every_set = pytest.mark.parametrize("name", SETS)
vectors = arrays(float, 2, elements=st.floats(-5, 5).map(lambda v: round(v, 3)))


@every_set
@settings(max_examples=12, deadline=None)
@given(a=vectors, b=vectors, t=st.floats(0.1, 10))
def test_support_is_sublinear_and_attained_by_a_member(name, a, b, t):
    shown = SETS[name]
    values = shown.support(np.array([a, b, a + b, t * a]))
    size = 1e-6 * (1 + np.abs(values).max())
    assert values[2] <= values[0] + values[1] + size
    assert values[3] == pytest.approx(t * values[0], abs=10 * size)
    point = shown.maximiser(a)
    assert point @ a == pytest.approx(values[0], abs=size)
    assert bool(shown.contains(point, 1e-5))


@every_set
def test_cones_closed_form_and_counterpart_agree(name):
    shown = SETS[name]
    for a in np.array([[1.0, -0.4], [-0.2, -1.0]]):
        value = float(shown.support(a))
        assert UncertaintySet._optimum(shown, a)[0] == pytest.approx(value, abs=1e-6)
        bound = cp.Variable()
        problem = cp.Problem(cp.Minimize(bound), shown.counterpart(cp.Constant(a), bound))
        problem.solve(solver=cp.CLARABEL)
        assert problem.value == pytest.approx(value, abs=1e-5)


@every_set
def test_samples_are_members_and_points_beyond_the_boundary_are_not(name):
    shown = SETS[name]
    assert np.all(shown.contains(shown.sample(6, 1), 1e-5))
    edge = shown.sample(6, 2, "boundary")
    assert np.all(shown.contains(edge, 1e-5))
    if name != "singleton":
        beyond = shown.center() + 1.01 * (edge - shown.center()) + 1e-4 * np.sign(edge - shown.center())
        assert not np.any(shown.contains(beyond))


@every_set
def test_scaling_is_about_the_centre(name):
    shown = SETS[name]
    a = np.array([[0.3, 1.0], [-1.0, 0.2]])
    width = shown.support(a) - a @ shown.center()
    half = shown.scaled(0.5)
    assert half.support(a) - a @ shown.center() == pytest.approx(0.5 * width, abs=1e-6)
    assert half.size(8) == pytest.approx(0.5 * shown.size(8), abs=1e-6)


@every_set
def test_json_pickle_and_copy_are_exact(name):
    shown = SETS[name]
    text = json.dumps(shown.to_dict(), allow_nan=False)
    again = UncertaintySet.from_dict(json.loads(text))
    assert type(again) is type(shown)
    assert json.dumps(again.to_dict()) == text
    shown.support([1.0, 0.5])  # builds solvers, which must not get in the way
    assert pickle.loads(pickle.dumps(shown)).to_dict() == shown.to_dict()
    assert copy.deepcopy(shown).to_dict() == shown.to_dict()


@every_set
def test_projection_is_an_outline_of_members(name):
    points = SETS[name].projection((0, 1), 8)
    assert points.shape == (8, 2)
    assert np.all(SETS[name].contains(points, 1e-5))


@pytest.mark.parametrize(
    "name", ["box", "budget", "polytope", "norm 1", "norm inf", "zonotope", "parallelotope", "product"]
)
def test_support_is_the_largest_value_at_a_vertex(name):
    shown = SETS[name]
    corners = shown.vertices()
    a = RNG.standard_normal((20, 2))
    assert np.max(a @ corners.T, axis=1) == pytest.approx(shown.support(a), abs=1e-7)


def test_sets_without_vertices_say_so():
    with pytest.raises(SetError, match="no vertices"):
        SETS["cs"].vertices()


@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_budget_support_in_directions_of_mixed_sign(signs):
    shown = Budget([0, 0, 0], [1, 1, 1], 2.0)
    assert float(shown.support(np.array([3.0, 2.0, 1.0]) * signs)) == pytest.approx(5.0)


def test_intersection_support_is_the_best_split_of_the_direction():
    box, ball = SETS["box"], SETS["ellipsoid"]
    a = np.array([0.8, -1.1])
    grid = np.linspace(-2, 2, 161)
    w = np.array(np.meshgrid(grid, grid)).reshape(2, -1).T
    split = np.min(box.support(a - w) + ball.support(w))  # eq. 11 by brute force
    exact = float(SETS["intersection"].support(a))
    assert exact <= split + 1e-7
    assert exact == pytest.approx(split, abs=0.01)
    assert exact < min(float(box.support(a)), float(ball.support(a))) - 0.01


def test_intersection_with_known_bounds_tightens_a_fitted_set():
    fitted = SETS["cs"]
    known = Box([-2, -2], [2, 2])
    both = Intersection([fitted, known])
    a = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert np.all(both.support(a) <= np.minimum(fitted.support(a), known.support(a)) + 1e-7)


def test_stacking_repeats_the_step_over_the_horizon():
    shown = stack(SETS["ellipsoid"], 3)
    a = RNG.standard_normal(6)
    assert shown.dim == 6
    assert float(shown.support(a)) == pytest.approx(float(SETS["ellipsoid"].support(a.reshape(3, 2)).sum()))


def test_empty_unbounded_and_misshapen_sets_are_refused():
    with pytest.raises(SetError, match="empty"):
        Box([0, 2], [1, 1])
    with pytest.raises(SetError, match="empty"):
        Polytope([[1.0], [-1.0]], [0.0, -1.0])
    with pytest.raises(SetError, match="unbounded"):
        Polytope([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [1.0, 1.0, 1.0])
    with pytest.raises(SetError, match="share no point"):
        Intersection([Box([0], [1]), Box([2], [3])])
    with pytest.raises(SetError, match="dimension 2"):
        SETS["box"].support([1.0, 2.0, 3.0])
    with pytest.raises(SetError, match="unknown"):
        UncertaintySet.from_dict({"family": "sphere"})
    with pytest.raises(SetError, match="refuses"):
        UncertaintySet.from_dict({"family": "box", "lower": [0.0]})
    with pytest.raises(SetError, match="not finite"):
        Ellipsoid([0.0, np.nan], np.eye(2))


def test_message_round_trip_is_exact_and_tampering_is_refused():
    fitted = fit_set(CLOUD, "cs", 0.1, 0.9, columns=("feed", "heat"))
    message = json.loads(json.dumps(fitted.to_message("plant", ("a", "b"))))
    assert FittedSet.from_message(message).to_dict() == fitted.to_dict()
    assert FittedSet.from_dict(json.loads(json.dumps(fitted.to_dict()))).to_dict() == fitted.to_dict()
    changed = dict(message, content_json=message["content_json"].replace("0.1", "0.2"))
    with pytest.raises(MessageError, match="sha256"):
        FittedSet.from_message(changed)
    with pytest.raises(MessageError, match="version"):
        FittedSet.from_message(dict(message, version=7))


def _by_cvxpy(profit, first, second):
    x = cp.Variable(2)
    constraints = [x <= 1, x >= -1, cp.sum(x) == 0.3, *first.counterpart(x, 1.0)]
    constraints += second.counterpart(np.array([[1.0, 0.5], [0.0, -1.0]]) @ x + 0.1, 2.0 - x[0])
    problem = cp.Problem(cp.Maximize(profit @ x), constraints)
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return problem.value


@pytest.mark.parametrize("family", ["m", "fb", "cs", "lcx", "dy", "i"])
def test_compiled_program_follows_changed_data_like_one_built_anew(family):
    def fitted(seed):
        data = np.random.default_rng(seed).standard_normal((60, 2)).clip(-3, 3)
        box = {"box": [-4, 4, -4, 4]} if family in ("dy", "i") else {}
        return fit_set(data, family, 0.3, 0.7, parameters=box).set

    profit = np.array([1.0, 0.4])
    sets = [fitted(k) for k in range(4)]
    rows = [
        RobustRow(sets[0], np.eye(2), np.zeros(2), np.zeros(2), 1.0),
        RobustRow(sets[1], np.array([[1.0, 0.5], [0.0, -1.0]]), np.full(2, 0.1), np.array([1.0, 0.0]), 2.0),
    ]
    program = CounterpartProgram(-profit, rows, (np.ones((1, 2)), [0.3]), -np.ones(2), np.ones(2))
    assert profit @ program.solve() == pytest.approx(_by_cvxpy(profit, sets[0], sets[1]), abs=1e-5)
    program.update(sets[2:])
    assert profit @ program.solve() == pytest.approx(_by_cvxpy(profit, sets[2], sets[3]), abs=1e-5)


def test_compiled_program_refuses_a_set_of_another_pattern():
    rows = [RobustRow(SETS["box"], np.eye(2), np.zeros(2), np.zeros(2), 1.0)]
    program = CounterpartProgram([1.0, 1.0], rows, None, -np.ones(2), np.ones(2))
    with pytest.raises(SetError, match="another pattern"):
        program.update([SETS["ellipsoid"]])


@pytest.mark.parametrize("name", ["box", "ellipsoid", "budget", "norm_ball", "zonotope"])
def test_examples_in_the_docstrings_are_true(name):
    module = importlib.import_module(f"rmpc_ros.sets.{name}")
    tested = doctest.testmod(module)
    assert tested.attempted > 0
    assert tested.failed == 0
