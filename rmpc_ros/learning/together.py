"""Plant, agents and learner in one process and lockstep: the learning loop of the ROS graph without ROS.

What tests and studies run. The order within a step is that of the nodes; the learner thinks after every step, so its
updates come as soon as they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.errors import DataError, SetError
from rmpc_ros.learning.learner import Learner
from rmpc_ros.learning.local_reward import LocalReward
from rmpc_ros.learning.stepwise import Stepwise
from rmpc_ros.learning.student import Student
from rmpc_ros.learning.transition import Transition
from rmpc_ros.learning.update import Subject, Update
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.plants.simulation import Plant

Array = NDArray[np.float64]


@dataclass
class Account:
    """What happened, step by step.

    Attributes
    ----------
    rewards : true reward per hour of every step, nominal market
    shares : mean half-width of the sets in force over the design's, mean over agents
    widths : mean promised half-width over the distance to the limits, over the horizon and agents
    policies : versions of the policy that the agents use
    published, refused : updates; refused ones by agent
    """

    rewards: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    policies: list[tuple[int, ...]] = field(default_factory=list)
    published: list[tuple[int, Update]] = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)


class Together:
    """Agents that learn from a learner, or from nobody.

    Parameters
    ----------
    config, designs : the plant
    learner : None: nobody
    subjects : what the agents take from it
    seed : of the plant; the file's by default

    Attributes
    ----------
    agents, students, account : by name; what happened
    transitions : all that were completed
    """

    def __init__(
        self,
        config: PlantConfig,
        designs: Mapping[str, AgentDesign],
        learner: Learner | None,
        subjects: tuple[Subject, ...] = ("uncertainty", "model", "policy"),
        seed: int | None = None,
    ) -> None:
        self.agents = {name: Agent(design) for name, design in designs.items()}
        self.students = {name: Student(config, agent) for name, agent in self.agents.items()}
        self.learner, self.account = learner, Account()
        self.transitions: list[Transition] = []
        self._subjects = subjects
        self._stepwise = {name: Stepwise(config, design) for name, design in designs.items()}
        self._rewards = {name: LocalReward.of(config, name) for name in designs}
        self._plant = Plant(config, seed=seed)
        self._announced: dict[str, ForecastSet] = {}

    def run(self, steps: int) -> LoopResult:
        """Live so many steps more; agents begin with fresh promises."""
        return run(self.agents, self._plant, steps, first_step=self._plant.steps, watch=self._watch)

    def hand(self, update: Update, step: int) -> None:
        """Give an update of the learner to the agents that it is for; who refuses it is written down."""
        if update.subject in self._subjects:
            self.give(update, step)

    def give(self, update: Update, step: int = 0) -> None:
        """Give an update to the agents that it is for, whatever they take from the learner."""
        for name in update.agents or self.agents:
            try:
                self.students[name].adopt(update, self.students[name].check(update))
            except (DataError, SetError) as error:
                self.account.refused.append((step, name, str(error)))

    def _watch(self, step: int, decisions: dict[str, Decision]) -> None:
        """After the decisions of a step, before the plant moves on."""
        measured, truth = self._plant.measure(), self._plant.true_state()
        account, reward = self.account, 0.0
        completed: list[Transition] = []
        for name, decision in decisions.items():
            others = self.agents[name].design.neighbours
            neighbours = {other: measured[other] for other in others}
            stepwise, student = self._stepwise[name], self.students[name]
            done = stepwise.decided(
                step,
                measured[name],
                neighbours,
                [self._announced[other] for other in others if other in self._announced],
                None,
                decision.input,
                student.versions,
            )
            if done is not None:
                completed.append(done)
            student.decided(step, measured[name], neighbours, stepwise.promises)
            reward += float(self._rewards[name].total(truth[name], decision.input))
        self._announced = {name: decision.forecast for name, decision in decisions.items()}
        account.rewards.append(reward)
        forces = [agent.disturbance for agent in self.agents.values()]
        account.shares.append(float(np.mean([f.present.share_of(f.design_set) for f in forces])))
        account.widths.append(float(np.mean([d.report.promise_width for d in decisions.values()])))
        account.policies.append(tuple(student.versions.policy for student in self.students.values()))
        self.transitions += completed
        if self.learner is None:
            return
        self.learner.add(completed)
        for update in self.learner.think():
            account.published.append((step, update))
            self.hand(update, step)
