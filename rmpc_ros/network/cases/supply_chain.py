"""Stocks that order from each other: quantity-flexibility contracts as forecast sets (seed 004 appendix B).

    I_i(t+1) = I_i(t) + Psi_i u_i(t) + xi_i(t) - d_i(t),    I_i(0) = 0,    xi_i in [-theta_p, 0] (losses),

where d_i is the sum of the orders of i's customers (their inputs of the same stage), or the market's demand
2 + cos(2 pi t/(T-1)) + F'w, norm_inf(w) <= theta_d, t = 1..T (sine for every second product). Costs are
max(cH I, -cB I) for the T stocks I(1)..I(T). The announced set of an order is the contract: from z - y to z + y.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Matrix, Vector
from rmpc_ros.network.model import Agent, Cost, Coupling, Disturbance, Network, Signal
from rmpc_ros.plants.supply_chain import MEAN_DEMAND, Stock, SupplyParameters, draw_supply, stocks, suppliers


def supply_network(
    agents: int = 3,
    T: int = 8,
    theta_p: float = 0.2,
    theta_d: float = 0.5,
    products: int = 1,
    factors: int = 4,
    seed: int = 0,
    delay: int = 0,
    graph: str = "serial",
) -> Network:
    """A supply network of the given form; who supplies whom: `rmpc_ros.plants.supply_chain.stocks`."""
    if agents < 2 or T < 2:
        raise ConfigError(f"supply network: {agents} agents, T = {T}; at least 2 of each")
    q = draw_supply(agents, products, factors, seed)
    orders = [bool(sources) for sources in suppliers(graph, agents)]
    parts = enumerate(zip(stocks(graph, q), orders, strict=True))
    return Network(tuple(_agent(i, s, q, T, theta_p, theta_d, sends) for i, (s, sends) in parts), T, delay)


def _agent(i: int, stock: Stock, q: SupplyParameters, T: int, theta_p: float, theta_d: float, sends: bool) -> Agent:
    products = len(stock.blending)
    eye = np.eye(products)
    couplings = tuple(Coupling(k, "order", -share * eye) for k, share in stock.taken.items())
    generator, offset = theta_p / 2 * eye, np.zeros((T, products))
    if stock.serves_market:
        generator = np.hstack([generator, -theta_d * q.factors])
        offset = -market(T, products)
    costs = tuple(Cost("max", Mx=np.outer([q.holding, -q.backlog], eye[p]), first=1) for p in range(products))
    return Agent(
        f"stock{i + 1}",
        A=eye,
        D=stock.blending,
        E=eye,
        x0=np.zeros(products),
        disturbance=Disturbance(np.full(products, -theta_p / 2), generator),
        couplings=couplings,
        signals=(Signal("order", F=eye),) if sends else (),
        costs=costs,
        offset=offset,
    )


def market(T: int, products: int) -> Matrix:
    """Mean demand (T, P): 2 + cos for the first, third, ... product, 2 + sin for the others."""
    angle = 2 * np.pi * np.arange(1, T + 1) / (T - 1)
    waves = [np.cos(angle) if p % 2 == 0 else np.sin(angle) for p in range(products)]
    return MEAN_DEMAND + np.array(waves).T


def closed_form(agents: int, T: int, theta_p: float, theta_d: float, parameters: SupplyParameters) -> float:
    """Optimal cost of a serial single-product chain without delay: only the newest shock cannot be corrected.

    T 2 cH cB/(cH + cB) (n theta_p/2 + theta_d sum abs(F)).
    """
    h, b = parameters.holding, parameters.backlog
    spread: Vector = np.abs(parameters.factors).sum(axis=1)
    return float(T * 2 * h * b / (h + b) * (agents * theta_p / 2 + theta_d * spread[0]))
