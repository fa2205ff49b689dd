"""A generated plant file through the real nodes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rmpc_ros.plants.generate import plant_file

pytestmark = pytest.mark.processes


def test_a_generated_energy_hub_runs_as_nodes(tmp_path: Path) -> None:
    file = tmp_path / "hub.yaml"
    file.write_text(plant_file("energy_hub", {"agents": 3}), encoding="utf-8")
    words = [
        "run",
        str(file),
        "--duration",
        str(15 * 7200),
        "--processes",
        "1",
        "--json",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "rmpc_ros.cli", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 15
    assert result["violations"] == result["promises_broken"] == result["restarts"] == 0
    assert result["promises_checked"] >= 3 * 13
    assert result["optimal_share"] == 1.0
    assert result["cpu_s_by_process"].keys() == {"agents1", "plant", "monitor", "recorder"} or not result["cpu_steps"]
