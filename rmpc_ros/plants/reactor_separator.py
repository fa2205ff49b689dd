"""Two stirred reactors in series and a flash separator with recycle: A -> B -> C, three agents in a ring.

Mass and energy balances of each vessel j, with mass fractions xA, xB (xC = 1 - xA - xB) and temperature T:

    F1 = F10 + Fr,   F2 = F1 + F20,   xjr = a_j xj3 / (aA xA3 + aB xB3 + aC xC3)          (vapour of the separator)
    rA = activity k1 exp(-E1/(R T)) xA,   rB = activity k2 exp(-E2/(R T)) xB
    dxA1/dt = F10/V1 (xA10 - xA1) + Fr/V1 (xAr - xA1) - rA1
    dxB1/dt = -F10/V1 xB1 + Fr/V1 (xBr - xB1) + rA1 - rB1
    dT1/dt  = F10/V1 (T10 - T1) + Fr/V1 (T3 - T1) - (dH1 rA1 + dH2 rB1)/Cp + transfer Q1/(rho Cp V1)
    vessel 2: the same with inflow F1 from vessel 1 and fresh feed F20;
    vessel 3: dx3/dt = F2/V3 (x2 - x3) - (Fr + Fp)/V3 (xr - x3),   dT3/dt = F2/V3 (T2 - T3) + transfer Q3/(rho Cp V3)

Time is in hours, flows in m3/h, heat in kJ/h. The parameters are those of the benchmark of the distributed-MPC
literature (Christofides and co-workers), with two changes, stated: the flows F1, F2 are mass-consistent, and V3 = 1 m3
instead of 0.012 m3, which leaves the steady state as it is and the separator less stiff (fastest eigenvalue -143 per
hour instead of -8080). `activity` (catalyst) and `transfer` (heat exchange) are 1 when new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca

from rmpc_ros.models.nonlinear import NonlinearModel, Variable
from rmpc_ros.plants.parameters import merged

PARAMETERS = {
    "F10": 5.04,  # m3/h
    "F20": 5.04,
    "Fr": 50.4,
    "Fp": 0.504,
    "V1": 1.0,  # m3
    "V2": 0.5,
    "V3": 1.0,
    "E1": 5.0e4,  # kJ/kmol
    "E2": 6.0e4,
    "k1": 2.77e3 * 3600.0,  # 1/h
    "k2": 2.5e3 * 3600.0,
    "dH1": -240.0,  # kJ/kg
    "dH2": -280.0,
    "Cp": 4.2,  # kJ/(kg K)
    "rho": 1000.0,  # kg/m3
    "aA": 3.5,
    "aB": 1.0,
    "aC": 0.5,
    "R": 8.314,  # kJ/(kmol K)
    "activity": 1.0,
    "transfer": 1.0,
}

STATES = (
    Variable("xA1", "mass fraction", 0.39),
    Variable("xB1", "mass fraction", 0.57),
    Variable("T1", "K", 447.0),
    Variable("xA2", "mass fraction", 0.40),
    Variable("xB2", "mass fraction", 0.57),
    Variable("T2", "K", 444.0),
    Variable("xA3", "mass fraction", 0.17),
    Variable("xB3", "mass fraction", 0.75),
    Variable("T3", "K", 449.0),
)
INPUTS = (Variable("Q1", "kJ/h", 12.6e5), Variable("Q2", "kJ/h", 16.2e5), Variable("Q3", "kJ/h", 12.6e5))
DISTURBANCES = (
    Variable("T10", "K", 300.0),
    Variable("xA10", "mass fraction", 1.0),
    Variable("T20", "K", 300.0),
    Variable("xA20", "mass fraction", 1.0),
)


def balances(x: dict[str, Any], u: dict[str, Any], d: dict[str, Any], p: dict[str, Any]) -> Sequence[Any]:
    """Right-hand sides in the order of STATES, per hour."""
    F1 = p["F10"] + p["Fr"]
    F2 = F1 + p["F20"]
    purge = p["Fr"] + p["Fp"]
    xC3 = 1 - x["xA3"] - x["xB3"]
    vapour = p["aA"] * x["xA3"] + p["aB"] * x["xB3"] + p["aC"] * xC3
    xAr, xBr = p["aA"] * x["xA3"] / vapour, p["aB"] * x["xB3"] / vapour
    rates = {}
    for vessel in ("1", "2"):
        temperature = x["T" + vessel]
        rates["A" + vessel] = p["activity"] * p["k1"] * ca.exp(-p["E1"] / (p["R"] * temperature)) * x["xA" + vessel]
        rates["B" + vessel] = p["activity"] * p["k2"] * ca.exp(-p["E2"] / (p["R"] * temperature)) * x["xB" + vessel]
    heat = p["transfer"] / (p["rho"] * p["Cp"])
    reaction1 = -(p["dH1"] * rates["A1"] + p["dH2"] * rates["B1"]) / p["Cp"]
    reaction2 = -(p["dH1"] * rates["A2"] + p["dH2"] * rates["B2"]) / p["Cp"]
    feed1, recycle = p["F10"] / p["V1"], p["Fr"] / p["V1"]
    from1, feed2 = F1 / p["V2"], p["F20"] / p["V2"]
    from2, drawn = F2 / p["V3"], purge / p["V3"]
    return (
        feed1 * (d["xA10"] - x["xA1"]) + recycle * (xAr - x["xA1"]) - rates["A1"],
        -feed1 * x["xB1"] + recycle * (xBr - x["xB1"]) + rates["A1"] - rates["B1"],
        feed1 * (d["T10"] - x["T1"]) + recycle * (x["T3"] - x["T1"]) + reaction1 + heat * u["Q1"] / p["V1"],
        from1 * (x["xA1"] - x["xA2"]) + feed2 * (d["xA20"] - x["xA2"]) - rates["A2"],
        from1 * (x["xB1"] - x["xB2"]) - feed2 * x["xB2"] + rates["A2"] - rates["B2"],
        from1 * (x["T1"] - x["T2"]) + feed2 * (d["T20"] - x["T2"]) + reaction2 + heat * u["Q2"] / p["V2"],
        from2 * (x["xA2"] - x["xA3"]) - drawn * (xAr - x["xA3"]),
        from2 * (x["xB2"] - x["xB3"]) - drawn * (xBr - x["xB3"]),
        from2 * (x["T2"] - x["T3"]) + heat * u["Q3"] / p["V3"],
    )


def build(parameters: Mapping[str, Any]) -> NonlinearModel:
    """The model with some parameters changed.

    Raises
    ------
    ConfigError
        A parameter does not exist or is not a number.
    """
    values = merged("reactor_separator", PARAMETERS, parameters)
    return NonlinearModel("reactor_separator", STATES, INPUTS, DISTURBANCES, values, balances, time_unit=3600.0)
