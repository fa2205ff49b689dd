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

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns, deviations_of
from rmpc_ros.learning.case import HOURS, LearningCase
from rmpc_ros.learning.surrogate import Surrogate
from rmpc_ros.learning.targets import Targets

Array = NDArray[np.float64]
Terminal = Callable[[Array, Array], Array]
"""Activity (S, G) and decay (S, 1) in, value (S, G) in profit per hour times days out."""

DISCOUNT = 0.98  # per day
OFFSETS = np.linspace(-1.0, 1.0, 5)  # of each agent's set-point
ACTIVITIES = 41


@dataclass(frozen=True)
class _Table:
    """What targets yield at activities for one delivery, (..., C): product, heat, quality's penalty, relative wear."""

    product: Array
    heat: Array
    spoilt: Array
    wear: Array


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
        self.case, self.horizon, self.terminal = case, horizon, terminal
        self._surrogate = surrogate
        offsets = np.stack(np.meshgrid(*[OFFSETS] * len(case.agents), indexing="ij"), axis=-1)
        offsets = offsets.reshape(-1, len(case.agents))
        self.candidates = np.stack([offsets, np.full_like(offsets, -1.0)], axis=-1)  # all the authority
        self._deviations = deviations_of(case, targets, self.candidates)
        catalyst = case.learning.campaign.catalyst
        self.grid = np.linspace(catalyst.floor, catalyst.fresh, ACTIVITIES)
        known = [*case.learning.campaign.suppliers.values, float(np.mean(case.learning.campaign.suppliers.values))]
        tables = [self._yields(self.grid[:, None], np.full((1, 1), supply)) for supply in known]
        self._mean = len(known) - 1  # number of the delivery expected after today's
        self._stages = _Table(
            *(np.stack([getattr(t, f) for t in tables]) for f in ("product", "heat", "spoilt", "wear"))
        )

    def act(self, observations: Array, campaigns: Campaigns) -> Array:
        """Today's actions (S, a, 2) of the best plan."""
        del observations
        today = campaigns.outlook()
        decay = self.decay_seen(campaigns)
        suppliers = self.case.learning.campaign.suppliers
        left = suppliers.days - 1 - campaigns.today % suppliers.days  # further days of today's delivery
        best = self.plan(today.activity, decay, today.supply, today.product, today.steam, left)
        chosen: Array = self.candidates[best]
        return chosen

    def decay_seen(self, campaigns: Campaigns) -> Array:
        """Decay per day at the reference temperature (S,), from yesterday's loss; on the first day the file's."""
        catalyst = self.case.learning.campaign.catalyst
        if campaigns.today == 0:
            return np.full(len(campaigns.activity), catalyst.decay_per_day)
        warmth = campaigns.yesterday.states[:, self.case.temperatures].mean(axis=-1) - catalyst.reference
        return np.asarray(-np.log1p(-campaigns.lost_share) / np.exp(catalyst.sensitivity * warmth))

    def plan(
        self, activity: Array, decay: Array, supply: Array, product: Array, steam: Array, left: int
    ) -> NDArray[np.intp]:
        """Number of today's best candidate (S,); `left`: further days of today's delivery."""
        campaign, S = self.case.learning.campaign, len(activity)
        k = decay[:, None]
        values = (
            self.terminal(np.broadcast_to(self.grid, (S, ACTIVITIES)), k)
            if self.terminal
            else np.zeros((S, ACTIVITIES))
        )
        current = np.argmin(np.abs(np.array(campaign.suppliers.values)[None] - supply[:, None]), axis=1)
        for t in reversed(range(1, self.horizon)):
            forget = campaign.market.persistence**t
            factors = [
                np.mean(limits) + forget * (now - np.mean(limits))
                for limits, now in ((campaign.market.product, product), (campaign.market.steam, steam))
            ]
            delivery = current if t <= left else np.full(S, self._mean)
            table = _Table(*(getattr(self._stages, f)[delivery] for f in ("product", "heat", "spoilt", "wear")))
            gains = self._gains(table, self.grid[None, :, None], k[..., None], factors[0], factors[1], values)
            values = gains.max(axis=-1)
        table = self._yields(activity[:, None], supply[:, None])
        gains = self._gains(table, activity[:, None], k, product, steam, values)
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
