"""Prosumers with photovoltaics and batteries who give each other energy (seed 004 section 5.2).

    b_i(t+1) = b_i(t) + g_i + pv_i - load_i + sum_j u_ji - sum_k u_ik,   0 <= b_i <= capacity_i,   b_i(0) = 0,

with g_i what agent i buys from the grid (negative: returns) and u_ji >= 0 what i draws from neighbour j. A bought unit
costs the price p, a returned one 0.5 p, a drawn one 0.2 p (the receiver pays). pv and load are their means times
(1 + deviation xi), abs(xi) <= 1. The announced set of a draw is [0, 2 alpha]: the giver plans for alpha (s + 1),
abs(s) <= 1, the receiver stays inside. Twelve steps of two hours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rmpc_ros.errors import DataError
from rmpc_ros.network.affine_table import Matrix, Vector
from rmpc_ros.network.graph import Graph
from rmpc_ros.network.model import Agent, Constraint, Cost, Coupling, Disturbance, Network, Signal
from rmpc_ros.plants.energy_hub import STEPS, Prosumer, battery, relative_deviation, two_hour_sums

RETURN_COST, TRANSFER_COST = 0.5, 0.2
UNIT = 1.0 / 360.0  # of the data files' power columns


def hourly_prices() -> Vector:
    """Mean price of hours 1..24: 18 - tanh(h) + tanh(h-4) - 2 tanh(h-6) + 4 tanh(h-17) - 4 tanh(h-24)."""
    h = np.arange(1, 25)
    price: Vector = 18 - np.tanh(h) + np.tanh(h - 4) - 2 * np.tanh(h - 6) + 4 * np.tanh(h - 17) - 4 * np.tanh(h - 24)
    return price


def read_prosumer(folder: Path, number: int) -> Prosumer:
    """One prosumer from `load_power_unit_N.csv`, `pv_power_unit_N.csv` and `battery_unit_N.csv`.

    The first two hold 24 hourly means and 24 standard deviations; the last one's first number is the capacity.

    Raises
    ------
    DataError
        A file is missing or has another form.
    """
    tables: dict[str, Matrix] = {}
    for kind, shape in (("load_power", (2, 24)), ("pv_power", (2, 24)), ("battery", (3,))):
        path = folder / f"{kind}_unit_{number}.csv"
        try:
            tables[kind] = np.loadtxt(path, delimiter=",")
        except (OSError, ValueError) as error:
            raise DataError(f"energy hub: cannot read {path}: {error}") from error
        if tables[kind].shape != shape or not np.all(np.isfinite(tables[kind])):
            raise DataError(
                f"energy hub: {path} has shape {tables[kind].shape}; finite numbers of shape {shape} are wanted"
            )
    load, pv = tables["load_power"] * UNIT, tables["pv_power"] * UNIT
    return Prosumer(
        f"prosumer{number}",
        two_hour_sums(load[0]),
        two_hour_sums(pv[0]),
        relative_deviation(load[0], load[1]),
        relative_deviation(pv[0], pv[1]),
        float(tables["battery"][0]),
    )


def energy_network(prosumers: list[Prosumer], graph: Graph, prices: Vector, exchange: bool = True) -> Network:
    """The hub as a network; with `exchange` false nobody draws from anybody (the decoupled problem).

    Parameters
    ----------
    graph : an arc i -> j lets i draw from j (the draw of i enters j's battery)
    prices : (12,) of a bought unit
    """
    return Network(tuple(_agent(i, prosumers, graph, prices, exchange) for i in range(len(prosumers))), STEPS)


def _agent(i: int, prosumers: list[Prosumer], graph: Graph, prices: Vector, exchange: bool) -> Agent:
    p = prosumers[i]
    givers = graph.followers(i) if exchange else ()
    takers = graph.neighbours(i) if exchange else ()
    A, D = battery(len(givers))
    nu = D.shape[1]
    grid = np.eye(nu)[[0]]
    pays = TRANSFER_COST * np.concatenate([[0.0], np.ones(len(givers))])
    buying = np.array([grid[0] + pays, -RETURN_COST * grid[0] + pays])
    constraints = [Constraint(np.eye(1), None, np.array([p.capacity]), np.zeros(1), first=1)]
    if givers:
        draws = np.eye(nu)[1:]
        constraints.append(Constraint(None, -draws, np.zeros(len(givers))))
    generator = np.array([p.pv_deviation * p.pv, -p.load_deviation * p.load]).T
    return Agent(
        p.name,
        A=A,
        D=D,
        E=generator[:, None, :],
        x0=np.zeros(1),
        disturbance=Disturbance.box([-1, -1], [1, 1]),
        couplings=tuple(Coupling(k, f"draw{i}", -np.eye(1)) for k in takers),
        signals=tuple(Signal(f"draw{j}", F=np.eye(nu)[[1 + n]], floor=np.zeros(1)) for n, j in enumerate(givers)),
        constraints=tuple(constraints),
        costs=(Cost("max", Mu=prices[:, None, None] * buying),),
        offset=(p.pv - p.load)[:, None],
    )
