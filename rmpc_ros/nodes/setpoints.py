"""Set-points of an agent as ROS parameters `setpoint.<state>`, settable while the node runs.

    ros2 param set /reactor_separator/reactor1/agent setpoint.T1 432.38

A value that is not certified is refused with the reason, and the target in force stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.network.agent_design import Vector
from rmpc_ros.network.setpoint import certified_target
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.parameters import Param, declare

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode

PREFIX = "setpoint."


class Setpoints(AgentPart):
    """Parameters `setpoint.<state>` of the agent, in the plant file's units."""

    def __init__(self, node: AgentNode) -> None:
        super().__init__(node)
        self._base = np.asarray(node.config.setpoint(node.agent), float)
        self._index = {PREFIX + name: n for n, name in enumerate(node.design.state_names)}
        missing = {name: n for name, n in self._index.items() if not node.has_parameter(name)}
        declare(
            node,
            [
                Param(name, float(self._base[n]), f"set-point of {name[len(PREFIX) :]}", read_only=False)
                for name, n in missing.items()
            ],
        )
        self._values = self._base

    def open(self) -> None:
        """Aim at what the parameters say, and listen.

        Raises
        ------
        ConfigError
            It is not certified.
        """
        node = self.node
        wanted = np.array([float(node.get_parameter(name).value) for name in self._index])
        if not np.array_equal(wanted, self._base):
            try:
                node.controller.set_setpoint(*certified_target(node.design, wanted, self._base))
            except DataError as error:
                raise ConfigError(str(error)) from error
        self._values = wanted
        node.add_on_set_parameters_callback(self._allowed)
        node.add_post_set_parameters_callback(self._set)

    def close(self) -> None:
        """Hear no more wishes; the parameters stay, and are checked when the node is active again."""
        self.node.remove_on_set_parameters_callback(self._allowed)
        self.node.remove_post_set_parameters_callback(self._set)

    def _wanted(self, parameters: Sequence[Parameter]) -> Vector:
        """Set-points (nx,) with the ones among these parameters."""
        values = self._values.copy()
        for parameter in parameters:
            if parameter.name in self._index:
                values[self._index[parameter.name]] = parameter.value
        return values

    def _allowed(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Whether all of them together are certified; others may still refuse them, so nothing changes here."""
        mine = [parameter for parameter in parameters if parameter.name in self._index]
        for parameter in mine:
            if parameter.type_ != Parameter.Type.DOUBLE:
                return SetParametersResult(successful=False, reason=f"{parameter.name}: give a float")
        if mine:
            try:
                certified_target(self.node.design, self._wanted(mine), self._values)
            except DataError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _set(self, parameters: Sequence[Parameter]) -> None:
        wanted = self._wanted(parameters)
        if not np.array_equal(wanted, self._values):
            self.node.controller.set_setpoint(*certified_target(self.node.design, wanted, self._values))
            self._values = wanted
