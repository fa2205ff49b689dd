"""Tennessee Eastman: agents that move the set-points of the plant's own loops, against those loops left alone.

The policy is trained by cross-entropy on other seeds than it is judged on; every campaign is paired by seed (noise and
disturbances). The first `settling` hours of a campaign are lived but not counted, because moving the pressure
stores or frees material once. `published_setpoints` holds pressure and level of Ricker's optimum (1995, mode 1).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.cross_entropy import CemOptions, first_state, iterate
from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.learning.policy import KINDS, Actor, Policy
from rmpc_ros.learning.tennessee_eastman import AGENTS, TERMS, TennesseeEastman, actor
from rmpc_ros.studies.registry import Settings, Study

Array = NDArray[np.float64]
PUBLISHED = {"reactor_pressure": 2800.0, "reactor_level": 65.0}


def campaign(
    plant: TennesseeEastman, act: Callable[[Array], Array], seed: int, hours: int, settling: int
) -> dict[str, float]:
    """Mean terms in $/h over the hours that count (those after a shutdown earn nothing), and the hours lived."""
    observations, sums, lived = plant.reset(seed), dict.fromkeys(TERMS, 0.0), 0
    for hour in range(hours):
        observations, terms = plant.hour(act(observations))
        lived += 1
        if hour >= settling or plant.ended:
            sums = {name: sums[name] + terms[name] for name in TERMS}
        if plant.ended:
            break
    means = {name: value / (hours - settling) for name, value in sums.items()}
    return means | {"profit": sum(means.values()), "hours": float(lived)}


def train(plant: TennesseeEastman, shape: Actor, settings: Settings) -> tuple[Array, list[float]]:
    """Parameters found, and by iteration the gain of the mean over the own loops on a validation campaign.

    What is kept is the best mean of any iteration, the own loops among them.
    """
    seed, hours, settling = int(settings["seed"]), int(settings["training_hours"]), int(settings["settling"])
    options = CemOptions(int(settings["population"]), 0.34, float(settings["spread"]), 0.05)
    state = first_state(shape.start(np.random.default_rng([47, seed])), options, seed)

    def lived(v: Array, drawn: int) -> float:
        return campaign(plant, lambda o: shape.act(v[None], o[None])[0], drawn, hours, settling)["profit"]

    def profit(samples: Array, rng: np.random.Generator) -> Array:
        drawn = int(rng.integers(10_000, 20_000))  # one campaign for all samples: their differences count
        return np.array([lived(v, drawn) for v in samples])

    validation = 20_000 + seed
    best, most = state.mean.copy(), lived(state.mean, validation)
    own, curve = most, []
    for _ in range(int(settings["iterations"])):
        iterate(state, profit, options)
        value = lived(state.mean, validation)
        curve.append(value - own)
        if value > most:
            best, most = state.mean.copy(), value
    return best, curve


def published(plant: TennesseeEastman) -> Array:
    """Actions that hold the published set-points (agents, 2)."""
    return np.array([[_action(plant, s.field, s.reach) for s in pair] for pair in AGENTS.values()])


def _action(plant: TennesseeEastman, field: str, reach: float) -> float:
    base = float(getattr(plant.base, field))
    return (PUBLISHED.get(field, base) - base) / reach


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Train, then live the held-out campaigns."""
    kind, hours, settling = settings["kind"], int(settings["hours"]), int(settings["settling"])
    if kind not in KINDS:
        raise ConfigError(f"kind = {kind}: known are {', '.join(KINDS)}")
    if int(settings["seeds"]) < 2 or min(hours, int(settings["training_hours"])) <= settling:
        raise ConfigError(
            f"seeds = {settings['seeds']}, hours = {hours}, training_hours = {settings['training_hours']}, "
            f"settling = {settling}: at least 2 seeds and hours beyond the settling are needed"
        )
    plant, shape = TennesseeEastman(disturbances=tuple(settings["disturbances"])), actor(kind)
    began = time.process_time()
    parameters, curve = train(plant, shape, settings)
    trained = time.process_time() - began
    policy = Policy("tennessee_eastman", shape, parameters, training={"algorithm": "cem", "settings": dict(settings)})
    policy.save(folder / "tennessee_eastman_policy.json")
    plant.reset(0)
    hold = published(plant)
    still = np.zeros_like(hold)
    contestants: dict[str, Callable[[Array], Array]] = {
        "own_loops": lambda o: still,
        "published_setpoints": lambda o: hold,
        "learned": policy.act,
    }
    seeds = range(int(settings["first_seed"]), int(settings["first_seed"]) + int(settings["seeds"]))
    lived: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    final: dict[str, float] = {}
    began = time.process_time()
    for name, act in contestants.items():
        for seed in seeds:
            lived[name].append(campaign(plant, act, seed, hours, settling))
        final = plant.setpoints
    spent = time.process_time() - began
    own = np.array([c["profit"] for c in lived["own_loops"]])
    result: dict[str, Any] = dict(settings) | {
        "campaigns": {
            name: {key: float(np.mean([c[key] for c in rows])) for key in rows[0]} for name, rows in lived.items()
        },
        "shutdowns": {name: sum(c["shutdown"] < 0 for c in rows) for name, rows in lived.items()},
        "training_curve": curve,
        "training_cpu_s": trained,
        "plant_hours_per_cpu_s": sum(c["hours"] for rows in lived.values() for c in rows) / spent,
        "learned_setpoints_at_the_end": final,
        "policy": str(folder / "tennessee_eastman_policy.json"),
    }
    for name in ("published_setpoints", "learned"):
        gain = np.array([c["profit"] for c in lived[name]]) - own
        result[f"gain_{name}"] = float(gain.mean())
        result[f"gain_{name}_interval"] = confidence_interval(gain)
    return result


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines to print."""
    yield f"{'$/h':22}" + "".join(f"{name:>12}" for name in (*TERMS, "profit")) + f"{'shutdowns':>11}"
    for name, means in result["campaigns"].items():
        values = "".join(f"{means[key]:12.2f}" for key in (*TERMS, "profit"))
        yield f"{name:22}{values}{result['shutdowns'][name]:11d}"
    for name in ("published_setpoints", "learned"):
        low, high = result[f"gain_{name}_interval"]
        yield f"{name} earns {result[f'gain_{name}']:.1f} $/h more than the own loops (95 %: {low:.1f} to {high:.1f})"


STUDY = Study(
    {
        "kind": "constant",
        "disturbances": [9, 10, 11],
        "population": 8,
        "iterations": 5,
        "spread": 0.4,
        "training_hours": 18,
        "hours": 30,
        "settling": 10,
        "seeds": 5,
        "first_seed": 100,
        "seed": 1,
    },
    run,
    table,
)
