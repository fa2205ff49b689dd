"""What an agent has heard, and when it has heard enough to decide step k.

In lockstep everybody must decide on the same information whatever the order of arrival, so that a run can be repeated:
step k uses the own and the neighbours' measurements k and the neighbours' promises made at k-1 or before. A promise of
step k that arrives early is held back. Waiting is bounded: who is missing after `wait` seconds counts as silent, is not
waited for again until it is heard, and is covered by its last promise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.network.forecast import ForecastSet

Vector = NDArray[np.float64]

MOST = 100  # commitments of one neighbour that wait while no step is taken; dropping the oldest is losing a message


@dataclass(frozen=True)
class Inputs:
    """Everything one control step may use."""

    step: int
    state: Vector
    neighbour_states: dict[str, Vector]
    promises: tuple[ForecastSet, ...]
    missing: tuple[str, ...]
    applied: Vector | None = None  # what the actuators did in the step before, where they say so


class Round:
    """Collects messages for one agent.

    Parameters
    ----------
    neighbours : whom to wait for
    wait : the most to wait for them after the own measurement [s]
    actuators_tell : whether the actuators say what they did; if not told so here, once they have

    Attributes
    ----------
    actuators_tell : as above
    """

    def __init__(self, neighbours: Iterable[str], wait: float, actuators_tell: bool = True) -> None:
        self._wait = wait
        self.actuators_tell = actuators_tell
        self._neighbours = tuple(neighbours)
        self._own: tuple[int, Vector, float] | None = None
        self._done = -1
        self._applied: tuple[int, Vector] = (-2, np.zeros(0))  # of no step, not of the one before the first
        self._measured: dict[str, tuple[int, Vector]] = {}
        self._newest: dict[str, int] = {}
        self._held: list[ForecastSet] = []
        self._first: list[ForecastSet] = []
        self._met: set[str] = set()
        self.silent: set[str] = set()

    @property
    def done(self) -> int:
        """Newest step that was taken; -1 before the first."""
        return self._done

    def own(self, step: int, state: Vector, now: float) -> bool:
        """Own measurement; False where that step has been decided already (a repeated message)."""
        if step <= self._done:
            return False
        if self._own is None or step > self._own[0]:
            self._own = (step, state, now)
        return True

    def applied(self, step: int, values: Vector) -> None:
        """What the own actuators did in a step."""
        self.actuators_tell = True
        self._applied = (step, values)

    def measurement(self, agent: str, step: int, state: Vector) -> None:
        """A neighbour's measurement."""
        if agent not in self._measured or step > self._measured[agent][0]:
            self._measured[agent] = (step, state)

    def promise(self, forecast: ForecastSet) -> None:
        """A neighbour's commitment."""
        agent = forecast.agent
        if agent not in self._newest:
            self._first.append(forecast)  # what it promises before the first step is usable at once
        else:
            self._held.append(forecast)
            waiting = [f for f in self._held if f.agent == agent]
            if len(waiting) > MOST:
                self._held = [f for f in self._held if f is not waiting[0]]
        self._newest[agent] = max(forecast.step, self._newest.get(agent, -1))
        if forecast.step >= self._done:
            self.silent.discard(agent)

    def missing(self, step: int) -> list[str]:
        """Neighbours whose measurement or promise for a step has not come."""
        first = self._done < 0  # at a start nobody has promised at step - 1 yet: any promise will do
        return [
            agent
            for agent in self._neighbours
            if self._measured.get(agent, (-1,))[0] < step or self._newest.get(agent, -1) < (0 if first else step - 1)
        ]

    def due(self, now: float) -> bool:
        """Whether to decide now."""
        if self._own is None or self._own[0] <= self._done:
            return False
        step, _, arrived = self._own
        waiting_for = set(self.missing(step)) - self.silent
        first = self._done != step - 1 or self._done < 0
        echo = first or not self.actuators_tell or self._applied[0] >= self._done
        return (echo and not waiting_for) or now - arrived >= self._wait

    def arrived(self) -> float:
        """When the own measurement of the step that is due came."""
        assert self._own is not None
        return self._own[2]

    def _in_order(self, promises: list[ForecastSet]) -> list[ForecastSet]:
        """By age; of a neighbour just met only the newest, which lies inside the older ones that writers keep."""
        met = {agent for agent in self._neighbours if agent in self._met}
        newest = {f.agent: f for f in sorted(promises, key=_age)}
        self._met |= set(newest)
        return [f for f in sorted(promises, key=_age) if f.agent in met or f is newest[f.agent]]

    def take(self) -> Inputs:
        """Inputs of the step that is due; it counts as decided from now on."""
        assert self._own is not None
        step, state, _ = self._own
        missing = self.missing(step)
        self.silent |= {agent for agent in missing if self._newest.get(agent, -1) < step - 1}
        usable = self._in_order([f for f in self._first if f.step <= step] + [f for f in self._held if f.step < step])
        self._held = [f for f in self._held if f.step >= step]
        self._first = [f for f in self._first if f.step > step]  # of a step to come: nothing is known about this one
        self._done = step
        states = {agent: values for agent, (at, values) in self._measured.items() if at == step}
        applied = self._applied[1] if self._applied[0] == step - 1 else None
        return Inputs(step, state, states, tuple(usable), tuple(missing), applied)


def _age(forecast: ForecastSet) -> tuple[int, int]:
    return forecast.iteration, forecast.step
