"""A chain of masses between springs and dampers (seed 002 section 5.2), each mass an agent.

    m_i p_i'' = sum over neighbours j of k_ij (p_j - p_i) + d_ij (p_j' - p_i') + u_i,   free ends,

discretised by forward Euler, which keeps the network's sparsity: x_i = (position, velocity). The cost is
sum abs(p_i) + 0.1 abs(u_i), bounds are norm_inf(x) <= 6 and abs(u) <= 4, and E = e I multiplies a disturbance in the
unit box.
T counts the states x_1..x_T, so T - 1 stages are designed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Vector
from rmpc_ros.network.graph import Graph, topology
from rmpc_ros.network.model import (
    Agent,
    Coupling,
    Disturbance,
    Network,
    box_constraints,
    norm_cost,
    state_signal,
)

# One draw of masses (kg), springs (N/m), dampers (Ns/m) and initial positions; seed 0 means its first M masses.
_DRAW = {
    "m": (8.184808, 6.348934, 5.204868, 5.082638, 9.066351, 9.563778, 8.033179, 8.647483),
    "k": (0.854039, 1.088595, 1.010142, 0.924097, 0.994334, 1.155795, 1.173617),
    "d": (1.032133, 0.919478, 1.068798, 0.879806, 1.176845, 0.946044, 0.842198),
    "p0": (2.88717, 2.743261, -2.107416, 2.835773, 2.339613, 1.934243, -0.120072, -1.605762),
}


@dataclass(frozen=True)
class SpringParameters:
    """Masses (M,), springs and dampers per edge, initial positions (M,)."""

    masses: Vector
    springs: Vector
    dampers: Vector
    positions: Vector


def draw_parameters(graph: Graph, seed: int) -> SpringParameters:
    """Uniform draws from the paper's intervals; seed 0 with at most 8 masses in a chain is the stored draw."""
    size, edges = graph.size, len(graph.arcs) // 2
    if seed == 0 and size <= 8 and graph == topology("chain", size):
        return SpringParameters(
            np.array(_DRAW["m"][:size]),
            np.array(_DRAW["k"][:edges]),
            np.array(_DRAW["d"][:edges]),
            np.array(_DRAW["p0"][:size]),
        )
    rng = np.random.default_rng(seed)
    return SpringParameters(
        rng.uniform(5, 10, size), rng.uniform(0.8, 1.2, edges), rng.uniform(0.8, 1.2, edges), rng.uniform(-3, 3, size)
    )


def spring_network(
    graph: Graph, T: int = 8, Ts: float = 1.0, e: float = 0.2, seed: int = 0, p: float = 1.0, soften: bool = False
) -> Network:
    """Masses coupled along the edges of an undirected graph.

    Parameters
    ----------
    T : number of states x_1..x_T
    Ts : sampling time in seconds
    e : size of the disturbance in each state
    p : norm of the costs (1, 2 or inf)
    soften : divide springs and dampers by half the largest number of neighbours, so that no mass is held more stiffly
        than one inside a chain (the centre of a star would leave its bounds otherwise)

    Raises
    ------
    ConfigError
        T below 2 or a coupling that is not mutual.
    """
    if T < 2:
        raise ConfigError(f"spring chain: T = {T}; at least 2 states")
    edges = sorted({(min(a), max(a)) for a in graph.arcs})
    if 2 * len(edges) != len(graph.arcs):
        raise ConfigError("spring chain: springs act both ways; give an undirected graph")
    q = draw_parameters(graph, seed)
    if soften:
        share = max(len(graph.neighbours(i)) for i in range(graph.size)) / 2
        q = SpringParameters(q.masses, q.springs / max(share, 1.0), q.dampers / max(share, 1.0), q.positions)
    agents = []
    for i in range(graph.size):
        mine = [(n, a if b == i else b) for n, (a, b) in enumerate(edges) if i in (a, b)]
        stiffness, damping = sum(q.springs[n] for n, _ in mine), sum(q.dampers[n] for n, _ in mine)
        couplings = tuple(
            Coupling(j, "x", Ts / q.masses[i] * np.array([[0.0, 0.0], [q.springs[n], q.dampers[n]]])) for n, j in mine
        )
        agents.append(
            Agent(
                f"mass{i + 1}",
                A=np.eye(2) + Ts * np.array([[0.0, 1.0], [-stiffness / q.masses[i], -damping / q.masses[i]]]),
                D=np.array([[0.0], [Ts / q.masses[i]]]),
                E=e * np.eye(2),
                x0=np.array([q.positions[i], 0.0]),
                disturbance=Disturbance.box([-1, -1], [1, 1]),
                couplings=couplings,
                signals=(state_signal(2),),
                constraints=box_constraints(2, 1, 6.0, 4.0),
                costs=(norm_cost(x=np.array([[1.0, 0.0]]), p=p, last=T - 1), norm_cost(u=np.array([[0.1]]), p=p)),
            )
        )
    return Network(tuple(agents), T - 1)
