"""`python -m rmpc_ros.nodes.ingest PLANT COUNT`: how fast a real learner node takes transitions from ROS onto its disk.

The learner runs in a process of its own, as `rmpc run --learn` starts it. This process plays all agents: it publishes
messages that were serialized beforehand and stays at most `AHEAD` transitions ahead of the acknowledgements, which come
only after a synced transaction. It does not learn meanwhile: at this rate an hour of plant time passes in a fraction of
a second. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message

from rmpc_ros import bringup
from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.errors import RmpcError
from rmpc_ros.learning.transition import Transition
from rmpc_ros.msg import Transition as TransitionMessage
from rmpc_ros.msg import TransitionAck
from rmpc_ros.network.system import design_agents
from rmpc_ros.nodes import convert_learning, qos
from rmpc_ros.nodes.agent import peers_of
from rmpc_ros.usage import cpu_seconds

AHEAD = 3000  # transitions of all agents together; a reader keeps more
PATIENCE = 120.0  # seconds
TERMS = ("product", "quality", "steam", "emissions", "violation")


def messages(config: PlantConfig, run: str, count: int) -> list[list[bytes]]:
    """Serialized transitions, by agent and step: the plant at rest with a little noise."""
    designs = design_agents(config)
    peers, generator = peers_of(designs, run), np.random.default_rng(0)
    out = []
    for name, design in designs.items():
        spread = 0.01 * design.scale[: design.nx]
        rows: list[bytes] = []
        others = {other: designs[other].steady_state for other in design.neighbours}
        for step in range(count):
            noise = generator.normal(size=(3, design.nx)) * spread
            x, after = design.steady_state + noise[0], design.steady_state + noise[1]
            rewards = dict.fromkeys(TERMS, float(noise[0, 0]))
            transition = Transition(name, step, x, after, design.steady_input, others, 0.1 * noise[2], rewards)
            rows.append(serialize_message(convert_learning.transition_message(transition, peers, Time(), step - 1)))
        out.append(rows)
    return out


def measure(plant: Path, count: int) -> dict[str, Any]:
    """Transitions per second of wall time and of the learner's CPU time.

    Raises
    ------
    RmpcError
        The learner has not acknowledged everything in time.
    """
    config = load_plant(plant)
    run, base = "ingest", bringup.base_namespace(config)
    prepared = messages(config, run, count)
    total = count * len(prepared)
    with TemporaryDirectory() as folder:
        parameters = {"plant": str(plant), "run": run, "store": str(Path(folder) / "store.db"), "think": False}
        spec = {"kind": "learner", "name": "learner", "namespace": base, "parameters": parameters}
        file = Path(folder) / "learner.json"
        file.write_text(json.dumps({"name": "learner", "parent": os.getpid(), "nodes": [spec]}), encoding="utf-8")
        learner = subprocess.Popen([sys.executable, "-m", "rmpc_ros.nodes", str(file)], stdout=subprocess.DEVNULL)
        rclpy.init()
        node = rclpy.create_node("agents")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        acknowledged: dict[str, int] = {}

        def on_acknowledgement(message: TransitionAck) -> None:
            acknowledged.update(zip(message.agents, message.steps, strict=True))

        node.create_subscription(TransitionAck, f"{base}/transition_ack", on_acknowledgement, qos.UPDATE)
        deep = qos.recording(qos.REPORT)  # three writers stand for many agents with a short history each
        out = [node.create_publisher(TransitionMessage, f"{base}/{a}/transition", deep) for a in config.agents]
        try:
            deadline = time.monotonic() + PATIENCE
            while any(not p.get_subscription_count() for p in out):
                executor.spin_once(timeout_sec=0.05)
                if time.monotonic() > deadline or learner.poll() is not None:
                    raise RmpcError(f"the learner did not come up (exit status {learner.poll()})")
            before, began, sent = _cpu(learner.pid), time.perf_counter(), 0
            while (done := sum(step + 1 for step in acknowledged.values())) < total:
                while sent < count and (sent * len(out)) - done < AHEAD:
                    for publisher, rows in zip(out, prepared, strict=True):
                        publisher.publish(rows[sent])
                    sent += 1
                executor.spin_once(timeout_sec=0.01)
                if time.monotonic() > deadline:
                    raise RmpcError(f"{done} of {total} transitions were acknowledged in {PATIENCE:g} s")
            wall, cpu = time.perf_counter() - began, _cpu(learner.pid) - before
        finally:
            learner.terminate()
            learner.wait(30)
            executor.remove_node(node)
            node.destroy_node()
            rclpy.try_shutdown()
    return {
        "transitions": total,
        "ingest_ros_per_s": total / wall,
        "ingest_ros_per_cpu_s": total / cpu,
        "learner_cpu_share": cpu / wall,
    }


def _cpu(pid: int) -> float:
    """CPU time of a process so far [s]."""
    used = cpu_seconds(pid)
    if used is None:
        raise RmpcError(f"the CPU time of process {pid} is not known here: this benchmark needs /proc (Linux)")
    return used


def main() -> int:
    """Run with a plant file and the number of steps per agent."""
    try:
        print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
    except RmpcError as error:
        print(f"ingest: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
