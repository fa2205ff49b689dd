"""Parameters of nodes: declared once, with a description and a range, refused with a clear sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from rmpc_ros.errors import ConfigError

Value = bool | int | float | str | list[str]


@dataclass(frozen=True)
class Param:
    """One parameter of a node.

    Attributes
    ----------
    name, default, description : as `ros2 param describe` shows them
    low, high : range of a number, both ends allowed
    choices : allowed words
    read_only : only set at start (all but those that a running node looks at again)
    """

    name: str
    default: Value
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = True

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            return f"a {type(self.default).__name__} from {self.low:g} to {self.high:g}"
        return f"a {type(self.default).__name__}"

    def descriptor(self) -> ParameterDescriptor:
        """The same as a ROS descriptor."""
        out = ParameterDescriptor(description=self.description, read_only=self.read_only)
        if self.choices:
            out.additional_constraints = self.allowed
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                out.floating_point_range = [FloatingPointRange(from_value=float(self.low), to_value=float(self.high))]
            else:
                out.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
        return out


def declare(node: Node, params: Iterable[Param]) -> dict[str, Any]:
    """Declare parameters on a node and return their values.

    Raises
    ------
    ConfigError
        A value given at start has the wrong type or lies outside its range.
    """
    values: dict[str, Any] = {}
    for param in params:
        try:
            value = node.declare_parameter(param.name, param.default, param.descriptor()).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(f"{node.get_fully_qualified_name()}: {_given(error)}; give {param.allowed}") from error
        if param.choices and value not in param.choices:
            raise ConfigError(
                f"{node.get_fully_qualified_name()}: parameter {param.name} = {value!r}; give {param.allowed}"
            )
        values[param.name] = value
    return values


def _given(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
