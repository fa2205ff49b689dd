"""Stocks that order from each other: quantity-flexibility contracts as forecast sets (seed 004 appendix B).

    I_i(t+1) = I_i(t) + Psi_i u_i(t) + xi_i(t) - d_i(t),    I_i(0) = 0,    xi_i in [-theta_p, 0] (losses),

where d_i is the sum of the orders of i's customers (their inputs of the same stage), or the market's demand
2 + cos(2 pi t/(T-1)) + F'w, norm_inf(w) <= theta_d, t = 1..T (sine for every second product). Costs are
max(cH I, -cB I) for the T stocks I(1)..I(T). The announced set of an order is the contract: from z - y to z + y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Matrix, Vector
from rmpc_ros.network.model import Agent, Cost, Coupling, Disturbance, Network, Signal


@dataclass(frozen=True)
class SupplyParameters:
    """What one instance draws: holding and backlog costs, market factors F (P, k), blending Psi per agent (P, P)."""

    holding: float
    backlog: float
    factors: Matrix
    blending: tuple[Matrix, ...]


def draw_supply(agents: int, products: int, factors: int, seed: int) -> SupplyParameters:
    """cH, cB uniform in [0, 2], F in [-1, 1], blending rows that add up to 1 (diagonally dominant, hence regular)."""
    rng = np.random.default_rng(seed)
    holding, backlog = rng.uniform(0.0, 2.0, 2)
    loadings = rng.uniform(-1.0, 1.0, (products, factors))
    blends = []
    for _ in range(agents):
        mix = rng.uniform(0.0, 1.0, (products, products))
        mix = 0.6 * np.eye(products) + 0.4 * mix / mix.sum(axis=1, keepdims=True)
        blends.append(mix)
    return SupplyParameters(float(holding), float(backlog), loadings, tuple(blends))


def suppliers(graph: str, agents: int) -> list[list[int]]:
    """Who supplies whom: entry i lists the agents that agent i orders from.

    serial: 0 <- 1 <- ... <- n-1;  star: 0 supplies all;  mesh: i orders from i-1 and i-2;  ring: serial, and agent 0
    orders from agent n-1 (recycled material), so that orders run in a circle.
    """
    match graph:
        case "serial":
            return [[] if i == 0 else [i - 1] for i in range(agents)]
        case "star":
            return [[] if i == 0 else [0] for i in range(agents)]
        case "mesh":
            return [[j for j in (i - 2, i - 1) if j >= 0] for i in range(agents)]
        case "ring":
            return [[(i - 1) % agents] for i in range(agents)]
    raise ConfigError(f"supply network '{graph}' is unknown; known: serial, star, mesh, ring")


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
    """A supply network of the given form; agent 0 produces, agents that nobody orders from serve the market.

    In the ring, where everybody has a customer, the last agent serves the market too and agent 0 takes a tenth of its
    material back from it. Several suppliers share an order equally.
    """
    if agents < 2 or T < 2:
        raise ConfigError(f"supply network: {agents} agents, T = {T}; at least 2 of each")
    q = draw_supply(agents, products, factors, seed)
    sources = suppliers(graph, agents)
    eye = np.eye(products)
    return Network(tuple(_agent(i, sources, q, T, theta_p, theta_d, graph, eye) for i in range(agents)), T, delay)


def _agent(
    i: int,
    sources: list[list[int]],
    q: SupplyParameters,
    T: int,
    theta_p: float,
    theta_d: float,
    graph: str,
    eye: Matrix,
) -> Agent:
    products = len(eye)
    customers = [k for k, s in enumerate(sources) if i in s]
    last = len(sources) - 1
    serves_market = not customers or (graph == "ring" and i == last)
    couplings = []
    for k in customers:
        share = 0.1 if graph == "ring" and k == 0 else 1.0 / len(sources[k])
        couplings.append(Coupling(k, "order", -share * eye))
    generator, offset = theta_p / 2 * eye, np.zeros((T, products))
    if serves_market:
        generator = np.hstack([generator, -theta_d * q.factors])
        offset = -market(T, products)
    costs = tuple(Cost("max", Mx=np.outer([q.holding, -q.backlog], eye[p]), first=1) for p in range(products))
    return Agent(
        f"stock{i + 1}",
        A=eye,
        D=q.blending[i],
        E=eye,
        x0=np.zeros(products),
        disturbance=Disturbance(np.full(products, -theta_p / 2), generator),
        couplings=tuple(couplings),
        signals=(Signal("order", F=eye),) if sources[i] else (),
        costs=costs,
        offset=offset,
    )


def market(T: int, products: int) -> Matrix:
    """Mean demand (T, P): 2 + cos for the first, third, ... product, 2 + sin for the others."""
    angle = 2 * np.pi * np.arange(1, T + 1) / (T - 1)
    waves = [np.cos(angle) if p % 2 == 0 else np.sin(angle) for p in range(products)]
    return 2.0 + np.array(waves).T


def closed_form(agents: int, T: int, theta_p: float, theta_d: float, parameters: SupplyParameters) -> float:
    """Optimal cost of a serial single-product chain without delay: only the newest shock cannot be corrected.

    T 2 cH cB/(cH + cB) (n theta_p/2 + theta_d sum abs(F)).
    """
    h, b = parameters.holding, parameters.backlog
    spread: Vector = np.abs(parameters.factors).sum(axis=1)
    return float(T * 2 * h * b / (h + b) * (agents * theta_p / 2 + theta_d * spread[0]))
