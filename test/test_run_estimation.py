"""Processes that control by estimates: bad sensors, a stuck one named on /diagnostics, a bag as a log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rmpc_ros.errors import DataError
from rmpc_ros.learning.bag_log import bag_folder, read_bag_log
from rmpc_ros.learning.fit_model import run as fit
from rmpc_ros.report.data import RunData, read_run

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator_sensors.yaml"
STEPS, STUCK = 70, 25


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], RunData, Path]:
    """The shipped file with its stuck thermometer earlier, and with the learning loop."""
    folder = tmp_path_factory.mktemp("sensors")
    plant = folder / "sensors.yaml"
    text = FILE.read_text(encoding="utf-8")
    assert "begin: 90 min" in text
    text = text.replace("begin: 90 min", f"begin: {36 * STUCK} s")
    plant.write_text(text.replace("\nnetwork:\n", "\nadaptation: {least: 20}\n\nnetwork:\n"), encoding="utf-8")
    words = ("run", str(plant), "--duration", str(36 * STEPS), "--speed", "max", "--json", "--out", str(folder / "run"))
    done = subprocess.run(
        [sys.executable, "-m", "rmpc_ros.cli", *words], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout), read_run(folder / "run" / "bag"), folder / "run"


def test_limits_hold_and_promises_are_kept_with_bad_sensors(bad: Any) -> None:
    result, run, _ = bad
    assert result["steps"] == STEPS
    assert result["violations"] == result["promises_broken"] == result["restarts"] == 0
    assert result["promises_checked"] >= 2.5 * STEPS
    for agent in run.agents.values():
        assert len(agent.estimated) >= 0.9 * STEPS


def test_the_stuck_thermometer_is_named_on_diagnostics_within_ten_steps(bad: Any) -> None:
    _, run, folder = bad
    assert not [log.name for log in (folder / "log").glob("*.log") if "Traceback" in log.read_text()]
    said = [s for s in run.statuses if s.name.endswith("reactor1/agent: sensors") and "T1 stuck" in s.message]
    assert said and said[0].level == "WARN"
    since = int(said[0].message.partition("since step ")[2].split()[0])
    assert STUCK <= since <= STUCK + 10
    others = [s for s in run.statuses if s.name.endswith("reactor2/agent: sensors") and "stuck" in s.message]
    assert not others


def test_the_learning_loop_says_what_it_did(bad: Any) -> None:
    _, run, _ = bad
    said = [s for s in run.statuses if s.name.endswith("separator/agent: adaptation")]
    assert int(said[-1].values["residuals"]) >= 0.8 * STEPS
    assert int(said[-1].values["adopted"]) >= 1 and "learned set" in said[-1].message
    assert 0 < float(said[-1].values["radius over design's (T3)"]) < 1


def test_a_bag_is_a_log_and_one_with_too_few_readings_is_refused(bad: Any, tmp_path: Path) -> None:
    _, _, folder = bad
    names, rows = read_bag_log(folder)
    assert names[:4] == ("time", "xA1", "xB1", "T1") and len(rows) >= STEPS
    assert abs(rows[3, 0] - rows[2, 0] - 36.0) < 1e-9
    with pytest.raises(DataError, match=r"xA1 holds [0-9]+ numbers"):
        fit(folder / "bag", FILE, "linear", [], tmp_path / "model.npz")
    assert bag_folder(tmp_path) is None
    with pytest.raises(DataError, match=r"metadata\.yaml"):
        read_bag_log(tmp_path)
