"""Transitions of all agents joined by step: states, inputs, residuals and rewards of the whole plant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.learning.local_reward import LocalReward
from rmpc_ros.learning.transition import Transition, Versions
from rmpc_ros.network.agent_design import AgentDesign

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearLoop:
    """The whole network with its backup laws closed, normalised: x+ = A x + B c + w, u = K x + c.

    Attributes
    ----------
    A (n, n), B (n, m), K (m, n)
    rows, columns : each agent's states and inputs
    """

    A: Array
    B: Array
    K: Array
    rows: Mapping[str, slice]
    columns: Mapping[str, slice]


def linear_loop(designs: Mapping[str, AgentDesign]) -> LinearLoop:
    """Put the agents' local models together."""
    rows, columns, n, m = {}, {}, 0, 0
    for name, design in designs.items():
        rows[name], columns[name] = slice(n, n + design.nx), slice(m, m + design.nu)
        n, m = n + design.nx, m + design.nu
    A, B, K = np.zeros((n, n)), np.zeros((n, m)), np.zeros((m, n))
    for name, design in designs.items():
        model, own = design.model, rows[name]
        A[own, own], B[own, columns[name]], K[columns[name], own] = model.A, model.B, model.K
        for other, neighbour in design.neighbours.items():
            through = model.G[:, neighbour.columns]
            size = designs[other].nx
            A[own, rows[other]], B[own, columns[other]] = through[:, :size], through[:, size:]
    return LinearLoop(A, B, K, rows, columns)


@dataclass(frozen=True)
class Row:
    """One step of the whole plant.

    Attributes
    ----------
    x (n,), u (m,) : measured and applied, normalised
    w : (n,) residuals, normalised; None where an agent did not know its neighbours
    reward : per hour
    margin : least distance to a limit over half the range
    versions : in force, by agent
    """

    x: Array
    u: Array
    w: Array | None
    reward: float
    margin: float
    versions: Mapping[str, Versions]


@dataclass(frozen=True)
class Stretch:
    """T consecutive rows as arrays.

    Attributes
    ----------
    steps (T,), x (T, n), u (T, m), w (T, n), reward (T,), margin (T,)
    versions : T mappings
    """

    steps: NDArray[np.int64]
    x: Array
    u: Array
    w: Array
    reward: Array
    margin: Array
    versions: list[Mapping[str, Versions]]

    def last(self, count: int) -> Stretch:
        """Its newest rows, at most `count`."""
        cut = slice(-count, None)
        return Stretch(
            self.steps[cut],
            self.x[cut],
            self.u[cut],
            self.w[cut],
            self.reward[cut],
            self.margin[cut],
            self.versions[cut],
        )


class Series:
    """The newest steps of a plant.

    Parameters
    ----------
    config, designs : the plant
    memory : rows kept

    Attributes
    ----------
    newest : last joined step, -1 before the first
    """

    def __init__(self, config: PlantConfig, designs: Mapping[str, AgentDesign], memory: int) -> None:
        self.designs, self.loop, self.memory = designs, linear_loop(designs), memory
        self.rewards = {name: LocalReward.of(config, name) for name in designs}
        self._partial: dict[int, dict[str, Transition]] = {}
        self._rows: dict[int, Row] = {}
        self.newest = -1

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, transitions: Iterable[Transition]) -> None:
        """Take transitions in any order; what is known already changes nothing."""
        for t in transitions:
            if t.step in self._rows or t.step <= self.newest - self.memory:
                continue
            together = self._partial.setdefault(t.step, {})
            together[t.agent] = t
            if len(together) == len(self.designs):
                self._rows[t.step] = self._join(self._partial.pop(t.step))
                self.newest = max(self.newest, t.step)
        oldest = self.newest - self.memory
        for table in (self._rows, self._partial):
            for step in [step for step in table if step <= oldest]:
                del table[step]
        for step in sorted(self._partial)[: -self.memory]:  # where an agent sends nothing, no row is ever complete
            del self._partial[step]

    def _join(self, together: Mapping[str, Transition]) -> Row:
        x, u, w, margin = [], [], [], np.inf
        complete = True
        for name, design in self.designs.items():
            t = together[name]
            x.append(design.normalise(t.state))
            u.append((t.input - design.steady_input) / design.scale[design.nx :])
            w.append(design.transform @ t.disturbance / design.scale[: design.nx])
            margin = min(margin, *design.margins(t.state, t.input).values())
            complete = complete and set(t.neighbours) == set(design.neighbours)
        return Row(
            np.concatenate(x),
            np.concatenate(u),
            np.concatenate(w) if complete else None,
            float(sum(sum(t.rewards.values()) for t in together.values())),
            float(margin),
            {name: t.versions for name, t in together.items()},
        )

    def row(self, step: int) -> Row | None:
        """One step, if it is known."""
        return self._rows.get(step)

    def rows(self) -> Iterable[tuple[int, Row]]:
        """All rows, oldest first."""
        return ((step, self._rows[step]) for step in sorted(self._rows))

    def residuals(self, agent: str) -> Array:
        """Residuals (N, nx) of one agent in its coordinates, physical units; oldest first."""
        design, own = self.designs[agent], self.loop.rows[agent]
        found = [row.w[own] for _, row in self.rows() if row.w is not None]
        return np.array(found).reshape(-1, design.nx) * design.scale[: design.nx]

    def stretch(self) -> Stretch | None:
        """The longest run of consecutive complete rows that ends with the newest; None where there is none."""
        step, chosen = self.newest, []
        while (row := self._rows.get(step)) is not None and row.w is not None:
            chosen.append(row)
            step -= 1
        if not chosen:
            return None
        chosen.reverse()
        x, u = np.array([r.x for r in chosen]), np.array([r.u for r in chosen])
        w = np.array([r.w for r in chosen])
        reward = np.array([r.reward for r in chosen])
        return Stretch(
            np.arange(step + 1, self.newest + 1),
            x,
            u,
            w,
            reward,
            np.array([r.margin for r in chosen]),
            [r.versions for r in chosen],
        )

    def reward(self, x: Array, u: Array) -> Array:
        """Reward per hour (...,) of normalised states (..., n) and inputs (..., m)."""
        total = np.zeros(x.shape[:-1])
        for name, design in self.designs.items():
            states = design.physical_states(x[..., self.loop.rows[name]])
            inputs = design.physical_inputs(u[..., self.loop.columns[name]])
            total = total + self.rewards[name].total(states, inputs)
        return total
