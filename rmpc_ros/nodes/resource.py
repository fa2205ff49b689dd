"""Shared resources between nodes, over the `share` topics (rules: `network.shared_resource`).

`Shares` is the agent's part, `Headers` the plant's, which stands for the resource's own controls: it hears the same
statements and cuts every input at the share in force. Statements of step k are used from step k + DELAY on, so nobody
waits for them. Who lies is named on /diagnostics by whoever notices.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.errors import MessageError, PromiseError
from rmpc_ros.msg import Share
from rmpc_ros.network.accusations import Accusations
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.resource_guard import Guard
from rmpc_ros.network.resource_user import ResourceUser
from rmpc_ros.network.shared_resource import DELAY, ResourceDesign, Statement, design_resource
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.checks import Layout, Peers, Window
from rmpc_ros.nodes.convert_shares import share_from, share_message
from rmpc_ros.nodes.diagnostics import ERROR, OK
from rmpc_ros.nodes.managed import ManagedNode
from rmpc_ros.nodes.round import Inputs

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode

MOST = 64  # statements of one user that wait for their time


def design_resources(config: PlantConfig, designs: Mapping[str, AgentDesign]) -> list[ResourceDesign]:
    """All resources of a plant.

    Raises
    ------
    ConfigError
        See `design_resource`.
    """
    return [design_resource(name, section, designs) for name, section in config.resources.items()]


class Shares(AgentPart):
    """What an agent may draw of a resource, limits its problem; idle for who draws from none.

    Parameters
    ----------
    node : configured
    designs : of all agents
    """

    def __init__(self, node: AgentNode, designs: Mapping[str, AgentDesign]) -> None:
        super().__init__(node)
        mine = [r for name, r in node.config.resources.items() if node.agent in r.users]
        names = [name for name in node.config.resources if node.agent in node.config.resources[name].users]
        self.resource = design_resource(names[0], mine[0], designs) if mine else None
        if self.resource is not None:
            self._publisher = node.create_publisher(Share, "share", qos.PROMISE)

    def open(self) -> None:
        """Listen to the other users."""
        if self.resource is None:
            return
        node = self.node
        lie = node.config.simulation.liars.get(node.agent, "")
        self.user = ResourceUser(node.design, node.controller.fixed, self.resource, lie)
        self._waiting: list[Statement] = []
        self._begun = False
        for name in self.resource.users:
            if name != node.agent:
                node.listen(Share, f"{node.base}/{name}/share", partial(self._on_message, name), qos.PROMISE)

    def prepare(self, inputs: Inputs) -> None:
        """Take in what was stated DELAY steps ago or before, and limit the problem by the share."""
        if self.resource is None:
            return
        node = self.node
        if not self._begun and inputs.step > 0:  # it comes back: what it gave before is not known
            self.user.rejoin(inputs.step)
        self._begun = True
        due = [said for said in self._waiting if said.step <= inputs.step - DELAY]
        self._waiting = [said for said in self._waiting if said.step > inputs.step - DELAY]
        for said in sorted(due, key=lambda s: (s.step, s.agent)):
            try:
                self.user.hear(said)
            except PromiseError as error:
                node.diagnostics.reject(f"statement refused: {error}")
        self.user.apply(inputs.step, node.controller.fixed)

    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """State wish, prices and gifts; what is given rests on a plan that is in force."""
        if self.resource is None:
            return
        node = self.node
        said = self.user.state(decision.step, node.controller.fixed, decision if node.renewed(decision) else None)
        if said is not None:
            stamp = node.get_clock().now().to_msg()
            self._publisher.publish(share_message(said, self.resource.users, stamp, node.run))
        suspects = self.user.suspects
        share = float(self.user.book.shares()[self.user.index, 0])
        node.diagnostics.say(
            f"resource {self.resource.name}",
            ERROR if suspects else OK,
            "; ".join(suspects.values()) or f"may draw {share:.6g} {self.resource.unit}",
            share=share,
            guaranteed=float(self.resource.guaranteed[self.user.index]),
            price=float(np.mean(self.user.prices)),
            wishes_failed=self.user.failed,
            suspects=", ".join(sorted(suspects)) or "none",
            cleared=_cleared(self.user.accused),
        )

    def _on_message(self, name: str, message: Share) -> None:
        node = self.node
        assert self.resource is not None
        peers = Peers(node.run, {name: node.peers.agents[name]})
        try:
            said = share_from(message, peers, self.resource, node.design.horizon, node.window())
        except MessageError as error:
            node.diagnostics.reject(str(error))
            return
        self._waiting.append(said)
        own = [s for s in self._waiting if s.agent == name]
        if len(own) > MOST:
            self._waiting.remove(own[0])


class Headers:
    """The plant's side of all its resources.

    Parameters
    ----------
    node : the plant's
    config, designs : of the plant
    run : of the messages
    """

    def __init__(
        self, node: ManagedNode, config: PlantConfig, designs: Mapping[str, AgentDesign], peers: Peers
    ) -> None:
        self._node, self._peers = node, peers
        self._horizon, self._step = config.controller.horizon, 0
        self.guards = {r.name: Guard(r, self._horizon) for r in design_resources(config, designs)}

    def open(self) -> None:
        """Begin with everybody's fair share, and listen to the users."""
        self._step = 0
        for name, guard in self.guards.items():
            self.guards[name] = Guard(guard.design, self._horizon)
            for user in guard.design.users:
                self._node.listen(Share, f"{user}/share", partial(self._on_message, name, user), qos.PROMISE)

    def cut(self, step: int, inputs: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Inputs as they may be applied, and a word on /diagnostics about every resource."""
        self._step = step
        for name, guard in self.guards.items():
            inputs = guard.cut(step, inputs)
            suspects = guard.suspects
            self._node.diagnostics.say(
                f"resource {name}",
                ERROR if suspects else OK,
                "; ".join(suspects.values()) or f"{guard.use:.6g} of {guard.design.capacity:g} {guard.design.unit}",
                capacity=guard.design.capacity,
                use=guard.use,
                largest_use=guard.largest,
                named=", ".join(sorted(suspects)) or "none",
                cleared=_cleared(guard.accused),
                **{f"cut_{user}": count for user, count in guard.cuts.items()},
            )
        return inputs

    def _on_message(self, name: str, user: str, message: Share) -> None:
        node, guard = self._node, self.guards[name]
        layout: Layout = self._peers.agents[user]
        window = Window(last_step=self._step + DELAY)  # a damaged step would make everything honest look old
        try:
            said = share_from(message, Peers(self._peers.run, {user: layout}), guard.design, self._horizon, window)
            guard.hear(said)
        except MessageError as error:
            node.diagnostics.reject(str(error))
        except PromiseError as error:
            node.diagnostics.reject(f"statement refused: {error}")


def _cleared(accused: Accusations) -> str:
    """Who was named once and has behaved since, for /diagnostics."""
    return ", ".join(f"{agent} at step {step}" for agent, step in sorted(accused.cleared.items())) or "nobody"
