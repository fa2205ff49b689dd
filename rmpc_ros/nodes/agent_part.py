"""A part of the agent node: one feature beside the control step, with its own topics, in a file of its own.

The node calls its parts in the order of `AgentNode.parts`, at these moments of a step:

    prepare(inputs)    everything the step may use has been taken in; the decision is to come
    ready(now)         asked until every part says yes; who talks with neighbours first says no, for a bounded time
    decided(decision, inputs)    command, promise and report are out
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmpc_ros.network.decision import Decision
from rmpc_ros.nodes.round import Inputs

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode


class AgentPart:
    """Base of the parts: does nothing. `node` is configured; its controller exists from `open` on."""

    def __init__(self, node: AgentNode) -> None:
        self.node = node

    def open(self) -> None:
        """Begin: make publishers, `node.listen`."""

    def connected(self, waited: float) -> bool:
        """Whether those who must hear this part from the first step on do; asked for `waited` seconds since `open`."""
        del waited
        return True

    def close(self) -> None:
        """End; what `node.listen` made is dropped by the node."""

    def prepare(self, inputs: Inputs) -> None:
        """Before the decision of a step."""

    def ready(self, now: float) -> bool:
        """Whether the step may be decided; call `node.go_on()` when this turns to yes between two ticks."""
        del now
        return True

    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """After the decision of a step."""

    def tick(self, now: float) -> None:
        """Twenty times a second; `now` is steady wall time in seconds."""
