"""Acceptance 2: one mixed-integer program equals enumeration on the building, with one subproblem per iteration."""

import numpy as np
import pytest
from test_ccg import extensive

from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.studies.building_union import ERRORS, GAMMA_W, PHI, STUDY, building_problem
from rmpc_ros.studies.registry import parse_settings


def run(tmp_path, *words):
    return STUDY.run(parse_settings(STUDY, words), tmp_path)


def test_rows_of_the_model_sum_to_one():
    assert np.allclose(PHI.sum(axis=1) + GAMMA_W.sum(axis=1), 1.0, atol=2e-4)
    assert np.all(np.linalg.eigvals(PHI).real > 0)


@pytest.mark.parametrize(("T", "value"), [(2, 271.55605), (3, 399.14555), (4, None)])
def test_both_forms_give_the_same_and_the_known_values(tmp_path, T, value):
    result = run(tmp_path, f"T={T}")
    assert result["objective_monolithic"] == pytest.approx(result["objective_enumeration"], abs=1e-3)
    if value is not None:
        assert result["objective_monolithic"] == pytest.approx(value, abs=1e-4)
    assert result["subproblems_monolithic"] == result["iterations_monolithic"]
    assert result["subproblems_enumeration"] == 2**T * result["iterations_enumeration"]
    assert result["time_ratio"] > 1


def test_vertex_oracle_agrees():
    union = PolytopeUnion.boxes(ERRORS, 3)
    assert extensive(building_problem(3), union.vertices()) == pytest.approx(399.14555, abs=1e-4)


def test_long_horizon_alone(tmp_path):
    result = run(tmp_path, "T=12", "enumeration=no")
    assert "objective_enumeration" not in result
    assert result["gap_monolithic"] <= 1e-6
    assert result["combinations"] == 4096
