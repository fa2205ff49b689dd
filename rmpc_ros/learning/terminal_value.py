"""Value of the slow states, learned from campaigns, as the end of a short plan.

    V(a, k) = sum_j h_j(a) (w_j0 + w_j1 z + w_j2 z^2),   z = log(k / k_file),   h_j: hat functions over the activity

It satisfies V(s) = E[ r + g V(s') ] on the campaigns of a planner (least-squares temporal differences, Bradtke and
Barto 1996); that planner with the new V gives the next campaigns (approximate policy iteration). r: the profit per hour
that was paid, regenerations when they happen, without the income of the file's steady state, which nothing changes.
The decay k is the one a planner sees, so the value serves mild and harsh campaigns alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns
from rmpc_ros.learning.case import HOURS, LearningCase
from rmpc_ros.learning.day import DayModel
from rmpc_ros.learning.experience import training_scenarios
from rmpc_ros.learning.planner import DISCOUNT, Planner
from rmpc_ros.learning.surrogate import Surrogate
from rmpc_ros.learning.targets import Targets

Array = NDArray[np.float64]

KNOTS = 6
POWERS = 3
RIDGE = 1e-6


@dataclass(frozen=True)
class TerminalValue:
    """V of activity and decay.

    Attributes
    ----------
    weights : (KNOTS, POWERS) in profit per hour times days
    floor, fresh : range of the activity
    decay : the file's, k_file
    """

    weights: Array
    floor: float
    fresh: float
    decay: float

    def __call__(self, activity: Array, decay: Array) -> Array:
        """Value of activities and decays that broadcast against each other."""
        powers = np.log(decay / self.decay)[..., None] ** np.arange(POWERS, dtype=np.float64)
        heights = np.broadcast_to(powers @ self.weights.T, (*np.broadcast_shapes(activity.shape, decay.shape), KNOTS))
        place = np.clip((activity - self.floor) / (self.fresh - self.floor), 0.0, 1.0) * (KNOTS - 1)
        lower = np.broadcast_to(np.minimum(place.astype(np.intp), KNOTS - 2), heights.shape[:-1])
        left = np.take_along_axis(heights, lower[..., None], axis=-1)[..., 0]
        right = np.take_along_axis(heights, lower[..., None] + 1, axis=-1)[..., 0]
        value: Array = left + (place - lower) * (right - left)
        return value

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"weights": self.weights.tolist(), "floor": self.floor, "fresh": self.fresh, "decay": self.decay}


def value_features(activity: Array, decay: Array, floor: float, fresh: float, file_decay: float) -> Array:
    """Products (..., KNOTS * POWERS) of hat functions of the activity and powers of the log decay."""
    shape = np.broadcast_shapes(activity.shape, decay.shape)
    place = np.clip((np.broadcast_to(activity, shape) - floor) / (fresh - floor), 0.0, 1.0) * (KNOTS - 1)
    hats = np.maximum(0.0, 1.0 - np.abs(place[..., None] - np.arange(KNOTS)))
    powers = np.log(np.broadcast_to(decay, shape) / file_decay)[..., None] ** np.arange(POWERS, dtype=np.float64)
    out: Array = (hats[..., :, None] * powers[..., None, :]).reshape(*shape, KNOTS * POWERS)
    return out


@dataclass(frozen=True)
class Passages:
    """Days as steps between slow states, (N,) each: activity and decay before, profit, activity and decay after."""

    activity: Array
    decay: Array
    reward: Array
    next_activity: Array
    next_decay: Array


def fit_value(case: LearningCase, passages: Passages) -> TerminalValue:
    """Least-squares temporal differences.

    Raises
    ------
    DataError
        Fewer days than weights.
    """
    catalyst = case.learning.campaign.catalyst
    size = KNOTS * POWERS
    if len(passages.reward) < 10 * size:
        raise DataError(f"{len(passages.reward)} days are too few for {size} weights; at least {10 * size} are needed")
    limits = (catalyst.floor, catalyst.fresh, catalyst.decay_per_day)
    phi = value_features(passages.activity, passages.decay, *limits)
    after = value_features(passages.next_activity, passages.next_decay, *limits)
    A = phi.T @ (phi - DISCOUNT * after) / len(phi) + RIDGE * np.eye(size)
    weights: Array = np.asarray(np.linalg.solve(A, phi.T @ passages.reward / len(phi)), np.float64)
    return TerminalValue(weights.reshape(KNOTS, POWERS), *limits)


def live_passages(
    case: LearningCase, targets: Targets, model: DayModel, planner: Planner, count: int, generator: np.random.Generator
) -> Passages:
    """Campaigns of a planner, half of them harsh, as passages (from the second day on, when the decay was seen)."""
    campaigns = Campaigns(case, targets, model, training_scenarios(case, count, generator))
    observations = campaigns.reset()
    product = case.learning.prices.product
    rows: list[tuple[Array, ...]] = []
    while not campaigns.done:
        first = campaigns.today == 0
        before, decay, today = campaigns.activity, planner.decay_seen(campaigns), campaigns.outlook()
        observations, terms = campaigns.step(planner.act(observations, campaigns))
        paid = sum(value for name, value in terms.items() if name != "catalyst")
        renewed = campaigns.activity > before
        steady_income = product.price * product.flow * case.steady[case.product] * today.product
        reward = paid - steady_income - renewed * case.learning.prices.regeneration / HOURS
        if not first:
            rows.append((before, decay, reward, campaigns.activity, planner.decay_seen(campaigns)))
    return Passages(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def learn_value(
    case: LearningCase,
    targets: Targets,
    surrogate: Surrogate,
    horizon: int,
    seed: int,
    rounds: int = 4,
    campaigns: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> TerminalValue:
    """Approximate policy iteration of a planner with this horizon on the surrogate."""
    generator = np.random.default_rng([43, seed])
    value: TerminalValue | None = None
    for n in range(rounds):
        planner = Planner(case, targets, surrogate, horizon, value)
        value = fit_value(case, live_passages(case, targets, surrogate, planner, campaigns, generator))
        if progress is not None:
            progress(n + 1, rounds)
    if value is None:
        raise DataError(f"rounds = {rounds}: at least 1")
    return value
