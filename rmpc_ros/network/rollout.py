"""Agents' trajectories as tables: policies, states and signals affine in the uncertainty, costs as epigraphs.

    u_i(t) = v + sum over known uncertainty of (coefficient) w,   x_i(t+1) from the dynamics,

where "known" is what the information structure allows. The coefficients of the states are variables tied by equality
rows (the recursion keeps the program sparse); policies of this kind are equivalent to affine state feedback (Goulart,
Kerrigan, Maciejowski 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Integers, Table, stack, total
from rmpc_ros.network.model import Agent, Cost, Network, at
from rmpc_ros.network.robust_program import RobustProgram

Epigraph = Literal["constant", "affine"]
SignalKey = tuple[int, str]


@dataclass
class Rollout:
    """Tables of one agent.

    Attributes
    ----------
    x : T+1 states, u : T inputs, signals : T tables per signal name
    own : columns of the agent's own disturbance w at each stage
    u_index : per stage the variables (nu, columns) of the policy and their columns (column 0 first)
    """

    x: list[Table]
    u: list[Table]
    signals: dict[str, list[Table]]
    own: list[Integers]
    u_index: list[tuple[Integers, Integers]]


def declare_disturbances(program: RobustProgram, network: Network, agents: Sequence[int]) -> dict[int, list[Integers]]:
    """Append w_i(t) of the named agents to the program's uncertain vector; columns per agent and stage."""
    out: dict[int, list[Integers]] = {}
    for i in agents:
        disturbance = network.agents[i].disturbance
        k = disturbance.generator.shape[1]
        out[i] = [program.w.add(disturbance.kind, k, f"w{i}", t, disturbance.points) for t in range(network.horizon)]
    return out


def roll_out(
    program: RobustProgram,
    network: Network,
    agents: Sequence[int],
    own: Mapping[int, list[Integers]],
    knows: Callable[[int, int], Integers],
    received: Mapping[SignalKey, Sequence[Table]],
) -> dict[int, Rollout]:
    """Build policies and trajectories of the named agents.

    Parameters
    ----------
    own : columns of each agent's w per stage
    knows : (agent, stage) -> columns its input may depend on
    received : signals of agents outside `agents`, one table per stage
    """
    out = {
        i: Rollout(
            [Table.constant(network.agents[i].x0)], [], {s.name: [] for s in network.agents[i].signals}, own[i], []
        )
        for i in agents
    }
    for t in range(network.horizon):
        for i in agents:
            agent, run = network.agents[i], out[i]
            columns = np.concatenate([[0], np.sort(knows(i, t))]).astype(np.int64)
            index = program.new(agent.nu * columns.size).reshape(agent.nu, columns.size)
            run.u_index.append((index, columns))
            run.u.append(Table.variables(index, columns))
            for signal in agent.signals:
                parts = [Table.zeros(signal.size)]
                parts += [] if signal.C is None else [run.x[t].left(signal.C)]
                parts += [] if signal.F is None else [run.u[t].left(signal.F)]
                parts += [] if signal.G is None else [_disturbance(agent, run, t).left(signal.G)]
                run.signals[signal.name].append(total(parts))
        for i in agents:
            _advance(program, network, i, t, out, received)
    return out


def _disturbance(agent: Agent, run: Rollout, t: int) -> Table:
    d = agent.disturbance
    return Table.constant(d.centre_at(t)) + Table.numbers(d.generator.shape[0], run.own[t], d.generator)


def _advance(
    program: RobustProgram,
    network: Network,
    i: int,
    t: int,
    out: Mapping[int, Rollout],
    received: Mapping[SignalKey, Sequence[Table]],
) -> None:
    agent, run = network.agents[i], out[i]
    parts = [
        Table.constant(agent.offset_at(t)),
        run.x[t].left(at(agent.A, t)),
        run.u[t].left(at(agent.D, t)),
        _disturbance(agent, run, t).left(at(agent.E, t)),
    ]
    for coupling in agent.couplings:
        sender = out.get(coupling.sender)
        signal = sender.signals[coupling.signal] if sender else received[coupling.sender, coupling.signal]
        parts.append(signal[t].left(at(coupling.matrix, t)))
    new = total(parts)
    columns = np.union1d(new.columns(), [0])
    state = Table.variables(program.new(agent.nx * columns.size).reshape(agent.nx, -1), columns)
    program.equal_zero(new - state)
    run.x.append(state)


