"""Any number of masses in a row, joined by springs and dampers, both ends free; one force per mass.

    dp_i/dt = v_i + wp_i
    m_i dv_i/dt = f_i + sum over neighbours j of ( k_ij (p_j - p_i) + d_ij (v_j - v_i) ) + m_i wv_i

The plant file's parameters are lists: m (M masses, kg), k and d (M - 1 springs, N/m, and dampers, N s/m). The offline
designs (`network.cases.spring_chain`) take the same equations on any graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.models.nonlinear import NonlinearModel, Variable
from rmpc_ros.plants.generate import Generator, Settings, whole

Vector = NDArray[np.float64]
Edge = tuple[int, int]
Values = Sequence[Any] | NDArray[np.float64]

# One draw of masses (kg), springs (N/m), dampers (Ns/m) and initial positions; seed 0 of a chain begins with it.
_DRAW = {
    "m": (8.184808, 6.348934, 5.204868, 5.082638, 9.066351, 9.563778, 8.033179, 8.647483),
    "k": (0.854039, 1.088595, 1.010142, 0.924097, 0.994334, 1.155795, 1.173617),
    "d": (1.032133, 0.919478, 1.068798, 0.879806, 1.176845, 0.946044, 0.842198),
    "p0": (2.88717, 2.743261, -2.107416, 2.835773, 2.339613, 1.934243, -0.120072, -1.605762),
}


@dataclass(frozen=True)
class SpringParameters:
    """Masses (M,), springs and dampers per edge, initial positions (M,)."""

    masses: Vector
    springs: Vector
    dampers: Vector
    positions: Vector


def chain(count: int) -> list[Edge]:
    """Edges of a chain, masses counted from 0."""
    return [(n, n + 1) for n in range(count - 1)]


def draw_parameters(count: int, edges: Sequence[Edge], seed: int) -> SpringParameters:
    """Uniform draws from the paper's intervals; seed 0 with at most 8 masses in a chain is the stored draw."""
    if seed == 0 and count <= len(_DRAW["m"]) and list(edges) == chain(count):
        return SpringParameters(
            np.array(_DRAW["m"][:count]),
            np.array(_DRAW["k"][: count - 1]),
            np.array(_DRAW["d"][: count - 1]),
            np.array(_DRAW["p0"][:count]),
        )
    rng = np.random.default_rng(seed)
    return SpringParameters(
        rng.uniform(5, 10, count),
        rng.uniform(0.8, 1.2, len(edges)),
        rng.uniform(0.8, 1.2, len(edges)),
        rng.uniform(-3, 3, count),
    )


def accelerations(
    edges: Sequence[Edge],
    p: Values,
    v: Values,
    f: Values,
    m: Values,
    k: Values,
    d: Values,
) -> list[Any]:
    """Accelerations of the masses without disturbance, m/s2: of numbers, arrays or CasADi symbols."""
    force = list(f)
    for (i, j), spring, damper in zip(edges, k, d, strict=True):
        pull = spring * (p[j] - p[i]) + damper * (v[j] - v[i])
        force[i] = force[i] + pull
        force[j] = force[j] - pull
    return [total / mass for total, mass in zip(force, m, strict=True)]


