"""An agent that controls by estimates: readings in, the state to control with out.

The observer wants the inputs of the whole plant. The own one is known; a neighbour's follows from the state it
controlled with (it says so) and what it promised of its deviation from its law; other agents' are taken as their laws'
at the steady state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.observer import Observer, View
from rmpc_ros.network.output_feedback import Followed, OutputFeedback

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Estimated:
    """The state to control with and where it comes from."""

    followed: Followed
    view: View

    @property
    def state(self) -> Vector:
        """(nx,) physical."""
        return self.followed.state


class Estimation:
    """Estimation of one agent.

    Parameters
    ----------
    agent : started; its set in force bounds how fast the state may follow
    observer : of this agent; begins anew
    designs : of all agents
    """

    def __init__(self, agent: Agent, observer: Observer, designs: Mapping[str, AgentDesign]) -> None:
        self._name, self._designs = agent.design.name, designs
        self.observer = observer
        observer.reset()
        self._feedback = OutputFeedback(agent, observer.bound)
        self._used: dict[str, Vector] = {}  # what everybody controlled with in the step before
        self._promises: dict[str, ForecastSet] = {}

    def promised(self, promise: ForecastSet) -> None:
        """A neighbour's commitment has come into force."""
        self._promises[promise.agent] = promise

    def used(self, states: Mapping[str, Vector]) -> None:
        """What the neighbours control with in the step that has just been estimated; who is missing was not heard."""
        self._used = {name: state for name, state in states.items() if np.all(np.isfinite(state))}

    def estimate(
        self, step: int, readings: Mapping[str, Vector], applied: Vector | None, promise: ForecastSet
    ) -> Estimated:
        """State to control with.

        Parameters
        ----------
        readings : own and neighbours', (nx,) by agent, physical; NaN where a sensor did not speak
        applied : own input in force since the step before; None where it is not known
        promise : the own one in force

        Raises
        ------
        NumericalError
            The plant's equations cannot be integrated from the estimate.
        """
        deviations: dict[str, Vector] = {}
        inputs: dict[str, Vector] = {} if applied is None else {self._name: applied}
        for name, state in self._used.items():
            heard = self._promises.get(name)
            if heard is None or heard.step > step - 1:
                continue
            design = self._designs[name]
            deviations[name] = heard.at(step - 1)[0][design.nx :]
            law = design.physical_gain(design.model.K) @ (state - design.steady_state)
            inputs[name] = np.clip(design.steady_input + law + deviations[name], design.input_lower, design.input_upper)
        view = self.observer.update(step, readings, inputs)
        own = view.states[self._name], view.spread[self._name]
        followed = self._feedback.follow(step, *own, applied, self._used, deviations, promise)
        return Estimated(followed, view)
