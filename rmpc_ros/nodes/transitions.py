"""Part of the agent node: what each step brought goes to the learner, kept in an outbox until it is acknowledged.

A step's transition is complete at the next step, when the new state is measured and the actuators have said what they
did. It goes into the outbox first, then out on `transition`, once. The learner's acknowledgement (the newest step that
is on its disk with all before it) empties the outbox; where it does not move for `PATIENCE` seconds, everything later
is sent again, `CHUNK` at a time and at most `FLIGHT` ahead of the acknowledgement. Without a learner nothing is resent.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rmpc_ros.errors import ConfigError, DataError, MessageError
from rmpc_ros.learning.outbox import Outbox
from rmpc_ros.learning.stepwise import Stepwise
from rmpc_ros.learning.transition import Transition, Versions
from rmpc_ros.msg import Transition as TransitionMessage
from rmpc_ros.msg import TransitionAck
from rmpc_ros.network.decision import Decision
from rmpc_ros.nodes import convert_learning, qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.diagnostics import ERROR, OK, WARN
from rmpc_ros.nodes.round import Inputs

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode

PATIENCE = 1.0  # seconds without an acknowledgement after which the rest is sent again
CHUNK = 50  # transitions per look (twenty looks a second)
FLIGHT = 400  # sent again and not acknowledged, at most


class Transitions(AgentPart):
    """Completes, keeps, sends and resends one agent's transitions.

    Attributes
    ----------
    versions : what the agent uses from the next step on; the part `updates` writes it
    stepwise : completes them, and knows the neighbours' newest promises
    """

    def __init__(self, node: AgentNode) -> None:
        super().__init__(node)
        self.versions = Versions()
        self._publisher = node.create_publisher(TransitionMessage, "transition", qos.REPORT)

    def open(self) -> None:
        """Open the outbox, listen to the learner."""
        node = self.node
        try:
            self._outbox = Outbox(Path(node.values["outbox"]), node.run)
        except DataError as error:
            raise ConfigError(str(error)) from error
        self.stepwise = Stepwise(node.config, node.design)
        self._sent = self._outbox.acknowledged  # newest step that is on its way
        self._moved = time.monotonic()  # when the acknowledgement last moved, or something was sent after silence
        self._due = 0.0
        node.listen(TransitionAck, f"{node.base}/transition_ack", self._on_acknowledgement, qos.UPDATE)

    def close(self) -> None:
        """What is not acknowledged stays in the file."""
        self.node.drain(self._publisher)
        self._outbox.close()

    # -- the step -----------------------------------------------------------------------------------------------------
    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """Complete the step before, remember this one."""
        if inputs.applied is None and self.node.round.actuators_tell:
            self.stepwise.lose()  # what the actuators did was not heard: the command may have come too late
        done = self.stepwise.decided(
            inputs.step,
            inputs.state,
            inputs.neighbour_states,
            inputs.promises,
            inputs.applied,
            decision.input,
            self.versions,
        )
        if done is not None:
            self._keep(done)

    def _keep(self, transition: Transition) -> None:
        try:
            self._outbox.append(transition)
        except DataError as error:
            self.node.diagnostics.say("transitions", ERROR, f"lost: {error}")
            return
        before = self._outbox.before(transition.step)
        self._publish(transition, before)
        if self._sent >= before:  # else its turn comes with those before it
            self._sent = transition.step

    # -- out and back -------------------------------------------------------------------------------------------------
    def _publish(self, transition: Transition, previous: int) -> None:
        stamp = self.node.get_clock().now().to_msg()
        self._publisher.publish(convert_learning.transition_message(transition, self.node.peers, stamp, previous))

    def _on_acknowledgement(self, message: TransitionAck) -> None:
        try:
            steps = convert_learning.acknowledgement_from(message, self.node.peers)
        except MessageError as error:
            self.node.diagnostics.reject(str(error))
            return
        step = steps.get(self.node.agent, -1)
        if step <= self._outbox.acknowledged:
            return
        newest = max(self.node.round.done, self.node.promise.step)
        if step > newest:  # believing it would empty the outbox, now and until that step
            self.node.diagnostics.reject(f"future: TransitionAck, field steps: {step}; the newest step is {newest}")
            return
        try:
            self._outbox.acknowledge(step)
        except DataError as error:
            self.node.diagnostics.say("transitions", ERROR, str(error))
            return
        self._sent = max(self._sent, step)
        self._moved = time.monotonic()

    def tick(self, now: float) -> None:
        """Resend what is not acknowledged; say how much that is."""
        waiting = len(self._outbox)
        if not waiting or not self._publisher.get_subscription_count():
            self._moved = now
        elif now - self._moved > PATIENCE:  # begin again after the acknowledgement
            self._sent, self._moved = self._outbox.acknowledged, now
        room = min(CHUNK, FLIGHT - self._outbox.count_until(self._sent))
        if room > 0 and self._publisher.get_subscription_count():
            for transition, previous in self._outbox.pending(self._sent, room):
                self._publish(transition, previous)
                self._sent = transition.step
        if now >= self._due:
            self._due = now + 1.0
            full = waiting > self._outbox.capacity // 2 or self._outbox.dropped > 0
            self.node.diagnostics.say(
                "transitions",
                WARN if full else OK,
                f"{waiting} not acknowledged, {self._outbox.dropped} dropped",
                waiting=waiting,
                dropped=self._outbox.dropped,
                acknowledged=self._outbox.acknowledged,
            )