def build(parameters: Mapping[str, Any]) -> NonlinearModel:
    """The chain that the lists describe; without parameters two masses of 7.5 kg with k = d = 1.

    Raises
    ------
    ConfigError
        A list is unknown, of the wrong length, or holds a number that is not finite and above 0.
    """
    given = {"m": [7.5, 7.5], **parameters}
    count = len(given["m"]) if isinstance(given["m"], list) else 0
    if count < 1:
        raise ConfigError(f"parameter 'm' of model 'spring_chain' = {given['m']!r}: give a list of masses")
    given = {"k": [1.0] * (count - 1), "d": [1.0] * (count - 1), **given}
    values = {}
    for key, entries in given.items():
        if key not in ("m", "k", "d"):
            raise ConfigError(f"model 'spring_chain' has no parameter '{key}'; it has m, k, d")
        wanted = count if key == "m" else count - 1
        if not isinstance(entries, list) or len(entries) != wanted:
            raise ConfigError(
                f"parameter '{key}' of model 'spring_chain' = {entries!r}: give a list of {wanted} numbers"
            )
        for n, value in enumerate(entries, 1):
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise ConfigError(f"parameter '{key}' of model 'spring_chain': entry {n} = {value!r} is not above 0")
            values[f"{key}{n}"] = float(value)
    span = range(1, count + 1)
    states = [Variable(f"{letter}{n}", unit) for n in span for letter, unit in (("p", "m"), ("v", "m/s"))]
    disturbances = [Variable(f"w{letter}{n}", unit) for n in span for letter, unit in (("p", "m/s"), ("v", "m/s2"))]

    def motion(x: dict[str, Any], u: dict[str, Any], d: dict[str, Any], p: dict[str, Any]) -> Sequence[Any]:
        def row(values: dict[str, Any], letter: str, length: int) -> list[Any]:
            return [values[f"{letter}{n}"] for n in range(1, length + 1)]

        a = accelerations(
            chain(count),
            row(x, "p", count),
            row(x, "v", count),
            row(u, "f", count),
            row(p, "m", count),
            row(p, "k", count - 1),
            row(p, "d", count - 1),
        )
        out: list[Any] = []
        for n in span:
            out += [x[f"v{n}"] + d[f"wp{n}"], a[n - 1] + d[f"wv{n}"]]
        return out

    return NonlinearModel("spring_chain", states, [Variable(f"f{n}", "N") for n in span], disturbances, values, motion)


def _sections(settings: Settings) -> dict[str, Any]:
    """A chain of `agents` masses, one agent each, that hear their neighbours only."""
    count = whole(settings, "agents", 2)
    q = draw_parameters(count, chain(count), settings["seed"])
    agents: dict[str, Any] = {}
    for n in range(1, count + 1):
        agents[f"mass{n}"] = {
            "neighbours": [f"mass{j}" for j in (n - 1, n + 1) if 1 <= j <= count],
            "states": {
                f"p{n}": {"unit": "m", "limits": [-6, 6]},
                f"v{n}": {"unit": "m/s", "limits": [-6, 6]},
            },
            "inputs": {f"f{n}": {"unit": "N", "limits": [-4, 4]}},
            "coordinates": {f"p{n}": {"weights": {f"p{n}": 1}}, f"s{n}": {"weights": {f"p{n}": 1, f"v{n}": 2}}},
            "sensors": [
                {"topic": "position", "type": "geometry_msgs/PointStamped", "field": "point.x", "state": f"p{n}"},
                {"topic": "velocity", "type": "geometry_msgs/Vector3Stamped", "field": "vector.x", "state": f"v{n}"},
            ],
            "actuators": [{"topic": "force", "type": "std_msgs/Float64", "input": f"f{n}"}],
        }
    names = [f"wv{n}" for n in range(1, count + 1)]
    timing = settings["timing"]
    return {
        "plant": {
            "name": f"spring_chain_{count}",
            "model": "spring_chain",
            "period": "0.1 s",
            "discretisation": "held",
            "parameters": {"m": q.masses.tolist(), "k": q.springs.tolist(), "d": q.dampers.tolist()},
            "disturbances": {w: {"unit": "m/s2", "nominal": 0, "bounds": [-0.05, 0.05]} for w in names},
        },
        "agents": agents,
        "controller": {
            "mode": "robust",
            "horizon": 8,
            "margins": {"model_error": "sampled", "factor": 1.5, "room": 1.05, "authority": 0.05, "promise": 0.02},
        },
        "simulation": {
            **({"timing": "free", "speed": 1} if timing == "free" else {}),
            "duration": "60 s",
            "disturbances": {w: {"kind": "autoregressive", "time_constant": "5 s"} for w in names},
        },
    }


GENERATOR = Generator(
    {"agents": 3, "seed": 0, "timing": "lockstep"},
    _sections,
    "Masses in a row with springs and dampers between them: one agent per mass, each hears its neighbours only.",
)
