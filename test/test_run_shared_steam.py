"""Lying agents between real processes: the capacity holds, who is honest keeps its limits, the liars are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rmpc_ros.report.data import read_run

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "shared_steam.yaml"
STEPS = 35


def test_liars_between_processes_are_contained_and_named(tmp_path: Path) -> None:
    """Vessel 2 ignores its share, vessel 3 asks for twice what it can use."""
    text = FILE.read_text(encoding="utf-8")
    assert "  seed: 1\n" in text
    file = tmp_path / "plant.yaml"
    liars = "  liars: {vessel2: overdraw, vessel3: greedy}\n"
    file.write_text(text.replace("  seed: 1\n", f"  seed: 1\n{liars}"), encoding="utf-8")
    words = ["run", str(file), "--duration", str(600 * STEPS), "--speed", "max", "--json", "--out", str(tmp_path / "r")]
    done = subprocess.run(
        [sys.executable, "-m", "rmpc_ros.cli", *words], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["violations"] == 0  # the liars' limits too: the cut leaves what their backup laws need
    assert result["agents"]["vessel1"]["promises_broken"] == 0
    data = read_run(tmp_path / "r" / "bag")
    use = np.array([sum(float(a.applied[k][0]) for a in data.agents.values()) for k in range(STEPS)])
    assert 0.95 * 33 < use.max() <= 33 + 1e-9
    said: dict[str, str] = {}
    for status in data.statuses:
        if status.name.endswith("resource steam") and status.level == "ERROR":
            who = status.name.split("/")[2].partition(":")[0]
            said[who] = said.get(who, "") + status.message
    assert "'vessel2' commands" in said["plant"] and "'vessel3' asks for" in said["plant"]
    assert "'vessel3' asks for" in said["vessel1"]
    assert not any("'vessel1'" in words for who, words in said.items() if who in ("plant", "vessel1"))
