"""The learner on the ROS graph: killed while it writes, a bad policy on trial, and updates that nobody should take."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

import rclpy
from builtin_interfaces.msg import Time
from rclpy.context import Context
from rclpy.duration import Duration

from rmpc_ros.config.learning import MOVES
from rmpc_ros.learning.from_bag import train_from_bag
from rmpc_ros.learning.ledger import Ledger
from rmpc_ros.learning.outbox import Outbox
from rmpc_ros.learning.policy import Actor, Policy, load_policy
from rmpc_ros.learning.store import TransitionStore
from rmpc_ros.learning.update import Update
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.convert_learning import UPDATE_MESSAGES, checksum, update_message
from rmpc_ros.report.data import RunData, read_run

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"
SPEED = 36 * 20  # twenty steps a second, for as long as it takes
ENOUGH = 420  # transitions of all agents
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
def recorded(learned: tuple[dict[str, Any], Path]) -> RunData:
    return read_run(learned[1] / "bag")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A run with a policy that loses money on trial; the learner is killed, and somebody sends nonsense."""
    folder = tmp_path_factory.mktemp("learn") / "run"
    plant = folder.parent / "plant.yaml"  # one round of cooperation per step: it is not what this is about
    once = FILE.read_text(encoding="utf-8").replace("\nnetwork:\n", "\nnetwork:\n  cooperation: {rounds: 1}\n")
    plant.write_text(once, encoding="utf-8")
    policy = folder.parent / "bad.json"
    losing = np.tile([-1.0, -1.0, -1.0, 1.0], 3)  # set-point and economics against profit, terminal weight at its most
    Policy("reactor_separator", Actor("constant", 3, 13, len(MOVES)), losing, named=MOVES).save(policy)
    words = [sys.executable, "-m", "rmpc_ros.cli", "run", str(plant), "--learn", "--policy", str(policy), "--json"]
    words += ["--duration", "1e7", "--speed", str(SPEED), "--out", str(folder), "--processes", "1"]
    environment = os.environ | {"ROS_DOMAIN_ID": DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        wait(running, lambda: stored(folder) >= 110)  # in the middle of the trial
        pid = learner_of(folder)
        os.kill(pid, signal.SIGKILL)
        wait(running, lambda: learner_of(folder) not in (0, pid))
        intrude(json.loads((folder / "log" / "learner.json").read_text())["nodes"][0]["parameters"]["run"])
        wait(running, lambda: stored(folder) >= ENOUGH and taken_back(folder) > 60)  # asked again
    finally:
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert "stopped at step" in errors and "Traceback" not in errors
    return json.loads((folder / "run.json").read_text()), folder


def wait(running: subprocess.Popen[str], what: Callable[[], bool]) -> None:
    """Until something is so; the run must not end before."""
    deadline = time.monotonic() + 100
    while not what():
        assert running.poll() is None and time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def learner_of(folder: Path) -> int:
    """Number of the learner's process; 0: there is none now."""
    return int(json.loads((folder / "processes.json").read_text())["learner"]["pid"] or 0)


def stored(folder: Path) -> int:
    return count(folder / "learning" / "store.db", "select count(*) from transitions")


def taken_back(folder: Path) -> int:
    """Transitions under the second version of the policy, which is the roll-back."""
    return count(folder / "learning" / "store.db", "select count(*) from transitions where policy_version >= 2")


def count(path: Path, query: str) -> int:
    """A number from a database that somebody else is writing; 0 before it is there."""
    if not path.exists():
        return 0
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(database.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # it is being made
        return 0
    finally:
        database.close()


def test_killed_while_writing_it_has_every_transition_once(
    learned: tuple[dict[str, Any], Path], recorded: RunData
) -> None:
    result, folder = learned
    assert result["restarts_by_process"]["learner"] == 1
    sent = {(name, step) for name, agent in recorded.agents.items() for step in agent.versions}
    with TransitionStore(folder / "learning" / "store.db") as store:
        (run,) = store.runs()
        kept = [(t.agent, t.step) for _, t in store.read(run)]
        assert len(kept) == len(set(kept))
        for agent in AGENTS:
            assert store.missing(run, agent) == []
            steps = [step for name, step in kept if name == agent]
            assert steps[0] == 0 and store.acknowledged(run)[agent] == steps[-1]
            # What the end of the run came too early for waits in the agent's outbox.
            waiting = {t.step for t, _ in Outbox(folder / "learning" / f"{agent}.outbox", run).pending(-1, 10_000)}
            assert {step for name, step in sent if name == agent} <= set(steps) | waiting
            assert len(steps) >= ENOUGH // 3 - 20


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


def test_the_terminal_weight_of_a_policy_is_in_force_where_it_runs_and_goes_with_it(recorded: RunData) -> None:
    def weights(agent: str) -> list[float]:
        told = [s.values for s in recorded.statuses if s.name.endswith(f"{agent}/agent: updates")]
        return [float(values["terminal_weight"]) for values in told]

    tried = weights("reactor1")
    assert 10.0 in tried and tried[-1] == 1.0
    assert set(weights("reactor2")) == {1.0}


def test_every_agent_refuses_nonsense_and_names_it(recorded: RunData) -> None:
    for agent in AGENTS:
        told = [s.values for s in recorded.statuses if s.name.endswith(f"{agent}/agent: messages")]
        assert told, agent
        for reason in ("damaged", "too large", "stale", "not finite", "out of bounds"):
            assert f"rejected ({reason})" in told[-1], (agent, reason, told[-1])
        versions = [s.values for s in recorded.statuses if s.name.endswith(f"{agent}/agent: updates")]
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


def test_the_same_can_be_learned_from_the_bag(learned: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    _, folder = learned
    result, _ = train_from_bag(FILE, folder, tmp_path)
    with TransitionStore(folder / "learning" / "store.db") as live, TransitionStore(tmp_path / "store.db") as again:
        (run,) = live.runs()
        known = {(t.agent, t.step): t for _, t in live.read(run)}
        both = [(t, known[t.agent, t.step]) for _, t in again.read(run) if (t.agent, t.step) in known]
    assert len(both) >= ENOUGH - 60
    for ours, theirs in both:  # what the agents sent is what the bag says
        assert np.allclose(ours.state, theirs.state) and np.allclose(ours.input, theirs.input)
        if ours.step:  # an agent promises twice for its first step
            assert np.allclose(ours.disturbance, theirs.disturbance, atol=1e-9)
    assert set(result["sets"]) == set(AGENTS)
    assert load_policy(tmp_path / "policy.json").actor.kind == "affine"
