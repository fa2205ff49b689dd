"""Economic MPC over days: plan the targets of the coming days, apply today's, plan again tomorrow.

    max  sum_{t < H} g^t [ profit(c_t, a_t, prices_t, delivery_t) - R n_t ]  +  g^H V(a_H, k)
    a_{t+1} = a_t exp(-k exp(s (T(c_t, a_t) - T_ref))), below the floor: regenerated, n_t = 1

c_t: certified targets of a grid, profit and temperatures from the surrogate, R the regeneration's price, paid when it
happens (nobody charges the plan for catalyst that is merely used up). Only the catalyst couples the days, so dynamic
programming over a grid of its activity solves the plan to the grid's accuracy, regenerations and quality steps
included. Known: today's delivery and when it ends, today's prices (expected to fall back to their mean as their
process does), today's activity, and the decay seen yesterday. V: the terminal value (`terminal_value.py`), or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns, deviations_of
from rmpc_ros.learning.case import HOURS, LearningCase
from rmpc_ros.learning.surrogate import Surrogate
from rmpc_ros.learning.targets import Targets

Array = NDArray[np.float64]
OnGrid = Callable[[Array], Array]
"""Decays (S,) in, values (S, G) in profit per hour times days out."""

DISCOUNT = 0.98  # per day
OFFSETS = np.linspace(-1.0, 1.0, 5)  # of each agent's set-point
ACTIVITIES = 41


class Terminal(Protocol):
    """A value of activity and decay at a plan's end."""

    def on(self, activities: Array) -> OnGrid:
        """The value at activities (G,), with all worked out that no decay changes."""


@dataclass(frozen=True)
class _Table:
    """What targets yield at activities for one delivery, (..., C): product, heat, quality's penalty, relative wear."""

    product: Array
    heat: Array
    spoilt: Array
    wear: Array


@dataclass(frozen=True)
class Situation:
    """What a plan is made from, for S campaigns.

    Attributes
    ----------
    activity, decay : (S,) of the catalyst now, per day at the reference temperature as it was seen
    supply, product, steam : (S,) today's delivery, factors on the prices
    left : further days of today's delivery
    """

    activity: Array
    decay: Array
    supply: Array
    product: Array
    steam: Array
    left: int


