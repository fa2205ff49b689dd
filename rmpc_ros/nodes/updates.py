"""Part of the agent node: learned sets, models and policies are checked, adopted between two steps, or refused by name.

An update is checked as a message (`convert_learning`), then as a content for this agent (`learning.student`). What is
refused leaves everything as it is, is counted on /diagnostics with its reason, and shows in the versions that the
agent's transitions carry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rmpc_ros.errors import DataError, MessageError, SetError
from rmpc_ros.learning.adoption import ACCEPTED
from rmpc_ros.learning.student import Student
from rmpc_ros.learning.update import SUBJECTS, Subject, Update
from rmpc_ros.network.decision import Decision
from rmpc_ros.nodes import convert_learning, qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.diagnostics import OK, WARN
from rmpc_ros.nodes.round import Inputs
from rmpc_ros.nodes.transitions import Transitions

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode


class Updates(AgentPart):
    """What this agent has learned, and from which versions.

    Parameters
    ----------
    node : the agent
    transitions : told of the versions in force
    """

    def __init__(self, node: AgentNode, transitions: Transitions) -> None:
        super().__init__(node)
        self._transitions = transitions

    def open(self) -> None:
        """Listen for updates; nothing learned is in force."""
        self._student = Student(self.node.config, self.node.controller)
        self._waiting: dict[Subject, tuple[Update, Any]] = {}
        self._newest: dict[Subject, tuple[int, str]] = {}
        self._refused = 0
        self._weight = 1.0  # of the terminal cost, as told last
        for subject in SUBJECTS:
            kind = convert_learning.UPDATE_MESSAGES[subject]
            self.node.listen(kind, f"{subject}_update", self._on_update, qos.UPDATE)
        self._say("nothing learned is in force")

    def _on_update(self, message: Any) -> None:
        node = self.node
        subject = convert_learning.subject_of(message)
        newest = self._newest.get(subject, (0, ""))
        if newest == (message.version, message.sha256):
            return  # a restarted learner says again what is in force
        try:
            update = convert_learning.update_from(
                message, node.config.plant.name, node.peers, ACCEPTED[subject], newest[0]
            )
            if update.agents and node.agent not in update.agents:
                return
            content = self._student.check(update)
        except (MessageError, DataError, SetError) as error:
            self._refuse(subject, int(message.version), error)
            return
        self._waiting[subject] = update, content
        self._newest[subject] = (message.version, message.sha256)

    def _refuse(self, subject: str, version: int, error: Exception) -> None:
        self._refused += 1
        reason = str(error)
        if not isinstance(error, MessageError):
            reason = f"out of bounds: {subject} update {version}: {reason}"
        self.node.diagnostics.reject(reason)
        self._say(f"refused {subject} version {version}: {reason}", WARN)

    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """Between two steps: adopt what has come, let the student go on."""
        for subject, (update, content) in list(self._waiting.items()):
            del self._waiting[subject]
            try:
                self._say(self._student.adopt(update, content))
            except SetError as error:
                self._refuse(subject, update.version, error)
        promises = self._transitions.stepwise.promises
        told = self._student.decided(inputs.step, inputs.state, inputs.neighbour_states, promises)
        if told:
            self._say(told, WARN)
        weight = self.node.controller.terminal_weight
        if weight != self._weight:
            self._weight = weight
            self._say(f"plans with {weight:.4g} times the design's terminal weight")
        versions = self._student.versions
        learns = self.node.controller.learns  # on another rung of the ladder a policy's targets are not in force
        self._transitions.versions = versions if learns else replace(versions, policy=0)

    def _say(self, words: str, level: bytes = OK) -> None:
        v = self._student.versions
        self.node.diagnostics.say(
            "updates",
            level,
            words,
            set_version=v.uncertainty,
            model_version=v.model,
            policy_version=v.policy,
            refused=self._refused,
            terminal_weight=self._weight,
        )
