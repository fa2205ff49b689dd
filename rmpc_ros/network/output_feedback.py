"""The state an agent controls with when it estimates: it follows the estimate no faster than the design reckons with.

A robust agent relies on one thing: from step to step its state moves by its prediction plus a residual r in the set it
reckons with. A filter does not promise that: when a slow sensor speaks again its estimate jumps. So the agent controls

    s+ = A s + B c + G zeta + clip(r),      r = the residual that would bring s to the estimate,

where clip cuts r to the set in force (coordinate bounds, then towards its centre until every direction of the tube has
room). What is cut is made up for in the next steps. Promises are about s, and neighbours use s: so they are kept
whatever the filter does. The true state is s plus estimation error plus what is still to be made up; the limits are
tightened by the plant file's bound on that sum (`estimator.error`), and hold as long as the bound does: that is a
hypothesis about the sensors, watched by `Followed.doubt`, not a theorem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.residual_set import one_step_residual

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Followed:
    """One step of the followed state.

    Attributes
    ----------
    state : (nx,) to control with, physical
    lag : (nx,) what is still to be made up for, |estimate - state|
    doubt : (nx,) lag plus the estimate's own bound, over the bound that the design's limits are tightened by; above 1
        the limits are not guaranteed. Infinite where the file gives no bound
    """

    state: Vector
    lag: Vector
    doubt: Vector


class OutputFeedback:
    """Follows the estimate of one agent's state.

    Parameters
    ----------
    agent : whose set in force counts
    bound : (nx,) of |state - true state| that the design's limits are tightened by, physical
    """

    def __init__(self, agent: Agent, bound: Vector) -> None:
        self._agent, self._bound = agent, np.asarray(bound, float)
        self._before: tuple[int, Vector] | None = None

    def follow(
        self,
        step: int,
        estimate: Vector,
        spread: Vector,
        applied: Vector | None,
        neighbour_states: Mapping[str, Vector],
        deviations: Mapping[str, Vector],
        promise: ForecastSet,
    ) -> Followed:
        """State to control with in a step.

        Parameters
        ----------
        estimate, spread : (nx,) of the filter and its bound of the error, physical
        applied : (nu,) input in force in the step before; None where it is not known
        neighbour_states : what the neighbours controlled with in the step before, physical
        deviations : (nu,) of their inputs from their laws then, physical
        promise : of this agent, in force
        """
        before = self._before
        state = np.asarray(estimate, float)
        if before is not None and before[0] == step - 1 and applied is not None:
            try:
                state = self._towards(before[1], state, applied, neighbour_states, deviations)
            except DataError:  # a neighbour was not heard: the own promise, which covers that, is all that is left
                state = np.asarray(estimate, float)
        if before is not None:
            state = self._inside(promise, step, state)
        self._before = step, state
        lag = np.abs(estimate - state)
        with np.errstate(divide="ignore"):
            doubt = np.where(self._bound > 0, (lag + spread) / np.maximum(self._bound, 1e-300), np.inf)
        return Followed(state, lag, doubt)

    def _towards(
        self,
        before: Vector,
        estimate: Vector,
        applied: Vector,
        neighbour_states: Mapping[str, Vector],
        deviations: Mapping[str, Vector],
    ) -> Vector:
        design, used = self._agent.design, self._agent.disturbance.used
        unit = design.scale[: design.nx]
        wanted = one_step_residual(design, before, applied, estimate, neighbour_states, deviations)
        cut = np.clip(wanted, used.lowest, used.highest)
        allowed = used.pulled_inside(self._agent.disturbance.directions, cut / unit)
        moved = design.transform @ estimate + (allowed * unit - wanted)
        return np.asarray(design.inverse_transform @ moved)

    def _inside(self, promise: ForecastSet, step: int, state: Vector) -> Vector:
        design = self._agent.design
        center, scale = promise.at(step)
        nx = design.nx
        inside = np.clip(design.transform @ state, center[:nx] - scale[:nx], center[:nx] + scale[:nx])
        return np.asarray(design.inverse_transform @ inside)
