"""Shares of a resource that several agents draw from one header, and the book that everybody keeps about them.

    use_i(t) = g_i u_i(t) <= share_i(t),      share_i(t) = fair_i - sum_j given_ij(t) + sum_j given_ji(t)

Shares are worst-case limits of the input, step by step. sum_i fair_i = capacity, and fair_i is not below the
guaranteed part: what the backup law may need anywhere in the invariant box. given_ij(t) counts what i has given to j
for step t since the start; it only grows. A giver lowers its own share in the moment it writes the statement, a taker
raises its own when it has heard it. So each agent reckons with given_ij as it is where it goes out, and as it was some
time ago where it comes in, and

    sum_i share_i(t) <= sum_i fair_i = capacity    at any time, whatever is lost, late, repeated or out of order.

The same holds for everybody's book, also the actuator side's, which cuts every input at the share it knows of. What no
honest agent can state is refused, and named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rmpc_ros.config.sections import Resource
from rmpc_ros.errors import ConfigError, PromiseError
from rmpc_ros.mpc.local import Matrix, Vector
from rmpc_ros.network.agent_design import AgentDesign

ROUNDING = 1e-6  # of the capacity
PATIENCE = 8  # steps
DELAY = 2  # steps from a statement to the first step that it is about: until then everybody has heard it


@dataclass(frozen=True)
class ResourceDesign:
    """A resource and its users, in the resource's unit.

    Attributes
    ----------
    name, unit, capacity
    users : agents
    inputs : per user, which of its inputs draws
    weights : (m,) g, resource per unit of that input
    guaranteed : (m,) what the backup law may need in the invariant box
    fair : (m,) share of who neither gives nor takes; the rest of the capacity in equal parts
    most : (m,) what law and authority together can draw, within the input's limit: nobody can wish for more
    scale : typical use, in which wishes are compared
    rho : of the exchange
    """

    name: str
    unit: str
    capacity: float
    users: tuple[str, ...]
    inputs: tuple[int, ...]
    weights: Vector
    guaranteed: Vector
    fair: Vector
    most: Vector
    scale: float
    rho: float


def design_resource(name: str, resource: Resource, designs: Mapping[str, AgentDesign]) -> ResourceDesign:
    """What follows for a resource from the plant file and its users' designs.

    Raises
    ------
    ConfigError
        The capacity does not cover the guaranteed parts.
    """
    users = tuple(resource.users)
    inputs, weights, guaranteed, most, scales = [], [], [], [], []
    for user in users:
        design = designs[user]
        ((drawn, weight),) = resource.users[user].items()
        n = design.input_names.index(drawn)
        law, authority = float(np.abs(design.model.K[n]) @ design.terminal[: design.nx]), design.terminal[design.nx + n]
        inputs.append(n)
        weights.append(weight)
        scales.append(weight * design.scale[design.nx + n])
        guaranteed.append(weight * float(design.steady_input[n]) + scales[-1] * law)
        most.append(min(weight * float(design.input_upper[n]), guaranteed[-1] + scales[-1] * authority))
    rest = resource.capacity - sum(guaranteed)
    if rest < 0:
        parts = ", ".join(f"{user} {part:.6g}" for user, part in zip(users, guaranteed, strict=True))
        raise ConfigError(
            f"resources.{name}.capacity = {resource.capacity:g} {resource.unit}; the backup laws may need {parts}, "
            f"together {sum(guaranteed):.6g}: give at least that, or less controller.margins.authority"
        )
    return ResourceDesign(
        name,
        resource.unit,
        resource.capacity,
        users,
        tuple(inputs),
        np.array(weights),
        np.array(guaranteed),
        np.array(guaranteed) + rest / len(users),
        np.array(most),
        float(np.mean(scales)),
        resource.rho,
    )


@dataclass(frozen=True)
class Statement:
    """What a user states at a step; column t of the arrays is about step `first` + t.

    Attributes
    ----------
    agent, resource, step, first
    wish : (N,) largest use wanted at the prices in force
    price : (N,) the agent's prices, cost per unit of the resource
    given, taken : (m, N) to and from each user, since the start
    """

    agent: str
    resource: str
    step: int
    first: int
    wish: Vector
    price: Vector
    given: Matrix
    taken: Matrix


class Book:
    """What everybody has given away, as far as it was heard.

    Parameters
    ----------
    design : of the resource
    horizon : columns; the book is about so many steps from the present one on

    Attributes
    ----------
    step : of the first column
    given : (m, m, N) from row to column, accepted statements only
    newest : per user its newest accepted statement
    """

    def __init__(self, design: ResourceDesign, horizon: int) -> None:
        self.design, self.horizon = design, horizon
        m = len(design.users)
        self.step = 0
        self.given = np.zeros((m, m, horizon))
        self.newest: dict[str, Statement] = {}
        self._waiting: dict[str, Statement] = {}
        self._since: dict[str, int] = {}  # step of the first statement of an agent that waits

    def advance(self, step: int) -> None:
        """Make `step` the first column; what lies beyond the last one is untouched: nothing is given."""
        moved = min(max(step - self.step, 0), self.horizon)
        if moved:
            self.given = np.concatenate([self.given[:, :, moved:], np.zeros_like(self.given[:, :, :moved])], axis=2)
        self.step = max(step, self.step)
        for statement in list(self.newest.values()):  # what it says about the new columns
            self._enter(statement)
        self._settle()

    @property
    def unproven(self) -> list[str]:
        """Users whose statements have rested for long on gifts that nobody has made."""
        return [agent for agent in self._waiting if self.step - self._since[agent] > PATIENCE]

    def give(self, agent: str, gifts: Matrix) -> None:
        """Enter own gifts (m, N), from the first column on, before they are stated."""
        self.given[self.design.users.index(agent)] += gifts

    def shares(self) -> Matrix:
        """Everybody's share, (m, N); their sum is the capacity."""
        return np.asarray(self.design.fair[:, None] - self.given.sum(axis=1) + self.given.sum(axis=0))

    def hear(self, said: Statement) -> None:
        """Take a statement in. One that rests on gifts which have not been heard of yet waits for them.

        Raises
        ------
        PromiseError
            No honest user states this; nothing of it is used.
        """
        self.check(said)
        old = self.newest.get(said.agent)
        if old is not None and said.step <= old.step:
            return
        waiting = self._waiting.get(said.agent)
        if waiting is None or said.step > waiting.step:
            self._since[said.agent] = self._since[said.agent] if waiting is not None else said.step
            self._waiting[said.agent] = said
        self._settle()

    def check(self, said: Statement) -> None:
        """Whether a user can honestly state this.

        Raises
        ------
        PromiseError
            It wishes for more than its input can draw, gives what it has not, or takes back what it gave.
        """
        design = self.design
        i, room = design.users.index(said.agent), ROUNDING * design.capacity
        if np.any(said.wish > design.most[i] + room):
            raise PromiseError(
                f"'{said.agent}' asks for {np.max(said.wish):.6g} {design.unit} of {design.name}; it can use "
                f"{design.most[i]:.6g} at most"
            )
        left = design.fair[i] - said.given.sum(axis=0) + said.taken.sum(axis=0)
        if np.any(left < design.guaranteed[i] - room) or np.any(said.given < 0) or np.any(said.given[i] > 0):
            raise PromiseError(
                f"'{said.agent}' gives more {design.name} than it has: {np.min(left):.6g} {design.unit} are left of "
                f"{design.guaranteed[i]:.6g} that its backup law may need"
            )
        old = self.newest.get(said.agent)
        if old is not None and said.step > old.step:
            start = max(said.first, old.first)
            stop = min(said.first, old.first) + said.given.shape[1]
            if stop > start:
                now = said.given[:, start - said.first : stop - said.first]
                before = old.given[:, start - old.first : stop - old.first]
                if np.any(now < before - room):
                    raise PromiseError(f"'{said.agent}' takes back {design.name} that it has given away")

    def _settle(self) -> None:
        """Accept whatever waits and is covered by what was heard."""
        changed = True
        while changed:
            changed = False
            for agent, said in list(self._waiting.items()):
                if self._covered(said):
                    del self._waiting[agent]
                    self.newest[agent] = said
                    self._enter(said)
                    changed = True

    def _covered(self, said: Statement) -> bool:
        """Whether what it says to have taken is known to have been given, in the columns of this book."""
        i, room = self.design.users.index(said.agent), ROUNDING * self.design.capacity
        here, there = self.columns(said)
        return bool(np.all(said.taken[:, there] <= self.given[:, i, here] + room))

    def _enter(self, said: Statement) -> None:
        i = self.design.users.index(said.agent)
        here, there = self.columns(said)
        self.given[i, :, here] = np.maximum(self.given[i, :, here], said.given[:, there])

    def columns(self, said: Statement) -> tuple[slice, slice]:
        """The steps that the book and a statement share, as columns of each."""
        start = max(self.step, said.first)
        stop = max(start, min(self.step + self.horizon, said.first + said.given.shape[1]))
        return slice(start - self.step, stop - self.step), slice(start - said.first, stop - said.first)
