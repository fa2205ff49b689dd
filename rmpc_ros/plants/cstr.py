"""Exothermic stirred tank reactor with three steady states (Henson and Seborg).

    dCA/dt = q/V (Caf - CA) - k0 exp(-E/(R T)) CA
    dT/dt  = q/V (Tf - T) - dH/(rho Cp) k0 exp(-E/(R T)) CA + UA/(V rho Cp) (Tc - T)

Time is in minutes. At a coolant of 300 K: stable at (0.87725 mol/L, 324.4754 K), a saddle at (0.49992, 350.0055) and an
unstable focus at (0.20876, 369.705); the operating point's `states` choose one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca

from rmpc_ros.models.nonlinear import NonlinearModel, Variable
from rmpc_ros.plants.parameters import merged

PARAMETERS = {
    "q": 100.0,  # L/min
    "V": 100.0,  # L
    "rho": 1000.0,  # g/L
    "Cp": 0.239,  # J/(g K)
    "dH": -5.0e4,  # J/mol
    "E_over_R": 8750.0,  # K
    "k0": 7.2e10,  # 1/min
    "UA": 5.0e4,  # J/(min K)
}
STATES = (Variable("CA", "mol/L", 0.5), Variable("T", "K", 350.0))
INPUTS = (Variable("Tc", "K", 300.0),)
DISTURBANCES = (Variable("Caf", "mol/L", 1.0), Variable("Tf", "K", 350.0))


def balances(x: dict[str, Any], u: dict[str, Any], d: dict[str, Any], p: dict[str, Any]) -> Sequence[Any]:
    """Right-hand sides in the order of STATES, per minute."""
    rate = p["k0"] * ca.exp(-p["E_over_R"] / x["T"]) * x["CA"]
    capacity = p["rho"] * p["Cp"]
    return (
        p["q"] / p["V"] * (d["Caf"] - x["CA"]) - rate,
        p["q"] / p["V"] * (d["Tf"] - x["T"])
        - p["dH"] / capacity * rate
        + p["UA"] / (p["V"] * capacity) * (u["Tc"] - x["T"]),
    )


def build(parameters: Mapping[str, Any]) -> NonlinearModel:
    """The model with some parameters changed.

    Raises
    ------
    ConfigError
        A parameter does not exist or is not a number.
    """
    values = merged("cstr", PARAMETERS, parameters)
    return NonlinearModel("cstr", STATES, INPUTS, DISTURBANCES, values, balances, time_unit=60.0)