class Planner:
    """Plans for S campaigns at once; a policy for `Campaigns` by its method `act`.

    Parameters
    ----------
    case, targets, surrogate : what is planned with
    horizon : days
    terminal : value at the plan's end; None for nothing
    """

    def __init__(
        self,
        case: LearningCase,
        targets: Targets,
        surrogate: Surrogate,
        horizon: int,
        terminal: Terminal | None = None,
    ) -> None:
        if horizon < 1:
            raise DataError(f"horizon = {horizon}: plan at least one day")
        self.case, self.horizon = case, horizon
        self._surrogate = surrogate
        offsets = np.stack(np.meshgrid(*[OFFSETS] * len(case.agents), indexing="ij"), axis=-1)
        offsets = offsets.reshape(-1, len(case.agents))
        self.candidates = np.stack([offsets, np.full_like(offsets, -1.0)], axis=-1)  # all the authority
        self._deviations = deviations_of(case, targets, self.candidates)
        catalyst = case.learning.campaign.catalyst
        self.grid = np.linspace(catalyst.floor, catalyst.fresh, ACTIVITIES)
        known = [*case.learning.campaign.suppliers.values, float(np.mean(case.learning.campaign.suppliers.values))]
        self._terminal = None if terminal is None else terminal.on(self.grid)
        tables = [self._yields(self.grid[:, None], np.full((1, 1), supply)) for supply in known]
        self._mean = len(known) - 1  # number of the delivery expected after today's
        self._stages = _Table(
            *(np.stack([getattr(t, f) for t in tables]) for f in ("product", "heat", "spoilt", "wear"))
        )

    def act(self, observations: Array, campaigns: Campaigns) -> Array:
        """Today's actions (S, a, 2) of the best plan."""
        del observations
        chosen: Array = self.candidates[self.plan(self.situation(campaigns))]
        return chosen

    def situation(self, campaigns: Campaigns) -> Situation:
        """Of this morning."""
        today, suppliers = campaigns.outlook(), self.case.learning.campaign.suppliers
        left = suppliers.days - 1 - campaigns.today % suppliers.days
        return Situation(today.activity, self.decay_seen(campaigns), today.supply, today.product, today.steam, left)

    def decay_seen(self, campaigns: Campaigns) -> Array:
        """Decay per day at the reference temperature (S,), from yesterday's loss; on the first day the file's."""
        catalyst = self.case.learning.campaign.catalyst
        if campaigns.today == 0:
            return np.full(len(campaigns.activity), catalyst.decay_per_day)
        warmth = campaigns.yesterday.states[:, self.case.temperatures].mean(axis=-1) - catalyst.reference
        return np.asarray(-np.log1p(-campaigns.lost_share) / np.exp(catalyst.sensitivity * warmth))

    def plan(self, now: Situation) -> NDArray[np.intp]:
        """Number of today's best candidate (S,)."""
        campaign, S = self.case.learning.campaign, len(now.activity)
        k = now.decay[:, None]
        values = np.zeros((S, ACTIVITIES)) if self._terminal is None else self._terminal(now.decay)
        current = np.argmin(np.abs(np.array(campaign.suppliers.values)[None] - now.supply[:, None]), axis=1)
        for t in reversed(range(1, self.horizon)):
            forget = campaign.market.persistence**t
            factors = [
                np.mean(limits) + forget * (today - np.mean(limits))
                for limits, today in ((campaign.market.product, now.product), (campaign.market.steam, now.steam))
            ]
            delivery = current if t <= now.left else np.full(S, self._mean)
            table = _Table(*(getattr(self._stages, f)[delivery] for f in ("product", "heat", "spoilt", "wear")))
            gains = self._gains(table, self.grid[None, :, None], k[..., None], factors[0], factors[1], values)
            values = gains.max(axis=-1)
        table = self._yields(now.activity[:, None], now.supply[:, None])
        gains = self._gains(table, now.activity[:, None], k, now.product, now.steam, values)
        best: NDArray[np.intp] = np.argmax(gains, axis=-1)
        return best

    def _yields(self, activity: Array, supply: Array) -> _Table:
        """Of every candidate at activities (..., 1) for deliveries (..., 1)."""
        case, prices = self.case, self.case.learning.prices
        catalyst = case.learning.campaign.catalyst
        day = self._surrogate.day(self._deviations, activity, supply)
        warmth = day.states[..., case.temperatures].mean(axis=-1) - catalyst.reference
        return _Table(
            prices.product.price * prices.product.flow * day.states[..., case.product],
            day.inputs[..., case.steam].sum(axis=-1),
            np.where(day.states[..., case.quality] > prices.quality.limit, prices.quality.penalty, 0.0),
            np.exp(catalyst.sensitivity * warmth),
        )

    def _gains(self, table: _Table, activity: Array, decay: Array, product: Array, steam: Array, after: Array) -> Array:
        """Profit of a day and what follows, (S, ..., C); `after` (S, G): values of the next morning on the grid."""
        prices, catalyst = self.case.learning.prices, self.case.learning.campaign.catalyst
        shape = (-1,) + (1,) * (table.product.ndim - 1)
        emissions = prices.steam.emission_price * prices.steam.emission_factor
        cost = (prices.steam.price * steam.reshape(shape) + emissions) * table.heat
        profit = product.reshape(shape) * table.product - cost - table.spoilt
        evening = activity * np.exp(-decay * table.wear)
        place = np.clip((evening - catalyst.floor) / (catalyst.fresh - catalyst.floor), 0.0, 1.0) * (ACTIVITIES - 1)
        lower = np.minimum(place.astype(np.intp), ACTIVITIES - 2)
        row = np.arange(len(after)).reshape(shape)
        part = place - lower
        kept = (1 - part) * after[row, lower] + part * after[row, lower + 1]
        renewed = after[:, -1].reshape(shape) - prices.regeneration / HOURS / DISCOUNT
        return np.asarray(profit + DISCOUNT * np.where(evening < catalyst.floor, renewed, kept))
