"""A plant file as a learning problem: indices of what prices, campaign and actions name, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.config.learning import LEAST_MOVES, CampaignLearning, Move
from rmpc_ros.errors import ConfigError

Vector = NDArray[np.float64]
Indices = NDArray[np.intp]

HOURS = 24.0  # of a decision: one a day


@dataclass(frozen=True)
class LearningCase:
    """What every part of this room needs to know about the plant.

    Attributes
    ----------
    config, learning : the plant file and its section
    agents : (a,) names in the order of the file
    steady : (n,) physical steady state of all agents
    product, quality : index of the state that is sold, and of the one that the customer limits
    steam : indices of the inputs that are paid for
    temperatures : indices of the states that age the catalyst
    moved : (a,) index of each agent's state whose set-point moves
    supply : index of the suppliers' disturbance
    """

    config: PlantConfig
    learning: CampaignLearning
    agents: tuple[str, ...]
    steady: Vector
    product: int
    quality: int
    steam: Indices
    temperatures: Indices
    moved: Indices
    supply: int

    @property
    def moves(self) -> tuple[Move, ...]:
        """What policies that are trained here move: the columns of their actions."""
        return self.learning.actions.moves

    def moving(self, words: Sequence[str]) -> LearningCase:
        """The same case for policies that move something else.

        Raises
        ------
        ConfigError
            A word is unknown, the set-point or the back-off is missing, or the plant file has no bounds for a move.
        """
        actions = self.learning.actions
        bounded = actions.bounded()
        moves = tuple(move for move in bounded if move in words)
        if list(moves) != list(words) or not set(LEAST_MOVES) <= set(moves):
            raise self.config.error(
                ("learning", "actions"),
                f"moves {', '.join(words)}: bounded are, in this order, {', '.join(bounded)}; the first two needed",
            )
        chosen = actions.model_copy(update={"moves": moves})
        config = self.config.model_copy(update={"learning": self.learning.model_copy(update={"actions": chosen})})
        return learning_case(config)

    @property
    def middle_activity(self) -> float:
        """Centre of the certified range of the catalyst's activity."""
        catalyst = self.learning.campaign.catalyst
        return (catalyst.fresh + catalyst.floor) / 2

    @property
    def half_activity(self) -> float:
        """Half of that range."""
        catalyst = self.learning.campaign.catalyst
        return (catalyst.fresh - catalyst.floor) / 2

    @property
    def supply_bounds(self) -> tuple[float, float]:
        """Bounds of the suppliers' disturbance, those of the design."""
        return self.config.plant.disturbances[self.learning.campaign.suppliers.disturbance].bounds


def learning_case(config: PlantConfig) -> LearningCase:
    """Check the names of the section `learning` against the plant.

    Raises
    ------
    ConfigError
        The section is missing, or names a state, input, agent, disturbance or parameter that does not exist, or a
        supplier's value outside the disturbance's bounds.
    """
    learning = config.learning
    if learning is None:
        raise ConfigError(
            f"plant '{config.plant.name}' has no section 'learning' (prices, campaign, actions); "
            "config/reactor_separator_campaign.yaml has one"
        )
    if learning.campaign is None:
        raise config.error(
            ("learning",),
            "no key 'campaign': campaigns are what policies are trained on; give one, or use `rmpc run --learn`",
        )
    learning = CampaignLearning(
        prices=learning.prices, actions=learning.actions, campaign=learning.campaign, online=learning.online
    )
    linear = config.linear
    states = [s for v in linear.agents.values() for s in v.states]
    inputs = [u for v in linear.agents.values() for u in v.inputs]
    prices, campaign = learning.prices, learning.campaign

    def index(names: list[str], name: str, path: tuple[str, ...]) -> int:
        if name not in names:
            raise config.error(("learning", *path), f"'{name}' does not exist; known: {', '.join(names)}")
        return names.index(name)

    path: tuple[str, ...]
    moved = []
    for agent in linear.agents:
        if agent not in learning.actions.setpoints:
            raise config.error(("learning", "actions", "setpoints"), f"agent '{agent}' is missing")
        own = list(linear.agents[agent].states)
        path = ("actions", "setpoints", agent)
        moved.append(states.index(own[index(own, learning.actions.setpoints[agent], path)]))
    model = config.nonlinear
    if model is None:
        raise config.error(("plant", "model"), "campaigns need a nonlinear model with a catalyst parameter")
    index(list(model.parameters), campaign.catalyst.parameter, ("campaign", "catalyst", "parameter"))
    supply = index(list(linear.disturbances), campaign.suppliers.disturbance, ("campaign", "suppliers", "disturbance"))
    low, high = config.plant.disturbances[campaign.suppliers.disturbance].bounds
    for value in campaign.suppliers.values:
        if not low <= value <= high:
            path = ("learning", "campaign", "suppliers", "values")
            raise config.error(path, f"{value:g} is outside the disturbance's bounds [{low:g}, {high:g}]")
    steam = [index(inputs, name, ("prices", "steam", "inputs")) for name in prices.steam.inputs]
    hot = [index(states, name, ("campaign", "catalyst", "temperatures")) for name in campaign.catalyst.temperatures]
    return LearningCase(
        config,
        learning,
        tuple(linear.agents),
        linear.steady_state,
        index(states, prices.product.state, ("prices", "product", "state")),
        index(states, prices.quality.state, ("prices", "quality", "state")),
        np.array(steam),
        np.array(hot),
        np.array(moved),
        supply,
    )
