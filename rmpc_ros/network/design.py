"""Joint design of policies for a network of agents, under three information structures, behind one function.

    min  sum_i max J_i    s.t. dynamics, private constraints for all disturbances, and u_i(t) may depend on
    centralised : every agent's disturbances        nested : those of the agent and its precedents
    local       : the agent's own, and where its neighbours are inside the sets they announced

so that J(centralised) <= J(nested) <= J(local) (seed 004, theorems 1 and 3).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Integers, Matrix, Vector
from rmpc_ros.network.design_local import build_agent, join, scaled_forms
from rmpc_ros.network.model import Network
from rmpc_ros.network.primitive import Shape
from rmpc_ros.network.program_solve import assemble, solve
from rmpc_ros.network.robust_program import Block, RobustProgram
from rmpc_ros.network.rollout import (
    CostTables,
    Epigraph,
    Rollout,
    SignalKey,
    add_constraints,
    add_costs,
    declare_disturbances,
    roll_out,
)
from rmpc_ros.network.set_form import AnnouncedSet, SetForm

Structure = Literal["centralised", "nested", "local"]
STRUCTURES = ("centralised", "nested", "local")


@dataclass(frozen=True)
class AffinePolicy:
    """u(t) = gains[t] @ (1, w) over the named blocks of w.

    Attributes
    ----------
    gains : per stage (nu, 1 + len(w)), zero where the agent does not know the entry
    blocks : what the entries of w are (label "w<j>" or "s<j>:<signal>", stage)
    """

    gains: tuple[Matrix, ...]
    blocks: tuple[Block, ...]

    def input(self, t: int, w: Vector) -> Vector:
        """The input at stage t for w (entries not yet known may hold anything finite)."""
        u: Vector = self.gains[t] @ np.concatenate([[1.0], w])
        return u


@dataclass(frozen=True)
class NetworkDesign:
    """A checked solution of the joint design.

    Attributes
    ----------
    objective : sum of the agents' worst-case costs, agent_objectives its parts, (M,)
    policies : one per agent
    announced : per (sender, signal) and stage the set, None where the signal is a known point ("local" only)
    forms : how those sets are written ("local" only)
    sizes : variables, rows, nonzeros of the joint program; agent_sizes those of each agent's own ("local" only)
    build_seconds, solve_seconds : wall time of building, CPU time of solving the joint program
    """

    network: Network
    structure: Structure
    epigraph: Epigraph
    objective: float
    agent_objectives: Vector
    policies: tuple[AffinePolicy, ...]
    announced: dict[SignalKey, tuple[AnnouncedSet | None, ...]]
    forms: dict[SignalKey, SetForm]
    sizes: dict[str, int]
    agent_sizes: tuple[dict[str, int], ...]
    build_seconds: float
    solve_seconds: float
    solver: str


def design_network(
    network: Network,
    structure: Structure = "local",
    shape: Shape | None = None,
    epigraph: Epigraph = "constant",
    solver: str = "auto",
    forms: dict[SignalKey, SetForm] | None = None,
) -> NetworkDesign:
    """Design all agents' policies (and announced sets) in one program.

    Parameters
    ----------
    shape : for signals that do not name their own ("local" only); default: a box with one half-width per coordinate
    epigraph : "constant" (terms' worst cases added up) or "affine" (worst case of the sum)
    solver : "auto", "simplex", "ipm" or "conic"
    forms : ready-made set forms instead of shapes (block-coordinate descent)

    Raises
    ------
    InfeasibleError
        No admissible policies exist within this structure and shape.
    """
    if structure not in STRUCTURES:
        raise ConfigError(f"structure = {structure!r}; known: {', '.join(STRUCTURES)}")
    if structure == "local":
        return _local(network, forms if forms is not None else scaled_forms(network, shape), epigraph, solver)
    return _shared(network, structure, epigraph, solver)


def _shared(network: Network, structure: Structure, epigraph: Epigraph, solver: str) -> NetworkDesign:
    """Centralised and partially nested designs: one program over everybody's disturbances."""
    start = time.perf_counter()
    program = RobustProgram()
    agents = range(len(network.agents))
    graph = network.graph
    own = declare_disturbances(program, network, agents)
    heard = {i: tuple(agents) if structure == "centralised" else (i, *graph.precedents(i)) for i in agents}

    def knows(i: int, t: int) -> Integers:
        last = t + 1 if network.agents[i].sees_current else t
        columns = [own[j][k] for j in heard[i] for k in range(last)]
        return np.concatenate(columns) if columns else np.empty(0, np.int64)

    runs = roll_out(program, network, agents, own, knows, {})
    costs = []
    for i in agents:
        add_constraints(program, network.agents[i], runs[i], network.horizon)
        costs.append(add_costs(program, network.agents[i], runs[i], network.horizon, epigraph))
    data = assemble(program)
    built = time.perf_counter()
    answer = solve(data, solver)
    return NetworkDesign(
        network,
        structure,
        epigraph,
        answer.objective,
        np.array([cost_value(c, answer.x) for c in costs]),
        tuple(read_policy(runs[i], answer.x, program) for i in agents),
        {},
        {},
        data.sizes,
        (),
        built - start,
        answer.seconds,
        answer.solver,
    )


def _local(network: Network, forms: dict[SignalKey, SetForm], epigraph: Epigraph, solver: str) -> NetworkDesign:
    """Local design: the agents' own programs, tied by the numbers of the announced sets only."""
    start = time.perf_counter()
    programs = [build_agent(network, i, forms, epigraph) for i in range(len(network.agents))]
    joint = join(programs, forms)
    built = time.perf_counter()
    answer = solve(joint.data, solver)
    values = [answer.x[m] for m in joint.maps]
    shared = {key: [answer.x[index] for index in stages] for key, stages in joint.shared.items()}
    return NetworkDesign(
        network,
        "local",
        epigraph,
        answer.objective,
        np.array([cost_value(p.cost, v) for p, v in zip(programs, values, strict=True)]),
        tuple(read_policy(p.run, v, p.program) for p, v in zip(programs, values, strict=True)),
        read_sets(forms, shared),
        forms,
        joint.data.sizes,
        tuple(p.data.sizes for p in programs),
        built - start,
        answer.seconds,
        answer.solver,
    )


def cost_value(cost: CostTables, x: Vector) -> float:
    """An agent's worst-case cost at a solution."""
    return float(cost.linear.evaluate(x, 1)[0, 0] + np.sum(x[cost.squares] ** 2))


def read_policy(run: Rollout, x: Vector, program: RobustProgram) -> AffinePolicy:
    """The policy's numbers at a solution."""
    gains = []
    for index, columns in run.u_index:
        gain = np.zeros((index.shape[0], program.w.size))
        gain[:, columns] = x[index]
        gains.append(gain)
    return AffinePolicy(tuple(gains), tuple(program.w.blocks))


def read_sets(
    forms: dict[SignalKey, SetForm], shared: dict[SignalKey, list[Vector]]
) -> dict[SignalKey, tuple[AnnouncedSet | None, ...]]:
    """Announced sets from the shared numbers per signal and stage (empty: a known point)."""
    return {
        key: tuple(form.numbers(v, t) if v.size else None for t, v in enumerate(shared[key]))
        for key, form in forms.items()
    }
