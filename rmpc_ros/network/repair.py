"""From a half-converged negotiation to sets that everybody can live with, or an honest "not yet".

Averages of half-agreed sets are usually infeasible where agents affect each other both ways, and widening all of them
uniformly fails. The repair first asks whether the sets hold as they are. If not, it widens only what is too narrow,
where it is: with all sets published, each agent solves its own problem with the received sets fixed and its own
growing,

    min  f_i + penalty * sum of growth   s.t.  received sets as published,  own y >= published y,  own z as published.

Growth is published and the round repeated; a round without growth is a feasible joint design, because every agent's
policy was computed against exactly the sets that the others keep. If an agent has no solution, or growth does not stop,
the answer is None: keep negotiating and stay with what was promised before. Works on any published numbers, uses
neighbours' messages only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from rmpc_ros.errors import ConfigError, InfeasibleError
from rmpc_ros.network.admm import Negotiation
from rmpc_ros.network.affine_table import Integers, Vector
from rmpc_ros.network.design import NetworkDesign, cost_value, read_policy, read_sets
from rmpc_ros.network.program_solve import solve
from rmpc_ros.network.set_form import ScaledForm


@dataclass(frozen=True)
class RepairOptions:
    """Rounds of widening, price of growth over the largest cost coefficient, growth below which sets count as kept."""

    rounds: int = 12
    penalty: float = 300.0
    tolerance: float = 1e-7


@dataclass(frozen=True)
class Repair:
    """Outcome of a repair: the design or None ("not yet"), and each round's solver seconds per agent."""

    design: NetworkDesign | None
    seconds: tuple[Vector, ...]

    @property
    def parallel_seconds(self) -> float:
        """What a network of M computers would have taken: the slowest agent of each round."""
        return float(sum(s.max() for s in self.seconds))

    @property
    def total_seconds(self) -> float:
        """All agents' seconds."""
        return float(sum(s.sum() for s in self.seconds))


def implement(negotiation: Negotiation, options: RepairOptions | None = None) -> NetworkDesign | None:
    """A feasible joint design near the negotiation's current numbers, or None ("not yet")."""
    return repair(negotiation, options).design


def repair(negotiation: Negotiation, options: RepairOptions | None = None) -> Repair:
    """Widen and re-solve until the published sets hold together, see the module's text.

    The design's policies and sets hold together exactly as those of `design_network`; its `solver` says "admm".
    """
    o = options or RepairOptions()
    for form in negotiation.forms.values():
        if not isinstance(form, ScaledForm):
            raise ConfigError("repair widens scales: it needs forms with scales (shapes), not free matrices")
    values = negotiation.state.values.copy()
    scale = _scale_numbers(negotiation)
    values[scale] = np.maximum(values[scale], 0.0)
    times: list[Vector] = []
    for turn in range(o.rounds):
        may_grow = turn > 0  # first ask whether the sets hold as they are
        seconds = np.zeros(len(negotiation.programs))
        times.append(seconds)
        solutions: list[Vector] = []
        grown = values.copy()
        try:
            for i in range(len(negotiation.programs)):
                begin = time.process_time()
                solutions.append(_answer(negotiation, i, values, scale, o, may_grow))
                seconds[i] = time.process_time() - begin
                own, shared = _own_scales(negotiation, i, scale)
                grown[shared] = np.maximum(values[shared], solutions[i][own])
        except InfeasibleError:
            if may_grow:
                return Repair(None, tuple(times))
            continue
        if float(np.max(grown - values, initial=0.0)) <= o.tolerance:
            return Repair(_as_design(negotiation, values, solutions), tuple(times))
        values = grown
    return Repair(None, tuple(times))


def _scale_numbers(n: Negotiation) -> Integers:
    """Positions of all scales (not centres) among the shared numbers."""
    parts = [index[: n.forms[key].scales] for key, stages in n.numbers.items() for index in stages if index.size]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def _own_scales(n: Negotiation, i: int, scale: Integers) -> tuple[Integers, Integers]:
    """(own variables, shared numbers) of the scales of the sets that agent i sends."""
    index, ids = n.solvers[i].index, n.ids[i]
    mine = (n.owner[ids] == i) & np.isin(ids, scale)
    return index[mine], ids[mine]


def _answer(n: Negotiation, i: int, values: Vector, scale: Integers, o: RepairOptions, may_grow: bool) -> Vector:
    """Agent i's solution with the published sets; its own keep their scales, or may grow at a price."""
    data = n.programs[i].data
    lower, upper, cost = data.lower.copy(), data.upper.copy(), data.cost.copy()
    index, ids = n.solvers[i].index, n.ids[i]
    own, shared = _own_scales(n, i, scale)
    lower[index] = upper[index] = values[ids]
    if may_grow:
        upper[own] = np.inf
        cost[own] += o.penalty * float(np.max(np.abs(data.cost), initial=1.0))
    else:
        upper[own] = values[shared] + 0.5 * o.tolerance
    return solve(replace(data, lower=lower, upper=upper, cost=cost)).x


def _as_design(n: Negotiation, values: Vector, solutions: list[Vector]) -> NetworkDesign:
    objectives = np.array([cost_value(p.cost, x) for p, x in zip(n.programs, solutions, strict=True)])
    shared = {key: [values[index] for index in stages] for key, stages in n.numbers.items()}
    return NetworkDesign(
        n.network,
        "local",
        n.epigraph,
        float(objectives.sum()),
        objectives,
        tuple(read_policy(p.run, x, p.program) for p, x in zip(n.programs, solutions, strict=True)),
        read_sets(n.forms, shared),
        n.forms,
        {},
        tuple(p.data.sizes for p in n.programs),
        0.0,
        float(sum(s.seconds for s in n.solvers)),
        "admm",
    )
