"""The learner node: transitions of all agents in, onto disk, acknowledged; versioned updates of what they use out.

Nobody waits for it: the plant runs on without it, its agents keep what it has not acknowledged, and what it published
last stays in force. All learning is in `rmpc_ros.learning.learner`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError, DataError, MessageError, RmpcError
from rmpc_ros.learning.day_plan import DayPlan
from rmpc_ros.learning.learner import Learner
from rmpc_ros.learning.ledger import Ledger
from rmpc_ros.learning.plan import Plan, load_learned
from rmpc_ros.learning.policy import Policy
from rmpc_ros.learning.store import CAPACITY, TransitionStore
from rmpc_ros.learning.transition import Transition
from rmpc_ros.learning.update import SUBJECTS, Subject, Update
from rmpc_ros.msg import Transition as TransitionMessage
from rmpc_ros.msg import TransitionAck
from rmpc_ros.network.system import design_agents
from rmpc_ros.nodes import convert_learning, qos
from rmpc_ros.nodes.agent import peers_of
from rmpc_ros.nodes.checks import Peers, Window
from rmpc_ros.nodes.convert_learning import UPDATE_MESSAGES
from rmpc_ros.nodes.diagnostics import ERROR, OK
from rmpc_ros.nodes.managed import ONLOOKER, ManagedNode
from rmpc_ros.nodes.parameters import Param
from rmpc_ros.nodes.process import main as run_node

BATCH = 1000  # transitions per transaction at most
MOST_HELD = 20_000  # not on disk yet; beyond, newer ones are left to be sent again


class LearnerNode(ManagedNode):
    """Stores, learns, publishes."""

    niceness: ClassVar[int] = ONLOOKER
    PARAMETERS: ClassVar[tuple[Param, ...]] = (
        Param("store", "", "database of transitions and versions; made where it does not exist"),
        Param("capacity", CAPACITY, "most transitions kept, the oldest go first", low=1, high=10**9),
        Param("policy", "", "policy file to try first, as a canary like every other; or a plan's, which then plans"),
        Param(
            "market.product", 1.0, "today's factor on the product's price, for a plan", low=0, high=100, read_only=False
        ),
        Param(
            "market.steam", 1.0, "today's factor on the price of steam, for a plan", low=0, high=100, read_only=False
        ),
        Param("think", True, "learn from what is stored; false: store and acknowledge only"),
        Param("seed", 0, "of everything random in learning", low=0, high=2**31),
    )

    linger: ClassVar[float] = 0.3

    # -- configure ----------------------------------------------------------------------------------------------------
    def configure(self) -> None:
        """Store, brain, publishers."""
        if not self.values["store"]:
            raise ConfigError("parameter store is empty; give the file of the learner's database")
        self.config = load_plant(self.values["plant"])
        self.designs = design_agents(self.config)
        self.run = self.values["run"] or self.config.plant.name
        self.peers = peers_of(self.designs, self.run)
        self._open_files()  # what is wrong with them is said now
        self._acknowledge = self.create_publisher(TransitionAck, "transition_ack", qos.UPDATE)
        self._updates: dict[tuple[Subject, str], Any] = {
            (subject, agent): self.create_publisher(UPDATE_MESSAGES[subject], f"{agent}/{subject}_update", qos.UPDATE)
            for subject in SUBJECTS
            for agent in self.config.agents
        }

    def _open_files(self) -> None:
        """Store and ledger, and the learner that goes on from them."""
        path = Path(self.values["store"])
        try:
            self.store = TransitionStore(path, self.values["capacity"])
            self.ledger = Ledger(path.with_suffix(".versions.db"), self.run)
            first = load_learned(Path(self.values["policy"])) if self.values["policy"] else None
            self.day_plan = DayPlan(self.config, first) if isinstance(first, Plan) else None
        except DataError as error:
            raise ConfigError(str(error)) from error
        self.learner = Learner(
            self.config,
            self.designs,
            self.ledger,
            self.values["seed"],
            first if isinstance(first, Policy) else None,
            day_plan=self.day_plan,
        )
        self._closed = False

    # -- activate -----------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Go on from the disk: what is acknowledged, what is in force; then listen."""
        if self._closed:
            self._open_files()
        self._held: list[tuple[Transition, int]] = []
        self._said: dict[str, int] = {}
        self._early = 0
        self._tally = dict.fromkeys(("stored", "known", "conflicting", "dropped"), 0)
        for agent in self.config.agents:
            steps = self.store.newest(self.run, agent)
            rows = self.store.read(self.run, agent, first=max(0, steps - self.learner.memory))
            self.learner.add([transition for _, transition in rows])
        for (subject, agent), _ in self._updates.items():
            newest = self.ledger.in_force(subject, agent)
            if newest is not None:
                self._publish(newest, (agent,))
        self._tell_acknowledged()
        for agent in self.config.agents:
            take = partial(self._on_transition, Peers(self.run, {**self.peers.agents}), agent)
            self.listen(TransitionMessage, f"{agent}/transition", take, qos.recording(qos.REPORT))

    def close(self) -> None:
        """Nothing that was acknowledged is lost by this."""
        self.deafen()
        self._flush()
        self.store.close()
        self.ledger.close()
        self._closed = True

    # -- transitions in -----------------------------------------------------------------------------------------------
    def _on_transition(self, peers: Peers, agent: str, message: TransitionMessage) -> None:
        now = float(self.get_clock().now().nanoseconds) * 1e-9
        if now <= 0:  # no /clock yet: a step that will never come could not be told from others; all are sent again
            self._early += 1
            return
        try:
            transition = convert_learning.transition_from(message, peers, Window.until(now, self.config.period))
            if transition.agent != agent:
                raise MessageError(
                    f"unknown agent: Transition of '{transition.agent}', field agent: came on the topic of '{agent}'"
                )
        except MessageError as error:
            self.diagnostics.reject(str(error))
            return
        if len(self._held) < MOST_HELD:
            self._held.append((transition, int(message.previous)))
        if len(self._held) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        """Everything held goes to disk in one transaction, then it is acknowledged and learned from."""
        if not self._held:
            return
        batch = [transition for transition, _ in self._held]
        try:
            done = self.store.insert(self.run, batch, [previous for _, previous in self._held])
        except DataError as error:
            self.diagnostics.say("store", ERROR, f"nothing is acknowledged: {error}")
            return
        self._held.clear()
        for what in self._tally:
            self._tally[what] += getattr(done, what)
        self.diagnostics.say(
            "store",
            OK,
            f"{len(self.store)} transitions of at most {self.store.capacity}",
            before_the_clock=self._early,
            **self._tally,
        )
        self._tell_acknowledged()
        if self.values["think"]:
            self.learner.add([transition for transition, taken in zip(batch, done.taken, strict=True) if taken])

    def _tell_acknowledged(self) -> None:
        steps = self.store.acknowledged(self.run)
        if steps != self._said:
            self._said = steps
            stamp = self.get_clock().now().to_msg()
            self._acknowledge.publish(convert_learning.acknowledgement_message(steps, stamp, self.run))

    # -- updates out --------------------------------------------------------------------------------------------------
    def tick(self, now: float) -> None:
        """Store what came, think, publish."""
        self._flush()
        if not self.values["think"]:
            return
        if self.day_plan is not None:
            prices = (self.get_parameter(f"market.{name}").value for name in ("product", "steam"))
            self.day_plan.market = (next(prices), next(prices))
        try:
            for update in self.learner.think():
                self._publish(update, update.agents)
        except RmpcError as error:  # what is in force stays in force
            self.diagnostics.say("learning", ERROR, f"no update: {error}")
            return
        status = self.learner.status()
        self.diagnostics.say("", OK, status.sentence, **status.figures)

    def _publish(self, update: Update, agents: tuple[str, ...]) -> None:
        stamp = self.get_clock().now().to_msg()
        for agent in agents:
            message = convert_learning.update_message(update, stamp, self.run)
            self._updates[update.subject, agent].publish(message)


def main() -> int:
    """`ros2 run rmpc_ros learner`."""
    return run_node("learner", sys.argv)
