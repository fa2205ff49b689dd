"""Average consensus: agents that talk to neighbours only come to know the mean of all their numbers.

    a_i(k+1) = a_i(k) + sum over neighbours j of W_ij (a_j(k) - a_i(k)),   W_ij = 1 / (1 + max(degree_i, degree_j))

(Metropolis weights: symmetric, each agent needs its neighbours' degrees only; Xiao, Boyd, Lall 2005). The mean is kept
exactly in every round and the error shrinks by the second largest eigenvalue of the weight matrix.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Matrix, Vector
from rmpc_ros.network.graph import Graph


def metropolis_weights(graph: Graph) -> Matrix:
    """(M, M) doubly stochastic weights over the undirected version of the graph.

    Raises
    ------
    ConfigError
        The graph is not connected: then no mean can be agreed on.
    """
    around = [{*graph.neighbours(i), *graph.followers(i)} for i in range(graph.size)]
    reached, queue = {0}, [0]
    while queue:
        new = around[queue.pop()] - reached
        reached |= new
        queue += sorted(new)
    if len(reached) < graph.size:
        raise ConfigError(
            f"consensus: agents {sorted(set(range(graph.size)) - reached)} cannot be reached from agent 0"
        )
    weights = np.zeros((graph.size, graph.size))
    for i, others in enumerate(around):
        for j in others:
            weights[i, j] = 1.0 / (1 + max(len(others), len(around[j])))
        weights[i, i] = 1.0 - weights[i].sum()
    return weights


def average_consensus(weights: Matrix, values: Matrix, rounds: int) -> Matrix:
    """Each agent's estimate of the mean of the rows of `values` (M, K) after some rounds, (M, K)."""
    out: Matrix = np.linalg.matrix_power(weights, rounds) @ values
    return out


def rounds_for(weights: Matrix, tolerance: float) -> int:
    """Rounds after which the largest deviation has shrunk at least by `tolerance`."""
    sizes: Vector = np.sort(np.abs(np.linalg.eigvalsh(weights)))[::-1]
    second = float(sizes[1]) if sizes.size > 1 else 0.0
    return 1 if second <= 0.0 else int(np.ceil(np.log(tolerance / np.sqrt(len(weights))) / np.log(second)))
