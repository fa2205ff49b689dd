"""An agent's own share of the plant's reward, from what it measures and does itself.

    product   = price * flow * x_product           where the agent has the product's state
    quality   = -penalty where x_quality > limit   where the agent has that state
    steam, emissions = -(...) * sum(u)             of its own paid inputs
    violation = -penalty where one of its states or inputs is outside its limits

per hour, names and signs as in `economics`; the sum over all agents is the plant's reward in the nominal market without
the catalyst. So the learner needs nobody's account of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.config.learning import Prices
from rmpc_ros.errors import ConfigError

Array = NDArray[np.float64]


class LocalReward:
    """Reward terms of one agent.

    Parameters
    ----------
    prices : of the plant file
    states, inputs : names of the agent's own
    lower, upper : (nx + nu,) limits of its states and inputs, infinite where there are none
    """

    def __init__(
        self, prices: Prices, states: Sequence[str], inputs: Sequence[str], lower: Array, upper: Array
    ) -> None:
        self._prices, self._lower, self._upper = prices, lower, upper
        self._product = states.index(prices.product.state) if prices.product.state in states else None
        self._quality = states.index(prices.quality.state) if prices.quality.state in states else None
        self._paid = [inputs.index(name) for name in prices.steam.inputs if name in inputs]

    @staticmethod
    def of(config: PlantConfig, agent: str) -> LocalReward:
        """Terms of an agent of a plant file.

        Raises
        ------
        ConfigError
            There is no section `learning`, or its prices name a state or input that no agent has.
        """
        learning = config.learning
        if learning is None:
            raise ConfigError(
                f"plant '{config.plant.name}' has no section 'learning' (prices, actions); "
                "config/reactor_separator.yaml has one"
            )
        prices = learning.prices
        states = [s for other in config.agents.values() for s in other.states]
        inputs = [u for other in config.agents.values() for u in other.inputs]
        for key, name, known in (
            ("product", prices.product.state, states),
            ("quality", prices.quality.state, states),
            *(("steam", name, inputs) for name in prices.steam.inputs),
        ):
            if name not in known:
                raise config.error(("learning", "prices", key), f"'{name}' does not exist; known: {', '.join(known)}")
        limits = zip(config.state_limits(agent), config.input_limits(agent), strict=True)
        lower, upper = (np.concatenate(pair) for pair in limits)
        section = config.agents[agent]
        return LocalReward(prices, list(section.states), list(section.inputs), lower, upper)

    def terms(self, states: Array, inputs: Array) -> dict[str, Array]:
        """Terms per hour, each (...,), of states (..., nx) and inputs (..., nu) in physical units."""
        prices = self._prices
        found: dict[str, Array] = {}
        if self._product is not None:
            found["product"] = prices.product.price * prices.product.flow * states[..., self._product]
        if self._quality is not None:
            above = states[..., self._quality] > prices.quality.limit
            found["quality"] = -prices.quality.penalty * above.astype(float)
        if self._paid:
            heat = inputs[..., self._paid].sum(axis=-1)
            found["steam"] = -prices.steam.price * heat
            found["emissions"] = -prices.steam.emission_price * prices.steam.emission_factor * heat
        values = np.concatenate([states, inputs], axis=-1)
        outside = np.any((values < self._lower) | (values > self._upper), axis=-1)
        found["violation"] = -prices.violation * np.asarray(outside, float)
        return found

    def total(self, states: Array, inputs: Array) -> Array:
        """Sum of the terms, (...,)."""
        return np.asarray(sum(self.terms(states, inputs).values()))
