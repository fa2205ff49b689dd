"""Any number of masses in a row, joined by springs and dampers, both ends free; one force per mass.

    dp_i/dt = v_i + wp_i
    m_i dv_i/dt = f_i + s_i - s_{i-1} + m_i wv_i,   s_i = k_i (p_{i+1} - p_i) + d_i (v_{i+1} - v_i),   s_0 = s_M = 0

The plant file's parameters are lists: m (M masses, kg), k and d (M - 1 springs, N/m, and dampers, N s/m).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rmpc_ros.errors import ConfigError
from rmpc_ros.models.nonlinear import NonlinearModel, Variable


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
        out: list[Any] = []
        pull = {0: 0.0, count: 0.0}
        for n in range(1, count):
            pull[n] = p[f"k{n}"] * (x[f"p{n + 1}"] - x[f"p{n}"]) + p[f"d{n}"] * (x[f"v{n + 1}"] - x[f"v{n}"])
        for n in span:
            out.append(x[f"v{n}"] + d[f"wp{n}"])
            out.append((u[f"f{n}"] + pull[n] - pull[n - 1]) / p[f"m{n}"] + d[f"wv{n}"])
        return out

    return NonlinearModel("spring_chain", states, [Variable(f"f{n}", "N") for n in span], disturbances, values, motion)
