"""Campaigns: one decision a day by every agent, for any number of campaigns at once, on any `DayModel`.

Morning: each agent sees its local observation and acts. The wishes become the nearest certified targets; the day model
says what the controllers make of them; the reward is paid; the catalyst ages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.day import Day, DayModel
from rmpc_ros.learning.economics import reward_terms
from rmpc_ros.learning.scenario import Scenarios, aged
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.weights import economic_pull, weight_factors

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outlook:
    """What is known in the morning of a day, for S campaigns.

    Attributes
    ----------
    activity, supply, product, steam : (S,)
    """

    activity: Array
    supply: Array
    product: Array
    steam: Array


def observation_size(case: LearningCase) -> int:
    """Length of an agent's observation."""
    return 6 + 2 * _most_neighbours(case) + len(case.agents)


def deviations_of(
    case: LearningCase, targets: Targets, actions: Array, product: ArrayLike = 1.0, steam: ArrayLike = 1.0
) -> Array:
    """Certified law deviations (..., m) of actions (..., a, 2 to 4) in [-1, 1]; zero is the plant file's controller.

    The first action moves the set-point by up to `span`; the second moves the back-off between none (-1), the file's
    (0) and the largest (1); the third weighs the economics at today's factors (...,) on the prices (`weights`).
    """
    chosen = case.learning.actions
    bounded = np.clip(actions, -1.0, 1.0)
    second = bounded[..., 1]
    change = np.where(second >= 0, chosen.most_back_off - chosen.back_off, chosen.back_off) * second
    pull = economic_pull(chosen, targets.slopes, bounded, product, steam)
    return targets.nearest(chosen.span * bounded[..., 0], chosen.back_off + change, pull)


class Campaigns:
    """S campaigns side by side.

    Parameters
    ----------
    case, targets, model, scenarios : what, within what, how, and what happens

    Attributes
    ----------
    activity : (S,) of the catalyst now
    regenerations : (S,) so far
    lost_share : (S,) share of the activity that yesterday cost
    today : number of the day
    """

    def __init__(self, case: LearningCase, targets: Targets, model: DayModel, scenarios: Scenarios) -> None:
        self.case, self.targets, self.model, self.scenarios = case, targets, model, scenarios
        self._neighbours = _neighbour_table(case)

    def reset(self) -> Array:
        """Begin: fresh catalyst, plant at the steady state; observations (S, a, o)."""
        S, a = len(self.scenarios.seeds), len(self.case.agents)
        self.model.restart(self.scenarios.seeds)
        self.today = 0
        self.activity = np.full(S, self.case.learning.campaign.catalyst.fresh)
        self.regenerations = np.zeros(S)
        self.lost_share = np.zeros(S)
        steady_input = np.broadcast_to(self.case.config.linear.steady_input, (S, a))
        self.yesterday = Day(
            np.broadcast_to(self.case.steady, (S, len(self.case.steady))),
            steady_input,
            np.zeros((S, a)),
            np.ones((S, a)),
            np.zeros(S),
        )
        return self.observe()

    @property
    def done(self) -> bool:
        """Whether the last day is over."""
        return self.today >= self.scenarios.days

    def outlook(self) -> Outlook:
        """What is known this morning (after the last day: the last day's deliveries and prices)."""
        day = min(self.today, self.scenarios.days - 1)
        known = self.scenarios
        return Outlook(self.activity, known.supply[:, day], known.product[:, day], known.steam[:, day])

    def step(self, actions: Array) -> tuple[Array, dict[str, Array]]:
        """Live a day with actions (S, a, 2 to 4); next observations (S, a, o) and reward terms (S,) per hour."""
        outlook = self.outlook()
        deviations = deviations_of(self.case, self.targets, actions, outlook.product, outlook.steam)
        terminal = weight_factors(self.case.learning.actions, "terminal_weight", actions)
        day = self.model.day(deviations, self.activity, outlook.supply, terminal)
        evening, lost = aged(self.case, self.activity, day.states, self.scenarios.decay)
        terms = reward_terms(self.case, day.states, day.inputs, outlook.product, outlook.steam, day.violation, lost)
        self.lost_share = lost / self.activity
        self.regenerations = self.regenerations + (evening > self.activity)
        self.activity, self.yesterday = evening, day
        self.today += 1
        return self.observe(), terms

    def observe(self) -> Array:
        """Local observations (S, a, o), each about one in size.

        Own moved state and the sold quality seen yesterday, catalyst, delivery, both prices, the neighbours' promised
        centres and widths, and which agent it is.
        """
        case, day, outlook = self.case, self.yesterday, self.outlook()
        S, a = day.centers.shape
        market, catalyst = case.learning.campaign.market, case.learning.campaign.catalyst
        low, high = case.supply_bounds
        own = (day.states - case.steady)[:, case.moved] / case.learning.actions.span
        quality = 100.0 * (day.states[:, case.quality] - case.learning.prices.quality.limit)
        shared = [
            quality,
            2.0 * (outlook.activity - case.middle_activity) / (catalyst.fresh - catalyst.floor),
            (outlook.supply - (low + high) / 2) / ((high - low) / 2),
            2.0 * (outlook.product - np.mean(market.product)) / (market.product[1] - market.product[0]),
            2.0 * (outlook.steam - np.mean(market.steam)) / (market.steam[1] - market.steam[0]),
        ]
        parts = [own[..., None], *(np.broadcast_to(v[:, None, None], (S, a, 1)) for v in shared)]
        for values in (day.centers, day.widths):
            padded = np.concatenate([values, np.zeros((S, 1))], axis=1)  # absent neighbours: zero
            parts.append(padded[:, self._neighbours])
        parts.append(np.broadcast_to(np.eye(a), (S, a, a)))
        return np.concatenate(parts, axis=-1)


def _most_neighbours(case: LearningCase) -> int:
    return max(len(case.config.agents[name].neighbours) for name in case.agents)


def _neighbour_table(case: LearningCase) -> NDArray[np.intp]:
    table = np.full((len(case.agents), _most_neighbours(case)), len(case.agents))
    for i, name in enumerate(case.agents):
        for k, other in enumerate(case.config.agents[name].neighbours):
            table[i, k] = case.agents.index(other)
    return table
