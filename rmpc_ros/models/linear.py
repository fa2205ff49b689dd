"""A network of agents as one exact discrete-time linear model, in coordinates of each agent's choice.

About a steady state, z = T (x - x_s), v = u - u_s, w = d - d_s, and over one period with inputs and disturbances held

    z(k+1) = A z(k) + B v(k) + E w(k),      A = T e^{Ac h} T^-1,   [B E] = T int_0^h e^{Ac s} ds [Bc Ec].

The exponential is that of the WHOLE network: within one period each agent then feels every agent upstream of it, and
its inputs. Holding the neighbours over a sample would keep the sparsity of Ac but add an error above the disturbances.
Rows and columns are grouped by agent, in the order of `agents`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm

from rmpc_ros.errors import ConfigError
from rmpc_ros.models.nonlinear import NonlinearModel

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Discretisation = Literal["exact", "held", "euler"]


@dataclass(frozen=True)
class AgentVariables:
    """What belongs to one agent, in the order of its vectors.

    Attributes
    ----------
    states, inputs : names in the model
    coordinates : names of the transformed states; equal to `states` where there is no transform
    transform : (nx, nx) of z = transform (x - x_s)
    """

    states: tuple[str, ...]
    inputs: tuple[str, ...]
    coordinates: tuple[str, ...]
    transform: Matrix


@dataclass(frozen=True)
class LinearNetwork:
    """z+ = A z + B v + E w for all agents together, deviations from a steady state.

    Attributes
    ----------
    agents : each agent's variables, in the order of the blocks
    disturbances : names of w
    A (n, n), B (n, m), E (n, q) : in the agents' coordinates
    steady_state (n,), steady_input (m,), steady_disturbance (q,) : physical values, grouped by agent
    period : seconds
    """

    agents: dict[str, AgentVariables]
    disturbances: tuple[str, ...]
    A: Matrix
    B: Matrix
    E: Matrix
    steady_state: Vector
    steady_input: Vector
    steady_disturbance: Vector
    period: float

    # -- indices ------------------------------------------------------------------------------------------------------
    def rows(self, agent: str) -> slice:
        """Where the agent's states are in z."""
        return self._span(agent, [len(v.states) for v in self.agents.values()])

    def columns(self, agent: str) -> slice:
        """Where the agent's inputs are in v."""
        return self._span(agent, [len(v.inputs) for v in self.agents.values()])

    def state_block(self, agent: str, source: str) -> Matrix:
        """A_ij: how the state of `source` moves the state of `agent`."""
        return self.A[self.rows(agent), self.rows(source)]

    def input_block(self, agent: str, source: str) -> Matrix:
        """B_ij: how the inputs of `source` move the state of `agent`."""
        return self.B[self.rows(agent), self.columns(source)]

    def neighbours(self, agent: str, tolerance: float = 1e-12) -> tuple[str, ...]:
        """Agents whose states or inputs move this agent's states within one period."""
        return tuple(
            other
            for other in self.agents
            if other != agent
            and max(
                np.max(np.abs(self.state_block(agent, other)), initial=0.0),
                np.max(np.abs(self.input_block(agent, other)), initial=0.0),
            )
            > tolerance
        )

    # -- coordinates --------------------------------------------------------------------------------------------------
    @property
    def transform(self) -> Matrix:
        """Block-diagonal (n, n) of z = transform (x - x_s)."""
        out = np.zeros_like(self.A)
        for agent, variables in self.agents.items():
            out[self.rows(agent), self.rows(agent)] = variables.transform
        return out

    def to_coordinates(self, agent: str, state: ArrayLike) -> Vector:
        """Physical states (..., nx) of one agent as deviations in its coordinates."""
        deviation: Vector = np.asarray(state, float) - self.steady_state[self.rows(agent)]
        z: Vector = deviation @ self.agents[agent].transform.T
        return z

    def from_coordinates(self, agent: str, z: ArrayLike) -> Vector:
        """Deviations in coordinates (..., nx) as physical states of one agent."""
        back = np.linalg.inv(self.agents[agent].transform)
        state: Vector = np.asarray(z, float) @ back.T + self.steady_state[self.rows(agent)]
        return state

    def limit_rows(self, agent: str, lower: ArrayLike, upper: ArrayLike) -> tuple[Matrix, Vector]:
        """Physical limits lower <= x <= upper of one agent as  H z <= h  with h > 0; infinite limits give no row.

        Raises
        ------
        ConfigError
            The steady state is not strictly inside the limits.
        """
        variables = self.agents[agent]
        back = np.linalg.inv(variables.transform)
        x_s = self.steady_state[self.rows(agent)]
        lo, hi = np.asarray(lower, float) - x_s, np.asarray(upper, float) - x_s
        for name, low, high, value in zip(variables.states, lo, hi, x_s, strict=True):
            if not low < 0 < high:
                raise ConfigError(
                    f"agent '{agent}': the steady state {name} = {value:.6g} is not inside its limits "
                    f"[{low + value:.6g}, {high + value:.6g}]"
                )
        H, h = np.vstack([back, -back]), np.concatenate([hi, -lo])
        kept = np.isfinite(h)
        return H[kept], h[kept]

    # -- the map ------------------------------------------------------------------------------------------------------
    def advance(self, state: ArrayLike, inputs: ArrayLike, disturbances: ArrayLike) -> Vector:
        """One period in physical values, grouped by agent: (..., n), (..., m), (..., q) -> (..., n)."""
        A, B, E = self._physical
        after: Vector = (np.asarray(state, float) - self.steady_state) @ A.T
        after = after + (np.asarray(inputs, float) - self.steady_input) @ B.T
        after = after + (np.asarray(disturbances, float) - self.steady_disturbance) @ E.T
        return after + self.steady_state

    @cached_property
    def _physical(self) -> tuple[Matrix, Matrix, Matrix]:
        """The map in physical coordinates."""
        transform = self.transform
        back = np.linalg.inv(transform)
        return back @ self.A @ transform, back @ self.B, back @ self.E

    def _span(self, agent: str, sizes: Sequence[int]) -> slice:
        if agent not in self.agents:
            raise ConfigError(f"agent '{agent}' is unknown; known: {', '.join(self.agents)}")
        n = list(self.agents).index(agent)
        start = sum(sizes[:n])
        return slice(start, start + sizes[n])


