"""One control step of an agent as data to learn from, and its form on disk.

On disk a transition is its layout (names and sizes, the same for all of one agent's steps) and its numbers:

    state, next_state, input, disturbance, neighbours one after the other, rewards      as 64-bit floats
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Versions:
    """Which learned set, model and policy an agent used; 0: the design's own."""

    uncertainty: int = 0
    model: int = 0
    policy: int = 0


@dataclass(frozen=True)
class Transition:
    """One control step of an agent as data to learn from, in the plant file's units.

    Attributes
    ----------
    state, next_state : (nx,) measured at `step` and `step + 1`
    input : (nu,) applied in between
    neighbours : measured states of the neighbours at `step`, of those whose promise for `step` is known too
    disturbance : (nx,) next_state minus prediction
    rewards : terms by name
    versions : in force at `step`
    """

    agent: str
    step: int
    state: Vector
    next_state: Vector
    input: Vector
    neighbours: Mapping[str, Vector]
    disturbance: Vector
    rewards: Mapping[str, float]
    versions: Versions = Versions()


def encode(transition: Transition) -> tuple[str, bytes]:
    """Layout (JSON) and numbers of a transition.

    Raises
    ------
    DataError
        A number is not finite.
    """
    t = transition
    rewards = np.fromiter(t.rewards.values(), float, len(t.rewards))
    numbers = np.concatenate([t.state, t.next_state, t.input, t.disturbance, *t.neighbours.values(), rewards])
    if not np.isfinite(numbers).all():
        raise DataError(f"transition of '{t.agent}' at step {t.step} is not finite")
    sizes = tuple((name, len(values)) for name, values in t.neighbours.items())
    return _layout(len(t.state), len(t.input), sizes, tuple(t.rewards)), numbers.tobytes()


def decode(agent: str, step: int, layout: str, numbers: bytes, versions: Versions) -> Transition:
    """Inverse of `encode`.

    Raises
    ------
    DataError
        The numbers do not fit the layout.
    """
    nx, nu, neighbours, terms = _parsed(layout)
    values = np.frombuffer(numbers)
    if values.size != 3 * nx + nu + sum(size for _, size in neighbours) + len(terms):
        raise DataError(f"stored transition of '{agent}' at step {step} has {values.size} numbers; not of its layout")
    at = 2 * nx + nu
    disturbance = values[at : at + nx]
    at += nx
    others = {}
    for name, size in neighbours:
        others[name] = values[at : at + size]
        at += size
    rewards = dict(zip(terms, values[at:].tolist(), strict=True))
    return Transition(
        agent,
        step,
        values[:nx],
        values[nx : 2 * nx],
        values[2 * nx : 2 * nx + nu],
        others,
        disturbance,
        rewards,
        versions,
    )


@lru_cache(maxsize=256)
def _layout(nx: int, nu: int, neighbours: tuple[tuple[str, int], ...], terms: tuple[str, ...]) -> str:
    return json.dumps({"states": nx, "inputs": nu, "neighbours": [list(n) for n in neighbours], "rewards": list(terms)})


@lru_cache(maxsize=256)
def _parsed(layout: str) -> tuple[int, int, tuple[tuple[str, int], ...], tuple[str, ...]]:
    found = json.loads(layout)
    neighbours = tuple((str(name), int(size)) for name, size in found["neighbours"])
    return int(found["states"]), int(found["inputs"]), neighbours, tuple(found["rewards"])
