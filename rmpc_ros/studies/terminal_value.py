"""A short plan with the learned value of the catalyst at its end, against a short and a four times longer one without.

The plans are those of the economic MPC over days (`learning/planner.py`); the real robust controllers live the days, on
campaigns that neither the surrogate nor the value has seen, paired by seed. `share_recovered` is the gain of the short
plan with the value over the short one without, as a share of the long one's gain. The times are CPU times of planning
one day for one campaign: every plan solves the situations that the short plan with the value met, `repeats` times, the
plans taking turns; a second short plan shows what such a ratio's noise is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import plant_path
from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.campaign import Campaigns
from rmpc_ros.learning.case import learning_case
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.evaluate import Act, Outcome, live
from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.learning.planner import Planner, Situation
from rmpc_ros.learning.surrogate import identify_surrogate
from rmpc_ros.learning.value_training import ValueTrainer
from rmpc_ros.studies.registry import Settings, Study

Array = NDArray[np.float64]
LONGER = 4


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Identify, learn the value, live the campaigns."""
    del folder
    if settings["campaigns"] < 2:
        raise ConfigError(f"campaigns = {settings['campaigns']}: confidence intervals need at least 2")
    case = learning_case(load_plant(plant_path(settings["plant"])))
    days = RobustDays(case)
    surrogate = identify_surrogate(case, days, settings["seed"], settings["windows"])
    began = time.process_time()
    short = int(settings["horizon"])
    trainer = ValueTrainer(
        case, days.targets, surrogate, short, int(settings["training_campaigns"]), int(settings["seed"])
    )
    for _ in range(int(settings["rounds"])):
        trainer.iterate()
    value = trainer.value
    learned = time.process_time() - began
    planners = {
        "short": Planner(case, days.targets, surrogate, short),
        "long": Planner(case, days.targets, surrogate, LONGER * short),
        "short_with_value": Planner(case, days.targets, surrogate, short, value),
    }
    seeds = range(settings["first_seed"], settings["first_seed"] + settings["campaigns"])
    result: dict[str, Any] = dict(settings) | {"long_horizon": LONGER * short, "learning_cpu_s": learned}
    met: list[Situation] = []
    acts: dict[str, Act] = {name: planner.act for name, planner in planners.items()}
    acts["short_with_value"] = _noted(planners["short_with_value"], met)
    for label, harsh in (("campaign", False), ("harsh", True)):
        outcomes = {
            name: [live(case, days.targets, days, act, seed, harsh) for seed in seeds] for name, act in acts.items()
        }
        result[label] = _compare(outcomes)
    again = {"short_again": Planner(case, days.targets, surrogate, short)}  # what the ratios' noise is
    solve = solve_times(planners | again, met, int(settings["repeats"]))
    grid = np.linspace(value.floor, value.fresh, 5)
    decays = {"file": value.decay, "harsh": value.decay * case.learning.campaign.catalyst.harsh}
    return result | {
        # not known where one of the two is not: the other alone would flatter
        "share_recovered": float(np.min([result[label]["share_recovered"] for label in ("campaign", "harsh")])),
        "solve_ms": solve,
        "solve_time_ratio": solve["short_with_value"] / solve["short"],
        "solve_time_ratio_of_two_short_plans": solve["short_again"] / solve["short"],
        "long_solve_time_ratio": solve["long"] / solve["short"],
        "value_over_floor": {
            name: (value(grid, np.array(decay)) - value(grid[:1], np.array(decay))).tolist()
            for name, decay in decays.items()
        },
        "activities": grid.tolist(),
    }


def _noted(planner: Planner, met: list[Situation]) -> Act:
    """The planner, and what it was asked."""

    def act(observations: Array, campaigns: Campaigns) -> Array:
        met.append(planner.situation(campaigns))
        return planner.act(observations, campaigns)

    return act


def solve_times(planners: Mapping[str, Planner], met: Sequence[Situation], repeats: int) -> dict[str, float]:
    """Median CPU time of a plan, ms, by planner; they take turns on every situation, each after every other one."""
    times: dict[str, list[float]] = {name: [] for name in planners}
    orders = list(permutations(planners))
    for turn, situation in enumerate([*met] * repeats):
        for name in orders[turn % len(orders)]:
            began = time.process_time()
            planners[name].plan(situation)
            times[name].append(time.process_time() - began)
    return {name: 1e3 * float(np.median(values)) for name, values in times.items()}


def _compare(outcomes: dict[str, list[Outcome]]) -> dict[str, Any]:
    profit = {name: np.array([o.profit for o in rows]) for name, rows in outcomes.items()}
    gains = {name: profit[name] - profit["short"] for name in ("long", "short_with_value")}
    long, recovered = (float(gains[name].mean()) for name in ("long", "short_with_value"))
    return {
        "profit_per_hour": {name: float(values.mean()) for name, values in profit.items()},
        "gain_over_short": {"long": long, "short_with_value": recovered},
        "gain_over_short_ci95": {name: confidence_interval(values) for name, values in gains.items()},
        "share_recovered": recovered / long if long > 0 else float("nan"),
        "regenerations": {n: float(np.mean([o.regenerations for o in rows])) for n, rows in outcomes.items()},
        "quality_hours": {n: float(np.mean([o.quality_hours for o in rows])) for n, rows in outcomes.items()},
        "violation_hours": {n: float(np.mean([o.violation_hours for o in rows])) for n, rows in outcomes.items()},
    }


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    days = {"short": result["horizon"], "long": result["long_horizon"], "short_with_value": result["horizon"]}
    for label in ("campaign", "harsh"):
        rows = result[label]
        yield f"{label}: {result['campaigns']} campaigns, real controllers; profit per hour [95 % confidence]"
        heads = f"{'over short':>26} {'regen.':>7} {'violation h':>12} {'solve ms':>9}"
        yield f"{'plan':18} {'days':>4} {'profit':>9} {heads}"
        for name, profit in rows["profit_per_hour"].items():
            gain = ""
            if name in rows["gain_over_short"]:
                low, high = rows["gain_over_short_ci95"][name]
                gain = f"{rows['gain_over_short'][name]:8.1f} [{low:6.1f}, {high:6.1f}]"
            yield (
                f"{name:18} {days[name]:4} {profit:9.1f} {gain:>26} {rows['regenerations'][name]:7.2f} "
                f"{rows['violation_hours'][name]:12.1f} {result['solve_ms'][name]:9.2f}"
            )
        yield f"share of the long plan's gain recovered: {rows['share_recovered']:.2f}"


STUDY = Study(
    {
        "plant": "reactor_separator_campaign",
        "horizon": 3,
        "campaigns": 10,
        "first_seed": 1000,
        "windows": 120,
        "rounds": 4,
        "training_campaigns": 128,
        "repeats": 3,
        "seed": 0,
    },
    run,
    table,
)
