"""One process: its nodes, its executor, and a clean end.

The events executor is three times cheaper per message than the default one, but its `spin()` does not call back on
these versions; `spin_once` does. SIGINT and SIGTERM end the loop, the nodes are taken down in order, exit status 0.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from rmpc_ros.errors import RmpcError
from rmpc_ros.nodes.managed import ManagedNode

NODES = {
    "agent": "rmpc_ros.nodes.agent:AgentNode",
    "plant": "rmpc_ros.nodes.plant:PlantNode",
    "monitor": "rmpc_ros.nodes.monitor:MonitorNode",
    "recorder": "rmpc_ros.nodes.recorder:RecorderNode",
    "learner": "rmpc_ros.nodes.learner:LearnerNode",
}


AUTOGROUP = Path("/proc/self/autogroup")
TRIES, BETWEEN = 10, 0.13  # seconds
LOOK = 0.1
"""Seconds between two looks at whether to go on; in between there is only the work."""


def make_executor(kind: str) -> Executor:
    """`events` where rclpy has it (Jazzy and later), else `single`."""
    if kind == "events":
        try:
            from rclpy.experimental import EventsExecutor
        except ImportError:
            return SingleThreadedExecutor()
        return EventsExecutor()
    return SingleThreadedExecutor()


def give_way(niceness: int) -> None:
    """Let other processes go first, also those of other sessions where Linux weighs sessions instead of processes."""
    if niceness <= 0:
        return
    os.nice(niceness)
    if not AUTOGROUP.exists() or os.getsid(0) != os.getpid():  # the session is not this process's own
        return
    for _ in range(TRIES):
        try:
            AUTOGROUP.write_text(str(niceness), encoding="ascii")
            return
        except BlockingIOError:  # without privileges Linux takes one such word in 0.1 s from all processes together
            time.sleep(BETWEEN)
        except OSError as error:
            print(f"priority of the session not lowered: {error}", file=sys.stderr)
            return
    print("priority of the session not lowered: the system was busy with others", file=sys.stderr)


class Process:
    """Spins its nodes until a signal, the death of the parent, or a node that is done."""

    def __init__(self, nodes: Sequence[ManagedNode], parent: int = 0) -> None:
        self._nodes = list(nodes)
        self._parent = parent
        self._stopped = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True

    def run(self) -> int:
        """Start, spin, take down; returns the exit status."""
        give_way(min(node.niceness for node in self._nodes))
        executor = make_executor(self._nodes[0].values["executor"])
        for node in self._nodes:
            executor.add_node(node)
        status = 0
        for node in self._nodes:
            if node.values["autostart"] and not node.start():
                status = 1
                self._stopped = True
        # What has been built stays: the collector need not look at all of it again while the nodes work.
        gc.collect()
        gc.freeze()
        look = 0.0
        while not self._stopped:
            executor.spin_once(timeout_sec=LOOK)
            if time.monotonic() < look:
                continue
            look = time.monotonic() + LOOK
            if not rclpy.ok():
                break
            if any(node.exit_status is not None for node in self._nodes):
                status = max(node.exit_status or 0 for node in self._nodes)
                break
            if self._parent and os.getppid() != self._parent:  # nobody is left to supervise this process
                break
        until = time.monotonic() + max(node.linger for node in self._nodes)
        while rclpy.ok() and time.monotonic() < until:
            executor.spin_once(timeout_sec=0.05)
        for node in reversed(self._nodes):
            node.stop()
            executor.remove_node(node)
            node.destroy_node()
        return status


def node_class(kind: str) -> type[ManagedNode]:
    """Class of a kind of node, imported when it is needed."""
    module, _, name = NODES[kind].partition(":")
    cls: type[ManagedNode] = getattr(importlib.import_module(module), name)
    return cls


def _run(specs: list[dict[str, Any]] | None, kind: str, arguments: list[str] | None, parent: int) -> int:
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        if specs is None:
            nodes = [node_class(kind)(kind)]
        else:
            nodes = [
                node_class(spec["kind"])(
                    spec["name"],
                    namespace=spec["namespace"],
                    parameter_overrides=[Parameter(key, value=value) for key, value in spec["parameters"].items()],
                    use_global_arguments=False,
                )
                for spec in specs
            ]
        return Process(nodes, parent).run()
    except RmpcError as error:
        print(f"{kind}: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()


def main(kind: str, arguments: list[str] | None = None) -> int:
    """Run one node with the usual ROS arguments (`ros2 run`, launch files)."""
    return _run(None, kind, sys.argv if arguments is None else arguments, parent=0)


def packed(file: Path) -> int:
    """Run the nodes that `file` (JSON, written by `rmpc run`) describes in this process."""
    what = json.loads(file.read_text(encoding="utf-8"))
    ManagedNode.supervised = True
    return _run(what["nodes"], what["name"], None, what["parent"])
