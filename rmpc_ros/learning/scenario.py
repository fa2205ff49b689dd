"""What happens to a plant over a campaign: deliveries, markets, catalyst decay; drawn from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.learning.case import LearningCase

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scenarios:
    """S campaigns of D days.

    Attributes
    ----------
    seeds : (S,) whole numbers, also of the fluctuations within a day
    supply : (S, D) the suppliers' disturbance
    product, steam : (S, D) factors on prices
    decay : (S,) catalyst lost per day at the reference temperature
    """

    seeds: NDArray[np.int64]
    supply: Array
    product: Array
    steam: Array
    decay: Array

    @property
    def days(self) -> int:
        """Length of the campaigns."""
        return int(self.supply.shape[1])


def draw_scenarios(case: LearningCase, seeds: Sequence[int], harsh: bool = False) -> Scenarios:
    """Campaigns of some seeds; the same seed is the same campaign, harsh or not but for the decay.

    The decay differs between campaigns: it is log-normal about the file's with a spread of 20 %.
    """
    campaign = case.learning.campaign
    supply, product, steam, decay = [], [], [], []
    for seed in seeds:
        generator = np.random.default_rng([7, seed])
        deliveries = generator.choice(campaign.suppliers.values, -(-campaign.days // campaign.suppliers.days))
        supply.append(np.repeat(deliveries, campaign.suppliers.days)[: campaign.days])
        product.append(_market(generator, campaign.days, campaign.market.product, campaign.market.persistence))
        steam.append(_market(generator, campaign.days, campaign.market.steam, campaign.market.persistence))
        factor = campaign.catalyst.harsh if harsh else 1.0
        decay.append(factor * campaign.catalyst.decay_per_day * np.exp(0.2 * generator.standard_normal()))
    return Scenarios(np.array(seeds, np.int64), np.array(supply), np.array(product), np.array(steam), np.array(decay))


def aged(case: LearningCase, activity: Array, states: Array, decay: Array) -> tuple[Array, Array]:
    """Activity after a day at these mean states, and what was lost; at the floor the catalyst is regenerated.

    Parameters
    ----------
    case : LearningCase
    activity : (...,) in the morning
    states : (..., n)
    decay : (...,) per day at the reference temperature
    """
    catalyst = case.learning.campaign.catalyst
    warmth = states[..., case.temperatures].mean(axis=-1) - catalyst.reference
    lost = activity * -np.expm1(-decay * np.exp(catalyst.sensitivity * warmth))
    evening = activity - lost
    return np.where(evening < catalyst.floor, catalyst.fresh, evening), lost


def _market(generator: np.random.Generator, days: int, limits: tuple[float, float], persistence: float) -> Array:
    middle, half = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
    out, level = np.empty(days), 0.5 * generator.standard_normal()
    for day in range(days):
        out[day] = middle + half * np.clip(level, -1.0, 1.0)
        level = persistence * level + 0.5 * np.sqrt(1 - persistence**2) * generator.standard_normal()
    return out
