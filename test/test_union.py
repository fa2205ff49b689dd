"""Unions of clusters, lifted and stacked samples."""

import numpy as np
import pytest

from rmpc_ros.errors import DataError, SetError
from rmpc_ros.robust.polytope_union import Polytope, PolytopeUnion
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.sets.fit import fit_set
from rmpc_ros.sets.lifting import Saturation, fit_lifted, stack_series
from rmpc_ros.sets.union import UnionSet, union_of_boxes

CENTERS = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 9.0]])


def clusters(count, seed):
    rng = np.random.default_rng(seed)
    return CENTERS[rng.integers(3, size=count)] + rng.standard_normal((count, 2)) * [1.0, 0.5]


@pytest.fixture(scope="module", params=[(c, s) for c in ("mixture", "density") for s in ("polytope", "ellipsoid")])
def fitted(request):
    how, what = request.param
    return fit_set(clusters(500, 0), "union", 0.05, 0.95, parameters={"clusters": how, "subsets": what})


def test_clusters_are_counted_without_being_told(fitted):
    assert len(fitted.set.parts) == 3
    assert sorted(fitted.set.locate(CENTERS).tolist()) == [0, 1, 2]


def test_union_leaves_out_the_gap_that_its_hull_holds(fitted):
    assert not fitted.set.contains([4.0, 4.5])
    assert float(fitted.set.support([1.0, 1.0])) > 8.5


def test_union_keeps_its_promise_on_fresh_samples(fitted):
    assert 1 - fitted.set.contains(clusters(4000, 1)).mean() <= 0.05 + 0.01


def test_support_is_that_of_the_convex_hull(fitted):
    for a in np.random.default_rng(2).standard_normal((4, 2)):
        value = float(fitted.set.support(a))
        assert UncertaintySet._optimum(fitted.set, a)[0] == pytest.approx(value, abs=1e-6)
        point = fitted.set.maximiser(a)
        assert point @ a == pytest.approx(value) and fitted.set.contains(point, 1e-6)


def test_samples_lie_in_the_union_and_json_is_exact(fitted):
    assert np.all(fitted.set.contains(fitted.set.sample(60, 3)))
    again = FittedSet.from_dict(fitted.to_dict())
    assert again.to_dict() == fitted.to_dict()
    assert again.set.support(np.eye(2)) == pytest.approx(fitted.set.support(np.eye(2)))


def test_scaling_is_about_each_subset():
    twice = union_of_boxes([([0.0], [2.0]), ([10.0], [12.0])]).scaled(0.5)
    assert twice.contains([[1.4], [1.6], [10.6], [6.0]]).tolist() == [True, False, True, False]


def test_union_of_polytopes_feeds_two_stage_problems():
    data = clusters(400, 4)
    shown = fit_set(data, "union", 0.1, 0.9, parameters={"subsets": "polytope"}).set
    union = PolytopeUnion(tuple(Polytope(D, d) for D, d in shown.halfspaces()), steps=2)
    assert union.count == 9
    members = shown.sample(20, 5)
    assert all(union.contains(members[[n, n + 1]].ravel()) for n in range(19))
    assert not union.contains([4.0, 4.5, 0.0, 0.0])


def test_ellipsoids_have_no_half_spaces():
    with pytest.raises(SetError, match="no half-spaces"):
        UnionSet([Ellipsoid([0, 0], np.eye(2))]).halfspaces()


def test_wrong_union_parameters_are_refused():
    with pytest.raises(DataError, match="clusters"):
        fit_set(clusters(200, 0), "union", parameters={"clusters": "guess"})
    with pytest.raises(DataError, match="k_max"):
        fit_set(clusters(200, 0), "union", parameters={"k_max": 0.0})
    with pytest.raises(DataError, match="give at least"):
        fit_set(clusters(25, 0), "union", 0.05, 0.95)


@pytest.mark.parametrize("kind", ["tanh", "clip"])
def test_saturation_is_bounded_odd_and_has_slope_one(kind):
    phi = Saturation(kind, 0.5)
    w = np.linspace(-40, 40, 81)
    assert np.max(np.abs(phi(w))) <= 0.5
    assert phi(-w) == pytest.approx(-phi(w))
    assert phi(1e-6) == pytest.approx(1e-6, rel=1e-6)
    with pytest.raises(DataError):
        Saturation(kind, 0.0)


def test_lifted_set_bounds_the_saturated_part_more_tightly():
    rng = np.random.default_rng(7)
    w = rng.standard_t(3, (400, 1))
    fitted = fit_lifted(w, Saturation("tanh", 1.0), "svc", 0.1, 0.9)
    assert fitted.set.dim == 2
    lifted = Saturation("tanh", 1.0).lift(rng.standard_t(3, (5000, 1)))
    assert 1 - fitted.set.contains(lifted).mean() <= 0.13
    assert "tanh" in fitted.certificate.notes[-1]
    with pytest.raises(DataError, match="saturation limit"):
        fit_lifted(w, Saturation("clip", 1e4))


def test_stacked_rows_keep_time_order():
    rows = stack_series(np.arange(14.0).reshape(7, 2), 3, stride=2)
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9], [8, 9, 10, 11, 12, 13]]
    with pytest.raises(DataError, match="horizon"):
        stack_series([1.0, 2.0], 3)
