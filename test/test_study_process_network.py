"""Acceptance 5 on a short horizon: order of the schemes, convergence of the sweep, physics of the model."""

from itertools import pairwise

import numpy as np
import pytest

from rmpc_ros.studies.process_network import KAPPA, RAW, SOLD, STUDY, process_problem, regime_union
from rmpc_ros.studies.registry import parse_settings


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    words = ["periods=2", "N=2", "radius=5", "radii=0,0.1,4", "trials=500"]
    folder = tmp_path_factory.mktemp("process")
    out = STUDY.run(parse_settings(STUDY, words), folder)
    assert (folder / "rho_sweep.png").stat().st_size > 1000
    return out


def test_kl_lies_between_robust_and_nominal(result):
    robust, kl, nominal = (result[name]["npv"] for name in ("robust", "kl", "nominal"))
    assert robust < kl < nominal
    assert result["kl_plain"]["npv"] == pytest.approx(kl, rel=1e-3)


def test_value_of_the_sweep_falls_to_the_robust_one(result):
    sweep = result["sweep"]
    values = [e["worst_expected_npv"] for e in sweep["radii"]]
    assert all(b <= a + 1e-3 * abs(a) for a, b in pairwise(values))
    assert values[-1] == pytest.approx(sweep["robust_npv"], rel=2e-3)
    assert sweep["radii"][-1]["kl"]["minimum"] >= values[-1] - 1e-6
    for entry in sweep["radii"]:
        kl = entry["kl"]
        assert entry["worst_expected_npv"] - 1e-3 * abs(entry["worst_expected_npv"]) <= kl["minimum"]
        assert kl["minimum"] <= kl["mean"] <= kl["maximum"]


def test_raw_materials_are_never_made_and_the_first_product_never_used():
    for chemical in RAW:
        assert np.all(KAPPA[:, chemical] <= 0)
    assert np.all(KAPPA[:, SOLD[0]] >= 0)


def test_dimensions_follow_the_paper():
    problem, union = process_problem(), regime_union()
    assert problem.c.size == 2 * 8 * 5 and len(problem.integer) == 40
    assert union.dim == problem.dim == 20 and union.count == 4
