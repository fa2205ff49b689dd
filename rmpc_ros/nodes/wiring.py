"""Wires between standard topics and named vectors, as the plant file maps them.

state = scale * message field + offset;  message field = (input - offset) / scale.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.sections import Actuator, Sensor
from rmpc_ros.errors import ConfigError, MessageError

Vector = NDArray[np.float64]


def message_class(name: str) -> type:
    """Class of `package/Type` or `package/msg/Type`.

    Raises
    ------
    ConfigError
        The package or the type is not installed.
    """
    package, _, short = name.partition("/")
    short = short.removeprefix("msg/")
    try:
        found = getattr(importlib.import_module(f"{package}.msg"), short)
    except (ImportError, AttributeError):
        raise ConfigError(
            f"message type {name}: not installed here; give package/Type of an installed package"
        ) from None
    assert isinstance(found, type)
    return found


class Field:
    """A numeric field of a message type, by its dotted path.

    Raises
    ------
    ConfigError
        The type has no such field, or it does not hold one number.
    """

    def __init__(self, kind: type, path: str, where: str) -> None:
        self.kind = kind
        *self._outer, self._name = path.split(".")
        here: Any = kind()
        for part in path.split("."):
            if not hasattr(here, part):
                fields = ", ".join(getattr(here, "get_fields_and_field_types", dict)()) or "no fields"
                raise ConfigError(f"{where}: {kind.__name__} has no field '{path}'; at '{part}' there are: {fields}")
            here = getattr(here, part)
        if isinstance(here, bool) or not isinstance(here, (int, float)):
            raise ConfigError(f"{where}: field '{path}' of {kind.__name__} does not hold one number")
        self._integer = isinstance(here, int)

    def get(self, message: Any) -> float:
        """The field's value."""
        for part in self._outer:
            message = getattr(message, part)
        return float(getattr(message, self._name))

    def set(self, message: Any, value: float) -> None:
        """Write the field."""
        for part in self._outer:
            message = getattr(message, part)
        setattr(message, self._name, round(value) if self._integer else value)


class Wire:
    """One mapped topic of an agent: which entry of the vector it carries, and how."""

    def __init__(self, spec: Sensor | Actuator, names: Sequence[str], where: str) -> None:
        target = spec.state if isinstance(spec, Sensor) else spec.input
        if target not in names:
            raise ConfigError(f"{where}: {target!r} is not one of {', '.join(names)}")
        if spec.scale == 0:
            raise ConfigError(f"{where}: scale = 0; give a number other than 0")
        self.topic = spec.topic
        self.kind = message_class(spec.type)
        self.index = list(names).index(target)
        self.target = target
        self._field = Field(self.kind, spec.field, where)
        self._scale, self._offset = spec.scale, spec.offset
        self.stamped = hasattr(self.kind(), "header")

    def value(self, message: Any) -> float:
        """Value in the plant file's unit.

        Raises
        ------
        MessageError
            The message's number is not finite.
        """
        number = self._field.get(message)
        if not math.isfinite(number):
            raise MessageError(f"not finite: {self.topic} carries {number}")
        return self._scale * number + self._offset

    def stamp(self, message: Any) -> float | None:
        """When the value was taken [s], where the message says so."""
        if not self.stamped:
            return None
        stamp = message.header.stamp
        return float(stamp.sec) + 1e-9 * float(stamp.nanosec) or None

    def message(self, value: float, stamp: Any, frame: str) -> Any:
        """Message that carries a value given in the plant file's unit."""
        out = self.kind()
        if self.stamped:
            out.header.stamp = stamp
            out.header.frame_id = frame
        self._field.set(out, (value - self._offset) / self._scale)
        return out


class Readings:
    """Newest value of each wired entry and when it was taken, gathered into one vector.

    Parameters
    ----------
    size : entries of the vector
    ahead : seconds by which a stamp may be ahead of the clock. With it a value is as old as its message says, where it
        says so: one that has waited in a queue is not taken for a new one. Without it, as old as its message's coming.
    """

    def __init__(self, wires: Sequence[Wire], size: int, ahead: float | None = None) -> None:
        self.wires = wires
        self._ahead = ahead
        self._unstamped: Vector = np.ones(size)
        self._unstamped[[wire.index for wire in wires if wire.stamped]] = 0.0
        self.values: Vector = np.full(size, np.nan)
        self.heard: Vector = np.full(size, -np.inf)

    def listener(
        self,
        wire: Wire,
        now: Callable[[], float],
        refuse: Callable[[str], None],
        then: Callable[[], None] | None = None,
    ) -> Callable[[Any], None]:
        """Subscription callback of one wire: a refused message leaves the old value to grow stale; else call `then`."""

        def take(message: Any) -> None:
            at = now()
            try:
                value = wire.value(message)
                stamp = wire.stamp(message) if self._ahead is not None else None
                if stamp is not None and stamp > at + (self._ahead or 0.0):
                    raise MessageError(f"from the future: {wire.topic} is stamped {stamp:.9g} s, it is {at:.9g} s")
            except MessageError as error:
                refuse(str(error))
                return
            self.values[wire.index] = value
            self.heard[wire.index] = at if stamp is None else stamp
            if then is not None:
                then()

        return take

    def fresh(self, since: float | Vector, before: float = math.inf) -> Vector | None:
        """The vector, if every entry was taken since a time and before another; else None."""
        inside = (self.heard >= since) & (self.heard < before)
        return self.values.copy() if bool(inside.all()) else None

    def recent(self, since: float, age: float, before: float) -> Vector | None:
        """As `fresh`, but values whose messages do not say when they were taken may have come `age` earlier."""
        return self.fresh(since - age * self._unstamped, before)
