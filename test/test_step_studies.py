"""Small real cases of `rmpc study guarantee` and `rmpc bench step`."""

from pathlib import Path

from rmpc_ros.studies.bench.step import STUDY as STEP
from rmpc_ros.studies.guarantee import STUDY as GUARANTEE


def test_robust_agents_keep_what_nominal_ones_break_on_both_plants(tmp_path: Path):
    result = GUARANTEE.run({**GUARANTEE.defaults, "seeds": 1, "steps": 60}, tmp_path)
    for model in ("linear", "nonlinear"):
        robust, nominal = result[model]["robust"], result[model]["nominal"]
        assert robust["violations"] == 0 and robust["promises_broken"] == 0
        assert robust["optimal_share"] >= 0.95
        assert nominal["violations"] > 0
        assert result[model]["cost_ratio"] > 1
    assert all(error > 0 for error in result["nonlinear"]["model_error"].values())
    assert (tmp_path / "guarantee.png").exists()


def test_step_is_far_quicker_than_a_modelling_language_and_gives_the_same_answer(tmp_path: Path):
    settings = {**STEP.defaults, "states": 20, "cvxpy_states": 4, "affine_states": 2}
    result = STEP.run(settings, tmp_path)
    assert result["largest_difference_to_cvxpy"] < 1e-3
    assert result["times_faster_than_cvxpy"] > 5
    assert result["states_with_active_limits"] > 0
    assert set(result["affine"]) == {"toeplitz", "full"}
