"""Value of the slow states, learned from campaigns, as the end of a short plan.

    V(a, k) = sum_j h_j(a) (w_j0 + w_j1 z + w_j2 z^2),   z = log(k / k_file),   h_j: hat functions over the activity

It satisfies V(s) = E[ r + g V(s') ] on the campaigns of a planner (least-squares temporal differences, Bradtke and
Barto 1996); that planner with the new V gives the next campaigns (approximate policy iteration). r: the profit per hour
that was paid, regenerations when they happen, without the income of the file's steady state, which nothing changes.
The decay k is the one a planner sees, so the value serves mild and harsh campaigns alike; outside the decays it has
learned from it stays what it is at their ends. A planner looks it up in a table of activities and decays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from rmpc_ros.learning.targets import Targets

Array = NDArray[np.float64]

KNOTS = 6
POWERS = 3
RIDGE = 1e-6
DECAYS = 2048  # rows of a planner's table: neighbouring decays differ by some 0.1 %, much less than one sees


@dataclass(frozen=True)
class TerminalValue:
    """V of activity and decay.

    Attributes
    ----------
    weights : (KNOTS, POWERS) in profit per hour times days
    floor, fresh : range of the activity
    decay : the file's, k_file
    seen : least and largest decay learned from
    """

    weights: Array
    floor: float
    fresh: float
    decay: float
    seen: tuple[float, float]

    def __post_init__(self) -> None:
        numbers = [*np.ravel(self.weights), self.floor, self.fresh, self.decay, *self.seen]
        if self.weights.shape != (KNOTS, POWERS) or not np.all(np.isfinite(numbers)):
            raise DataError(
                f"terminal value: weights of shape {self.weights.shape}, all finite: "
                f"{bool(np.all(np.isfinite(numbers)))}; {(KNOTS, POWERS)} finite ones are needed"
            )
        if not (0 < self.floor < self.fresh and 0 < self.seen[0] <= self.seen[1] and self.decay > 0):
            raise DataError(
                f"terminal value: floor {self.floor:g}, fresh {self.fresh:g}, decay {self.decay:g}, seen "
                f"{self.seen[0]:g} to {self.seen[1]:g}; positive and in order is needed"
            )

    def __call__(self, activity: Array, decay: Array) -> Array:
        """Value of activities and decays that broadcast against each other."""
        held = np.clip(decay, *self.seen)
        phi = value_features(activity, held, self.floor, self.fresh, self.decay)
        return np.asarray(phi @ self.weights.ravel(), np.float64)

    def on(self, activities: Array) -> Callable[[Array], Array]:
        """The value (S, G) at activities (G,) as a function of decays (S,), rounded to the nearest of `DECAYS`."""
        decays = np.geomspace(*self.seen, DECAYS)
        table, edges = self(activities, decays[:, None]), np.sqrt(decays[1:] * decays[:-1])

        def value(decay: Array) -> Array:
            return np.asarray(table[np.searchsorted(edges, decay)])

        return value

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "weights": self.weights.tolist(),
            "floor": self.floor,
            "fresh": self.fresh,
            "decay": self.decay,
            "seen": list(self.seen),
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TerminalValue:
        """Inverse of `to_dict`.

        Raises
        ------
        DataError
            A key is missing, or a number is not what it may be.
        """
        try:
            low, high = (float(v) for v in values["seen"])
            floor, fresh, decay = (float(values[key]) for key in ("floor", "fresh", "decay"))
            return TerminalValue(np.array(values["weights"], float), floor, fresh, decay, (low, high))
        except (KeyError, TypeError, ValueError) as wrong:
            raise DataError(f"a terminal value is not complete: {wrong!r}") from wrong


def _hats(activity: Array, floor: float, fresh: float) -> Array:
    """Hat functions (..., KNOTS) of activities."""
    place = np.clip((activity - floor) / (fresh - floor), 0.0, 1.0) * (KNOTS - 1)
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(place[..., None] - np.arange(KNOTS))))


def value_features(activity: Array, decay: Array, floor: float, fresh: float, file_decay: float) -> Array:
    """Products (..., KNOTS * POWERS) of hat functions of the activity and powers of the log decay."""
    shape = np.broadcast_shapes(activity.shape, decay.shape)
    hats = _hats(np.broadcast_to(activity, shape), floor, fresh)
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
    decays = np.concatenate([passages.decay, passages.next_decay])
    return TerminalValue(weights.reshape(KNOTS, POWERS), *limits, (float(decays.min()), float(decays.max())))


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
