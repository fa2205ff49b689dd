"""An agent's transitions, step by step: what a step began with waits for what it brought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.learning.local_reward import LocalReward
from rmpc_ros.learning.transition import Transition, Versions
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.residual_set import one_step_residual

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Begun:
    """A step whose outcome is not known yet."""

    step: int
    state: Vector
    commanded: Vector
    neighbours: dict[str, Vector]
    versions: Versions


class Stepwise:
    """Completes the transitions of one agent.

    Parameters
    ----------
    config : plant file with a section `learning`
    design : the agent's

    Attributes
    ----------
    promises : newest of each neighbour
    """

    def __init__(self, config: PlantConfig, design: AgentDesign) -> None:
        self._design, self._period = design, config.period
        self._reward = LocalReward.of(config, design.name)
        self.promises: dict[str, ForecastSet] = {}
        self._begun: Begun | None = None

    def decided(
        self,
        step: int,
        state: Vector,
        neighbours: Mapping[str, Vector],
        promises: Iterable[ForecastSet],
        applied: Vector | None,
        commanded: Vector,
        versions: Versions,
    ) -> Transition | None:
        """Transition of the step before, where that is known, after a decision.

        Parameters
        ----------
        state : (nx,) measured at `step`
        neighbours : states measured at `step`
        promises : that have come since the last step
        applied : (nu,) in force during the step before, where the actuators say so
        commanded : (nu,) now
        versions : of what was used for the decision
        """
        for promise in promises:
            self.promises[promise.agent] = promise
        begun, self._begun = self._begun, None
        measured = bool(np.all(np.isfinite(state)))
        if measured:
            self._begun = Begun(step, state, commanded, dict(neighbours), versions)
        if begun is None or begun.step != step - 1 or not measured:
            return None
        return self._complete(begun, state, begun.commanded if applied is None else applied)

    def lose(self) -> None:
        """The step that began last will not be completed."""
        self._begun = None

    def _complete(self, begun: Begun, after: Vector, applied: Vector) -> Transition:
        """Neighbours of whom the state or the promise of the step is missing are left out."""
        design, step = self._design, begun.step
        known = {
            name: values
            for name, values in begun.neighbours.items()
            if name in self.promises and self.promises[name].step == step and np.all(np.isfinite(values))
        }
        states: dict[str, Vector] = {}
        deviations: dict[str, Vector] = {}
        for name, neighbour in design.neighbours.items():
            promise = self.promises.get(name) or neighbour.terminal_promise(step, self._period)
            center = promise.at(step)[0] if promise.step <= step else promise.terminal_center
            n = len(neighbour.transform)
            states[name] = (
                known[name] if name in known else np.asarray(np.linalg.solve(neighbour.transform, center[:n]))
            )
            deviations[name] = center[n:]
        residual = one_step_residual(design, begun.state, applied, after, states, deviations)
        rewards = self._reward.terms(begun.state, applied)
        return Transition(
            design.name,
            step,
            begun.state,
            after,
            applied,
            known,
            design.inverse_transform @ residual,
            {name: float(value) for name, value in rewards.items()},
            begun.versions,
        )