def discretise(
    Ac: ArrayLike,
    Bc: ArrayLike,
    Ec: ArrayLike,
    step: float,
    method: Discretisation = "exact",
    sizes: Sequence[int] | None = None,
) -> tuple[Matrix, Matrix, Matrix]:
    """Zero-order hold of dx/dt = Ac x + Bc u + Ec w over `step`.

    exact:  e^{[[Ac, Bc, Ec], [0, 0, 0]] step} = [[A, B, E], [0, I, 0], [0, 0, I]];
    held:   the same for each block of `sizes` rows with the other blocks' states as inputs;
    euler:  A = I + Ac step, B = Bc step, E = Ec step.
    """
    a, b, e = (np.asarray(v, float) for v in (Ac, Bc, Ec))
    n, m, q = a.shape[0], b.shape[1], e.shape[1]
    if method == "euler":
        return np.eye(n) + a * step, b * step, e * step
    if method == "exact":
        whole = np.zeros((n + m + q, n + m + q))
        whole[:n] = np.hstack([a, b, e])
        out = expm(whole * step)
        return out[:n, :n], out[:n, n : n + m], out[:n, n + m :]
    A, B, E = np.zeros_like(a), np.zeros_like(b), np.zeros_like(e)
    ends = np.cumsum([n] if sizes is None else list(sizes))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        own = slice(start, end)
        others = a[own].copy()
        others[:, own] = 0.0
        own_A, coupling, own_E = discretise(a[own, own], np.hstack([others, b[own]]), e[own], step)
        A[own] = coupling[:, :n]
        A[own, own] = own_A
        B[own], E[own] = coupling[:, n:], own_E
    return A, B, E


