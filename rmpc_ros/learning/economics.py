"""Economic reward per hour: r = product - steam - emissions - quality - violation - catalyst.

    product   = price * factor * flow * x_product          steam    = price * factor * sum(u)
    emissions = emission price * emission factor * sum(u)  quality  = penalty where x_quality > limit
    violation = penalty * share of periods with a limit broken
    catalyst  = regeneration * (activity lost) / (fresh - floor) / hours

The catalyst is charged as it is used up, not when it is regenerated, so that the end of a campaign is no bargain.
Every term is returned by name with its sign, so that their sum is the reward.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.learning.case import HOURS, LearningCase

Array = NDArray[np.float64]
TERMS = ("product", "steam", "emissions", "quality", "violation", "catalyst")


def reward_terms(
    case: LearningCase,
    states: Array,
    inputs: Array,
    product_factor: ArrayLike,
    steam_factor: ArrayLike,
    violation: ArrayLike,
    lost: ArrayLike,
) -> dict[str, Array]:
    """Terms of the reward per hour, each (...,).

    Parameters
    ----------
    case : LearningCase
    states : (..., n) mean true states of the day, physical
    inputs : (..., m) mean inputs
    product_factor, steam_factor : (...,) of the market
    violation : (...,) share of periods with a state or input outside its limits
    lost : (...,) activity lost on the day
    """
    prices, catalyst = case.learning.prices, case.learning.campaign.catalyst
    heat = inputs[..., case.steam].sum(axis=-1)
    above = states[..., case.quality] > prices.quality.limit
    income = prices.product.price * prices.product.flow * states[..., case.product]
    return {
        "product": income * np.asarray(product_factor),
        "steam": -prices.steam.price * heat * np.asarray(steam_factor),
        "emissions": -prices.steam.emission_price * prices.steam.emission_factor * heat,
        "quality": -prices.quality.penalty * above.astype(float),
        "violation": -prices.violation * np.asarray(violation, float),
        "catalyst": -prices.regeneration * np.asarray(lost, float) / (catalyst.fresh - catalyst.floor) / HOURS,
    }


def total(terms: dict[str, Array]) -> Array:
    """Sum of the terms, (...,)."""
    return np.asarray(sum(terms[name] for name in TERMS))
