"""A day of a campaign: what the robust controllers make of the targets, in a window of real control steps.

A campaign lasts weeks and a control period seconds, so a day is represented by a window of some control periods with
the catalyst held; the end of the window, where the plant has settled, stands for the day. The state carries over from
day to day. Each window begins with fresh promises (the invariant boxes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.targets import Targets, certified_targets
from rmpc_ros.models.nonlinear import NonlinearModel
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.closed_loop import run
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.system import design_agents, design_network
from rmpc_ros.plants.simulation import Plant

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Day:
    """What a day brought; leading dimensions are campaigns.

    Attributes
    ----------
    states (..., n), inputs (..., m) : means, physical
    centers, widths : (..., a) promised centre (offset from the steady state) and half-width of each agent's moved
        set-point coordinate, as shares of the agent's invariant box
    violation : (...,) share of periods with a limit broken
    """

    states: Array
    inputs: Array
    centers: Array
    widths: Array
    violation: Array


class DayModel(Protocol):
    """How a campaign gets its days: real controllers, or a surrogate of them."""

    def restart(self, seeds: NDArray[np.int64]) -> None:
        """Begin campaigns (S,) at the steady state."""

    def day(self, deviations: Array, activity: Array, supply: Array, terminal: Array | None = None) -> Day:
        """One day for law deviations (S, m), activity (S,), supply (S,), factors of the terminal weights (S, a)."""


class CampaignPlant(Plant):
    """The simulated plant with the catalyst's activity set from outside."""

    def __init__(self, config: PlantConfig, parameter: str) -> None:
        self._parameter = parameter
        self.activity = float("nan")
        super().__init__(config)

    def _parameters(self) -> Array | None:
        model = self.config.nonlinear
        assert isinstance(model, NonlinearModel)
        return model.parameter_vector({self._parameter: self.activity})


class RobustDays:
    """Days of the real robust controllers, one campaign at a time.

    Attributes
    ----------
    targets : the certified set
    steps, broken : control steps simulated and promises broken so far
    modes : how often the agents were in each mode
    """

    def __init__(self, case: LearningCase) -> None:
        network = design_network(case.config)
        self.case = case
        self.targets: Targets = certified_targets(case, network)
        designs = design_agents(case.config, network.model_error)
        self._agents = {name: Agent(designs[name]) for name in case.agents}
        self._plant = CampaignPlant(case.config, case.learning.campaign.catalyst.parameter)
        self._moved = {a: list(designs[a].state_names).index(case.learning.actions.setpoints[a]) for a in case.agents}
        self._bounds = case.config.disturbance_bounds()
        self.steps = self.broken = 0
        self.modes: dict[str, int] = {}

    def restart(self, seeds: NDArray[np.int64]) -> None:
        """Begin one campaign at the steady state."""
        self._plant.reset(int(seeds[0]))
        self._generator = np.random.default_rng([11, int(seeds[0])])

    def day(self, deviations: Array, activity: Array, supply: Array, terminal: Array | None = None) -> Day:
        """Simulate a window with the controllers in the loop; arrays have one row. Terminal weights: the design's."""
        case = self.case
        campaign = case.learning.campaign
        for name, (x_ref, u_ref) in self.targets.references(deviations[0]).items():
            self._agents[name].set_target(x_ref, u_ref)
        for i, agent in enumerate(self._agents.values()):
            agent.set_terminal_weight(1.0 if terminal is None else float(terminal[0, i]))
        self._plant.activity = float(activity[0])
        disturbances = self._generator.uniform(*self._bounds, (campaign.window, len(self._bounds[0])))
        disturbances[:, case.supply] = supply[0]
        inputs: list[Array] = []
        centers: list[list[float]] = []
        widths: list[list[float]] = []

        def watch(step: int, decisions: dict[str, Decision]) -> None:
            del step
            inputs.append(np.concatenate([decisions[a].input for a in case.agents]))
            boxes = [self._promised(a, decisions[a]) for a in case.agents]
            centers.append([center for center, _ in boxes])
            widths.append([width for _, width in boxes])

        first = self._plant.steps
        result = run(
            self._agents, self._plant, campaign.window, lambda k: disturbances[k - first], first_step=first, watch=watch
        )
        self.steps += result.steps
        self.broken += result.promises_broken
        for mode, count in result.modes.items():
            self.modes[mode] = self.modes.get(mode, 0) + count
        last = slice(-campaign.average, None)
        return Day(
            result.states[last].mean(axis=0)[None],
            np.mean(inputs[last], axis=0)[None],
            np.mean(centers[last], axis=0)[None],
            np.mean(widths[last], axis=0)[None],
            np.array([min(1.0, result.violations / result.steps)]),
        )

    def input_scale(self, agent: str) -> Array:
        """Physical units (nu,) per unit of the agent's normalised inputs."""
        design = self._agents[agent].design
        return np.asarray(design.scale[design.nx :])

    def _promised(self, agent: str, decision: Decision) -> tuple[float, float]:
        """Centre and half-width of the agent's promise about its moved coordinate, mean over the horizon."""
        design, forecast, n = self._agents[agent].design, decision.forecast, self._moved[agent]
        box = design.terminal[n] * design.scale[n]
        return (
            float((forecast.center[1:, n] - design.center[n]).mean() / box),
            float(forecast.scale[1:, n].mean() / box),
        )
