"""A network of linear time-varying agents that affect each other through signals.

    x_i(t+1) = A_i x_i(t) + sum over couplings B p(t) + D_i u_i(t) + E_i xi_i(t) + offset_i,    t = 0..T-1,
    p_i(t)   = C x_i(t) + F u_i(t) + G xi_i(t)          (a signal that others receive),

private constraints  Hx x + Hu u <= h  and private costs (math.md section 3; seeds 002 and 004, section 2.1). A signal
is the whole state in the papers' general model, an order or a draw of energy where the coupling goes through an input
of the same stage. Matrices are constant (2-d) or one per stage (3-d, time first).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Matrix, Vector
from rmpc_ros.network.graph import Graph
from rmpc_ros.network.primitive import Shape


def at(array: Matrix, t: int) -> Matrix:
    """The matrix (or vector stack) in force at stage t."""
    return array[t] if array.ndim == 3 else array


@dataclass(frozen=True)
class Disturbance:
    """xi = centre + generator w with w in a unit primitive set, independent over stages and agents.

    Attributes
    ----------
    centre : (n,) or (T, n)
    generator : (n, k)
    kind : "box" (abs(w) <= 1; any zonotope of xi), "ball", "rhombus" or "vertices" (w in the hull of `points`)
    points : (k, m) vertices, for "vertices" only
    """

    centre: Vector
    generator: Matrix
    kind: Literal["box", "ball", "rhombus", "vertices"] = "box"
    points: Matrix | None = None

    @staticmethod
    def box(lower: ArrayLike, upper: ArrayLike) -> Disturbance:
        """All xi with lower <= xi <= upper, component by component."""
        low, high = np.atleast_1d(np.asarray(lower, float)), np.atleast_1d(np.asarray(upper, float))
        if np.any(low > high):
            raise ConfigError(f"disturbance box: lower {low} exceeds upper {high}")
        return Disturbance((low + high) / 2, np.diag((high - low) / 2))

    @staticmethod
    def hull(points: ArrayLike) -> Disturbance:
        """The convex hull of the columns of `points` (n, m): any polytope, by its vertices."""
        array = np.asarray(points, float)
        if array.ndim != 2 or not np.all(np.isfinite(array)):
            raise ConfigError(f"disturbance hull: points of shape {array.shape}; finite (n, m) columns are wanted")
        return Disturbance(np.zeros(len(array)), np.eye(len(array)), "vertices", array)

    def centre_at(self, t: int) -> Vector:
        """(n,) centre in force at stage t."""
        return self.centre[t] if self.centre.ndim == 2 else self.centre

    def sample(self, rng: np.random.Generator, stages: int, extreme: bool = False) -> Matrix:
        """Sequence of w, (stages, k): uniform in the box, or at its corners; other kinds scaled onto the set."""
        k = self.generator.shape[1]
        if self.points is not None:
            count = self.points.shape[1]
            mix = np.eye(count)[rng.integers(count, size=stages)] if extreme else rng.dirichlet(np.ones(count), stages)
            return np.asarray(mix @ self.points.T, float)
        w = rng.choice([-1.0, 1.0], (stages, k)) if extreme else rng.uniform(-1, 1, (stages, k))
        if self.kind != "box":
            norms = np.linalg.norm(w, 2 if self.kind == "ball" else 1, axis=1, keepdims=True)
            w = w / np.maximum(norms, 1e-12) * (1.0 if extreme else rng.uniform(0, 1, (stages, 1)))
        return w


@dataclass(frozen=True)
class Signal:
    """What an agent lets others count on: p = C x + F u + G xi, announced as a set of the given shape.

    Attributes
    ----------
    name : unique within the agent
    C, F, G : (k, nx), (k, nu), (k, n_xi); None means zero
    shape : the primitive set; None leaves the choice to `design_network`
    floor : where given, the announced box begins there: centre = floor + half-width (a promise "between 0 and 2 a")
    """

    name: str
    C: Matrix | None = None
    F: Matrix | None = None
    G: Matrix | None = None
    shape: Shape | None = None
    floor: Vector | None = None

    @property
    def size(self) -> int:
        """Number of entries of p."""
        return next(int(m.shape[0]) for m in (self.C, self.F, self.G) if m is not None)

    @property
    def is_known_at_start(self) -> bool:
        """A signal of the state alone is a known point at t = 0."""
        return self.F is None and self.G is None


@dataclass(frozen=True)
class Coupling:
    """Term `matrix` @ p of another agent's signal in the dynamics; (nx, size of p), constant or one per stage."""

    sender: int
    signal: str
    matrix: Matrix


@dataclass(frozen=True)
class Constraint:
    """lower <= Hx x(t) + Hu u(t) <= upper for t = first..last (t = T is the final state, where Hu must be None)."""

    Hx: Matrix | None
    Hu: Matrix | None
    upper: Vector
    lower: Vector | None = None
    first: int = 0
    last: int | None = None


@dataclass(frozen=True)
class Cost:
    """A stage cost of r = Mx x(t) + Mu u(t) + m0 for t = first..last.

    Attributes
    ----------
    kind : "abs" (sum of abs(r_k)), "max" (max_k r_k), "norm2" (Euclidean), "square" (sum of r_k^2)
    Mx, Mu : (k, nx), (k, nu), constant or one per stage, None means zero
    m0 : (k,) or (T, k)
    """

    kind: Literal["abs", "max", "norm2", "square"]
    Mx: Matrix | None = None
    Mu: Matrix | None = None
    m0: Vector | None = None
    first: int = 0
    last: int | None = None


