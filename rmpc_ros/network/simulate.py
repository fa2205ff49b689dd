"""Running designed policies on the network they were designed for, from measurements only.

An agent's policy asks for w (its disturbances) and s (where its neighbours are inside their sets). Both are recovered
from what it measures (seed 002 equations 8 and A.5):

    w_i(t) = (E_i generator)^+ ( x_i(t+1) - A x_i(t) - sum B p(t) - D u_i(t) - offset - E centre ),
    s_j(t) = diag(y)^+ R^-1 (p_j(t) - z_j(t)).

Where a signal contains an input of the same stage (orders, energy draws) the inputs of several agents may depend on
each other at once: the algebraic loop is affine and is solved for all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Matrix, Vector
from rmpc_ros.network.design import NetworkDesign
from rmpc_ros.network.model import Agent, Network, at
from rmpc_ros.network.rollout import SignalKey


@dataclass(frozen=True)
class Trajectory:
    """One simulated run: per agent x (T+1, nx) and u (T, nu); signals (T, k) per (sender, name); costs (M,)."""

    x: tuple[Matrix, ...]
    u: tuple[Matrix, ...]
    signals: dict[SignalKey, Matrix]
    costs: Vector


def simulate(
    design: NetworkDesign, w: list[Matrix], measured_disturbance: bool = False, stages: int | None = None
) -> Trajectory:
    """Apply the policies to one sequence of unit disturbances per agent, w[i] (T, k).

    Parameters
    ----------
    measured_disturbance : agents read their own w instead of recovering it from their states; needed where E has more
        columns than rank (a market demand of several factors in one stock).
    stages : simulate only the first stages; costs then cover what was simulated

    Raises
    ------
    ConfigError
        w cannot be recovered from the states and is not measured.
    """
    network = design.network
    x = [[agent.x0.astype(float)] for agent in network.agents]
    u: list[list[Vector]] = [[] for _ in network.agents]
    known = [_Known(design, i, measured_disturbance) for i in range(len(network.agents))]
    signals: dict[SignalKey, list[Vector]] = {(i, s.name): [] for i, a in enumerate(network.agents) for s in a.signals}
    for t in range(network.horizon if stages is None else stages):
        inputs = _inputs(design, known, [states[-1] for states in x], [seq[t] for seq in w], t)
        for i, agent in enumerate(network.agents):
            u[i].append(inputs[i])
            for s in agent.signals:
                signals[i, s.name].append(_signal(agent, s.name, x[i][-1], inputs[i], w[i][t], t))
        for i in range(len(network.agents)):
            x[i].append(_step(network, i, x[i][-1], inputs[i], w[i][t], signals, t))
        for i in range(len(network.agents)):
            heard = {(c.sender, c.signal): signals[c.sender, c.signal][t] for c in network.agents[i].couplings}
            known[i].hear(t, heard)
            known[i].see(t, x[i][-2], x[i][-1], inputs[i], heard, w[i][t])
        if design.structure != "local":
            _exchange(design, known, t)
    states, moves = tuple(np.array(s) for s in x), tuple(np.array(m) for m in u)
    costs = np.array([run_cost(a, xs, us) for a, xs, us in zip(network.agents, states, moves, strict=True)])
    return Trajectory(states, moves, {k: np.array(v) for k, v in signals.items()}, costs)


class _Known:
    """What one agent has learned so far: values of the entries of its policy's w."""

    def __init__(self, design: NetworkDesign, i: int, measured: bool) -> None:
        self.design, self.i, self.measured = design, i, measured
        self.policy = design.policies[i]
        self.columns: dict[tuple[str, int], list[int]] = {}
        for block in self.policy.blocks:
            self.columns.setdefault((block.label, block.time), []).extend((block.columns - 1).tolist())
        self.values = np.zeros(self.policy.gains[0].shape[1] - 1)

    def put(self, label: str, t: int, value: Vector) -> None:
        """Fill in one block; blocks the policy does not ask for are ignored."""
        columns = self.columns.get((label, t))
        if columns is not None:
            self.values[columns] = value

    def hear(self, t: int, heard: dict[SignalKey, Vector]) -> None:
        """Turn neighbours' signals into s."""
        for key, value in heard.items():
            form = self.design.forms.get(key)
            announced = self.design.announced[key][t] if form is not None else None
            if form is not None and announced is not None:
                self.put(form.label, t, form.recover(value, announced, t))

    def see(self, t: int, before: Vector, after: Vector, u: Vector, heard: dict[SignalKey, Vector], w: Vector) -> None:
        """Recover the own disturbance from the step just made."""
        agent = self.design.network.agents[self.i]
        gain = at(agent.E, t) @ agent.disturbance.generator
        if self.measured:
            self.put(f"w{self.i}", t, w)
            return
        if np.linalg.matrix_rank(gain) < gain.shape[1]:
            raise ConfigError(
                f"agent '{agent.name}': its disturbance has {gain.shape[1]} parts but moves the state in "
                f"{np.linalg.matrix_rank(gain)} directions: it cannot be recovered from the state and must be measured"
            )
        rest = after - at(agent.A, t) @ before - at(agent.D, t) @ u - agent.offset_at(t)
        rest = rest - at(agent.E, t) @ agent.disturbance.centre_at(t)
        for c in agent.couplings:
            rest = rest - at(c.matrix, t) @ heard[c.sender, c.signal]
        self.put(f"w{self.i}", t, np.linalg.pinv(gain) @ rest)


def _exchange(design: NetworkDesign, known: list[_Known], t: int) -> None:
    """Centralised and nested policies: every agent's recovered disturbance is told to whoever may use it."""
    for j, source in enumerate(known):
        columns = source.columns[f"w{j}", t]
        for i, target in enumerate(known):
            if i != j:
                target.put(f"w{j}", t, source.values[columns])


