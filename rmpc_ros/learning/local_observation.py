"""What one agent shows its policy, from its own and its neighbours' messages only; laid out as in `campaign`.

    own set-point's state | product's impurity | catalyst, delivery, product price, steam price | neighbours' promised
    centres | and widths | which agent it is

An agent on the plant knows neither catalyst nor delivery, and prices are those of its file: these are zero. Impurity is
zero for an agent that neither has nor hears the state that limits quality. `learnable` are the entries that a learner
on the plant may weight, since its data has them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.errors import ConfigError
from rmpc_ros.network.forecast import ForecastSet

Array = NDArray[np.float64]

OWN, QUALITY, SHARED = 0, 1, 6  # positions: own state, impurity, and the end of what is not about neighbours


class LocalObservation:
    """Observations of one agent.

    Parameters
    ----------
    config : plant file with a section `learning`
    agent : whose
    """

    def __init__(self, config: PlantConfig, agent: str) -> None:
        if config.learning is None:
            raise ConfigError(f"plant '{config.plant.name}' has no section 'learning': nothing says what policies see")
        prices, actions = config.learning.prices, config.learning.actions
        self.agents, self.agent = tuple(config.agents), agent
        self.most = max(len(section.neighbours) for section in config.agents.values())
        self.size = SHARED + 2 * self.most + len(self.agents)
        self._limit, self._span = prices.quality.limit, actions.span
        section = config.agents[agent]
        self._moved = list(section.states).index(actions.setpoints[agent])
        self._steady = float(config.linear.steady_state[config.linear.rows(agent)][self._moved])
        self._quality: tuple[str, int] | None = None
        for name in (agent, *section.neighbours):
            states = list(config.agents[name].states)
            if prices.quality.state in states:
                self._quality = name, states.index(prices.quality.state)
        self._neighbours = {
            name: list(config.agents[name].states).index(actions.setpoints[name]) for name in section.neighbours
        }

    def learnable(self) -> NDArray[np.bool_]:
        """Entries (size,) that a learner on the plant may weight."""
        out = np.zeros(self.size, bool)
        out[[OWN, QUALITY]] = True
        out[-len(self.agents) :] = True
        return out

    def vector(self, states: Mapping[str, Array], promises: Mapping[str, ForecastSet]) -> Array:
        """Observation (..., size).

        Parameters
        ----------
        states : measured, of this agent and of neighbours that were heard, (..., nx) each
        promises : of the neighbours that were heard
        """
        own = states[self.agent]
        out = np.zeros((*own.shape[:-1], self.size))
        out[..., OWN] = (own[..., self._moved] - self._steady) / self._span
        if self._quality is not None and self._quality[0] in states:
            out[..., QUALITY] = 100.0 * (states[self._quality[0]][..., self._quality[1]] - self._limit)
        for k, (name, n) in enumerate(self._neighbours.items()):
            if name in promises:
                promise = promises[name]
                box = promise.terminal_scale[n]
                out[..., SHARED + k] = (promise.center[1:, n] - promise.terminal_center[n]).mean() / box
                out[..., SHARED + self.most + k] = promise.scale[1:, n].mean() / box
        out[..., self.size - len(self.agents) + self.agents.index(self.agent)] = 1.0
        return out
