"""Joining and leaving between nodes (rules: `network.newcomer`), where the plant file has a section `network.join`.

The newcomer tells each host about the connection on the host's topic `connection`, and listens for acknowledgements on
the hosts' `forecast` topics. Its parameter `joined` is the wish: true asks, false leaves. The simulated plant makes and
cuts the connection on `<newcomer>/connect` and says on `<newcomer>/connected` what is; only when it says that the
connection is cut do the hosts hear so. Before the plant has said anything the newcomer says nothing: hosts then reckon
with the connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rclpy.parameter import Parameter
from std_msgs.msg import Bool

from rmpc_ros.errors import MessageError
from rmpc_ros.msg import ForecastSet
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.joining import JoinPlan
from rmpc_ros.network.newcomer import Newcomer
from rmpc_ros.nodes import convert, qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.checks import Layout, Peers
from rmpc_ros.nodes.designed import join_of
from rmpc_ros.nodes.diagnostics import OK, WARN
from rmpc_ros.nodes.parameters import Param, declare
from rmpc_ros.nodes.round import Inputs
from rmpc_ros.plants import make_plant

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode
    from rmpc_ros.nodes.plant import PlantNode

JOINED = Param("joined", False, "whether this agent is to be connected to the network", read_only=False)


def parts_of(node: AgentNode) -> list[AgentPart]:
    """What joining takes of an agent: nothing, a host's part or the newcomer's."""
    if node.config.network.join is None:
        return []
    plan = join_of(node.config)[1]
    if node.agent == plan.newcomer:
        return [Joining(node, plan)]
    return [Hosting(node, plan)] if node.agent in plan.hosts else []


class Hosting(AgentPart):
    """A host: what the newcomer says about the connection goes where proposals go."""

    def __init__(self, node: AgentNode, plan: JoinPlan) -> None:
        super().__init__(node)
        names = node.design.neighbours[plan.newcomer].names
        self._peers = Peers(node.run, {plan.newcomer: Layout((), (), names, node.config.period)})

    def open(self) -> None:
        """Listen to the newcomer."""
        self.node.listen(ForecastSet, "connection", self._on_connection, qos.PROMISE)

    def _on_connection(self, message: ForecastSet) -> None:
        try:
            self.node.proposals.heard(convert.forecast_from(message, self._peers, self.node.window()))
        except MessageError as error:
            self.node.diagnostics.reject(str(error))


class Joining(AgentPart):
    """The newcomer: asks, waits for everybody's word, has the connection made and cut."""

    def __init__(self, node: AgentNode, plan: JoinPlan) -> None:
        super().__init__(node)
        self._plan = plan
        if not node.has_parameter(JOINED.name):
            declare(node, [JOINED])
        self._tell = {
            host: node.create_publisher(ForecastSet, f"{node.base}/{host}/connection", qos.PROMISE)
            for host in plan.hosts
        }
        self._connect = node.create_publisher(Bool, "connect", qos.UPDATE)

    def open(self) -> None:
        """Listen to the hosts and to the plant."""
        node = self.node
        self.newcomer: Newcomer | None = None
        self._wish = bool(node.get_parameter(JOINED.name).value)
        self._connected = self._asked = False
        self._told = False  # what the plant was told last
        self._cut = True  # the plant has confirmed that there is no connection since it was told so
        node.listen(Bool, "connected", self._on_connected, qos.UPDATE)
        for host in self._plan.hosts:
            node.listen(ForecastSet, f"{node.base}/{host}/forecast", partial(self._on_forecast, host), qos.PROMISE)
        node.add_post_set_parameters_callback(self._set)

    def close(self) -> None:
        """Hear no more wishes."""
        self.node.remove_post_set_parameters_callback(self._set)

    def _set(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == JOINED.name:
                self._wish, self._asked = bool(parameter.value), False

    def _on_connected(self, message: Bool) -> None:
        self._connected = bool(message.data)
        if self.newcomer is None:
            self.newcomer = Newcomer(self._plan, connected=self._connected)
            self._told, self._cut = self._connected, not self._connected
        elif not self._connected and not self._told:
            self._cut = True

    def _on_forecast(self, host: str, message: ForecastSet) -> None:
        node = self.node
        try:
            peers = Peers(node.run, {host: node.peers.agents[host]}, tuple(node.peers.agents))
            heard = convert.forecast_from(message, peers)
        except MessageError as error:
            node.diagnostics.reject(str(error))
            return
        if heard.kind == "acknowledgement" and self.newcomer is not None:
            self.newcomer.hear(heard)

    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """Say where this agent stands, and have the connection made or cut."""
        newcomer, node = self.newcomer, self.node
        if newcomer is None:
            node.diagnostics.say("joining", WARN, "does not know whether it is connected: the plant has not said so")
            return
        if self._wish and newcomer.where == "apart" and not self._asked:
            newcomer.ask()
            self._asked = True
        elif not self._wish and (newcomer.where == "asking" or (newcomer.where == "joined" and self._cut)):
            newcomer.leave()
        for host, messages in newcomer.step(decision.step).items():
            for message in messages:
                self._tell[host].publish(convert.forecast_message(message, node.get_clock().now().to_msg(), node.run))
        want = self._wish and newcomer.may_connect(decision.step)
        if want != self._told:
            self._told, self._cut = want, False
            self._connect.publish(Bool(data=want))
        refused = f"; refused by {', '.join(newcomer.refused_by)}" if newcomer.refused_by else ""
        node.diagnostics.say(
            "joining",
            WARN if refused else OK,
            f"{newcomer.where}{refused}",
            waits_for=", ".join(newcomer.waits_for) or "nobody",
            connected=self._connected,
        )


class Connection:
    """The simulated plant's side: makes and cuts the connection, and says what is."""

    def __init__(self, node: PlantNode) -> None:
        joined, plan = join_of(node.config)
        self._node, self._newcomer = node, plan.newcomer
        self._plants = {True: make_plant(joined), False: make_plant(node.config)}
        self._say = node.create_publisher(Bool, f"{plan.newcomer}/connected", qos.UPDATE)
        self.exists = False

    def open(self) -> None:
        """Say what is, and listen."""
        self._say.publish(Bool(data=self.exists))
        self._node.listen(Bool, f"{self._newcomer}/connect", self._on_connect, qos.UPDATE)

    def _on_connect(self, message: Bool) -> None:
        if bool(message.data) != self.exists:
            self.exists = bool(message.data)
            self._node.sim.obey(self._plants[self.exists])
            word = "connected" if self.exists else "apart"
            self._node.diagnostics.say("connection", OK, f"{self._newcomer} is {word}", step=self._node.k)
        self._say.publish(Bool(data=self.exists))
