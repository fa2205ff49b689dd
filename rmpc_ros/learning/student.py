"""What an agent makes of a learner's updates: checks, adopts between two steps, asks its policy, or refuses.

A set shrinks over several steps, as fast as `Agent.set_disturbance` allows; a larger one waits until a plan with it
keeps the promise in force; one that has broken a promise is given up. A policy is asked every `decide` steps: local
observation, action, certified target (`local_target`), `Agent.set_target`; where it moves it, the terminal weight too.
What is refused leaves everything as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.config.learning import Move
from rmpc_ros.errors import ConfigError, DataError, SetError, SolverError
from rmpc_ros.learning.adoption import Adoption
from rmpc_ros.learning.local_observation import LocalObservation
from rmpc_ros.learning.local_target import LocalTarget
from rmpc_ros.learning.policy import Actor
from rmpc_ros.learning.transition import Versions
from rmpc_ros.learning.update import Update
from rmpc_ros.learning.weights import arranged, weight_factors
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.sets.box import Box

Vector = NDArray[np.float64]

CLOSE = 1e-6  # of the design's half-widths: a set has reached the one that was sent


class Student:
    """One agent's learned set, mean and policy.

    Parameters
    ----------
    config : plant file with a section `learning`
    agent : whose; just made or started, so that its design still has the plant file's target

    Attributes
    ----------
    versions : in force from the next step on
    """

    def __init__(self, config: PlantConfig, agent: Agent) -> None:
        if config.learning is None:
            raise ConfigError(f"plant '{config.plant.name}' has no section 'learning': an agent cannot learn")
        self._agent, self._name = agent, agent.design.name
        self._decide = config.learning.online.decide
        self._adapts = config.adaptation is not None
        self._observation = LocalObservation(config, self._name)
        self._actions = config.learning.actions
        self._adoption = Adoption(agent.design, self._observation, self._actions.bounded())
        self._target = LocalTarget(config, agent.design)
        self._members: tuple[Box, int] | None = None  # wanted, and its version
        self._mean = np.zeros(agent.design.nx)
        self._policy: tuple[Actor, Vector, tuple[Move, ...]] | None = None
        self._seen: list[Mapping[str, Vector]] = []
        self.versions = Versions()

    def check(self, update: Update) -> Any:
        """Content of an update, for `adopt`.

        Raises
        ------
        DataError, SetError
            Something about it is not allowed.
        """
        if self._adapts and update.subject != "policy":
            raise DataError("this agent adapts its own set and model (section adaptation)")
        return self._adoption.check(update)

    def adopt(self, update: Update, content: Any) -> str:
        """Use a checked update from the next step on; says so, or what it waits for.

        Raises
        ------
        SetError
            The set is not certified for this agent; the one in force stays.
        """
        match update.subject:
            case "uncertainty":
                before, self._members = self._members, (content, update.version)
                try:
                    return self._towards() or f"adopted uncertainty version {update.version}"
                except SetError:
                    self._members = before
                    raise
            case "model":
                self._mean = content / self._agent.design.scale[: self._agent.design.nx]
            case "policy":
                self._policy = content
        self.versions = replace(self.versions, **{update.subject: update.version})
        return f"adopted {update.subject} version {update.version}"

    def decided(
        self, step: int, state: Vector, neighbours: Mapping[str, Vector], promises: Mapping[str, ForecastSet]
    ) -> str:
        """After the decision of a step: let the set shrink on, ask the policy when it is due.

        Parameters
        ----------
        state : (nx,) measured at `step`
        neighbours : states measured at `step`
        promises : newest of each neighbour

        Returns
        -------
        What is worth telling; empty for nothing.
        """
        told = self._go_on()
        if np.all(np.isfinite(state)):
            self._seen.append({self._name: state, **neighbours})
        if self._policy is None or step % self._decide or not self._seen:
            self._seen = self._seen[-self._decide :]
            return told
        action = self._action(promises)
        x_ref, u_ref = self._target.references(action, self._promised(promises), self._mean)
        factor = weight_factors(self._actions, "terminal_weight", action)
        self._seen = []
        try:
            self._agent.set_target(x_ref, u_ref)
            self._agent.set_terminal_weight(1.0 if factor is None else float(factor))
        except DataError as error:
            return f"policy {self.versions.policy}: {error}"
        return told

    def _go_on(self) -> str:
        """A set is reached in several steps, or waits until its plan exists; one that has broken a promise is gone."""
        if self._members is None:
            return ""
        members, version = self._members
        force = self._agent.disturbance
        if force.lost and self.versions.uncertainty == version:
            told = f"gave up set {version}: {force.lost}"
            self._members, self.versions = None, replace(self.versions, uncertainty=0)
            return told
        behind = np.maximum(members.lower - force.present.lowest, force.present.highest - members.upper)
        reached = not np.any(behind > CLOSE * force.design_set.radius)
        return "" if reached and self.versions.uncertainty == version else self._towards()

    def _towards(self) -> str:
        """One step to the wanted set; why not, where there is no plan with it now."""
        assert self._members is not None
        members, version = self._members
        try:
            self._agent.set_disturbance(members)
        except SolverError as error:
            return f"set {version} waits, as large as the last one was: {error}"
        self.versions = replace(self.versions, uncertainty=version)
        return ""

    def _action(self, promises: Mapping[str, ForecastSet]) -> Vector:
        """Own action, columns as `MOVES`, on the mean of what was seen since the last look."""
        assert self._policy is not None
        actor, parameters, moves = self._policy
        names = set.intersection(*(set(seen) for seen in self._seen))
        states = {name: np.mean([seen[name] for seen in self._seen], axis=0) for name in names}
        observations = np.zeros((actor.agents, actor.observations))
        row = self._observation.agents.index(self._name)
        observations[row] = self._observation.vector(states, promises)
        return arranged(actor.act(parameters[None], observations[None])[0, row], moves)

    def _promised(self, promises: Mapping[str, ForecastSet]) -> Vector:
        """Centres of the neighbours' promises for the end of the horizon, normalised; zero where nothing was heard."""
        design = self._agent.design
        zeta = np.zeros(design.model.ng)
        for name, promise in promises.items():
            neighbour = design.neighbours[name]
            zeta[neighbour.columns] = (promise.center[-1] - neighbour.center) / neighbour.scale
        return zeta
