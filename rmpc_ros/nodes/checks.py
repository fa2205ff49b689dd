"""What a receiver knows beforehand, and the checks every message passes before anything else sees it.

A refused message raises `MessageError` with a text "class of reason: message, field, what and why"; the part before the
first colon is what /diagnostics counts by.
"""

from __future__ import annotations

import array
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import MessageError

Vector = NDArray[np.float64]
Word = TypeVar("Word", bound=str)

AHEAD = 2.0  # periods: a message stamped further ahead of the receiver's clock is refused
PERIOD_TOLERANCE = 1e-9  # relative; the period is a setting, not a measurement


@dataclass(frozen=True)
class Layout:
    """What one agent's messages are made of, in order.

    Attributes
    ----------
    states, inputs : names, (nx,) and (nu,)
    promised : names of the promised quantities, (n,)
    period : control period in seconds
    """

    states: tuple[str, ...]
    inputs: tuple[str, ...]
    promised: tuple[str, ...]
    period: float


@dataclass(frozen=True)
class Peers:
    """Whose messages are taken: the agents of one run.

    Attributes
    ----------
    run : identifier of the run
    agents : layout of every agent that is known
    others : agents that are not taken, but may be spoken about
    """

    run: str
    agents: Mapping[str, Layout]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """Which steps and stamps are taken now; all bounds inclusive.

    Attributes
    ----------
    first_step, last_step : older steps are stale, newer ones lie in the future
    earliest, latest : the same for stamps, in seconds of the receiver's clock
    """

    first_step: int = 0
    last_step: int = 2**64 - 1
    earliest: float = -math.inf
    latest: float = math.inf

    @staticmethod
    def until(now: float, period: float, first_step: int = 0) -> Window:
        """What a clock that says `now` [s] allows: `AHEAD` periods more, as /clock and messages take different ways."""
        latest = now + AHEAD * period
        return Window(first_step=first_step, last_step=int(latest / period), latest=latest)


ANY_TIME = Window()


def seconds(stamp: Any) -> float:
    """A builtin_interfaces/Time as seconds."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


class Check:
    """Checks of one message; each method raises MessageError or returns what was checked."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._what = type(message).__name__

    def refuse(self, reason: str, field: str, why: str) -> MessageError:
        """Error to raise: class of reason, message and sender, field, and why."""
        sender = getattr(self._message, "agent", "")
        of = f" of '{sender}'" if sender else ""
        return MessageError(f"{reason}: {self._what}{of}, field {field}: {why}")

    def origin(self, peers: Peers) -> Layout:
        """Layout of the sender: the message is of this run and of a known agent."""
        message = self._message
        if message.run != peers.run:
            raise self.refuse("other run", "run", f"'{message.run}'; this is run '{peers.run}'")
        layout = peers.agents.get(message.agent)
        if layout is None:
            raise self.refuse(
                "unknown agent", "agent", f"'{message.agent}'; known: {', '.join(peers.agents) or 'none'}"
            )
        return layout

    def time(self, window: Window) -> int:
        """Step of the message: step and stamp lie in the window."""
        message = self._message
        step, stamp = int(message.step), seconds(message.header.stamp)
        if step < window.first_step:
            raise self.refuse("stale", "step", f"{step}; the oldest step taken now is {window.first_step}")
        if step > window.last_step:
            raise self.refuse("future", "step", f"{step}; the newest step taken now is {window.last_step}")
        if stamp < window.earliest:
            raise self.refuse(
                "stale", "header.stamp", f"{stamp:.9g} s; the oldest taken now is {window.earliest:.9g} s"
            )
        if stamp > window.latest:
            raise self.refuse("future", "header.stamp", f"{stamp:.9g} s; the newest taken now is {window.latest:.9g} s")
        return step

    def names(self, field: str, expected: Sequence[str]) -> tuple[str, ...]:
        """A list of names that must be the expected one, in order."""
        given = tuple(getattr(self._message, field))
        if given != tuple(expected):
            raise self.refuse("wrong names", field, f"{_listed(given)}; expected {_listed(expected)}")
        return given

    def choice(self, field: str, allowed: Sequence[Word]) -> Word:
        """Word for an enumeration's number: `allowed[number]`."""
        number = int(getattr(self._message, field))
        if number >= len(allowed):
            words = ", ".join(f"{n} {word}" for n, word in enumerate(allowed))
            raise self.refuse("wrong value", field, f"{number}; allowed: {words}")
        return allowed[number]

    def word(self, field: str, allowed: Sequence[Word]) -> Word:
        """One of the allowed words."""
        given = str(getattr(self._message, field))
        for known in allowed:
            if given == known:
                return known
        raise self.refuse("wrong value", field, f"'{given}'; allowed: {', '.join(allowed)}")

    def number(self, field: str, low: float = -math.inf, nan: bool = False) -> float:
        """One finite number, at least `low`; NaN passes only where it has a meaning."""
        value = float(getattr(self._message, field))
        if nan and math.isnan(value):
            return value
        if not math.isfinite(value):
            raise self.refuse("not finite", field, f"{value}")
        if value < low:
            raise self.refuse("wrong value", field, f"{value:.9g}; allowed: at least {low:.9g}")
        return value

    def floats(self, field: str, shape: tuple[int, ...], low: float = -math.inf, nan: bool = False) -> Vector:
        """An array of the given shape with finite entries, at least `low`; a copy that nobody else changes."""
        raw = getattr(self._message, field)
        count = math.prod(shape)
        if len(raw) != count:
            by = " x ".join(map(str, shape))
            raise self.refuse("wrong length", field, f"{len(raw)} numbers; expected {count} ({by})")
        values = np.frombuffer(raw, dtype=np.float64).reshape(shape).copy() if count else np.zeros(shape)
        if not np.isfinite(values).all() and not (nan and not np.isinf(values).any()):
            where = int(np.flatnonzero(~np.isfinite(values))[0])
            raise self.refuse("not finite", field, f"entry {where} is {values.flat[where]}")
        if low > -math.inf and count and values.min() < low:
            where = int(values.argmin())
            raise self.refuse("wrong value", field, f"entry {where} is {values.flat[where]:.9g}; at least {low:.9g}")
        return values


def packed(values: NDArray[np.float64] | Sequence[float]) -> array.array[float]:
    """Row-major numbers for a float64[] field; ten times cheaper to assign than a list or a numpy array."""
    return array.array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{len(names)} names ({shown})"
