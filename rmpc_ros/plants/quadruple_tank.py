"""Four tanks and two pumps (Johansson 2000): tanks 3 and 4 drain into 1 and 2, each pump feeds one lower and one upper.

    A1 dh1/dt = -a1 sqrt(2 g h1) + a3 sqrt(2 g h3) + gamma1 k1 v1 + f1
    A2 dh2/dt = -a2 sqrt(2 g h2) + a4 sqrt(2 g h4) + gamma2 k2 v2 + f2
    A3 dh3/dt = -a3 sqrt(2 g h3) + (1 - gamma2) k2 v2
    A4 dh4/dt = -a4 sqrt(2 g h4) + (1 - gamma1) k1 v1

Levels in cm, pump voltages in V, leaks f in cm3/s. The defaults are the minimum-phase point; the other one has
k1 = 3.14, k2 = 3.29, gamma1 = 0.43, gamma2 = 0.34 and both pumps at 3.15 V.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca

from rmpc_ros.models.nonlinear import NonlinearModel, Variable
from rmpc_ros.plants.parameters import merged

PARAMETERS = {
    "A1": 28.0,  # cm2
    "A2": 32.0,
    "A3": 28.0,
    "A4": 32.0,
    "a1": 0.071,  # cm2
    "a2": 0.057,
    "a3": 0.071,
    "a4": 0.057,
    "g": 981.0,  # cm/s2
    "k1": 3.33,  # cm3/(V s)
    "k2": 3.35,
    "gamma1": 0.7,
    "gamma2": 0.6,
}
STATES = tuple(Variable(f"h{n}", "cm", level) for n, level in zip((1, 2, 3, 4), (12.0, 13.0, 2.0, 2.0), strict=True))
INPUTS = (Variable("v1", "V", 3.0), Variable("v2", "V", 3.0))
DISTURBANCES = (Variable("f1", "cm3/s"), Variable("f2", "cm3/s"))


def balances(x: dict[str, Any], u: dict[str, Any], d: dict[str, Any], p: dict[str, Any]) -> Sequence[Any]:
    """Right-hand sides in the order of STATES, per second."""
    out = {n: p[f"a{n}"] * ca.sqrt(2 * p["g"] * ca.fmax(x[f"h{n}"], 0)) for n in (1, 2, 3, 4)}
    pump1, pump2 = p["k1"] * u["v1"], p["k2"] * u["v2"]
    return (
        (-out[1] + out[3] + p["gamma1"] * pump1 + d["f1"]) / p["A1"],
        (-out[2] + out[4] + p["gamma2"] * pump2 + d["f2"]) / p["A2"],
        (-out[3] + (1 - p["gamma2"]) * pump2) / p["A3"],
        (-out[4] + (1 - p["gamma1"]) * pump1) / p["A4"],
    )


def build(parameters: Mapping[str, Any]) -> NonlinearModel:
    """The model with some parameters changed.

    Raises
    ------
    ConfigError
        A parameter does not exist or is not a number.
    """
    values = merged("quadruple_tank", PARAMETERS, parameters)
    return NonlinearModel("quadruple_tank", STATES, INPUTS, DISTURBANCES, values, balances)
