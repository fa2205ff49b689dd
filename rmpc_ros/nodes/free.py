"""Free-running: an agent's steps start by its own clock and the wired sensors; nobody waits for it.

Step k starts when every sensor has spoken in period k, and is decided when the neighbours' news has come; both at a
fixed phase of the period at the latest, with what is there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rmpc_ros.errors import ConfigError
from rmpc_ros.msg import Measurement
from rmpc_ros.nodes import convert, qos
from rmpc_ros.nodes.diagnostics import ERROR, OK
from rmpc_ros.nodes.wiring import Readings, Wire

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode

LATEST = 0.8  # of a period: what is decided after it is dropped; the rest is for the command's way
PHASE = 0.2  # of a period: so long sensors and neighbours' news are waited for
LOOKS = 5  # a period is looked at so many times for the phase
ROUNDING = 1e-6  # of a period: a clock that stands at the period's begin is in it
FRESH = 1.3  # periods: how long before this one a sensor value may have come that does not say when it was taken
AHEAD = 2.0  # periods: what is stamped further ahead of this node's clock is refused


class FreeRunning:
    """Starts the steps of one agent.

    Parameters
    ----------
    node : being configured
    sensors, actuators : the agent's wires

    Raises
    ------
    ConfigError
        A state without a sensor, an input without an actuator, an estimator.

    Attributes
    ----------
    late_after : seconds of wall time after its begin at which the newest step's decision is too late
    """

    def __init__(self, node: AgentNode, sensors: list[Wire], actuators: list[Wire]) -> None:
        self._node, self._sensors = node, sensors
        self._period = node.config.period
        for what, names, wires in (
            ("sensor", node.spec.states, sensors),
            ("actuator", node.spec.inputs, actuators),
        ):
            missing = [name for name in names if name not in {wire.target for wire in wires}]
            if missing:
                raise ConfigError(
                    f"agents.{node.agent}.{what}s: timing 'free' needs a {what} for {', '.join(missing)}; add one, or "
                    "run in lockstep"
                )
        if node.config.estimator is not None:  # a launch argument may ask for what the file does not
            raise ConfigError(f"agent {node.agent}: timing 'free' has no estimator; run in lockstep, or without")
        self._publisher = node.create_publisher(Measurement, "measurement", qos.STEP)

    def open(self) -> None:
        """Look at the clock; nothing starts before `begin`."""
        self._sensed = -1
        self._begun = False
        self.late_after = 0.0
        self.readings = Readings(self._sensors, len(self._node.spec.states), AHEAD * self._period)
        self._timer = self._node.every(self._period / LOOKS, self._on_clock)

    def close(self) -> None:
        """Look no more."""
        self._node.destroy_timer(self._timer)

    def begin(self) -> None:
        """Listen to the sensors: a simulated plant begins when they are listened to."""
        self._begun = True
        node = self._node
        for wire in self._sensors:
            take = self.readings.listener(wire, node.now, node.diagnostics.reject, self._on_sensor)
            node.listen(wire.kind, wire.topic, take, qos.SENSOR_NOW)

    def _place(self) -> tuple[int, float]:
        """The step of the node's clock, and the part of its period that has passed."""
        now = self._node.now() / self._period
        step = int(now + ROUNDING)
        return step, max(now - step, 0.0)

    def _on_sensor(self) -> None:
        """A sensor has spoken; when all have in this period, the step begins."""
        step, part = self._place()
        if self._begun and step > self._sensed:
            self._sense(step, part)

    def _on_clock(self) -> None:
        """At its phase a step is decided with what is there."""
        step, part = self._place()
        node = self._node
        if not self._begun or step <= node.round.done or part < PHASE:
            return
        if step > self._sensed and not self._sense(step, part, FRESH):
            return
        if step > node.round.done:
            node.decide_when_due(at_once=True)

    def _sense(self, step: int, part: float, age: float = 0.0) -> bool:
        """Begin a step with the values of its period, and tell them the neighbours; False where one is missing.

        `age`: periods before this one in which a value may have come whose message does not say when it was taken.
        """
        node, period = self._node, self._period
        if step < node.promise.step:
            node.diagnostics.say(
                "journal", ERROR, "the journal's promise lies in the future of this clock", promised=node.promise.step
            )
            return False
        state = self.readings.recent((step - ROUNDING) * period, age * period, (step + 1 - ROUNDING) * period)
        if state is None:
            if part >= PHASE:
                node.diagnostics.say(
                    "sensors", ERROR, "no fresh value from every sensor; the plan goes on without the agent"
                )
            return False
        node.diagnostics.say("sensors", OK, "all sensors speak")
        self._sensed = step
        measured = convert.Measurement(node.agent, step, state)
        self._publisher.publish(convert.measurement_message(measured, node.layout, node.stamp(), node.run))
        node.round.own(step, state, time.monotonic())
        # Who is told late that the period has begun has less than the deadline left of it.
        self.late_after = min(node.deadline, (LATEST - part) * period / node.values["speed"])
        node.decide_when_due()
        return True
