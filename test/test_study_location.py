"""Acceptance 1: the published values of the location study, and what must hold for any p0, rho and subset."""

from itertools import product

import numpy as np
import pytest
from test_ccg import extensive

from rmpc_ros.errors import ConfigError
from rmpc_ros.robust.kl import worst_expectation
from rmpc_ros.studies.location import BOXES, STUDY, demand_union, location_problem
from rmpc_ros.studies.registry import parse_settings


def run(tmp_path, *words):
    return STUDY.run(parse_settings(STUDY, words), tmp_path)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["scheme=robust", "subsets=classic"], 33680.0),
        (["scheme=robust"], 36632.0),
        (["scheme=robust", "search=enumeration"], 36632.0),
        (["scheme=kl"], 35418.563),
        (["scheme=kl", "form=plain", "inner=conic"], 35418.563),
        (["scheme=kl", "rho=60"], 36632.0),
    ],
)
def test_published_values(tmp_path, words, value):
    result = run(tmp_path, *words)
    assert result["objective"] == pytest.approx(value, abs=0.05)
    assert result["gap"] <= 1e-6
    assert {"objective", "open", "capacity", "subset_worst", "iterations", "subproblems", "gap"} <= result.keys()
    if words[0] == "scheme=robust":
        assert max(result["subset_worst"]) == pytest.approx(result["objective"], abs=0.05)


@pytest.mark.parametrize("subset", [1, 2, 3, 4])
def test_single_subsets_equal_vertex_enumeration(tmp_path, subset):
    vertices = np.array(list(product(*zip(*BOXES[subset - 1], strict=True))))
    expected = extensive(location_problem(), vertices)
    assert run(tmp_path, f"subsets={subset}")["objective"] == pytest.approx(expected, abs=0.05)
    assert run(tmp_path, "scheme=kl", f"subsets={subset}", "rho=0.3")["objective"] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("p0", ["0.1,0.2,0.3,0.4", "0.7,0.1,0.1,0.1"])
def test_zero_radius_gives_the_expectation(tmp_path, p0):
    weights = np.array([float(w) for w in p0.split(",")])
    groups = [p.vertices() for p in demand_union("union").polytopes]
    result = run(tmp_path, "scheme=kl", "rho=0", f"p0={p0}")
    assert result["objective"] == pytest.approx(extensive(location_problem(), groups, weights), abs=0.05)


@pytest.mark.parametrize("rho", [0.02, 0.5])
def test_objective_is_the_worst_expectation_of_the_subset_costs(tmp_path, rho):
    result = run(tmp_path, "scheme=kl", f"rho={rho}", "p0=0.25,0.25,0.25,0.25")
    expected = worst_expectation(result["subset_worst"], np.full(4, 0.25), rho)
    assert result["objective"] == pytest.approx(expected, abs=0.05)


def test_other_schemes_lie_where_they_must(tmp_path):
    robust = run(tmp_path)["objective"]
    assert run(tmp_path, "scheme=scenario", "N=60")["objective"] <= robust + 0.05
    assert run(tmp_path, "scheme=box-robust", "N=60")["objective"] <= robust + 0.05
    near, far = (run(tmp_path, "scheme=wasserstein", "N=3", f"radius={r}")["objective"] for r in (0.01, 100))
    assert near < far == pytest.approx(robust, abs=0.5)


@pytest.mark.parametrize("word", ["scheme=hope", "subsets=5", "p0=0.5,0.5"])
def test_wrong_settings_are_named(tmp_path, word):
    with pytest.raises(ConfigError, match="location"):
        run(tmp_path, "scheme=kl", word)
