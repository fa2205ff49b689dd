"""Prosumers with photovoltaics and batteries who give each other energy.

    b_i(t+1) = b_i(t) + g_i + net_i + sum_j u_ji - sum_k u_ik,     net_i = pv_i - load_i,     0 <= b_i <= capacity_i,

with g_i what agent i buys from the grid (negative: returns) and u_ji >= 0 what it draws from neighbour j, an input of
the same stage that j feels at once. Steps of two hours. Source: seed 004 section 5.2; the offline designs
(`network.cases.energy_hub`) take the battery and the made-up households from here.

A plant file holds one hour of the day: mean net production of two hours as the nominal disturbance, its deviations as
bounds. The day's course, known beforehand, is the offline designs' subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.plants.generate import Generator, Settings, whole, wired

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

STEPS = 12  # of two hours in a day


@dataclass(frozen=True)
class Prosumer:
    """Two-hour sums of mean load and pv (12,), their relative deviations (12,), and the battery's capacity."""

    name: str
    load: Vector
    pv: Vector
    load_deviation: Vector
    pv_deviation: Vector
    capacity: float


def two_hour_sums(hourly: Vector) -> Vector:
    """(24,) -> (12,)."""
    return np.asarray(hourly.reshape(STEPS, 2).sum(axis=1), float)


def relative_deviation(mean: Vector, std: Vector) -> Vector:
    """Mean over the two hours of std/mean, halved; hours without a mean have none."""
    ratio = np.divide(std, mean, out=np.zeros(24), where=mean > 0)
    return np.asarray(ratio.reshape(STEPS, 2).mean(axis=1) / 2, float)


def synthetic_prosumer(number: int, seed: int = 0) -> Prosumer:
    """A made-up household: evening and morning peaks, a bell of sunshine, a battery of some hours of its mean load."""
    rng = np.random.default_rng([seed, number])
    h = np.arange(24) + 0.5
    scale, sun = rng.uniform(0.5, 1.5), rng.uniform(1.0, 4.0)
    shift = rng.uniform(-1.5, 1.5)
    load = scale * (0.6 + 0.5 * np.exp(-(((h - 8 - shift) / 2) ** 2)) + 1.2 * np.exp(-(((h - 19 - shift) / 2.5) ** 2)))
    pv = sun * np.maximum(0.0, np.cos((h - 12.5) * np.pi / 12)) ** 1.5
    spread = rng.uniform(0.2, 0.5, 2)
    return Prosumer(
        f"prosumer{number}",
        two_hour_sums(load),
        two_hour_sums(pv),
        relative_deviation(load, spread[0] * load),
        relative_deviation(pv, spread[1] * pv),
        float(rng.uniform(5.0, 12.0)),
    )


def battery(givers: int) -> tuple[Matrix, Matrix]:
    """(A, D) of one battery whose inputs are the grid and draws from `givers` neighbours."""
    return np.eye(1), np.ones((1, 1 + givers))


def drawn(draws: int, which: int) -> Matrix:
    """What leaves a battery through a taker's inputs (grid, then `draws` draws), of which `which` comes from it."""
    out = np.zeros((1, 1 + draws))
    out[0, 1 + which] = -1.0
    return out


def givers_of(graph: str, agents: int) -> list[list[int]]:
    """Whom each agent draws from: its neighbours in a row (serial), or everybody (complete).

    Raises
    ------
    ConfigError
        The graph is unknown.
    """
    match graph:
        case "serial":
            return [[j for j in (i - 1, i + 1) if 0 <= j < agents] for i in range(agents)]
        case "complete":
            return [[j for j in range(agents) if j != i] for i in range(agents)]
    raise ConfigError(f"energy hub '{graph}' is unknown; known: serial, complete")


def _sections(settings: Settings) -> dict[str, Any]:
    agents, hour = whole(settings, "agents", 2), whole(settings, "hour", 0)
    if hour > 23:
        raise ConfigError(f"hour = {hour}: give an hour of the day, 0 to 23")
    stage, steady = hour // 2, settings["draw"]
    givers = givers_of(settings["graph"], agents)
    disturbances: dict[str, Any] = {}
    written: dict[str, Any] = {}
    held: dict[str, float] = {}
    filled: dict[str, float] = {}
    for i in range(agents):
        who, number = synthetic_prosumer(i + 1, settings["seed"]), i + 1
        net = who.pv[stage] - who.load[stage]
        reach = who.pv_deviation[stage] * who.pv[stage] + who.load_deviation[stage] * who.load[stage]
        takers = [k for k, theirs in enumerate(givers) if i in theirs]
        grid = -net - steady * len(givers[i]) + steady * len(takers)
        disturbances[f"net{number}"] = {
            "unit": "kWh",
            "nominal": round(float(net), 6),
            "bounds": [round(float(net - reach), 6), round(float(net + reach), 6)],
        }
        inputs: dict[str, Any] = {f"grid{number}": {"unit": "kWh", "deviation": settings["grid"]}}
        inputs |= {f"draw{number}_{j + 1}": {"unit": "kWh", "limits": [0, 2 * steady]} for j in givers[i]}
        held |= {f"grid{number}": round(float(grid), 6)} | {u: steady for u in list(inputs)[1:]}
        filled[f"battery{number}"] = round(who.capacity / 2, 6)
        A, D = battery(len(givers[i]))
        states = {f"battery{number}": {"unit": "kWh", "limits": [0, round(who.capacity, 6)]}}
        written[f"prosumer{number}"] = {
            "neighbours": [f"prosumer{k + 1}" for k in takers],
            "states": states,
            "inputs": inputs,
            "matrices": {
                "A": A.tolist(),
                "D": D.tolist(),
                "F": {f"prosumer{k + 1}": drawn(len(givers[k]), givers[k].index(i)).tolist() for k in takers},
                "E": [[1.0]],
                "disturbances": [f"net{number}"],
            },
            **wired(states, inputs),
        }
    return {
        "plant": {
            "name": f"energy_hub_{settings['graph']}_{agents}",
            "model": "linear",
            "period": "2 h",
            "operating_point": {"inputs": held, "states": filled},
            "disturbances": disturbances,
        },
        "agents": written,
        "controller": {
            "mode": "cooperative",
            "horizon": 12,
            "margins": {"room": 1.5, "authority": 0.1, "promise": 0.02},
        },
        "simulation": {
            "duration": "14 d",
            "disturbances": {word: {"kind": "autoregressive", "time_constant": "6 h"} for word in disturbances},
        },
    }


GENERATOR = Generator(
    {"graph": "serial", "agents": 4, "hour": 12, "draw": 0.2, "grid": 5.0, "seed": 0},
    _sections,
    "Prosumers with batteries; what one draws from another is felt there within the same step.",
)
