"""Agreement on announced sets without a centre: consensus ADMM on the shared numbers (Y, z).

Each agent keeps copies c of the numbers of the sets it sends and receives; copies of the same number must agree.

    parallel    c_i = argmin f_i + sum w/2 (c - v + l_i)^2,  r_i = a c_i + (1-a) v,
                v = mean_i(r_i + l_i),  l_i = l_i + r_i - v
    sequential  the same on pairs (sender, receiver), colour after colour: within a sweep everybody uses what the
                colours before it just sent; dual step 1.6 (two colours: two-block ADMM, convergent below 1.618)

The weights w may grow along the horizon (later sets are more uncertain and must agree more), rho is balanced on the
residuals, and everything is local: own problem, average over the copies, dual step. Sources: seed 004 appendix B.2;
Boyd et al. 2011, sections 3.3, 3.4.1, 3.4.3 and 7.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Integers, Vector
from rmpc_ros.network.design_local import AgentProgram, build_agent, join, scaled_forms
from rmpc_ros.network.local_solver import LocalSolver
from rmpc_ros.network.model import Network
from rmpc_ros.network.primitive import Shape
from rmpc_ros.network.rollout import Epigraph, SignalKey
from rmpc_ros.network.set_form import SetForm


@dataclass(frozen=True)
class AdmmOptions:
    """How agents negotiate.

    Attributes
    ----------
    mode : "sequential" (colour after colour) or "parallel" (all at once)
    rho : weight of the quadratic pull
    dual_step : step of the multipliers in sequential mode, in (0, 1.618)
    over_relaxation : a in (0, 2) of parallel mode
    horizon_growth : weights grow by this factor per stage
    balance : double or halve rho when one residual exceeds ten times the other
    primal, dual : the residuals' root mean squares at which to stop
    """

    mode: Literal["sequential", "parallel"] = "sequential"
    rho: float = 1.0
    dual_step: float = 1.6
    over_relaxation: float = 1.6
    horizon_growth: float = 1.0
    balance: bool = False
    max_iterations: int = 60
    primal: float = 1e-4
    dual: float = 1e-4

    def __post_init__(self) -> None:
        if self.mode not in ("sequential", "parallel"):
            raise ConfigError(f"admm mode = {self.mode!r}; known: sequential, parallel")
        if not 0 < self.dual_step < 1.6181 or not 0 < self.over_relaxation < 2 or not self.rho > 0:
            raise ConfigError(
                f"admm: wanted are dual_step = {self.dual_step} in (0, 1.618), "
                f"over_relaxation = {self.over_relaxation} in (0, 2), rho = {self.rho} > 0"
            )


@dataclass
class AdmmState:
    """What a negotiation can be continued or warm-started from.

    Attributes
    ----------
    values : (K,) agreed numbers (parallel: the average; sequential: the sender's)
    copies, duals : per agent, its copies and scaled multipliers
    rho : the weight the multipliers are scaled by
    """

    values: Vector
    copies: list[Vector]
    duals: list[Vector]
    rho: float

    def copy(self) -> AdmmState:
        """An independent copy."""
        return AdmmState(self.values.copy(), [c.copy() for c in self.copies], [d.copy() for d in self.duals], self.rho)


@dataclass(frozen=True)
class AdmmStep:
    """One iteration: cost at the agents' own copies, residuals, and times.

    Attributes
    ----------
    primal, dual : root mean square of the copies' disagreement, and of rho times the change of the agreed numbers
    agent_seconds : (M,) each agent's own solve
    parallel_seconds : what a network of M computers would have taken (the slowest agent, per colour)
    """

    objective: float
    primal: float
    dual: float
    agent_seconds: Vector
    parallel_seconds: float


@dataclass(frozen=True)
class AdmmResult:
    """A negotiation: all its steps, whether the residuals reached their bounds, and the state to go on from."""

    steps: tuple[AdmmStep, ...]
    converged: bool
    state: AdmmState


class Negotiation:
    """Agents with their own solvers and copies; `iterate` makes one round.

    Attributes
    ----------
    programs : the agents' own problems
    forms : how the sets are written
    numbers : per signal and stage the positions of its numbers in the vector of all shared numbers
    ids : per agent the positions of its copies
    """

    def __init__(
        self,
        network: Network,
        options: AdmmOptions | None = None,
        shape: Shape | None = None,
        epigraph: Epigraph = "constant",
        state: AdmmState | None = None,
        forms: dict[SignalKey, SetForm] | None = None,
    ) -> None:
        self.network, self.options, self.epigraph = network, options or AdmmOptions(), epigraph
        self.forms: dict[SignalKey, SetForm] = forms if forms is not None else scaled_forms(network, shape)
        self.programs: list[AgentProgram] = [
            build_agent(network, i, self.forms, epigraph) for i in range(len(network.agents))
        ]
        self.numbers = join(self.programs, self.forms).shared
        self.size = 1 + max((int(a.max()) for s in self.numbers.values() for a in s if a.size), default=-1)
        self.ids, local = zip(*[self._copies(p) for p in self.programs], strict=True)
        self.owner, growth = np.zeros(self.size, np.int64), np.ones(self.size)
        for key, stages in self.numbers.items():
            for t, index in enumerate(stages):
                self.owner[index] = key[0]
                growth[index] = self.options.horizon_growth**t
        self.growth = growth
        self.counts = np.bincount(np.concatenate(self.ids), minlength=self.size)
        self.colours = network.graph.colours()
        rho = state.rho if state is not None else self.options.rho
        self.state = state.copy() if state is not None else self._start(rho)
        self.solvers = [
            LocalSolver(p, index, self._weights(i, rho))
            for i, (p, index) in enumerate(zip(self.programs, local, strict=True))
        ]

    def _copies(self, p: AgentProgram) -> tuple[Integers, Integers]:
        """(positions among all shared numbers, own variables) of an agent's copies, each once."""
        pairs = [
            np.stack([self.numbers[key][t], index], axis=1)
            for key, stages in p.shared.items()
            for t, index in enumerate(stages)
        ]
        unique = np.unique(np.concatenate(pairs), axis=0) if pairs else np.empty((0, 2), np.int64)
        return unique[:, 0], unique[:, 1]

    def _start(self, rho: float) -> AdmmState:
        return AdmmState(
            np.zeros(self.size), [np.zeros(i.size) for i in self.ids], [np.zeros(i.size) for i in self.ids], rho
        )

    def _weights(self, i: int, rho: float) -> Vector:
        w = rho * self.growth[self.ids[i]]
        if self.options.mode == "sequential":  # a sender is pulled once by each receiver
            w = w * np.where(self.owner[self.ids[i]] == i, self.counts[self.ids[i]] - 1, 1)
        return np.asarray(w, float)

    # -- rounds -------------------------------------------------------------------------------------------------------
    def iterate(self) -> AdmmStep:
        """One round of all agents.

        Raises
        ------
        InfeasibleError, NumericalError
            An agent's own problem.
        """
        before = self.state.values.copy()
        seconds = np.zeros(len(self.programs))
        if self.options.mode == "parallel":
            parallel = self._parallel_round(seconds)
        else:
            parallel = self._sequential_round(seconds)
        disagreement = np.concatenate(
            [c - self.state.values[k] for c, k in zip(self.state.copies, self.ids, strict=True)] or [np.zeros(1)]
        )
        step = AdmmStep(
            float(sum(s.cost for s in self.solvers)),
            _rms(disagreement),
            _rms(self.state.rho * self.growth * (self.state.values - before)),
            seconds,
            parallel,
        )
        if self.options.balance:
            self._balance(step)
        return step

    def _parallel_round(self, seconds: Vector) -> float:
        s, a = self.state, self.options.over_relaxation
        total = np.zeros(self.size)
        relaxed = []
        for i, solver in enumerate(self.solvers):
            s.copies[i] = solver.solve(s.values[self.ids[i]] - s.duals[i])
            seconds[i] = solver.seconds
            relaxed.append(a * s.copies[i] + (1 - a) * s.values[self.ids[i]])
            np.add.at(total, self.ids[i], relaxed[i] + s.duals[i])
        s.values = total / np.maximum(self.counts, 1)
        for i in range(len(self.solvers)):
            s.duals[i] += relaxed[i] - s.values[self.ids[i]]
        return float(seconds.max())

    def _sequential_round(self, seconds: Vector) -> float:
        s = self.state
        parallel = 0.0
        for colour in range(max(self.colours) + 1):
            members = [i for i in range(len(self.solvers)) if self.colours[i] == colour]
            for i in members:
                s.copies[i] = self.solvers[i].solve(self._targets(i))
                seconds[i] = self.solvers[i].seconds
                mine = self.owner[self.ids[i]] == i
                s.values[self.ids[i][mine]] = s.copies[i][mine]
            parallel += max(seconds[i] for i in members)
        for i, index in enumerate(self.ids):
            theirs = self.owner[index] != i
            s.duals[i][theirs] += self.options.dual_step * (s.copies[i] - s.values[index])[theirs]
        return parallel

    def _targets(self, i: int) -> Vector:
        """Where agent i is pulled: to the sender's number less its multiplier, or to the mean of its receivers'."""
        s, index = self.state, self.ids[i]
        target = s.values[index] - s.duals[i]
        mine = self.owner[index] == i
        if np.any(mine):
            total = np.zeros(self.size)
            for k, other in enumerate(self.ids):
                if k != i:
                    np.add.at(total, other, s.copies[k] + s.duals[k])
            target[mine] = (total[index] / np.maximum(self.counts[index] - 1, 1))[mine]
        return np.asarray(target, float)

    def _balance(self, step: AdmmStep) -> None:
        factor = 2.0 if step.primal > 10 * step.dual else 0.5 if step.dual > 10 * step.primal else 1.0
        if factor == 1.0:
            return
        self.state.rho *= factor
        for i, solver in enumerate(self.solvers):
            self.state.duals[i] /= factor
            solver.set_weights(self._weights(i, self.state.rho))

    def run(self) -> AdmmResult:
        """Iterate until both residuals are small or the iterations are used up."""
        steps: list[AdmmStep] = []
        while len(steps) < self.options.max_iterations:
            steps.append(self.iterate())
            if steps[-1].primal <= self.options.primal and steps[-1].dual <= self.options.dual:
                return AdmmResult(tuple(steps), True, self.state)
        return AdmmResult(tuple(steps), False, self.state)

    def shifted_state(self) -> AdmmState:
        """The state moved one stage on, the last stage repeated: a warm start for a rolling horizon's next step."""
        moved = self.state.copy()
        for stages in self.numbers.values():
            for now, after in pairwise(stages):
                if now.size != after.size:
                    continue
                moved.values[now] = self.state.values[after]
                for i, index in enumerate(self.ids):
                    place = {int(k): n for n, k in enumerate(index)}
                    here = [(place[int(a)], place[int(b)]) for a, b in zip(now, after, strict=True) if int(a) in place]
                    for n, m in here:
                        moved.copies[i][n] = self.state.copies[i][m]
                        moved.duals[i][n] = self.state.duals[i][m]
        return moved


def _rms(values: Vector) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0