def _inputs(design: NetworkDesign, known: list[_Known], x: list[Vector], w: list[Vector], t: int) -> list[Vector]:
    """Inputs of stage t; same-stage dependencies are affine in all inputs and solved as one linear system."""
    network = design.network
    sizes = np.cumsum([0] + [a.nu for a in network.agents])

    def respond(stacked: Vector) -> Vector:
        inputs = np.split(stacked, sizes[1:-1])
        for i, agent in enumerate(network.agents):
            if agent.sees_current:
                for k in known:
                    k.put(f"w{i}", t, w[i])
            if network.delay == 0 and design.structure == "local":
                for c in agent.couplings:
                    value = _signal(network.agents[c.sender], c.signal, x[c.sender], inputs[c.sender], w[c.sender], t)
                    known[i].hear(t, {(c.sender, c.signal): value})
        return np.concatenate([k.policy.input(t, k.values) for k in known])

    base = respond(np.zeros(sizes[-1]))
    loops = design.structure == "local" and any(s.F is not None for a in network.agents for s in a.signals)
    if not loops:
        return list(np.split(base, sizes[1:-1]))
    jacobian = np.array([respond(e) - base for e in np.eye(sizes[-1])]).T
    solution = np.linalg.solve(np.eye(sizes[-1]) - jacobian, base)
    respond(solution)
    return list(np.split(solution, sizes[1:-1]))


def _signal(agent: Agent, name: str, x: Vector, u: Vector, w: Vector, t: int) -> Vector:
    s = agent.signal(name)
    value = np.zeros(s.size)
    value = value + (s.C @ x if s.C is not None else 0.0) + (s.F @ u if s.F is not None else 0.0)
    if s.G is not None:
        value = value + s.G @ (agent.disturbance.centre_at(t) + agent.disturbance.generator @ w)
    return value


def _step(
    network: Network, i: int, x: Vector, u: Vector, w: Vector, signals: dict[SignalKey, list[Vector]], t: int
) -> Vector:
    agent = network.agents[i]
    xi = agent.disturbance.centre_at(t) + agent.disturbance.generator @ w
    new: Vector = at(agent.A, t) @ x + at(agent.D, t) @ u + at(agent.E, t) @ xi + agent.offset_at(t)
    for c in agent.couplings:
        new = new + at(c.matrix, t) @ signals[c.sender, c.signal][t]
    return new


def run_cost(agent: Agent, x: Matrix, u: Matrix) -> float:
    """The agent's cost of one realised trajectory x (T+1, nx), u (T, nu)."""
    total = 0.0
    for cost in agent.costs:
        end = len(x) - 1 if cost.Mu is None else len(u) - 1
        last = end if cost.last is None else min(cost.last, end)
        for t in range(cost.first, last + 1):
            r = np.zeros(1)
            r = r + (at(cost.Mx, t) @ x[t] if cost.Mx is not None else 0.0)
            r = r + (at(cost.Mu, t) @ u[t] if cost.Mu is not None else 0.0)
            if cost.m0 is not None:
                r = r + (cost.m0[t] if cost.m0.ndim == 2 else cost.m0)
            kinds = {"abs": np.abs(r).sum(), "max": r.max(), "norm2": np.linalg.norm(r), "square": np.sum(r**2)}
            total += float(kinds[cost.kind])
    return total


@dataclass(frozen=True)
class SafetyCheck:
    """Worst figures over many simulated runs.

    Attributes
    ----------
    violation : largest excess over a private constraint (0 or less: none)
    gauge : largest reach towards an announced set's border (1 is the border)
    cost_excess : largest realised sum of costs minus the designed objective (0 or less: the bound held)
    """

    runs: int
    violation: float
    gauge: float
    cost_excess: float


def check_by_simulation(design: NetworkDesign, runs: int, seed: int, measured_disturbance: bool = False) -> SafetyCheck:
    """Simulate random disturbances, half of the runs at the corners of their sets, and measure what was promised."""
    rng = np.random.default_rng(seed)
    network = design.network
    violation, gauge, excess = -np.inf, 0.0, -np.inf
    for n in range(runs):
        w = [a.disturbance.sample(rng, network.horizon, extreme=n % 2 == 0) for a in network.agents]
        run = simulate(design, w, measured_disturbance)
        excess = max(excess, float(run.costs.sum()) - design.objective)
        for i, agent in enumerate(network.agents):
            violation = max(violation, worst_violation(agent, run.x[i], run.u[i]))
        for key, stages in design.announced.items():
            for t, announced in enumerate(stages):
                if announced is not None:
                    gauge = max(gauge, float(design.forms[key].gauge(run.signals[key][[t]], announced, t)[0]))
    return SafetyCheck(runs, violation, gauge, excess)


def worst_violation(agent: Agent, x: Matrix, u: Matrix) -> float:
    """Largest excess over any private constraint along a trajectory (negative: the smallest margin)."""
    worst = -np.inf
    for c in agent.constraints:
        end = len(x) - 1 if c.Hu is None else len(u) - 1
        last = end if c.last is None else min(c.last, end)
        for t in range(c.first, last + 1):
            value = np.zeros(c.upper.size)
            value = value + (c.Hx @ x[t] if c.Hx is not None else 0.0) + (c.Hu @ u[t] if c.Hu is not None else 0.0)
            worst = max(worst, float(np.max(value - c.upper)))
            if c.lower is not None:
                worst = max(worst, float(np.max(c.lower - value)))
    return worst
