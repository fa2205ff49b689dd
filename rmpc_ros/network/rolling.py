"""Rolling horizon: solve, apply the first inputs, see what happened, solve again for what is left.

The shrinking horizon of seeds 002 and 004: at stage k the remaining T - k stages are designed from the realised states,
so the information gained replaces the worst case assumed before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmpc_ros.network.affine_table import Matrix, Vector
from rmpc_ros.network.design import NetworkDesign, Structure, design_network
from rmpc_ros.network.model import Network
from rmpc_ros.network.primitive import Shape
from rmpc_ros.network.rollout import Epigraph
from rmpc_ros.network.simulate import run_cost, simulate, worst_violation


@dataclass(frozen=True)
class RollingRun:
    """One closed-loop run.

    Attributes
    ----------
    x, u : per agent (T+1, nx), (T, nu)
    costs : (M,) realised costs of the whole run
    bounds : (T,) the designs' worst-case objective at each stage (what was still to come)
    violation : largest excess over a private constraint
    seconds : (T,) solver time per stage
    """

    x: tuple[Matrix, ...]
    u: tuple[Matrix, ...]
    costs: Vector
    bounds: Vector
    violation: float
    seconds: Vector


def roll(
    network: Network,
    structure: Structure,
    w: list[Matrix],
    epigraph: Epigraph = "constant",
    shape: Shape | None = None,
    first: NetworkDesign | None = None,
) -> RollingRun:
    """Closed loop under one sequence of unit disturbances per agent, w[i] (T, k).

    Parameters
    ----------
    first : the design of stage 0 where it is known already (it does not depend on w)

    Raises
    ------
    InfeasibleError
        A later stage has no solution. It always has one by robust feasibility, up to solver tolerance.
    """
    x = [[a.x0.astype(float)] for a in network.agents]
    u: list[list[Vector]] = [[] for _ in network.agents]
    bounds, seconds = [], []
    for k in range(network.horizon):
        design = first if k == 0 and first is not None else None
        if design is None:
            design = design_network(network.tail(k, [s[-1] for s in x]), structure, shape, epigraph)
        bounds.append(design.objective)
        seconds.append(design.solve_seconds)
        step = simulate(design, [seq[k:] for seq in w], measured_disturbance=True, stages=1)
        for i in range(len(x)):
            u[i].append(step.u[i][0])
            x[i].append(step.x[i][1])
    states, moves = tuple(np.array(s) for s in x), tuple(np.array(m) for m in u)
    pairs = list(zip(network.agents, states, moves, strict=True))
    costs = np.array([run_cost(a, xs, us) for a, xs, us in pairs])
    violation = max(worst_violation(a, xs, us) for a, xs, us in pairs)
    return RollingRun(states, moves, costs, np.array(bounds), violation, np.array(seconds))
