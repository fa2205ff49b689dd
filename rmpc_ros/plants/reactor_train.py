"""n stirred reactors in series or in parallel, storage tanks between them, one header each of steam, water and feed.

Reactor i with volume V (level), concentration c, temperature T and pressure P of its gas space; time in hours:

    r     = k0 exp(-E/T) c                                                          A -> B + gas, in the reactors only
    dV/dt = F + q - o,                 o = Ko x_out sqrt(V)                          raw feed, inflow, outlet valve
    dc/dt = F/V (cf - c) + q/V (cq - c) - r
    dT/dt = F/V (Tf - T) + q/V (Tq - T) + (H r V + steam - U w/(w + w0) (T - Tw)) / (C V)
    dP/dt = R T/Vg (g r V - Kv x_vent (P - Pa)) + P/Vg dV/dt + P/T dT/dt,            Vg = Vtot - V

Inputs are the raw feed F, heating steam, the flow w of cooling water, the openings of the vent and the outlet valve. In
series tank i stands between the reactors i and i+1 (q, cq, Tq are its outflow); in parallel all reactors fill one tank:

    dS/dt = sum o - y,   y = Ko x_draw sqrt(S),   d(cs)/dt = sum o/S (c - cs),   d(Ts)/dt = sum o/S (T - Ts)

Every reactor and every tank is an agent. The parameters are invented, of the size of a pilot plant: 4 m3 reactors at
350 K that convert four fifths of their feed. Steam, water and raw feed come from common headers; the plant file's
section `resources` says what a header can give. The catalyst stays in the reactors: nothing reacts in a tank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca

from rmpc_ros.errors import ConfigError
from rmpc_ros.models.nonlinear import NonlinearModel, Variable
from rmpc_ros.plants.generate import Generator, Settings, whole, wired
from rmpc_ros.plants.parameters import merged

PARAMETERS = {
    "k0": 1.69e10,  # 1/h
    "E": 8000.0,  # K, activation energy over the gas constant
    "H": 8.0e4,  # kJ/kmol, heat of reaction
    "C": 4200.0,  # kJ/(m3 K)
    "U": 1.2e4,  # kJ/(h K), jacket at an unlimited flow of water
    "w0": 2.0,  # m3/h, flow of water at half of that
    "Ko": 4.0,  # m3/h per sqrt(m3), open valve
    "Kv": 1.28,  # kmol/(h bar), open vent
    "R": 0.08314,  # bar m3/(kmol K)
    "g": 0.1,  # kmol of gas per kmol of A
    "Vtot": 6.0,  # m3
    "Pa": 1.0,  # bar
    "activity": 1.0,  # of the catalyst
}
VOLUME, TEMPERATURE, PRESSURE, STORED = 4.0, 350.0, 2.0, 10.0  # operating point
RAW = {"Tf": 300.0, "cf": 4.0, "Tw": 293.0}  # raw material's temperature and concentration, the water's temperature
FIRST_FEED, LATER_FEED, STEAM = 2.0, 1.0, 1.0e5  # m3/h, m3/h, kJ/h


def feeding(reactors: int, parallel: bool) -> dict[int, list[int]]:
    """Which reactors each tank is filled by, tanks and reactors counted from 1."""
    return {1: list(range(1, reactors + 1))} if parallel else {n: [n] for n in range(1, reactors)}


def tank_before(reactor: int, parallel: bool) -> int | None:
    """The tank that a reactor is fed from beside the raw feed; None for those that have none."""
    return None if parallel or reactor == 1 else reactor - 1


def operating_point(reactors: int, parallel: bool, p: Mapping[str, float]) -> dict[str, float]:
    """Steady states and inputs at the chosen volumes, temperatures and pressures, by the balances.

    Raises
    ------
    ConfigError
        The parameters ask for a valve beyond its range or for water that cannot cool so much.
    """
    out: dict[str, float] = {}
    rate = p["activity"] * p["k0"] * math.exp(-p["E"] / TEMPERATURE)
    for n in range(1, reactors + 1):
        before = tank_before(n, parallel)
        feed = FIRST_FEED if before is None else LATER_FEED
        inflow = 0.0 if before is None else out[f"flow{before}"]
        arrives = feed * RAW["cf"] + (inflow * out[f"c{before}"] if before is not None else 0.0)
        c = arrives / (feed + inflow + rate * VOLUME)
        heat = p["H"] * rate * c * VOLUME + STEAM - feed * p["C"] * (TEMPERATURE - RAW["Tf"])
        jacket = heat / (TEMPERATURE - RAW["Tw"])
        if not 0 < jacket < p["U"]:
            raise ConfigError(
                f"reactor_train: reactor {n} would need a jacket of {jacket:.4g} kJ/(h K), 0 to U = {p['U']:g}"
            )
        flow = feed + inflow
        out |= {
            f"V{n}": VOLUME,
            f"c{n}": c,
            f"T{n}": TEMPERATURE,
            f"P{n}": PRESSURE,
            f"feed{n}": feed,
            f"steam{n}": STEAM,
            f"water{n}": p["w0"] * jacket / (p["U"] - jacket),
            f"vent{n}": p["g"] * rate * c * VOLUME / (p["Kv"] * (PRESSURE - p["Pa"])),
            f"out{n}": flow / (p["Ko"] * math.sqrt(VOLUME)),
            f"flow{n}": flow,
        }
    for tank, filled_by in feeding(reactors, parallel).items():
        flows = {n: out[f"flow{n}"] for n in filled_by}
        total = sum(flows.values())
        out |= {
            f"S{tank}": STORED * len(filled_by),
            f"cs{tank}": sum(flow * out[f"c{n}"] for n, flow in flows.items()) / total,
            f"Ts{tank}": TEMPERATURE,
            f"draw{tank}": total / (p["Ko"] * math.sqrt(STORED * len(filled_by))),
        }
    for name, value in out.items():
        if name.startswith(("vent", "out", "draw")) and not 0 < value < 1:
            raise ConfigError(f"reactor_train: the valve {name} would have to be open by {value:.3g}, 0 to 1")
    return out


def build(parameters: Mapping[str, Any]) -> NonlinearModel:
    """The train; `reactors` (how many, default 3) and `parallel` (0 or 1) shape it, the others are PARAMETERS.

    Raises
    ------
    ConfigError
        A parameter does not exist or has a value that is not allowed.
    """
    given = dict(parameters)
    count, side = given.pop("reactors", 3), given.pop("parallel", 0)
    if isinstance(count, list) or count != int(count) or count < 1:
        raise ConfigError(f"parameter 'reactors' of model 'reactor_train' = {count!r}: give a whole number from 1")
    if side not in (0, 1):
        raise ConfigError(f"parameter 'parallel' of model 'reactor_train' = {side!r}: give 0 (in series) or 1")
    reactors, parallel = int(count), bool(side)
    values = merged("reactor_train", PARAMETERS, given)
    at = operating_point(reactors, parallel, values)
    tanks = feeding(reactors, parallel)
    span = range(1, reactors + 1)

    def variables(kinds: Mapping[str, str], numbers: Sequence[int]) -> list[Variable]:
        return [Variable(f"{k}{n}", unit, at[f"{k}{n}"]) for n in numbers for k, unit in kinds.items()]

    states = variables(REACTOR_STATES, span) + variables(TANK_STATES, list(tanks))
    inputs = variables(REACTOR_INPUTS, span) + variables(TANK_INPUTS, list(tanks))

    def balances(x: dict[str, Any], u: dict[str, Any], d: dict[str, Any], p: dict[str, Any]) -> Sequence[Any]:
        leaves = {n: p["Ko"] * u[f"out{n}"] * ca.sqrt(x[f"V{n}"]) for n in span}
        drawn = {n: p["Ko"] * u[f"draw{n}"] * ca.sqrt(x[f"S{n}"]) for n in tanks}
        out: list[Any] = []
        for n in span:
            V, c, T, P = (x[f"{k}{n}"] for k in REACTOR_STATES)
            feed, steam, water, vent, _ = (u[f"{k}{n}"] for k in REACTOR_INPUTS)
            streams = [(feed, d["cf"], d["Tf"])]
            before = tank_before(n, parallel)
            if before is not None:
                streams.append((drawn[before], x[f"cs{before}"], x[f"Ts{before}"]))
            r = p["activity"] * p["k0"] * ca.exp(-p["E"] / T) * c
            dV = sum(flow for flow, _, _ in streams) - leaves[n]
            dc = sum(flow / V * (cin - c) for flow, cin, _ in streams) - r
            heat = p["H"] * r * V + steam - p["U"] * water / (water + p["w0"]) * (T - d["Tw"])
            dT = sum(flow / V * (Tin - T) for flow, _, Tin in streams) + heat / (p["C"] * V)
            room = p["Vtot"] - V
            gas = p["g"] * r * V - p["Kv"] * vent * (P - p["Pa"])
            out += [dV, dc, dT, p["R"] * T / room * gas + P / room * dV + P / T * dT]
        for tank, filled_by in tanks.items():
            S, cs, Ts = (x[f"{k}{tank}"] for k in TANK_STATES)
            out.append(sum(leaves[n] for n in filled_by) - drawn[tank])
            out.append(sum(leaves[n] / S * (x[f"c{n}"] - cs) for n in filled_by))
            out.append(sum(leaves[n] / S * (x[f"T{n}"] - Ts) for n in filled_by))
        return out

    disturbances = [Variable(name, unit, RAW[name]) for name, unit in (("Tf", "K"), ("cf", "mol/L"), ("Tw", "K"))]
    return NonlinearModel("reactor_train", states, inputs, disturbances, values, balances, time_unit=3600.0)


REACTOR_STATES = {"V": "m3", "c": "mol/L", "T": "K", "P": "bar"}
REACTOR_INPUTS = {"feed": "m3/h", "steam": "kJ/h", "water": "m3/h", "vent": "1", "out": "1"}
TANK_STATES = {"S": "m3", "cs": "mol/L", "Ts": "K"}
TANK_INPUTS = {"draw": "1"}
REACH = {"V": 0.6, "c": 0.25, "T": 6.0, "P": 0.6, "S": 5.0, "cs": 0.4, "Ts": 8.0}  # of the states' limits
INPUT_REACH = {"feed": 0.05, "steam": 9.0e4, "water": 0.5, "vent": 0.26}  # of the inputs' limits
SPARE = 1.08  # a valve can pass so many times what may come, so that its level can be held
NOISE = {"V": 0.0005, "c": 1e-4, "T": 0.005, "P": 0.001, "S": 0.0005, "cs": 5e-5, "Ts": 0.002}


def _sections(settings: Settings) -> dict[str, Any]:
    """A train with one agent per reactor and tank, each hearing those it is fed by."""
    reactors, parallel = whole(settings, "reactors", 1), settings["layout"] == "parallel"
    if settings["layout"] not in ("series", "parallel"):
        raise ConfigError(f"layout = {settings['layout']}: give series or parallel")
    at = operating_point(reactors, parallel, PARAMETERS)
    tanks = feeding(reactors, parallel)
    reach = _valves(reactors, parallel, at)

    def agent(number: int, states: Mapping[str, str], inputs: Mapping[str, str], heard: list[str]) -> dict[str, Any]:
        own = {f"{k}{number}": {"unit": unit, "deviation": REACH[k], "noise": NOISE[k]} for k, unit in states.items()}
        drives = {
            f"{k}{number}": {"unit": unit, "deviation": round(reach.get(f"{k}{number}", INPUT_REACH.get(k, 0.0)), 6)}
            for k, unit in inputs.items()
        }
        return {"neighbours": heard, "states": own, "inputs": drives, **wired(own, drives)}

    agents: dict[str, Any] = {}
    for n in range(1, reactors + 1):
        before = tank_before(n, parallel)
        agents[f"reactor{n}"] = agent(n, REACTOR_STATES, REACTOR_INPUTS, [] if before is None else [f"tank{before}"])
        if not parallel and n in tanks:
            agents[f"tank{n}"] = agent(n, TANK_STATES, TANK_INPUTS, [f"reactor{n}"])
    if parallel:
        agents["tank1"] = agent(1, TANK_STATES, TANK_INPUTS, [f"reactor{n}" for n in tanks[1]])
    bounds = {"Tf": 1.0, "cf": 0.04, "Tw": 1.0}
    units = {"Tf": "K", "cf": "mol/L", "Tw": "K"}
    return {
        "plant": {
            "name": f"reactor_train_{settings['layout']}_{reactors}",
            "model": "reactor_train",
            "period": "60 s",
            "discretisation": "held",
            "parameters": {"reactors": reactors, "parallel": int(parallel)},
            "disturbances": {
                d: {"unit": units[d], "nominal": RAW[d], "bounds": [RAW[d] - b, RAW[d] + b]} for d, b in bounds.items()
            },
        },
        "agents": agents,
        "controller": {
            "mode": "cooperative",
            "horizon": 10,
            "margins": {"model_error": "sampled", "factor": 1.5, "room": 1.5, "authority": 0.05, "promise": 0.02},
        },
        "simulation": {
            "duration": "4 h",
            "disturbances": {
                "Tf": {"kind": "autoregressive", "time_constant": "30 min"},
                "cf": {"kind": "bimodal", "hold": "20 min"},
                "Tw": {"kind": "autoregressive", "time_constant": "1 h"},
            },
        },
    }


def _valves(reactors: int, parallel: bool, at: Mapping[str, float]) -> dict[str, float]:
    """How far each outlet may open or close: more than all that may come varies, from the first vessel to the last."""
    out: dict[str, float] = {}
    varies = {0: 0.0}
    for n in range(1, reactors + 1):
        before = tank_before(n, parallel)
        comes = INPUT_REACH["feed"] + (varies[before] if before is not None else 0.15)
        out[f"out{n}"] = SPARE * comes * at[f"out{n}"] / at[f"flow{n}"]
        if not parallel:
            varies[n] = SPARE * SPARE * comes
            out[f"draw{n}"] = varies[n] * at[f"out{n}"] / at[f"flow{n}"] * math.sqrt(VOLUME / STORED)
    if parallel:
        comes = reactors * SPARE * (INPUT_REACH["feed"] + 0.15)
        out["draw1"] = SPARE * comes * at["draw1"] / sum(at[f"flow{n}"] for n in range(1, reactors + 1))
    return out


GENERATOR = Generator(
    {"reactors": 3, "layout": "series"},
    _sections,
    "Stirred reactors with storage tanks, heated by steam, cooled by water, fed with raw material from common headers.",
)
