"""The learner on the ROS graph: killed while it writes, a bad policy on trial, and updates that nobody should take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

import rclpy
from builtin_interfaces.msg import Time
from rclpy.context import Context
from rclpy.duration import Duration

from rmpc_ros.config import load_plant
from rmpc_ros.learning.ledger import Ledger
from rmpc_ros.learning.policy import Actor, Policy
from rmpc_ros.learning.store import TransitionStore
from rmpc_ros.learning.update import Update
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.convert_learning import UPDATE_MESSAGES, checksum, update_message
from rmpc_ros.record import read_bag
from rmpc_ros.report.data import read_run

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"
STEPS, SPEED = 260, 36 * 20  # twenty steps a second
AGENTS = ("reactor1", "reactor2", "separator")
DOMAIN = "93"


def wrong_updates(run: str) -> dict[str, Any]:
    """Messages that every agent must refuse, by the reason that must be named."""
    small = {"family": "box", "lower": [-1e-6] * 3, "upper": [1e-6] * 3}
    good = Update("uncertainty", "reactor_separator", (), 1000, "box", small, {})
    far = Update("uncertainty", "reactor_separator", (), 1000, "box", small | {"upper": [9.0] * 3}, {})
    found = {name: update_message(good, Time(), run) for name in ("damaged", "too large", "stale", "not finite")}
    found["out of bounds"] = update_message(far, Time(), run)
    found["damaged"].content_json = found["damaged"].content_json.replace("1e-06", "1e-07", 1)
    found["too large"].content_json += " " * 100_000
    found["stale"].version = 0
    found["not finite"].content_json = '{"family": "box", "lower": [NaN, 0, 0], "upper": [1, 1, 1]}'
    for name in ("too large", "not finite"):
        found[name].sha256 = checksum(found[name].content_json)
    return found


def intrude(run: str) -> None:
    """Publish them to every agent, one after the other: a reader keeps only the newest."""
    context = Context()
    rclpy.init(context=context, domain_id=int(DOMAIN))
    node = rclpy.create_node("intruder", context=context)
    kind = UPDATE_MESSAGES["uncertainty"]
    out = [node.create_publisher(kind, f"/reactor_separator/{a}/uncertainty_update", qos.UPDATE) for a in AGENTS]
    deadline = time.monotonic() + 10
    while any(p.get_subscription_count() < 2 for p in out) and time.monotonic() < deadline:  # agent and recorder
        time.sleep(0.05)
    for message in wrong_updates(run).values():
        for publisher in out:
            publisher.publish(message)
            publisher.wait_for_all_acked(Duration(seconds=1.0))
        time.sleep(0.25)
    node.destroy_node()
    context.shutdown()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A run with a policy that loses money on trial; the learner is killed twice, and somebody sends nonsense."""
    folder = tmp_path_factory.mktemp("learn") / "run"
    policy = folder.parent / "bad.json"
    Policy("reactor_separator", Actor("constant", 3, 13, 2), np.tile([-1.0, -1.0], 3)).save(policy)
    words = [sys.executable, "-m", "rmpc_ros.cli", "run", str(FILE), "--learn", "--policy", str(policy), "--json"]
    words += ["--duration", str(36 * STEPS), "--speed", str(SPEED), "--out", str(folder), "--processes", "1"]
    environment = os.environ | {"ROS_DOMAIN_ID": DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        killed = 0
        for rows in (90, 330):  # transitions of all agents: in the middle of the trial, and later
            pid = wait_for_learner(folder, rows, running)
            os.kill(pid, signal.SIGKILL)
            killed = wait_for_restart(folder, pid, running)
        assert killed
        intrude(json.loads((folder / "log" / "learner.json").read_text())["nodes"][0]["parameters"]["run"])
        out, errors = running.communicate(timeout=120)
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
            running.wait(30)
    assert running.returncode == 0, errors
    return json.loads(out), folder


def wait_for_learner(folder: Path, rows: int, running: subprocess.Popen[str]) -> int:
    """Its process number, once so many transitions are on disk."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
        if (folder / "learning" / "store.db").exists() and stored(folder) >= rows:
            return int(json.loads((folder / "processes.json").read_text())["learner"]["pid"])
    raise AssertionError(f"{rows} transitions never came; exit status {running.poll()}")


def wait_for_restart(folder: Path, pid: int, running: subprocess.Popen[str]) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
        now = json.loads((folder / "processes.json").read_text())["learner"]["pid"]
        if now not in (None, pid):
            return int(now)
    raise AssertionError("the learner was not started again")


def stored(folder: Path) -> int:
    import sqlite3

    database = sqlite3.connect(f"file:{folder / 'learning' / 'store.db'}?mode=ro", uri=True)
    try:
        return int(database.execute("select count(*) from transitions").fetchone()[0])
    except sqlite3.OperationalError:  # it is being made
        return 0
    finally:
        database.close()


def test_killed_twice_while_writing_it_has_every_transition_once(learned: tuple[dict[str, Any], Path]) -> None:
    result, folder = learned
    assert result["restarts_by_process"]["learner"] == 2
    sent = {
        (str(e.message.agent), int(e.message.step)) for e in read_bag(folder / "bag") if e.topic.endswith("/transition")
    }
    with TransitionStore(folder / "learning" / "store.db") as store:
        (run,) = store.runs()
        kept = [(t.agent, t.step) for _, t in store.read(run)]
        assert len(kept) == len(set(kept))
        late = sent - set(kept)  # the end of the run came before the last acknowledgement
        assert all(step >= STEPS - 10 for _, step in late), late
        for agent in AGENTS:
            assert store.missing(run, agent) == []
            steps = [step for name, step in kept if name == agent]
            assert steps[0] == 0 and steps[-1] >= STEPS - 10
            assert store.acknowledged(run)[agent] == steps[-1]


def test_the_bad_policy_was_rolled_back_before_any_violation(learned: tuple[dict[str, Any], Path]) -> None:
    result, folder = learned
    assert result["violations"] == 0
    with TransitionStore(folder / "learning" / "store.db") as store:
        (run,) = store.runs()
        ran = {t.versions.policy for _, t in store.read(run, "reactor1")}
        others = {t.versions.policy for _, t in store.read(run, "reactor2")}
    policies = Ledger(folder / "learning" / "store.versions.db", run).entries("policy")
    assert [u.certificate["stage"] for u in policies[:2]] == ["canary", "roll-back"]
    assert policies[0].agents == ("reactor1",) and policies[1].certificate["of"] == 1
    assert {1, 2} <= ran  # on trial, then taken back
    assert 1 not in others


def test_every_agent_refuses_nonsense_and_names_it(learned: tuple[dict[str, Any], Path]) -> None:
    _, folder = learned
    config = load_plant(FILE)
    run = read_run(folder / "bag")
    for agent in config.agents:
        told = [s.values for s in run.statuses if s.name.endswith(f"{agent}/agent: messages")]
        assert told, agent
        for reason in ("damaged", "too large", "stale", "not finite", "out of bounds"):
            assert f"rejected ({reason})" in told[-1], (agent, reason, told[-1])
        versions = [s.values for s in run.statuses if s.name.endswith(f"{agent}/agent: updates")]
        assert all(int(values["set_version"]) < 1000 for values in versions)


def test_the_report_tells_what_was_learned(learned: tuple[dict[str, Any], Path]) -> None:
    result, folder = learned
    learning = result["learning"]
    assert learning["roll_backs"] >= 1
    assert learning["versions"]["policy"] >= 2
    assert learning["profit_per_hour"] > 0
    assert learning["set_share_last"] <= 1.0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "rolled back" in page and "plot-learning" in page
