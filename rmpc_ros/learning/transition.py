"""One control step of an agent as data to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Transition:
    """One control step of an agent as data to learn from, in the plant file's units.

    Attributes
    ----------
    state, next_state : (nx,) measured at `step` and `step + 1`
    input : (nu,) applied in between
    neighbours : measured states of the neighbours at `step`
    disturbance : (nx,) next_state minus prediction
    rewards : terms by name
    """

    agent: str
    step: int
    state: Vector
    next_state: Vector
    input: Vector
    neighbours: Mapping[str, Vector]
    disturbance: Vector
    rewards: Mapping[str, float]
