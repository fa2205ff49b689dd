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
        self._values = np.array([float(node.get_parameter(name).value) for name in self._index])
        self._active = False
        node.add_on_set_parameters_callback(self._on_set)

    def open(self) -> None:
        """Aim at what the parameters say.

        Raises
        ------
        ConfigError
            It is not certified.
        """
        self._active = True
        if np.array_equal(self._values, self._base):
            return
        try:
            self.node.controller.set_setpoint(*certified_target(self.node.design, self._values, self._base))
        except DataError as error:
            raise ConfigError(str(error)) from error

    def close(self) -> None:
        """The parameters stay."""
        self._active = False

    def _on_set(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        values, named = self._values.copy(), False
        for parameter in parameters:
            if parameter.name in self._index:
                named = True
                if parameter.type_ != Parameter.Type.DOUBLE:
                    return SetParametersResult(successful=False, reason=f"{parameter.name}: give a float")
                values[self._index[parameter.name]] = parameter.value
        if not named:
            return SetParametersResult(successful=True)
        try:
            target = certified_target(self.node.design, values, self._values)
            if self._active:
                self.node.controller.set_setpoint(*target)
        except DataError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._values = values
        return SetParametersResult(successful=True)
