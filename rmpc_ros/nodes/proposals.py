"""Proposals and acknowledgements between agent nodes (rules: `network.proposal`), over the `forecast` topics.

They leave the node after the journal and before the promise of the same step, so that in lockstep whoever has that
promise has these too. A node without a journal neither asks nor answers: it would forget its word in a crash.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rmpc_ros.errors import PromiseError
from rmpc_ros.msg import ForecastSet as Message
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.diagnostics import OK
from rmpc_ros.nodes.round import Inputs

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode

MOST = 500  # messages that wait while no step is taken; dropping the oldest is losing a message


class Proposals(AgentPart):
    """The agent's negotiations about larger promises.

    Parameters
    ----------
    node : configured
    followers : agents that rely on this one
    """

    def __init__(self, node: AgentNode, followers: tuple[str, ...]) -> None:
        super().__init__(node)
        self.followers = followers if node.journal is not None else None
        self._waiting: dict[tuple[str, str, int, int], ForecastSet] = {}

    def open(self) -> None:
        """Listen to who relies on us but is not relied on; the node itself listens to the neighbours."""
        node = self.node
        self._waiting.clear()
        for name in set(self.followers or ()) - set(node.spec.neighbours):
            node.listen(Message, f"{node.base}/{name}/forecast", partial(node.on_forecast, name), qos.PROMISE)

    def heard(self, forecast: ForecastSet) -> None:
        """A proposal, an acknowledgement, or a newcomer's word: used in a later step than it was made."""
        if self.followers is not None:
            self._waiting[forecast.agent, forecast.kind, forecast.iteration, forecast.step] = forecast
            if len(self._waiting) > MOST:
                del self._waiting[next(iter(self._waiting))]

    def prepare(self, inputs: Inputs) -> None:
        """Hand over what was said in earlier steps."""
        due = {key: forecast for key, forecast in self._waiting.items() if forecast.step < inputs.step}
        for key, forecast in sorted(due.items(), key=lambda entry: entry[0][3]):
            del self._waiting[key]
            try:
                self.node.controller.receive(forecast)
            except PromiseError as error:
                self.node.diagnostics.reject(f"{forecast.kind} refused: {error}")

    def speak(self, decision: Decision) -> None:
        """Publish what is to be said beside a promise that is in force and on disk."""
        if self.followers is None:
            return
        node = self.node
        for forecast in node.controller.speak(decision):
            node.publish_forecast(forecast)

    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """How the negotiations go."""
        negotiation = self.node.controller.negotiation
        proposer = negotiation.proposer
        waiting = ", ".join(sorted(proposer.missing)) or "nobody"
        word = f"waits for {waiting}" if proposer.pending is not None else "nothing pending"
        self.node.diagnostics.say(
            "proposals",
            OK,
            word if self.followers is not None else "no journal: neither asks nor answers",
            pending=proposer.pending.iteration if proposer.pending is not None else 0,
            newest_adopted=proposer.adopted,
            **proposer.counts,
            **negotiation.counts,
        )
