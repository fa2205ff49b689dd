"""The economic plan at run time: once a day the targets of all agents, from what the plant has shown since.

    (c, activity, delivery) = argmin  sum_i ((y_i - surrogate_i(c, activity, delivery)) / error_i)^2   in their ranges

with y the mean states and inputs of the newest steps and error the surrogate's own on days it was not fitted to. Then

    decay = (P k_file + log(a_0 / a)) / (P + W),     W = sum of days since, each times exp(s (T - T_ref))

with a_0 the activity at the first plan since the last regeneration and P days that the file's decay counts for: an
estimate is good to some 0.002, half of what a day costs. The plan (`planner`, with the learned value at its end) gives
today's targets, which go out as a constant policy: what an agent makes of one is bounded and certified by itself
(`adoption`, `local_target`), so a wrong estimate costs profit, not limits. Where a limit comes nearer than
`least_margin` the targets are taken back until the next day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from rmpc_ros.config import PlantConfig
from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import deviations_of
from rmpc_ros.learning.case import learning_case
from rmpc_ros.learning.plan import Plan
from rmpc_ros.learning.planner import Situation
from rmpc_ros.learning.series import Row, Series
from rmpc_ros.learning.surrogate import Surrogate
from rmpc_ros.learning.targets import certified_targets
from rmpc_ros.learning.update import Update
from rmpc_ros.network.system import design_network

Array = NDArray[np.float64]

LEAST_ROWS = 24  # steps that an estimate is made from
NEWEST = 600  # steps that it is made from at most
PRIOR = 2.0  # days that the file's decay counts for
RENEWED = 0.4  # share of the activity's range: so much more than at the last plan is a regeneration
STARTS = (-0.5, 0.5)  # of activity and delivery, shares of their half ranges: the fit is not convex


@dataclass(frozen=True)
class Planned:
    """Targets for the agents.

    Attributes
    ----------
    stage : "planned" or "roll-back"
    actions : (a, 2) constant ones
    evidence : what they rest on, for the update's certificate
    note : a line for people
    """

    stage: str
    actions: Array
    evidence: dict[str, Any]
    note: str


class DayPlan:
    """Plans the day of one plant.

    Parameters
    ----------
    config : plant file with campaigns
    plan : of this plant

    Attributes
    ----------
    market : today's factors on the prices of product and steam

    Raises
    ------
    ConfigError
        The file has no campaigns.
    DataError
        The plan is another plant's.
    """

    def __init__(self, config: PlantConfig, plan: Plan) -> None:
        if plan.plant != config.plant.name:
            raise DataError(f"the plan is for plant '{plan.plant}'; this is '{config.plant.name}'")
        self.case, self.market = learning_case(config), (1.0, 1.0)
        self._targets = certified_targets(self.case, design_network(config))
        self._planner, self._plan = plan.planner(self.case, self._targets), plan
        self._surrogate = Surrogate.from_dict(plan.surrogate)
        self._every = max(1, round(self.case.learning.online.plan_hours * 3600.0 / config.period))
        self._left = (self.case.learning.campaign.suppliers.days - 1) // 2  # of a delivery that began nobody knows when

    def think(self, series: Series, latest: Update | None) -> Planned | None:
        """Targets to publish now; None: those in force stay.

        Parameters
        ----------
        series : what the plant has done
        latest : newest policy that was published

        Raises
        ------
        DataError
            A factor on the prices is outside the market of the plant file.
        """
        learned = self.case.learning.online
        made_at = -1 if latest is None else int(latest.certificate["made_at"])
        rows = [row for step, row in series.rows() if step > made_at and _runs(row, latest)]
        if latest is not None and latest.certificate["stage"] == "planned" and rows:
            least = min(row.margin for row in rows)
            if least < learned.least_margin:
                return self._taken_back(latest, f"a limit came within {least:.2f} of half its range")
        settled = rows[learned.settle :][-NEWEST:]
        if len(settled) < LEAST_ROWS or (latest is not None and series.newest - made_at < self._every):
            return None
        return self._planned(settled, latest, series)

    def _taken_back(self, latest: Update, reason: str) -> Planned:
        """The plant file's targets."""
        evidence = {"of": latest.version, "reason": reason}
        still = np.zeros((len(self.case.agents), 2))
        return Planned("roll-back", still, evidence, f"policy {latest.version} taken back: {reason}")

    def _planned(self, rows: list[Row], latest: Update | None, series: Series) -> Planned:
        before: Mapping[str, Any] = {} if latest is None else latest.certificate
        states, inputs = self._means(rows, series)
        activity, supply, miss = self._estimate(states, inputs)
        days = (series.newest - before["made_at"]) * self.case.config.period / 86400.0 if "anchor" in before else 0.0
        wear = self._wear(before if "anchor" in before else {}, activity, states, days)
        product, steam = self._factors()
        known = [np.array([v]) for v in (activity, wear["decay_per_day"], supply, product, steam)]
        now = Situation(known[0], known[1], known[2], known[3], known[4], self._left)
        best = self._planner.candidates[self._planner.plan(now)[0]]
        chosen = deviations_of(self.case, self._targets, best)
        offsets = (self._targets.D @ chosen - self._targets.base) / self.case.learning.actions.span
        actions = np.stack([np.clip(offsets, -1.0, 1.0), np.full(len(offsets), -1.0)], axis=-1)
        evidence = {
            **wear,
            "supply": supply,
            "miss": miss,
            "market": [product, steam],
            "rows": len(rows),
            "days": self._plan.horizon,
            "offsets": actions[:, 0].tolist(),
        }
        words = (
            f"planned {self._plan.horizon} days ahead: activity {activity:.4f}, decay {wear['decay_per_day']:.4f} a day"
        )
        return Planned("planned", actions, evidence, words)

    def _means(self, rows: list[Row], series: Series) -> tuple[Array, Array]:
        """Mean states (n,) and inputs (m,) in the plant file's units."""
        x, u = np.mean([row.x for row in rows], axis=0), np.mean([row.u for row in rows], axis=0)
        loop = series.loop
        states = [series.designs[a].physical_states(x[loop.rows[a]]) for a in self.case.agents]
        inputs = [series.designs[a].physical_inputs(u[loop.columns[a]]) for a in self.case.agents]
        return np.concatenate(states), np.concatenate(inputs)

    def _estimate(self, states: Array, inputs: Array) -> tuple[float, float, float]:
        """Activity, delivery, and how badly the surrogate explains the plant (1: as on days it was not fitted to)."""
        model, m = self._surrogate, len(inputs)
        seen, error = np.concatenate([states, inputs]), self._surrogate.error[: len(states) + m]

        def gaps(z: Array) -> Array:
            activity, supply = (
                mid + half * v for (mid, half), v in zip((model.activity, model.supply), z[m:], strict=True)
            )
            day = model.day(model.authority * z[:m], activity, supply)
            return np.asarray((np.concatenate([day.states, day.inputs]) - seen) / error)

        starts = (np.r_[np.zeros(m), a, s] for a in STARTS for s in STARTS)
        best = min((least_squares(gaps, z, bounds=(-1.0, 1.0)) for z in starts), key=lambda found: found.cost)
        activity, supply = (
            mid + half * v for (mid, half), v in zip((model.activity, model.supply), best.x[m:], strict=True)
        )
        return float(activity), float(supply), float(np.sqrt(2 * best.cost / len(seen)))

    def _wear(self, before: Mapping[str, Any], activity: float, states: Array, days: float) -> dict[str, float]:
        """Decay per day at the reference temperature, and what it rests on."""
        catalyst = self.case.learning.campaign.catalyst
        anchor, wear = activity, 0.0
        renewed = "anchor" not in before or activity > before["activity"] + RENEWED * (catalyst.fresh - catalyst.floor)
        if not renewed:
            warmth = states[self.case.temperatures].mean() - catalyst.reference
            anchor, wear = before["anchor"], before["wear"] + days * float(np.exp(catalyst.sensitivity * warmth))
        decay = (PRIOR * catalyst.decay_per_day + np.log(anchor / activity)) / (PRIOR + wear)
        low, high = self._plan.value.seen
        return {"activity": activity, "anchor": anchor, "wear": wear, "decay_per_day": float(np.clip(decay, low, high))}

    def _factors(self) -> tuple[float, float]:
        market = self.case.learning.campaign.market
        for name, value, (low, high) in zip(
            ("product", "steam"), self.market, (market.product, market.steam), strict=True
        ):
            if not low <= value <= high:
                raise DataError(
                    f"factor on the price of {name} = {value:g}; the plant file's market has {low:g} to {high:g}"
                )
        return self.market


def _runs(row: Row, latest: Update | None) -> bool:
    """Whether all agents used the newest policy in a step."""
    version = 0 if latest is None else latest.version
    return row.w is not None and all(used.policy == version for used in row.versions.values())
