"""Check values computed independently of this code; every set's answer to other directions is checked as well."""

import json

import cvxpy as cp
import numpy as np
import pytest

from rmpc_ros import cli
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.deviations import forward_deviation
from rmpc_ros.sets.fit import fit_set
from rmpc_ros.sets.independent import IndependentSet
from rmpc_ros.sets.marginals import quantile_index
from rmpc_ros.sets.ordering import OrderingSet
from rmpc_ros.studies.set_reference import CHECKS, reference_data

DATA = reference_data()
MINE = [c for c in CHECKS if c[0] != "svc"]
DIRECTIONS = np.array([[1.0, 1.0], [-1.0, 0.5], [0.0, 1.0], [2.0, -3.0], [-0.3, -0.1]])


def fitted(check):
    family, name, epsilon, parameters, _ = check
    return fit_set(DATA[name], family, epsilon, 0.9, parameters=parameters)


@pytest.mark.parametrize("check", MINE, ids=lambda c: c[0])
def test_support_equals_the_reference_value(check):
    assert float(fitted(check).set.support([1.0, 1.0])) == pytest.approx(check[-1], abs=1e-6)


@pytest.mark.parametrize("check", MINE, ids=lambda c: c[0])
def test_maximisers_are_members_and_attain_the_support(check):
    shown = fitted(check).set
    points = shown.maximisers(DIRECTIONS)
    assert np.all(shown.contains(points, 1e-6))
    assert np.sum(points * DIRECTIONS, axis=1) == pytest.approx(shown.support(DIRECTIONS), abs=1e-6)
    assert not np.any(shown.contains(shown.center() + 1.05 * (points - shown.center())))


@pytest.mark.parametrize("check", MINE, ids=lambda c: c[0])
def test_counterpart_gives_the_support_in_every_direction(check):
    shown = fitted(check).set
    for a in DIRECTIONS[:3]:
        bound = cp.Variable()
        problem = cp.Problem(cp.Minimize(bound), shown.counterpart(cp.Constant(a), bound))
        problem.solve(solver=cp.CLARABEL)
        assert problem.value == pytest.approx(float(shown.support(a)), abs=2e-6)


@pytest.mark.parametrize("check", MINE, ids=lambda c: c[0])
def test_closed_forms_agree_with_the_cones(check):
    shown = fitted(check).set
    for a in DIRECTIONS:
        assert UncertaintySet._optimum(shown, a)[0] == pytest.approx(float(shown.support(a)), abs=1e-6)


def test_command_reproduces_the_reference_value_from_a_csv_file(tmp_path, capsys):
    assert cli.main(["study", "set-reference", "--out", str(tmp_path), "--json"]) == 0
    capsys.readouterr()
    words = ["fit", str(tmp_path / "sines.csv"), "--family", "cs", "--epsilon", ".1", "--confidence", ".9"]
    words += ["--param", "G1=.1", "G2=.05", "--support", "-1,1;1,1", "--json", "--plot", str(tmp_path / "cs.png")]
    assert cli.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) >= {"family", "parameters", "thresholds", "certificate", "support"}
    assert result["support"][1] == pytest.approx(2.76000611, abs=1e-6)
    again = UncertaintySet.from_dict({"family": result["family"], **result["parameters"]})
    assert again.support([-1.0, 1.0]) == pytest.approx(result["support"][0], abs=1e-12)
    assert (tmp_path / "cs.png").stat().st_size > 1000


def test_forward_and_backward_deviations_of_the_reference_data():
    u = DATA["sines"]
    got = [forward_deviation(v) for v in (u[:, 0], -u[:, 0], u[:, 1], -u[:, 1])]
    assert got == pytest.approx([0.71579691, 0.71664684, 0.35032951, 0.35033804], abs=1e-6)
    assert got[0] == pytest.approx(np.std(u[:, 0]), abs=1e-8)  # the limit x -> 0


def test_quantile_index_keeps_the_binomial_tail_below_its_level():
    assert quantile_index(500, 2, 0.1, 0.2) == 484  # a widely used code has 483


def test_ordering_set_without_slack_is_the_classical_tail_mean():
    """G = 0 leaves reweightings q <= 1/(N eps) of the sample: the support is the mean of the worst eps share."""
    u = DATA["sines"]
    shown = OrderingSet(u, 0.0, 0.1)
    for a in DIRECTIONS:
        assert float(shown.support(a)) == pytest.approx(np.mean(np.sort(u @ a)[-2:]), abs=1e-7)


def test_second_moment_set_moves_with_the_units_of_the_data():
    scale, shift = np.array([2.0, 500.0]), np.array([300.0, -7.0])
    u = DATA["sines"]
    plain = fit_set(u, "dy", 0.1, 0.9, parameters={"g1": 0.1, "g2": 1.3}).set
    moved = fit_set(u * scale + shift, "dy", 0.1, 0.9, parameters={"g1": 0.1, "g2": 1.3}).set
    a = np.array([0.7, -0.4])
    assert float(moved.support(a / scale)) == pytest.approx(float(plain.support(a)) + a @ (shift / scale), rel=1e-6)


@pytest.mark.parametrize("test", ["ks", "kuiper", "cvm"])
def test_convex_search_of_the_independent_set_equals_its_conic_program(test):
    data = np.random.default_rng(3).uniform(-1, 1, (60, 2)) * [1, 2]
    threshold = {"ks": 0.12, "kuiper": 0.15, "cvm": 0.3}[test]
    shown = IndependentSet(data, [-1, -2], [1, 2], threshold, 0.3, test)
    for a in np.array([[1.0, 1.0], [-1.0, 0.7]]):
        assert float(shown.support(a)) < np.abs(a) @ [1, 2] - 0.05  # not the box itself
        assert UncertaintySet._optimum(shown, a)[0] == pytest.approx(float(shown.support(a)), abs=2e-6)
        assert bool(shown.contains(shown.maximiser(a), 1e-6))


@pytest.mark.parametrize("test", ["watson", "ad"])
def test_conic_tests_of_the_independent_set_lie_between_the_data_and_the_box(test):
    data = np.random.default_rng(3).uniform(-1, 1, (30, 2))
    box = [-1.0, 1.0, -1.0, 1.0]
    shown = fit_set(data, "i", 0.5, 0.5, parameters={"box": box, "test": test}).set
    value = float(shown.support([1.0, 1.0]))
    assert 0 < value < 2 - 1e-3
    assert bool(shown.contains(shown.maximiser([1.0, 1.0]), 1e-5))


@pytest.mark.parametrize("name", ["nowhere/x.png", "x.nosuch"])
def test_a_picture_that_cannot_be_written_is_one_line(name, tmp_path, capsys):
    data = tmp_path / "d.csv"
    data.write_text(
        "a,b\n" + "".join(f"{i * 0.37 % 1:.4f},{i * i * 0.11 % 1:.4f}\n" for i in range(100)), encoding="utf-8"
    )
    words = ["fit", str(data), "--family", "box", "--epsilon", ".2", "--confidence", ".8"]
    assert cli.main([*words, "--plot", str(tmp_path / name)]) == 1
    assert "the picture cannot be written" in capsys.readouterr().err
