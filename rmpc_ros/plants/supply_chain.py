"""Stocks that order from each other: serial, ring, mesh, star; several products; deliveries that take time.

    I_i(t+1) = I_i(t) + Psi_i u_i(t - delay) + xi_i(t) - sum over customers k of share_k u_k(t) - demand(t),

with I_i the stocks of the products, u_i what agent i orders (a same-stage input that its suppliers feel at once), Psi_i
a blending of products, xi_i in [-theta_p, 0] losses, and, for whoever serves the market, demand = mean + F'w,
norm_inf(w) <= theta_d. Goods on their way are states of the agent that waits for them. Source: seed 004 appendix B; the
offline designs (`network.cases.supply_chain`) take stocks, shares and draws from here.
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

MEAN_DEMAND = 2.0  # of each product, per period
RECYCLED = 0.1  # share of its orders that the ring's first stock takes back from the last one


@dataclass(frozen=True)
class SupplyParameters:
    """What one instance draws: holding and backlog costs, market factors F (P, k), blending Psi per agent (P, P)."""

    holding: float
    backlog: float
    factors: Matrix
    blending: tuple[Matrix, ...]


@dataclass(frozen=True)
class Stock:
    """One agent's part of the network.

    Attributes
    ----------
    blending : (P, P) of an order that arrives
    taken : customer -> share of its order that leaves this stock
    serves_market : whether the market's demand leaves it too
    """

    blending: Matrix
    taken: dict[int, float]
    serves_market: bool


def draw_supply(agents: int, products: int, factors: int, seed: int, mixing: float = 0.4) -> SupplyParameters:
    """cH, cB uniform in [0, 2], F in [-1, 1], blending rows that add up to 1 (diagonally dominant, hence regular).

    `mixing`, below 0.5, is the share of an order that is spread over all products.
    """
    rng = np.random.default_rng(seed)
    holding, backlog = rng.uniform(0.0, 2.0, 2)
    loadings = rng.uniform(-1.0, 1.0, (products, factors))
    blends = []
    for _ in range(agents):
        mix = rng.uniform(0.0, 1.0, (products, products))
        mix = (1 - mixing) * np.eye(products) + mixing * mix / mix.sum(axis=1, keepdims=True)
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


def stocks(graph: str, parameters: SupplyParameters) -> list[Stock]:
    """Every agent's part; agent 0 produces, agents that nobody orders from serve the market.

    In the ring, where everybody has a customer, the last agent serves the market too and agent 0 takes a tenth of its
    material back from it. Several suppliers share an order equally.
    """
    agents = len(parameters.blending)
    sources = suppliers(graph, agents)
    out = []
    for i, blending in enumerate(parameters.blending):
        customers = [k for k, s in enumerate(sources) if i in s]
        taken = {k: RECYCLED if graph == "ring" and k == 0 else 1.0 / len(sources[k]) for k in customers}
        out.append(Stock(blending, taken, not customers or (graph == "ring" and i == agents - 1)))
    return out


def steady_orders(network: list[Stock], loss: float) -> list[Vector]:
    """Orders (P,) per agent that hold all stocks while demand and losses are at their means.

    Raises
    ------
    ConfigError
        Someone would have to order less than nothing.
    """
    agents, products = len(network), len(network[0].blending)
    balance = np.zeros((agents * products, agents * products))
    leaving = np.zeros(agents * products)
    eye = np.eye(products)
    for i, stock in enumerate(network):
        rows = slice(i * products, (i + 1) * products)
        balance[rows, rows] += stock.blending
        for k, share in stock.taken.items():
            balance[rows, k * products : (k + 1) * products] -= share * eye
        leaving[rows] = loss + (MEAN_DEMAND if stock.serves_market else 0.0)
    orders = np.linalg.solve(balance, leaving).reshape(agents, products)
    if np.any(orders <= 0):
        raise ConfigError("supply network: no positive orders hold all stocks; draw another blending (seed)")
    return list(orders)


def _sections(settings: Settings) -> dict[str, Any]:
    agents, products = whole(settings, "agents", 2), whole(settings, "products", 1)
    delay, factors = whole(settings, "delay", 0), whole(settings, "factors", 1)
    loss, demand = settings["theta_p"] / 2, settings["theta_d"]
    q = draw_supply(agents, products, factors, settings["seed"], settings["mixing"])
    network = stocks(settings["graph"], q)
    orders = steady_orders(network, loss)
    disturbances: dict[str, Any] = {
        f"w{n}": {"unit": "1", "nominal": 0, "bounds": [-demand, demand]} for n in range(1, factors + 1)
    }
    written: dict[str, Any] = {}
    held: dict[str, float] = {}
    levels: dict[str, float] = {}
    for i, stock in enumerate(network):
        name, number = f"stock{i + 1}", i + 1
        span = range(1, products + 1)
        losses = [f"loss{number}_{p}" for p in span]
        disturbances |= {word: {"unit": "1", "nominal": -loss, "bounds": [-2 * loss, 0]} for word in losses}
        level = {f"level{number}_{p}": {"unit": "1", "deviation": settings["stock"]} for p in span}
        way = {f"way{number}_{p}_{d}": {"unit": "1"} for d in range(1, delay + 1) for p in span}
        inputs = {
            f"order{number}_{p}": {"unit": "1", "limits": [0, round(settings["capacity"] * float(u), 6)]}
            for p, u in zip(span, orders[i], strict=True)
        }
        A, D = _own(stock.blending, delay)
        market = -q.factors if stock.serves_market else np.zeros((products, factors))
        E = np.vstack([np.hstack([market, np.eye(products)]), np.zeros((delay * products, factors + products))])
        taken = {
            f"stock{k + 1}": np.vstack([-share * np.eye(products), np.zeros((delay * products, products))]).tolist()
            for k, share in stock.taken.items()
        }
        written[name] = {
            "neighbours": list(taken),
            "states": {**level, **way},
            "inputs": inputs,
            "coordinates": _positions(number, stock.blending, delay),
            "matrices": {
                "A": A.tolist(),
                "D": D.tolist(),
                "F": taken,
                "E": E.tolist(),
                "disturbances": [*(f"w{n}" for n in range(1, factors + 1)), *losses],
            },
            **wired([*level, *way], inputs),
        }
        held |= {u: float(v) for u, v in zip(inputs, orders[i], strict=True)}
        levels |= {w: float(orders[i][n % products]) for n, w in enumerate(way)}
    return {
        "plant": {
            "name": f"supply_{settings['graph']}_{agents}",
            "model": "linear",
            "period": "1 d",
            "operating_point": {"inputs": held, "states": levels},
            "disturbances": disturbances,
        },
        "agents": written,
        "controller": {
            "mode": "cooperative",
            "horizon": 8,
            "margins": {"room": 2.0, "authority": settings["authority"], "promise": 0.02},
        },
        "simulation": {
            "duration": "200 d",
            "disturbances": {word: {"kind": "autoregressive", "time_constant": "5 d"} for word in disturbances},
        },
    }


def _positions(number: int, blending: Matrix, delay: int) -> dict[str, Any]:
    """Coordinates: each stock with all that is on its way to it, which an order moves at once, and the ways.

    A stock alone is no coordinate of a set that can be kept: nothing that is decided now reaches it within a period.
    """
    if not delay:
        return {}
    span = range(1, len(blending) + 1)
    ways = [f"way{number}_{p}_{d}" for d in range(1, delay + 1) for p in span]
    out: dict[str, Any] = {}
    for p, row in zip(span, blending.tolist(), strict=True):
        coming = {way: row[n % len(row)] for n, way in enumerate(ways)}
        out[f"position{number}_{p}"] = {"weights": {f"level{number}_{p}": 1, **coming}}
    return out | {way: {"weights": {way: 1}} for way in ways}


def _own(blending: Matrix, delay: int) -> tuple[Matrix, Matrix]:
    """Own blocks (A, D): the stock, and with a delay the orders on their way, the next to arrive first."""
    products = len(blending)
    size = (1 + delay) * products
    A, D = np.zeros((size, size)), np.zeros((size, products))
    A[:products, :products] = np.eye(products)
    if not delay:
        D[:products] = blending
        return A, D
    A[:products, products : 2 * products] = blending
    A[products:-products, 2 * products :] = np.eye((delay - 1) * products)
    D[-products:] = np.eye(products)
    return A, D


GENERATOR = Generator(
    {
        "graph": "serial",
        "agents": 3,
        "products": 1,
        "delay": 0,
        "factors": 2,
        "theta_p": 0.2,
        "theta_d": 0.2,
        "stock": 10.0,
        "capacity": 2.5,
        "mixing": 0.1,
        "authority": 0.02,
        "seed": 0,
    },
    _sections,
    "Stocks that order from each other; an order is felt by its supplier at once and arrives after `delay` periods.",
)
