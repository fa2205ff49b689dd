"""The study of the linear model's error, small."""

from pathlib import Path

from rmpc_ros.studies import registry


def test_the_reckoned_error_covers_what_closed_loop_runs_meet(tmp_path: Path) -> None:
    study = registry.load("study", "model-error")
    result = study.run({**study.defaults, "steps": 300, "samples": 500}, tmp_path)
    for name in result["coordinates"]:
        temperature = name.startswith("T")
        assert 0 < result["trajectory"][name] < (6e-4 if temperature else 3e-5)
        assert result["trajectory"][name] <= result["invariant"]["worst"][name] <= result["reckoned"][name]
        assert result["invariant"]["bound"][name] >= result["invariant"]["worst"][name]
    assert result["inside"] == 1.0
    assert 0.4 < result["worst_share"] <= 1.0
    assert len(list(study.table(result))) == len(result["coordinates"]) + 2
