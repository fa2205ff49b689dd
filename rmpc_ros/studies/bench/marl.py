"""Throughput of learning: campaigns on the surrogate and with the real controllers, storing, and deciding.

`surrogate_speedup` compares the two ways to live the same days in this run. The step rate counts the whole loop (plant,
three controllers, bookkeeping). `store_per_s` is what the store takes in synced batches; `ingest_per_s` is what a real
learner node takes over DDS from another process, checks, stores and acknowledges, per second of its CPU time, and
`ingest_wall_per_s` the same per second of wall time, which on a busy machine is less (null where ROS is missing).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import RmpcError
from rmpc_ros.learning.campaign import Campaigns, observation_size
from rmpc_ros.learning.case import LearningCase, learning_case
from rmpc_ros.learning.day import DayModel, RobustDays
from rmpc_ros.learning.policy import KINDS, Actor, Policy
from rmpc_ros.learning.scenario import draw_scenarios
from rmpc_ros.learning.store import TransitionStore
from rmpc_ros.learning.surrogate import identify_surrogate
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.transition import Transition
from rmpc_ros.studies.registry import Settings, Study


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Measure; CPU time of this process except for the store, where the disk's time counts too."""
    del folder
    case = learning_case(load_plant(shipped_plant(settings["plant"])))
    days = RobustDays(case)
    surrogate = identify_surrogate(case, days, seed=0, windows=settings["windows"])
    before = days.steps
    robust = _days_per_second(case, days.targets, days, 1, settings["days"])
    steps = days.steps - before
    quick = _days_per_second(case, days.targets, surrogate, settings["campaigns"], case.learning.campaign.days)
    batch = _transitions(settings["batch"])
    store = _store_per_second(batch, settings["batches"])
    ingest = _ingest(shipped_plant(settings["plant"]), settings["ros_steps"])
    policies = {
        kind: _policy_ms(case, Actor(kind, len(case.agents), observation_size(case), len(case.moves))) for kind in KINDS
    }
    agents = len(case.agents)
    return dict(settings) | {
        "surrogate_agent_steps_per_s": quick * agents,
        "mpc_plant_steps_per_s": robust * steps / settings["days"],
        "surrogate_speedup": quick / robust,
        "store_per_s": store,
        "ingest_per_s": ingest.get("ingest_ros_per_cpu_s"),
        "ingest_wall_per_s": ingest.get("ingest_ros_per_s"),
        "policy_ms": max(policies.values()),
        "policy_ms_by_kind": policies,
        "clock": "CPU time of this process; ingest: of the learner's; store: wall time, every batch synced to disk",
    }


def _days_per_second(case: LearningCase, targets: Targets, model: DayModel, count: int, days: int) -> float:
    campaigns = Campaigns(case, targets, model, draw_scenarios(case, range(count)))
    campaigns.reset()
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (days, count, len(case.agents), len(case.moves)))
    began = time.process_time()
    for day in range(days):
        campaigns.step(actions[day])
    return count * days / (time.process_time() - began)


def _transitions(count: int) -> list[Transition]:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((count, 12))
    names = ("product", "steam", "emissions", "quality", "violation", "catalyst")
    return [
        Transition("a", k, v[:3], v[3:6], v[6:7], {"b": v[:3], "c": v[3:6]}, v[9:], dict.fromkeys(names, float(v[0])))
        for k, v in enumerate(x)
    ]


def _store_per_second(batch: list[Transition], batches: int) -> float:
    with TemporaryDirectory() as folder, TransitionStore(Path(folder) / "store.db") as store:
        began = time.perf_counter()
        for k in range(batches):
            store.insert(f"run{k}", batch)
        stored = batches * len(batch) / (time.perf_counter() - began)
        assert len(store) == batches * len(batch)
    return stored


def _ingest(plant: Path, steps: int) -> dict[str, float]:
    """The learner node's own measurement, in processes of its own; empty where ROS is missing."""
    if steps == 0 or find_spec("rclpy") is None:
        return {}
    environment = {"ROS_DOMAIN_ID": "95", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"} | os.environ
    words = [sys.executable, "-m", "rmpc_ros.nodes.ingest", str(plant), str(steps)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RmpcError(f"the learner's ingest could not be measured: {done.stderr.strip()[-300:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _policy_ms(case: LearningCase, actor: Actor) -> float:
    """Median time of one call for all agents together."""
    generator = np.random.default_rng(0)
    policy = Policy(case.config.plant.name, actor, generator.standard_normal(actor.size))
    observations = generator.standard_normal((200, actor.agents, actor.observations))
    times = []
    for row in observations:
        began = time.perf_counter()
        policy.act(row)
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"surrogate   {result['surrogate_agent_steps_per_s']:12.0f} agent-steps/s"
    yield f"real MPC    {result['mpc_plant_steps_per_s']:12.0f} plant steps/s"
    yield f"ratio       {result['surrogate_speedup']:12.0f} times as many days per second"
    yield f"store       {result['store_per_s']:12.0f} transitions/s"
    if result["ingest_per_s"] is not None:
        wall = f"{result['ingest_wall_per_s']:.0f}/s of wall time"
        yield f"from ROS    {result['ingest_per_s']:12.0f} transitions per CPU second of the learner ({wall})"
    yield f"policy      {result['policy_ms']:12.3f} ms"


STUDY = Study(
    {
        "plant": "reactor_separator_campaign",
        "windows": 40,
        "days": 15,
        "campaigns": 500,
        "batch": 500,
        "batches": 10,
        "ros_steps": 5000,
    },
    run,
    table,
)
