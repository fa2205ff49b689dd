"""What a bag says of one agent, by step, and how its raw messages are read: for learning from bags and for reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.network.forecast import ForecastSet

Vector = NDArray[np.float64]
COMMITMENT = 1  # kind of a forecast that binds


@dataclass(kw_only=True)
class Recorded:
    """One agent's part of a bag, by step.

    Attributes
    ----------
    measured : (nx,); applied : (nu,)
    promises : newest commitment of each step
    """

    measured: dict[int, Vector] = field(default_factory=dict)
    applied: dict[int, Vector] = field(default_factory=dict)
    promises: dict[int, ForecastSet] = field(default_factory=dict)


def values_of(message: Any) -> Vector:
    """Numbers of a measurement, an estimate, a command or what was applied."""
    return np.array(message.values, float)


def promise_of(message: Any) -> ForecastSet | None:
    """What a recorded forecast commits its agent to; None where it does not bind."""
    if int(message.kind) != COMMITMENT:
        return None
    rows, n = int(message.horizon) + 1, len(message.names)
    return ForecastSet(
        str(message.agent),
        int(message.step),
        float(message.period),
        tuple(message.names),
        np.array(message.center).reshape(rows, n),
        np.array(message.scale).reshape(rows, n),
        np.array(message.terminal_center),
        np.array(message.terminal_scale),
        iteration=int(message.iteration),
    )


def _measured(agent: Recorded, message: Any) -> None:
    agent.measured[int(message.step)] = values_of(message)


def _applied(agent: Recorded, message: Any) -> None:
    agent.applied[int(message.step)] = values_of(message)


def _promised(agent: Recorded, message: Any) -> None:
    promise = promise_of(message)
    if promise is not None:
        agent.promises[promise.step] = promise


TAKE: Mapping[str, Callable[[Recorded, Any], None]] = {
    "measurement": _measured,
    "applied": _applied,
    "forecast": _promised,
}
"""What to do with an agent's message, by the last word of its topic."""
