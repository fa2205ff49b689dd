"""A chain of masses between springs and dampers (seed 002 section 5.2), each mass an agent.

The equations of `rmpc_ros.plants.spring_chain` on any undirected graph,

    m_i p_i'' = sum over neighbours j of k_ij (p_j - p_i) + d_ij (p_j' - p_i') + u_i,   free ends,

discretised by forward Euler, which keeps the network's sparsity: x_i = (position, velocity). The cost is
sum abs(p_i) + 0.1 abs(u_i), bounds are norm_inf(x) <= 6 and abs(u) <= 4, and E = e I multiplies a disturbance in the
unit box.
T counts the states x_1..x_T, so T - 1 stages are designed.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.graph import Graph
from rmpc_ros.network.model import (
    Agent,
    Coupling,
    Disturbance,
    Network,
    box_constraints,
    norm_cost,
    state_signal,
)
from rmpc_ros.plants.spring_chain import SpringParameters, accelerations, draw_parameters


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
    q = draw_parameters(graph.size, edges, seed)
    if soften:
        share = max(len(graph.neighbours(i)) for i in range(graph.size)) / 2
        q = SpringParameters(q.masses, q.springs / max(share, 1.0), q.dampers / max(share, 1.0), q.positions)
    size, eye = graph.size, np.eye(3 * graph.size)  # accelerations of unit positions, velocities and forces: a matrix
    moved = np.array(
        accelerations(edges, eye[:size], eye[size : 2 * size], eye[2 * size :], q.masses, q.springs, q.dampers)
    )
    agents = []
    for i in range(size):
        couplings = tuple(
            Coupling(j, "x", Ts * np.array([[0.0, 0.0], [moved[i, j], moved[i, size + j]]]))
            for j in sorted({b if a == i else a for a, b in edges if i in (a, b)})
        )
        agents.append(
            Agent(
                f"mass{i + 1}",
                A=np.eye(2) + Ts * np.array([[0.0, 1.0], [moved[i, i], moved[i, size + i]]]),
                D=np.array([[0.0], [Ts * moved[i, 2 * size + i]]]),
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
