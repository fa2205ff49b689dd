"""What all our nodes share: lifecycle, parameters, one wall-clock tick, their line on /diagnostics.

A node starts itself when `autostart` is true (as `rmpc run` and the launch files ask); with `autostart:=false` it waits
for `ros2 lifecycle set NODE configure` and `activate`. rclpy's lifecycle gates publishers only, so subclasses make
their subscriptions and timers in `open` and drop them in `close`: an inactive node hears and does nothing.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from rmpc_ros.errors import RmpcError
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.diagnostics import Diagnostics
from rmpc_ros.nodes.parameters import Param, declare

TICK = 0.05  # seconds of wall time between looks at what is late
DIAGNOSTICS_PERIOD = 1.0
ONLOOKER = 10  # niceness of those who look on: on a full machine the agents' steps come first
ACKNOWLEDGE = 0.5  # seconds of patience for a reader's acknowledgement

COMMON = (
    Param("autostart", True, "configure and activate by itself at start"),
    Param("executor", "events", "who waits for messages in this process", choices=("events", "single")),
    Param("run", "", "identifier of the run; messages of another run are refused"),
    Param("restarts", 0, "how often the supervisor has restarted this node", low=0, high=1_000_000),
    Param("plant", "", "plant file (YAML)"),
)


class _Plain:
    """A timer's callback without arguments: rclpy looks at its signature at every call, and finds it here at once."""

    __signature__ = inspect.Signature()

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __call__(self) -> None:
        self._call()


class ManagedNode(LifecycleNode):
    """Base of our nodes. Subclasses extend `PARAMETERS` and define `configure`, `open`, `close`, `tick`."""

    PARAMETERS: ClassVar[tuple[Param, ...]] = ()
    supervised: ClassVar[bool] = False
    niceness: ClassVar[int] = 0  # of the process, where none of its nodes asks for less: who only looks on gives way
    linger: ClassVar[float] = 0.0  # seconds for which a stopped node still takes in what is on its way

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.values = declare(self, (*COMMON, *self.PARAMETERS))
        self.exit_status: int | None = None
        self.diagnostics = Diagnostics(self.get_fully_qualified_name())
        self.wall = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_due = 0.0
        self._open = False
        self._ears: list[Subscription] = []

    # -- what subclasses say ------------------------------------------------------------------------------------------
    def configure(self) -> None:
        """Build everything that takes time; may raise RmpcError."""

    def open(self) -> None:
        """Make subscriptions and timers, begin to work."""

    def close(self) -> None:
        """Drop them."""

    def tick(self, now: float) -> None:
        """Look at what is late; `now` is steady wall time in seconds."""

    # -- what subclasses use ------------------------------------------------------------------------------------------
    def listen(self, kind: type, topic: str, callback: Callable[[Any], None], profile: QoSProfile, **more: Any) -> None:
        """Subscribe until `deafen`."""
        self._ears.append(self.create_subscription(kind, topic, callback, profile, **more))

    def every(self, seconds: float, callback: Callable[[], None], clock: Clock | None = None) -> Timer:
        """A timer, by the node's clock if no other is given."""
        return self.create_timer(seconds, _Plain(callback), clock=clock)

    def deafen(self) -> None:
        """Drop every subscription made by `listen`."""
        while self._ears:
            self.destroy_subscription(self._ears.pop())

    def heard_by(self, publisher: Publisher, nodes: set[str]) -> bool:
        """Whether these nodes (full names) are known to listen, and as many are connected as are known."""
        known = self.get_subscriptions_info_by_topic(publisher.topic_name)
        names = {f"{e.node_namespace.rstrip('/')}/{e.node_name}" for e in known}
        return nodes <= names and publisher.get_subscription_count() >= len(known)

    def drain(self, *publishers: Publisher) -> None:
        """Wait (briefly) until every reader has what was published: a process that ends takes the rest with it."""
        for publisher in publishers:
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE))

    def tell(self, event: str, **facts: Any) -> None:
        """Report to the supervisor, if there is one: one line of JSON on standard output."""
        if self.supervised:
            print(json.dumps({"event": event, **facts}), flush=True)

    # -- lifecycle ----------------------------------------------------------------------------------------------------
    def start(self) -> bool:
        """Configure and activate; False (and a message) where that fails."""
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                return False
        return True

    def stop(self) -> None:
        """Take down in order from whatever state."""
        if self._open:
            self.trigger_deactivate()
        self.trigger_shutdown()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle: unconfigured to inactive."""
        try:
            self._publisher = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
            self.configure()
        except RmpcError as error:
            self.get_logger().error(str(error))
            self.exit_status = 1 if self.values["autostart"] else None
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle: inactive to active."""
        try:
            self.open()
        except RmpcError as error:
            self.deafen()  # what was listened to before it failed
            self.get_logger().error(str(error))
            self.exit_status = 1 if self.values["autostart"] else None
            return TransitionCallbackReturn.FAILURE
        self._open = True
        self._timer = self.every(TICK, self._tick, self.wall)
        self.tell("active", node=self.get_fully_qualified_name())
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle: active to inactive; a last word on /diagnostics."""
        self._open = False
        self.publish_diagnostics()
        self.drain(self._publisher)
        self.destroy_timer(self._timer)
        self.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle: inactive to unconfigured."""
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle: to finalized."""
        if self._open:
            self._open = False
            self.close()
        return super().on_shutdown(state)

    # -- diagnostics --------------------------------------------------------------------------------------------------
    def due(self, now: float) -> bool:
        """Whether the statuses are published after this tick whatever they say."""
        return now >= self._diagnostics_due

    def _tick(self) -> None:
        now = time.monotonic()
        self.tick(now)
        if self._open and (self.due(now) or self.diagnostics.urgent):
            self._diagnostics_due = now + DIAGNOSTICS_PERIOD
            self.publish_diagnostics()

    def publish_diagnostics(self) -> None:
        """Publish this node's statuses now."""
        array = DiagnosticArray(status=self.diagnostics.statuses())
        array.header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(array)