def network_from_matrices(
    A: ArrayLike,
    B: ArrayLike,
    E: ArrayLike,
    agents: Mapping[str, AgentVariables],
    disturbances: Sequence[str],
    period: float,
    steady_state: ArrayLike | None = None,
    steady_input: ArrayLike | None = None,
    steady_disturbance: ArrayLike | None = None,
) -> LinearNetwork:
    """Network from discrete-time matrices in physical coordinates, already grouped by agent.

    Raises
    ------
    ConfigError
        A matrix has the wrong shape or a transform is singular.
    """
    n = sum(len(v.states) for v in agents.values())
    m = sum(len(v.inputs) for v in agents.values())
    shapes = {"A": (n, n), "B": (n, m), "E": (n, len(disturbances))}
    matrices = {"A": np.asarray(A, float), "B": np.asarray(B, float), "E": np.asarray(E, float)}
    for key, shape in shapes.items():
        if matrices[key].shape != shape:
            raise ConfigError(f"matrix {key} has shape {matrices[key].shape}; the agents' variables need {shape}")
    T = np.zeros((n, n))
    start = 0
    for agent, variables in agents.items():
        size = len(variables.states)
        if variables.transform.shape != (size, size):
            raise ConfigError(
                f"agent '{agent}': its transform has shape {variables.transform.shape}, needed {(size, size)}"
            )
        if size and np.linalg.cond(variables.transform) > 1e8:
            raise ConfigError(
                f"agent '{agent}': its coordinates {', '.join(variables.coordinates)} are not independent"
            )
        T[start : start + size, start : start + size] = variables.transform
        start += size
    return LinearNetwork(
        agents=dict(agents),
        disturbances=tuple(disturbances),
        A=T @ matrices["A"] @ np.linalg.inv(T),
        B=T @ matrices["B"],
        E=T @ matrices["E"],
        steady_state=np.zeros(n) if steady_state is None else np.asarray(steady_state, float),
        steady_input=np.zeros(m) if steady_input is None else np.asarray(steady_input, float),
        steady_disturbance=(
            np.zeros(len(disturbances)) if steady_disturbance is None else np.asarray(steady_disturbance, float)
        ),
        period=period,
    )


def network_from_model(
    model: NonlinearModel,
    steady_state: ArrayLike,
    inputs: ArrayLike,
    disturbances: ArrayLike,
    agents: Mapping[str, AgentVariables],
    considered: Sequence[str],
    period: float,
    method: Discretisation = "exact",
) -> LinearNetwork:
    """Linearise a model at a steady state and discretise it.

    Parameters
    ----------
    model : NonlinearModel
    steady_state, inputs, disturbances : (n,), (m,), (q,) in the model's order
    agents : who owns which states and inputs; every state and input of the model exactly once
    considered : names of the disturbances kept as columns of E, in this order
    period : seconds
    method : "exact" for the whole network; "held" holds each agent's neighbours over the period; "euler" is I + A h.
        The latter two keep the sparsity of the equations; their error belongs into the model error.

    Raises
    ------
    ConfigError
        A state or input is owned by nobody or twice.
    """
    order = [
        _order(kind, names, agents) for kind, names in (("states", model.state_names), ("inputs", model.input_names))
    ]
    columns = [model.disturbance_names.index(name) for name in considered]
    Ac, Bc, Ec = model.jacobians(steady_state, inputs, disturbances)
    A, B, E = discretise(
        Ac[np.ix_(order[0], order[0])],
        Bc[np.ix_(order[0], order[1])],
        Ec[np.ix_(order[0], columns)],
        period / model.time_unit,
        method,
        [len(v.states) for v in agents.values()],
    )
    return network_from_matrices(
        A,
        B,
        E,
        agents,
        considered,
        period,
        np.asarray(steady_state, float)[order[0]],
        np.asarray(inputs, float)[order[1]],
        np.asarray(disturbances, float)[columns],
    )


def _order(kind: str, names: Sequence[str], agents: Mapping[str, AgentVariables]) -> list[int]:
    """Indices into the model's vector in the order of the agents."""
    owned = [name for variables in agents.values() for name in getattr(variables, kind)]
    for name in names:
        if owned.count(name) != 1:
            raise ConfigError(f"{kind[:-1]} '{name}' of the model belongs to {owned.count(name)} agents; one is needed")
    for name in owned:
        if name not in names:
            raise ConfigError(f"{kind[:-1]} '{name}' does not exist in the model; it has {', '.join(names)}")
    return [list(names).index(name) for name in owned]
