"""The recorder: every topic of the plant as serialized bytes into one MCAP bag, nothing decoded on the way.

It begins to listen to the measurements only when it hears everybody else, and the plant begins only when everybody
listens to the measurements: so the bag has the run from its first step.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import ClassVar

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.diagnostics import OK, WARN
from rmpc_ros.nodes.managed import ONLOOKER, ManagedNode
from rmpc_ros.nodes.parameters import Param
from rmpc_ros.nodes.process import main as run_node
from rmpc_ros.nodes.wiring import message_class
from rmpc_ros.record import BagWriter, offered, set_aside

FLUSH = 1.0  # seconds of wall time; what is older survives the death of this process
PATIENCE = 20.0  # seconds to wait for publishers before listening to the measurements anyway


class RecorderNode(ManagedNode):
    """Writes what the plant and its agents say."""

    niceness: ClassVar[int] = ONLOOKER
    PARAMETERS: ClassVar[tuple[Param, ...]] = (
        Param("bag", "", "folder to make and record into"),
        Param("learning", False, "also what learner and agents say about learning"),
    )
    linger: ClassVar[float] = 0.3

    def configure(self) -> None:
        """Open the bag."""
        if not self.values["bag"]:
            raise ConfigError("parameter bag is empty; give the folder to record into")
        config = load_plant(self.values["plant"])
        namespace = self.get_namespace().rpartition("/")[0]
        self._topics = bringup.topics(config, namespace, self.values["learning"])
        self._once = {
            t.name for t in self._topics if t.type == "rmpc_ros/Measurement" and t.name.endswith("/measurement")
        }
        folder = Path(self.values["bag"])
        left = set_aside(folder)
        if left is not None:
            self.diagnostics.say("bag", WARN, f"an earlier recorder left {left.name}; it is joined when the run ends")
        try:
            profiles = {t.name: getattr(qos, t.profile) for t in self._topics}
            rows = [
                (
                    t.name,
                    t.type,
                    offered(
                        profiles[t.name].reliability == ReliabilityPolicy.RELIABLE,
                        profiles[t.name].depth,
                        profiles[t.name].durability == DurabilityPolicy.TRANSIENT_LOCAL,
                    ),
                )
                for t in self._topics
            ]
            self._bag = BagWriter(folder, bringup.summary(config, namespace, self.values["run"]), rows)
        except (DataError, OSError) as error:
            raise ConfigError(f"cannot record into {folder}: {error}") from error

    def open(self) -> None:
        """Listen to everybody but the measurements."""
        self._opened = time.monotonic()
        self._flushed = 0.0
        self._complete = False
        for topic in self._topics:
            if topic.name not in self._once:
                self._record(topic)

    def close(self) -> None:
        """Complete the bag."""
        self.deafen()
        self._bag.close()

    def tick(self, now: float) -> None:
        """Listen to the measurements when everybody is heard; flush."""
        if not self._complete:
            unheard = self._unheard()
            if not unheard or now - self._opened > PATIENCE:
                self._complete = True
                for topic in self._topics:
                    if topic.name in self._once:
                        self._record(topic)
        if now - self._flushed > FLUSH:
            self._flushed = now
            self._bag.flush()
            self.diagnostics.say("", OK, f"{self._bag.count} messages", messages=self._bag.count)

    def _unheard(self) -> list[str]:
        """Topics of agents that nobody publishes yet."""
        agents = [
            t.name for t in self._topics if t.name.rpartition("/")[2] in ("command", "forecast", "report", "truth")
        ]
        return [name for name in agents if self.count_publishers(name) == 0]

    def _record(self, topic: bringup.Topic) -> None:
        profile = qos.recording(getattr(qos, topic.profile))
        self.listen(message_class(topic.type), topic.name, partial(self._write, topic.name), profile, raw=True)

    def _write(self, topic: str, data: bytes) -> None:
        self._bag.write(topic, self.get_clock().now().nanoseconds, data)


def main() -> int:
    """`ros2 run rmpc_ros recorder`."""
    return run_node("recorder", sys.argv)
