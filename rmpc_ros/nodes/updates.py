"""Part of the agent node: learned sets, models and policies are checked, adopted between two steps, or refused by name.

An update is checked as a message (`convert_learning`), then as a content for this agent (`learning.adoption`). A set
shrinks over several steps, as fast as `Agent.set_disturbance` allows. A policy is looked at every `decide` steps: local
observation, action, certified target (`learning.local_target`), `Agent.set_target`. What is refused leaves everything
as it is, is counted on /diagnostics with its reason, and shows in the versions that the agent's transitions carry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError, MessageError, SetError, SolverError
from rmpc_ros.learning.adoption import ACCEPTED, Adoption
from rmpc_ros.learning.local_observation import LocalObservation
from rmpc_ros.learning.local_target import LocalTarget
from rmpc_ros.learning.policy import Actor
from rmpc_ros.learning.transition import Versions
from rmpc_ros.learning.update import SUBJECTS, Subject, Update
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.nodes import convert_learning, qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.diagnostics import OK, WARN
from rmpc_ros.nodes.round import Inputs
from rmpc_ros.nodes.transitions import Transitions
from rmpc_ros.sets.box import Box

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode

Vector = NDArray[np.float64]

CLOSE = 1e-6  # of the design's half-widths: a set has reached the one that was sent


class Updates(AgentPart):
    """What this agent has learned, and from which versions.

    Parameters
    ----------
    node : the agent
    transitions : told of the versions in force
    """

    def __init__(self, node: AgentNode, transitions: Transitions) -> None:
        super().__init__(node)
        assert node.config.learning is not None  # Transitions has looked
        self._transitions = transitions
        self._decide = node.config.learning.online.decide
        self._observation = LocalObservation(node.config, node.agent)
        self._adoption = Adoption(node.design, self._observation)
        self._target = LocalTarget(node.config, node.design)

    def open(self) -> None:
        """Listen for updates; nothing learned is in force."""
        self._waiting: dict[Subject, tuple[Update, Any]] = {}
        self._newest: dict[Subject, tuple[int, str]] = {}
        self._members: Box | None = None
        self._mean = np.zeros(self.node.design.nx)
        self._policy: tuple[Actor, Vector] | None = None
        self._promises: dict[str, ForecastSet] = {}
        self._seen: list[dict[str, Vector]] = []
        self._versions = Versions()
        self._refused = 0
        for subject in SUBJECTS:
            kind = convert_learning.UPDATE_MESSAGES[subject]
            self.node.listen(kind, f"{subject}_update", self._on_update, qos.UPDATE)
        self._say("nothing learned is in force")

    # -- messages in --------------------------------------------------------------------------------------------------
    def _on_update(self, message: Any) -> None:
        node = self.node
        subject = convert_learning.subject_of(message)
        if self._newest.get(subject) == (message.version, message.sha256):
            return  # a restarted learner says again what is in force
        held = self._waiting.get(subject)
        in_force = held[0].version if held is not None else getattr(self._versions, subject)
        try:
            update = convert_learning.update_from(
                message, node.config.plant.name, node.peers, ACCEPTED[subject], in_force
            )
            if update.agents and node.agent not in update.agents:
                return
            if node.config.adaptation is not None and subject != "policy":
                raise DataError("this agent adapts its own set and model (section adaptation)")
            content = self._adoption.check(update)
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

    # -- between two steps --------------------------------------------------------------------------------------------
    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """Adopt what has come, let the set shrink on, ask the policy when it is due."""
        for promise in inputs.promises:
            self._promises[promise.agent] = promise
        for subject, (update, content) in list(self._waiting.items()):
            del self._waiting[subject]
            self._adopt(update, content)
        self._shrink_on()
        self._ask_policy(inputs)
        learns = self.node.controller.learns  # on another rung of the ladder a policy's targets are not in force
        self._transitions.versions = self._versions if learns else replace(self._versions, policy=0)

    def _adopt(self, update: Update, content: Any) -> None:
        match update.subject:
            case "uncertainty":
                try:
                    self.node.controller.set_disturbance(content)
                except (SetError, SolverError) as error:
                    self._refuse(update.subject, update.version, error)
                    return
                self._members = content
            case "model":
                self._mean = content / self.node.design.scale[: self.node.design.nx]
            case "policy":
                self._policy = content
        self._versions = replace(self._versions, **{update.subject: update.version})
        self._say(f"adopted {update.subject} version {update.version}")

    def _shrink_on(self) -> None:
        """A learned set is reached in several steps; one that has broken a promise is gone."""
        controller = self.node.controller
        if self._members is None:
            return
        if controller.disturbance.lost:
            self._say(f"gave up set {self._versions.uncertainty}: {controller.disturbance.lost}", WARN)
            self._members, self._versions = None, replace(self._versions, uncertainty=0)
            return
        present, whole = controller.disturbance.present, controller.disturbance.design_set
        behind = np.maximum(self._members.lower - present.lowest, present.highest - self._members.upper)
        if np.any(behind > CLOSE * whole.radius):
            try:
                controller.set_disturbance(self._members)
            except (SetError, SolverError) as error:  # it stays as large as it is now
                self._say(f"set {self._versions.uncertainty} shrinks no further for now: {error}", WARN)

    def _ask_policy(self, inputs: Inputs) -> None:
        """Mean of what was seen since the last look, action, target."""
        if np.all(np.isfinite(inputs.state)):
            self._seen.append({self.node.agent: inputs.state, **inputs.neighbour_states})
        if self._policy is None or inputs.step % self._decide or not self._seen:
            self._seen = self._seen[-self._decide :]
            return
        names = set.intersection(*(set(seen) for seen in self._seen))
        states = {name: np.mean([seen[name] for seen in self._seen], axis=0) for name in names}
        self._seen = []
        actor, parameters = self._policy
        observations = np.zeros((actor.agents, actor.observations))
        row = self._observation.agents.index(self.node.agent)
        observations[row] = self._observation.vector(states, self._promises)
        action = actor.act(parameters[None], observations[None])[0, row]
        x_ref, u_ref = self._target.references(action, self._promised(), self._mean)
        try:
            self.node.controller.set_target(x_ref, u_ref)
        except DataError as error:
            self._say(f"policy {self._versions.policy}: {error}", WARN)

    def _promised(self) -> Vector:
        """Centres of the neighbours' promises for the end of the horizon, normalised; zero where nothing was heard."""
        design = self.node.design
        zeta = np.zeros(design.model.ng)
        for name, promise in self._promises.items():
            neighbour = design.neighbours[name]
            zeta[neighbour.columns] = (promise.center[-1] - neighbour.center) / neighbour.scale
        return zeta

    def _say(self, words: str, level: bytes = OK) -> None:
        v = self._versions
        self.node.diagnostics.say(
            "updates",
            level,
            words,
            set_version=v.uncertainty,
            model_version=v.model,
            policy_version=v.policy,
            refused=self._refused,
        )
