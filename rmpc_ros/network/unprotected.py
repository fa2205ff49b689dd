"""Agents that exchange forecasts without committing to them: usual distributed MPC, for comparison.

Each agent keeps inside its invariant box, knows its neighbours' measured states and newest forecasts, plans the best it
can with them, says what it plans, and plans afresh in the next step without keeping to what it said. On a perfect
network that is safe: whoever is in its box, measures its neighbours and reckons with their full authority finds an
input that keeps it there (math.md 3.1). Where a measurement is lost the newest forecast stands in for it, and nothing
makes that forecast true: its sender has planned afresh since. So what these agents violate on a bad network is the
network's doing, and what commitments prevent.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.mpc.local import LocalPlan, Matrix
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.decision import Mode
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.nominal import WIDE
from rmpc_ros.network.proposal import Held


class UnprotectedAgent(Agent):
    """An agent that announces but does not promise.

    Raises
    ------
    ConfigError
        A neighbour's input moves this agent within one period: then nothing that is said a step earlier could be relied
        on even on a perfect network. Write `discretisation: held`.
    """

    def __init__(self, design: AgentDesign) -> None:
        for name, neighbour in design.neighbours.items():
            if np.any(design.model.G[:, neighbour.columns][:, len(neighbour.transform) :]):
                raise ConfigError(
                    f"agent '{design.name}' feels the inputs of '{name}' within one period; an agent without "
                    "commitments is for networks coupled by states alone (plant.discretisation: held)"
                )
        super().__init__(design)

    def receive(self, forecast: ForecastSet) -> None:
        """Believe the newest announcement."""
        held = self.neighbourhood.held[forecast.agent]
        if forecast.step >= held.newest.step:
            self.neighbourhood.held[forecast.agent] = Held(forecast)

    def _own_promise(self, step: int) -> tuple[Matrix, Matrix]:
        """The invariant box, and any input, whatever was announced."""
        box = np.tile(self.design.terminal, (self.design.horizon + 1, 1))
        box[:, self.design.nx :] = WIDE
        return -box, box

    def _announce(self, step: int, plan: LocalPlan, lower: Matrix, upper: Matrix, mode: Mode) -> ForecastSet:
        """The plan's tube of states; the inputs stay free within the authority."""
        nx = self.design.nx
        own_lower, own_upper = lower.copy(), upper.copy()
        own_lower[:, nx:], own_upper[:, nx:] = -self.design.terminal[nx:], self.design.terminal[nx:]
        own_lower[0, :nx] = own_upper[0, :nx] = plan.x[0]
        own_lower[1:, :nx], own_upper[1:, :nx] = plan.x[1:] - plan.tube_lower, plan.x[1:] + plan.tube_upper
        return self.design.forecast(step, own_lower, own_upper, self.epoch)

    def _start_afresh(self, epoch: int, reason: str) -> None:
        """Without promises there is nothing to break."""
