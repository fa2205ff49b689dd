"""Rounds of cooperation between agent nodes, over their `negotiation` topics (mathematics: `network.cooperation`).

When everything for step k has been taken in, an agent on a rung that cooperates proposes round 1; round r + 1 follows
as soon as round r of every partner has come, so that round r uses exactly everybody's round r - 1 in whatever order
messages arrive. It ends when all residuals are small, the rounds are used up, or the time for them has passed; then the
agent decides with the newest plan as its aim. Nothing here is needed for safety.

Who does not cooperate in a step says so (round 0), unless nobody around it ever has. Who has not been heard within the
time is not waited for again until it is; neither is who the step itself had to do without.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from rmpc_ros.errors import DataError, MessageError, SolverError
from rmpc_ros.msg import Negotiation
from rmpc_ros.network.cooperation import Cooperation, Proposal
from rmpc_ros.network.decision import Decision
from rmpc_ros.nodes import qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.checks import Peers
from rmpc_ros.nodes.convert_rounds import proposal_from, proposal_message
from rmpc_ros.nodes.diagnostics import OK, WARN
from rmpc_ros.nodes.managed import TICK
from rmpc_ros.nodes.round import Inputs

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode

LOOKS = 5  # the time for the rounds is looked at so many times
PATIENCE = 3.0  # seconds at the start for partners to listen: one that is not there is not waited for longer
COOPERATES = ("cooperative", "learned")  # modes of a plant file


class Rounds(AgentPart):
    """Negotiates the agent's aim before each decision.

    Parameters
    ----------
    node : configured
    followers : agents that have this one as a neighbour

    Raises
    ------
    ConfigError
        Mode cooperative with a feedback whose plan the rounds are not about.
    """

    def __init__(self, node: AgentNode, followers: tuple[str, ...]) -> None:
        super().__init__(node)
        options = node.config.network.cooperation
        self._time = options.deadline * node.deadline
        self._side: Cooperation | None = None
        if node.design.form == "fixed" or node.mode_word("") == "cooperative":
            self._side = Cooperation(node.design, followers, options)
        self._partners = self._side.partners if self._side is not None else ()
        self._sizes = {name: len(layout.promised) for name, layout in node.peers.agents.items()}
        written = {name: agent.mode or node.config.controller.mode for name, agent in node.config.agents.items()}
        self._expected = {name for name in self._partners if written[name] in COOPERATES}
        self._talks = bool(self._expected) or node.mode_word("") in COOPERATES
        self._publisher = node.create_publisher(Negotiation, "negotiation", qos.ROUNDS)

    def open(self) -> None:
        """Listen to every partner."""
        self._heard: dict[str, dict[tuple[int, int], Proposal]] = {name: {} for name in self._partners}
        self._silent: set[str] = set()
        self._step = -1
        self._done = True
        self.counts = {"settled": 0, "used_up": 0, "late": 0, "failed": 0}
        self._failure, self._took = "", 0.0
        for name in self._partners:
            topic = f"{self.node.base}/{name}/negotiation"
            self.node.listen(Negotiation, topic, partial(self._on_message, name), qos.ROUNDS)
        # The node's own tick is too coarse to end the rounds of a short period in time.
        short = self.node.free is not None and self._talks and self._time < LOOKS * TICK
        self._timer = self.node.every(self._time / LOOKS, self.node.go_on, self.node.wall) if short else None

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self.node.destroy_timer(self._timer)

    def connected(self, waited: float) -> bool:
        """A round that a partner does not hear would cost the first step all its time."""
        partners = {f"{self.node.base}/{name}/{self.node.get_name()}" for name in self._expected}
        return waited > PATIENCE or self.node.heard_by(self._publisher, partners if self._talks else set())

    # -- a step -------------------------------------------------------------------------------------------------------
    def prepare(self, inputs: Inputs) -> None:
        """The first round, or the word that there will be none."""
        controller = self.node.controller
        self._step, self._done, self._failure = inputs.step, False, ""
        # Free-running, waiting for neighbours' news has used a part of the time already.
        self._began = time.monotonic() if self.node.free is None else self.node.round.arrived()
        for rounds in self._heard.values():
            for key in [key for key in rounds if key[0] < inputs.step]:
                del rounds[key]
        self._silent |= self.node.round.silent & set(self._partners)
        if self._side is None or not controller.may_take_part:
            self._away()
            return
        looked = controller.look(inputs.step, inputs.state, inputs.neighbour_states)
        if looked is None or not controller.takes_part:
            self._away()
            return
        self._talks = True
        try:
            self._side.begin(inputs.step, controller.fixed)
            self._speak(self._side.propose())
        except SolverError as error:
            self._fail(error)
            return
        self._advance()

    def ready(self, now: float) -> bool:
        """Yes when the rounds are over; the time for them ends them."""
        if not self._done and now - self._began > self._time:
            self._silent |= {name for name in self._partners if self._word_of(name) is None}
            self.counts["late"] += 1
            self._failure = "the time for the rounds was over"
            self._agree()
        return self._done

    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """How it went."""
        side = self._side
        if side is None or not self._talks:
            return
        side.weigh_terminal(self.node.controller.fixed.terminal_weight)  # here, where nobody waits for it
        silent = ", ".join(sorted(self._silent)) or "none"
        taking = side.step == decision.step
        word = f"{side.round} rounds, disagreement {side.residual:.2g}" if taking else "takes no part"
        trouble = "; ".join(part for part in (self._failure, f"silent: {silent}" if self._silent else "") if part)
        self.node.diagnostics.say(
            "cooperation",
            WARN if trouble and taking else OK,
            f"{word}; {trouble}" if trouble else word,
            rounds=side.round if taking else 0,
            disagreement=side.residual if taking else float("nan"),
            negotiated_ms=1e3 * self._took,
            silent_partners=silent,
            **{f"steps_{key}": count for key, count in self.counts.items()},
        )

    # -- rounds -------------------------------------------------------------------------------------------------------
    def _advance(self) -> None:
        """As many rounds as can be made with what has been heard."""
        side = self._side
        assert side is not None
        while not self._done:
            heard = {name: self._word_of(name) for name in self._partners}
            for name in self._silent:  # taken at its promise, as if it had said that it does not negotiate
                heard[name] = heard[name] or Proposal(name, self._step, 0, last=True)
            if None in heard.values():
                return
            try:
                side.take(heard)
                self._speak(side.propose())
            except SolverError as error:
                self._fail(error)

    def _word_of(self, name: str) -> Proposal | None:
        """What a partner says in the round that is under way, or has said once and for all."""
        assert self._side is not None
        rounds = self._heard[name]
        said = rounds.get((self._step, self._side.round)) or rounds.get((self._step, 0))
        if said is not None:
            return said
        for (step, number), earlier in rounds.items():
            if step == self._step and earlier.last and number < self._side.round:
                return earlier
        if name not in self._expected and not rounds:
            return Proposal(name, self._step, 0, last=True)  # never heard, and the plant file does not ask it to
        return None

    def _speak(self, said: Proposal) -> None:
        self._publish(said)
        if said.last:
            self.counts["settled" if self._side is not None and self._side.settled else "used_up"] += 1
            self._agree()

    def _agree(self) -> None:
        """The newest plan is what the decision aims at."""
        assert self._side is not None
        self.node.controller.aim = self._side.plan
        self._end()

    def _fail(self, error: SolverError) -> None:
        """No aim: the agent decides for itself, and its partners do not wait for it."""
        self.counts["failed"] += 1
        self._failure = f"{error} ({error.status})"
        self._away()

    def _away(self) -> None:
        if self._talks:
            self._publish(Proposal(self.node.agent, self._step, 0, last=True))
        self._end()

    def _end(self) -> None:
        self._done = True
        self._took = time.monotonic() - self._began

    # -- messages -----------------------------------------------------------------------------------------------------
    def _publish(self, said: Proposal) -> None:
        node = self.node
        self._publisher.publish(proposal_message(said, node.get_clock().now().to_msg(), node.run))

    def _on_message(self, name: str, message: Negotiation) -> None:
        node, side = self.node, self._side
        assert side is not None
        peers = Peers(node.run, {name: node.peers.agents[name]})
        try:
            said = proposal_from(message, peers, self._sizes, node.design.horizon, node.window(max(self._step, 0)))
            side.check(said)
        except (MessageError, DataError) as error:
            if not str(error).startswith("stale"):  # a round of a step that is over: late, not wrong
                node.diagnostics.reject(str(error) if isinstance(error, MessageError) else f"wrong round: {error}")
            return
        self._talks = True
        self._expected.add(name)
        self._silent.discard(name)
        rounds = self._heard[name]
        rounds[said.step, said.round] = said
        steps = sorted({step for step, _ in rounds})
        for key in [key for key in rounds if key[0] in steps[:-2]]:  # of two steps at a time, whatever is sent
            del rounds[key]
        if not self._done and said.step == self._step:
            self._advance()
            node.go_on()
