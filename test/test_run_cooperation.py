"""Cooperative mode between real processes finds what the in-process agents find on the same measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rmpc_ros.config import load_plant
from rmpc_ros.report.data import read_run
from rmpc_ros.studies.cooperation import replay

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"
STEPS = 30


def test_negotiation_between_processes_reaches_the_in_process_solution(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["run", str(FILE), "--duration", str(36 * STEPS), "--speed", "max", "--json", "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "rmpc_ros.cli", *words], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["violations"] == result["promises_broken"] == 0
    assert all(agent["controller_counts"]["cooperative"] == STEPS for agent in result["agents"].values())
    data = read_run(folder / "bag")
    said = [s for s in data.statuses if s.name.endswith("agent: cooperation")]
    assert said and all(int(s.values["steps_late"]) == int(s.values["steps_failed"]) == 0 for s in said)
    again = replay(data, load_plant(FILE))
    assert again["steps"] == STEPS
    assert again["rounds_mean"] > 2
    assert again["largest_difference_to_in_process"] < 1e-3
    assert again["objective_gap"] < 1e-3
