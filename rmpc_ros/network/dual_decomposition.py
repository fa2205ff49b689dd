"""Shared resources by prices: steam, cooling water, a raw material that several agents draw from one header.

    min  sum_i f_i   s.t.  g_i(u_i(t)) <= c_i(t) for all disturbances,   sum_i c_i(t) <= capacity(t).

c_i is agent i's share: its WORST-CASE use, so that the sum never exceeds the capacity whatever happens. Shares are
found by exchange ADMM, a dual decomposition with a quadratic term (Boyd et al. 2011, section 7.3.2): each agent answers
a price with its wish, the price rises where the wishes exceed the capacity; a slack takes what nobody wants,

    c_i = argmin f_i + rho/2 norm2(c - (c_i - excess - l))^2,   excess = mean(sum c - capacity),   l += excess,

and rho l are the prices. The excess is a mean, which agents without a centre agree on by average consensus. What counts
are not wishes but `safe_shares`: a rule that everyone computes alike and that no wish, however large, can break.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Matrix, Vector
from rmpc_ros.network.consensus import average_consensus, metropolis_weights, rounds_for
from rmpc_ros.network.graph import Graph


class Participant(Protocol):
    """Someone who uses the resource."""

    def solve(self, targets: Vector) -> Vector:
        """Argmin f + rho/2 norm2(c - targets)^2, (T,)."""
        ...


@dataclass(frozen=True)
class ShareResult:
    """What a round of price negotiation found.

    Attributes
    ----------
    wishes : (M, T) the agents' last answers
    shares : (M, T) safe shares: their sum is within the capacity always
    prices : (T,) price of a unit per stage, not negative up to the residual
    excess, change : per iteration the largest sum of wishes beyond capacity, and the largest change of a price
    """

    wishes: Matrix
    shares: Matrix
    prices: Vector
    excess: Vector
    change: Vector
    converged: bool


def share_resource(
    participants: Sequence[Participant],
    capacity: Vector,
    rho: float,
    guaranteed: Matrix | None = None,
    iterations: int = 200,
    tolerance: float = 1e-4,
    graph: Graph | None = None,
    mixing: float = 1e-6,
) -> ShareResult:
    """Negotiate shares of one resource.

    Parameters
    ----------
    capacity : (T,)
    rho : the weight that the participants use too
    guaranteed : (M, T) what each agent may use without asking; default nothing
    graph : where given, the mean excess is agreed on by average consensus over it instead of by a centre
    mixing : share to which that has shrunk the differences when it counts; how many rounds this takes is the graph's
    """
    count, stages = len(participants), capacity.size
    wishes, slack = np.zeros((count, stages)), capacity.copy()
    estimate, price = np.zeros((count, stages)), np.zeros((count, stages))
    weights = metropolis_weights(graph) if graph is not None else None
    rounds = rounds_for(weights, mixing) if weights is not None else 0
    excess_history, change_history = [], []
    converged = False
    for _ in range(iterations):
        for i, p in enumerate(participants):
            wishes[i] = p.solve(wishes[i] - estimate[i] - price[i])
        slack = np.maximum(0.0, slack - estimate.mean(axis=0) - price.mean(axis=0))
        gap = (wishes.sum(axis=0) + slack - capacity) / (count + 1)
        if weights is None:
            estimate = np.tile(gap, (count, 1))
        else:  # each agent starts from its own wish; the slack and the capacity are shared out equally
            local = (wishes + (slack - capacity) / count) * count / (count + 1)
            estimate = average_consensus(weights, local, rounds)
        price = price + estimate
        excess_history.append(float(np.max(wishes.sum(axis=0) - capacity)))
        change_history.append(float(rho * np.max(np.abs(gap))))
        settled = len(change_history) > 1 and abs(change_history[-2]) <= tolerance
        if change_history[-1] <= tolerance and settled and excess_history[-1] <= tolerance * max(1.0, capacity.max()):
            converged = True
            break
    floor = np.zeros_like(wishes) if guaranteed is None else guaranteed
    shares = safe_shares(wishes, capacity, floor)
    return ShareResult(
        wishes,
        shares,
        rho * price.mean(axis=0),
        np.array(excess_history),
        np.array(change_history),
        converged,
    )


def safe_shares(wishes: Matrix, capacity: Vector, guaranteed: Matrix) -> Matrix:
    """Shares (M, T) whose sum never exceeds the capacity, whatever the wishes.

    Each agent gets its wish up to its guaranteed part; what is left goes to the rest of the wishes in proportion. An
    agent that asks too much takes nothing from anyone's guaranteed part; one that does not answer (NaN) keeps its own.

    Raises
    ------
    ConfigError
        The guaranteed parts alone exceed the capacity.
    """
    if np.any(guaranteed.sum(axis=0) > capacity * (1 + 1e-9)):
        raise ConfigError(f"resource: guaranteed {guaranteed.sum(axis=0)} exceeds the capacity {capacity}")
    wanted = np.where(np.isnan(wishes), guaranteed, np.clip(wishes, 0.0, capacity))
    base = np.minimum(wanted, guaranteed)
    silent = np.isnan(wishes)
    base = np.where(silent, guaranteed, base)
    extra = wanted - base
    left = capacity - base.sum(axis=0)
    total = extra.sum(axis=0)
    factor = np.where(total > left, left / np.maximum(total, 1e-300), 1.0)
    return np.asarray(base + factor * extra, float)
