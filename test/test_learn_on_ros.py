"""`rmpc study learn-on-ros`: pairs of real runs, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rmpc_ros.errors import RmpcError
from rmpc_ros.studies import learn_on_ros
from rmpc_ros.studies.learn_on_ros import GAINS, STUDY

STEPS = 8
OUTCOME = {
    "violations": 0,
    "promises_broken": 1,
    "restarts": 0,
    "wall_s": 1.0,
    "load_average_before": 0.5,
    "agents": {"a": {"steps_on_the_actuators_plan": 2}, "b": {"steps_on_the_actuators_plan": 0}},
}
LEARNING = {
    "roll_backs": 1,
    "versions": {"uncertainty": 3, "model": 3, "policy": 3},
    "refused_updates": {"a": 0, "b": 1},
    "set_share_last": 0.8,
    "set_share_smallest": 0.7,
}


def paired(monkeypatch: pytest.MonkeyPatch, gain: list[float], held: int = STEPS) -> dict[str, Any]:
    """A pair whose runs differ by `gain`; a policy is on trial in a from step 2, in force in both from step 4."""
    learned = SimpleNamespace(
        agents={
            "a": SimpleNamespace(versions={k: (0, 0, (k >= 2) + (k >= 4)) for k in range(STEPS)}),
            "b": SimpleNamespace(versions={k: (0, 0, 2 * (k >= 4)) for k in range(STEPS)}),
        },
        updates=[
            SimpleNamespace(subject="policy", version=n + 1, certificate={"stage": stage})
            for n, stage in enumerate(("canary", "everybody", "roll-back"))
        ],
    )
    earned = {"learned": np.array(gain) + 100.0, "alone": np.full(held, 100.0)}
    monkeypatch.setattr(learn_on_ros, "read_run", lambda bag: learned if bag.name == "learned" else bag)
    found = {True: earned["learned"], False: earned["alone"]}
    monkeypatch.setattr(
        learn_on_ros, "profit", lambda run: (np.arange(len(found[run is learned])), found[run is learned])
    )
    return learn_on_ros._pair(7, OUTCOME | {"bag": "learned", "learning": LEARNING}, OUTCOME | {"bag": "alone"}, 4)


def test_gains_count_from_where_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = paired(monkeypatch, [0.0, 0.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0])
    assert [pair[key] for key in GAINS] == pytest.approx([18 / 8, 18 / 6, 4.0])
    assert (pair["first_adoption_step"], pair["in_force_everywhere_step"]) == (2, 4)
    assert pair["gain_over_time"] == pytest.approx([0.5, 4.0]) and pair["before_adoption_difference"] == 0.0
    assert (pair["policies_adopted"], pair["roll_backs"], pair["steps_missed"]) == (1, 1, 4)


def test_runs_that_were_no_pair_show(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paired(monkeypatch, [0.0, -3.0, *[0.0] * 6])["before_adoption_difference"] == 3.0
    with pytest.raises(RmpcError, match="cannot be paired"):
        paired(monkeypatch, [0.0] * STEPS, held=STEPS - 1)


@pytest.mark.processes
def test_a_pair_of_real_runs_lives_the_same_until_something_is_adopted(tmp_path: Path) -> None:
    pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")
    small = {"seeds": [9001], "duration": 36.0 * 12, "processes": 1}
    result = STUDY.run(dict(STUDY.defaults) | small, tmp_path)
    pair = result["pairs"][0]
    assert (pair["steps"], pair["first_adoption_step"], pair["violations"]) == (12, None, 0)
    assert result["before_adoption_difference"] == result["gain_per_hour"] == 0.0  # to the last bit
    assert result["gain_after_first_adoption_per_hour"] is None and result["set_share_last"] == 1.0
    plants = [(Path(result["folder"]) / f"9001-{name}" / "plant.yaml").read_text() for name in ("learned", "alone")]
    assert plants[0] == plants[1] and "seed: 9001" in plants[0]
    assert STUDY.table is not None and any(line.startswith("9001") for line in STUDY.table(result))