def add_constraints(program: RobustProgram, agent: Agent, run: Rollout, horizon: int) -> None:
    """The agent's private constraints, for every value of the uncertainty."""
    for c in agent.constraints:
        last = c.last if c.last is not None else (horizon if c.Hu is None else horizon - 1)
        for t in range(c.first, last + 1):
            parts = [Table.zeros(c.upper.size)]
            parts += [] if c.Hx is None else [run.x[t].left(c.Hx)]
            parts += [] if c.Hu is None else [run.u[t].left(c.Hu)]
            e = total(parts)
            if c.lower is not None and np.array_equal(c.lower, -c.upper):
                program.robust_abs_le(e, Table.constant(c.upper))
                continue
            program.robust_le(e, c.upper)
            if c.lower is not None:
                program.robust_le(e.times(-1.0), -c.lower)


@dataclass(frozen=True)
class CostTables:
    """An agent's worst-case cost: entries of `linear` (column 0) plus the squares of `squares`, summed."""

    linear: Table
    squares: Integers


def add_costs(program: RobustProgram, agent: Agent, run: Rollout, horizon: int, epigraph: Epigraph) -> CostTables:
    """Bound the agent's cost for every value of the uncertainty.

    "constant": each term has its own worst case, and these are added up. "affine": each term's epigraph variable is
    affine in the uncertainty, and the worst case is taken of the sum (never larger). Euclidean norms and squares use
    the componentwise worst case m_k >= abs(r_k): norm2(m), sum m_k^2; an upper bound, exact for one component.
    """
    terms: list[Table] = []
    squares: list[Integers] = []
    for cost in agent.costs:
        last = cost.last if cost.last is not None else (horizon if cost.Mu is None else horizon - 1)
        for t in range(cost.first, last + 1):
            r = _residual(cost, agent, run, t)
            if cost.kind in ("norm2", "square"):
                if epigraph == "affine":
                    raise ConfigError(f"agent '{agent.name}': cost '{cost.kind}' takes the constant epigraph only")
                m = _componentwise(program, r)
                if cost.kind == "square":
                    squares.append(m)
                    continue
                tau = Table.variables(program.new(1, 0.0)[:, None], [0])
                program.cones.append(stack([tau, Table.variables(m[:, None], [0])]))
                terms.append(tau)
            elif epigraph == "constant":
                terms.append(_constant_epigraph(program, cost, r))
            else:
                terms.append(_affine_epigraph(program, cost, r))
    linear = Table.zeros(1)
    if terms:
        everything = stack(terms)
        linear = everything.left(np.ones((1, everything.rows)))
        if epigraph == "affine":
            linear = Table.variables(program.at_least(linear)[:, None], [0])
    index = np.concatenate(squares) if squares else np.empty(0, np.int64)
    program.minimise(linear)
    if index.size:
        program.minimise_squares(index)
    return CostTables(linear, index)


def _residual(cost: Cost, agent: Agent, run: Rollout, t: int) -> Table:
    size = next(m.shape[-2] for m in (cost.Mx, cost.Mu) if m is not None)
    parts = [Table.zeros(size)]
    parts += [] if cost.Mx is None else [run.x[t].left(at(cost.Mx, t))]
    parts += [] if cost.Mu is None else [run.u[t].left(at(cost.Mu, t))]
    if cost.m0 is not None:
        parts.append(Table.constant(cost.m0[t] if cost.m0.ndim == 2 else cost.m0))
    return total(parts)


def _componentwise(program: RobustProgram, r: Table) -> Integers:
    """Variables m with m_k >= abs(r_k) for all w; m = r where nothing is uncertain (only its square or norm counts)."""
    if np.any(r.col > 0):
        return program.at_least_abs(r)
    m = program.new(r.rows)
    program.equal_zero(r - Table.variables(m[:, None], [0]))
    return m


def _constant_epigraph(program: RobustProgram, cost: Cost, r: Table) -> Table:
    if cost.kind == "abs":
        return Table.variables(program.at_least_abs(r)[:, None], [0])
    tau = Table.variables(program.new(1)[:, None], [0])
    program.robust_le(r - tau.left(np.ones((r.rows, 1))))
    return tau


def _affine_epigraph(program: RobustProgram, cost: Cost, r: Table) -> Table:
    columns = np.union1d(r.columns(), [0])
    rows = r.rows if cost.kind == "abs" else 1
    tau = Table.variables(program.new(rows * columns.size).reshape(rows, -1), columns)
    if cost.kind == "abs":
        program.robust_le(stack([r - tau, r.times(-1.0) - tau]))
    else:
        program.robust_le(r - tau.left(np.ones((r.rows, 1))))
    return tau
