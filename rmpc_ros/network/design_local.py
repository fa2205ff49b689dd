"""One agent's own design problem with its neighbours' sets, and the joint problem made of all of them.

    min  max_{xi_i, s_N} J_i   s.t.  own constraints for all xi_i and all zeta_j = Y_j s_j + z_j,   p_i(t) in X_i(t).

The agents' programs share nothing but the numbers (y, z) of the announced sets: `join` identifies the copies, ADMM
(`admm.py`) brings them to agreement. Seed 002 section 4, seed 004 problem 8b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmpc_ros.network.affine_table import CONSTANT, Integers, Table
from rmpc_ros.network.model import Network, Signal
from rmpc_ros.network.primitive import Shape, box
from rmpc_ros.network.program_solve import ProgramData, assemble
from rmpc_ros.network.robust_program import RobustProgram
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
from rmpc_ros.network.set_form import ScaledForm, SetForm


@dataclass(frozen=True)
class AgentProgram:
    """One agent's problem, ready to solve alone.

    Attributes
    ----------
    shared : per signal the agent sends or receives, and per stage, its own variables for the set's numbers
    """

    agent: int
    program: RobustProgram
    data: ProgramData
    run: Rollout
    cost: CostTables
    shared: dict[SignalKey, list[Integers]]


def form_label(sender: int, signal: Signal) -> str:
    """Name of a signal's uncertainty in programs and policies."""
    return f"s{sender}:{signal.name}"


def scaled_forms(network: Network, shape: Shape | None = None) -> dict[SignalKey, SetForm]:
    """A scaled form for every signal that somebody receives; the signal's own shape, else `shape`, else a box."""
    out: dict[SignalKey, SetForm] = {}
    for sender, signal in network.sent_signals():
        chosen = signal.shape or shape or box(signal.size)
        out[sender, signal.name] = ScaledForm(signal, form_label(sender, signal), network.horizon, chosen)
    return out


def build_agent(network: Network, i: int, forms: dict[SignalKey, SetForm], epigraph: Epigraph) -> AgentProgram:
    """The program of agent i with its own copies of all sets that it sends or receives."""
    agent = network.agents[i]
    program = RobustProgram()
    own = declare_disturbances(program, network, [i])
    received_keys = sorted({(c.sender, c.signal) for c in agent.couplings})
    sent_keys = [key for key in forms if key[0] == i]
    shared = {key: forms[key].allocate(program) for key in (*sent_keys, *received_keys)}
    received: dict[SignalKey, list[Table]] = {}
    heard: list[tuple[int, Integers]] = []
    for key in received_keys:
        form, sender = forms[key], network.agents[key[0]]
        received[key] = []
        for t in range(network.horizon):
            if form.is_point(t):
                assert form.signal.C is not None
                received[key].append(Table.constant(form.signal.C @ sender.x0))
                continue
            columns = form.declare(program, t)
            heard.append((t, columns))
            received[key].append(form.zeta(shared[key][t], columns, t))

    def knows(_: int, t: int) -> Integers:
        last = t + 1 if agent.sees_current else t
        columns = [own[i][k] for k in range(last)] + [c for stage, c in heard if stage <= t - network.delay]
        return np.concatenate(columns) if columns else np.empty(0, np.int64)

    run = roll_out(program, network, [i], own, knows, received)[i]
    add_constraints(program, agent, run, network.horizon)
    for key in sent_keys:
        for t in range(network.horizon):
            if not forms[key].is_point(t):
                forms[key].contain(program, run.signals[key[1]][t], shared[key][t], t)
    cost = add_costs(program, agent, run, network.horizon, epigraph)
    return AgentProgram(i, program, assemble(program), run, cost, shared)


@dataclass(frozen=True)
class JointProgram:
    """All agents' programs as one; `maps[i]` gives the joint number of each of agent i's variables."""

    data: ProgramData
    maps: tuple[Integers, ...]
    shared: dict[SignalKey, list[Integers]]


def join(programs: list[AgentProgram], forms: dict[SignalKey, SetForm]) -> JointProgram:
    """Identify the copies of the announced sets' numbers and stack everything else."""
    count = 0
    shared: dict[SignalKey, list[Integers]] = {}
    sender = {p.agent: p for p in programs}
    for key in forms:
        flat = _flat(sender[key[0]].shared[key])
        numbers, place = np.unique(flat, return_inverse=True)
        sizes = np.cumsum([a.size for a in sender[key[0]].shared[key]])[:-1]
        shared[key] = list(np.split(count + place, sizes))
        count += numbers.size
    maps = []
    for p in programs:
        index = np.full(p.data.cost.size, -1, np.int64)
        for key, stages in p.shared.items():
            index[_flat(stages)] = _flat(shared[key])
        private = np.flatnonzero(index < 0)
        index[private] = count + np.arange(private.size)
        count += private.size
        maps.append(index)
    cost, square = np.zeros(count), np.zeros(count)
    lower, upper = np.full(count, -np.inf), np.full(count, np.inf)
    cones: list[Table] = []
    matrices: list[tuple[int, Table]] = []
    blocks = []
    for p, index in zip(programs, maps, strict=True):
        d = p.data
        np.add.at(cost, index, d.cost)
        np.add.at(square, index, d.square)
        lower[index] = np.maximum(lower[index], d.lower)
        upper[index] = np.minimum(upper[index], d.upper)
        m = sparse.coo_array(d.matrix)
        blocks.append(sparse.csr_array(sparse.coo_array((m.data, (m.row, index[m.col])), shape=(m.shape[0], count))))
        cones += [_renumbered(c, index) for c in d.cones]
        matrices += [(order, _renumbered(c, index)) for order, c in d.matrices]
    data = ProgramData(
        cost,
        square,
        sum(p.data.constant for p in programs),
        sparse.csr_array(sparse.vstack(blocks, format="csr")),
        np.concatenate([p.data.row_lower for p in programs]),
        np.concatenate([p.data.row_upper for p in programs]),
        lower,
        upper,
        tuple(cones),
        tuple(matrices),
    )
    return JointProgram(data, tuple(maps), shared)


def _flat(stages: list[Integers]) -> Integers:
    return np.concatenate(stages) if stages else np.empty(0, np.int64)


def _renumbered(table: Table, index: Integers) -> Table:
    var = np.where(table.var == CONSTANT, CONSTANT, index[np.maximum(table.var, 0)])
    return Table(table.rows, table.row, table.col, var, table.val)