def norm_cost(x: Matrix | None = None, u: Matrix | None = None, p: float = 1, last: int | None = None) -> Cost:
    """norm_p of Q x or of R u for p in {1, 2, inf}; give one of `x` = Q, `u` = R."""
    if p == 1:
        return Cost("abs", x, u, last=last)
    if p == 2:
        return Cost("norm2", x, u, last=last)
    if p == np.inf:

        def mirrored(m: Matrix | None) -> Matrix | None:
            return None if m is None else np.concatenate([m, -m], axis=-2)

        return Cost("max", mirrored(x), mirrored(u), last=last)
    raise ConfigError(f"norm p = {p}; known: 1, 2, inf")


@dataclass(frozen=True)
class Agent:
    """One agent's private model: dynamics, constraints, costs and what it tells others; see the module's formula.

    Attributes
    ----------
    sees_current : the policy at t may use xi_i(t) itself (one-stage examples); normally only xi_i(0..t-1).
    """

    name: str
    A: Matrix
    D: Matrix
    E: Matrix
    x0: Vector
    disturbance: Disturbance
    couplings: tuple[Coupling, ...] = ()
    signals: tuple[Signal, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    costs: tuple[Cost, ...] = ()
    offset: Vector = field(default_factory=lambda: np.zeros(1))
    sees_current: bool = False

    @property
    def nx(self) -> int:
        """Number of states."""
        return int(self.A.shape[-1])

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return int(self.D.shape[-1])

    def offset_at(self, t: int) -> Vector:
        """Known additive term at stage t, (nx,)."""
        value = self.offset[t] if self.offset.ndim == 2 else self.offset
        return np.broadcast_to(value, self.nx)

    def signal(self, name: str) -> Signal:
        """The signal of that name."""
        for signal in self.signals:
            if signal.name == name:
                return signal
        raise ConfigError(f"agent '{self.name}' has no signal '{name}'; it has {[s.name for s in self.signals]}")


def state_signal(nx: int, shape: Shape | None = None) -> Signal:
    """The whole state as a signal named "x"."""
    return Signal("x", C=np.eye(nx), shape=shape)


def box_constraints(nx: int, nu: int, x_max: float, u_max: float) -> tuple[Constraint, Constraint]:
    """abs(x) <= x_max at all times and abs(u) <= u_max at all stages, component by component."""
    x, u = np.full(nx, float(x_max)), np.full(nu, float(u_max))
    return Constraint(np.eye(nx), None, x, -x), Constraint(None, np.eye(nu), u, -u)


@dataclass(frozen=True)
class Network:
    """Agents and their common horizon of T stages (T inputs, T+1 states).

    Attributes
    ----------
    delay : stages by which a received signal is known later than the receiver's own state (0 or more).
    """

    agents: tuple[Agent, ...]
    horizon: int
    delay: int = 0

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ConfigError(f"network: horizon {self.horizon}; at least 1 stage")
        for i, agent in enumerate(self.agents):
            for coupling in agent.couplings:
                if not 0 <= coupling.sender < len(self.agents) or coupling.sender == i:
                    raise ConfigError(f"agent '{agent.name}': coupling from agent number {coupling.sender}")
                size = self.agents[coupling.sender].signal(coupling.signal).size
                if coupling.matrix.shape[-2:] != (agent.nx, size):
                    raise ConfigError(
                        f"agent '{agent.name}': coupling matrix to '{self.agents[coupling.sender].name}' has shape "
                        f"{coupling.matrix.shape[-2:]}; ({agent.nx}, {size}) is needed"
                    )

    @property
    def graph(self) -> Graph:
        """Who affects whom."""
        arcs = {(c.sender, i) for i, agent in enumerate(self.agents) for c in agent.couplings}
        return Graph(len(self.agents), tuple(arcs))

    def sent_signals(self) -> list[tuple[int, Signal]]:
        """(sender, signal) of all signals that somebody receives, in the agents' order."""
        wanted = {(c.sender, c.signal) for agent in self.agents for c in agent.couplings}
        return [(i, s) for i, agent in enumerate(self.agents) for s in agent.signals if (i, s.name) in wanted]

    def tail(self, stage: int, states: Iterable[Vector]) -> Network:
        """What is left of the problem from `stage` on, from the given states: time-varying data are shifted.

        Raises
        ------
        ConfigError
            Nothing is left.
        """
        if not 0 <= stage < self.horizon:
            raise ConfigError(f"network: no stages are left from stage {stage} of {self.horizon}")
        agents = tuple(_agent_tail(a, stage, np.asarray(x, float)) for a, x in zip(self.agents, states, strict=True))
        return replace(self, agents=agents, horizon=self.horizon - stage)


def _agent_tail(agent: Agent, stage: int, x0: Vector) -> Agent:
    def later(array: Matrix, ndim: int) -> Matrix:
        return array[stage:] if array.ndim == ndim else array

    def maybe(array: Matrix | None, ndim: int) -> Matrix | None:
        return None if array is None else later(array, ndim)

    def until(last: int | None) -> int | None:
        return None if last is None else last - stage

    constraints = tuple(
        replace(c, first=max(c.first - stage, 0 if c.first == 0 else 1), last=until(c.last)) for c in agent.constraints
    )
    costs = tuple(
        replace(
            c,
            Mx=maybe(c.Mx, 3),
            Mu=maybe(c.Mu, 3),
            m0=maybe(c.m0, 2),
            first=max(c.first - stage, 0 if c.first == 0 else 1),
            last=until(c.last),
        )
        for c in agent.costs
    )
    return replace(
        agent,
        A=later(agent.A, 3),
        D=later(agent.D, 3),
        E=later(agent.E, 3),
        offset=later(agent.offset, 2),
        disturbance=replace(agent.disturbance, centre=later(agent.disturbance.centre, 2)),
        couplings=tuple(replace(c, matrix=later(c.matrix, 3)) for c in agent.couplings),
        constraints=constraints,
        costs=costs,
        x0=x0,
    )
