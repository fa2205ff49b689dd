"""The ladder from outside: service `~/set_mode` and parameter `mode` of an agent's node, one and the same thing.

The service sets the parameter, the parameter's checks ask the controller, and the controller changes between two steps
(`network.ladder`). A change is told on /diagnostics with what it did to the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.decision import CONTROLLERS, Decision
from rmpc_ros.network.ladder import CERTIFIED
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.diagnostics import OK, WARN
from rmpc_ros.nodes.parameters import Param
from rmpc_ros.nodes.round import Inputs
from rmpc_ros.srv import SetMode

MODE = Param(
    "mode",
    "",
    "who decides the inputs; empty: the plant file's word",
    choices=("", *CONTROLLERS),
    read_only=False,
)
BUMPLESS = 1.0  # percent of an input's range


class Modes(AgentPart):
    """Changes the controller of an agent when it is asked to."""

    def open(self) -> None:
        """Say which controller decides, and listen."""
        node = self.node
        self._service = node.create_service(SetMode, "~/set_mode", self._on_service)
        self._say(node.controller.mode)
        node.set_parameters([Parameter(MODE.name, value=node.controller.mode)])
        node.add_on_set_parameters_callback(self._allowed)
        node.add_post_set_parameters_callback(self._set)

    def close(self) -> None:
        """Hear no more wishes."""
        node = self.node
        node.remove_on_set_parameters_callback(self._allowed)
        node.remove_post_set_parameters_callback(self._set)
        node.destroy_service(self._service)

    def prepare(self, inputs: Inputs) -> None:
        """Tell the controller what the actuators did, so that it continues from there."""
        if inputs.applied is not None:
            self.node.controller.actuated(inputs.applied)

    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """Tell of a change that took place in this step."""
        transfer = self.node.controller.transfer
        if transfer is not None and transfer.step == decision.step:
            self._say(transfer.after, str(transfer), transfer.bump)

    def _say(self, mode: str, word: str = "", bump: float = 0.0) -> None:
        """On /diagnostics; a PID, or a bump, is worth a look."""
        quiet = mode in CERTIFIED and bump < BUMPLESS
        about = "" if mode in CERTIFIED else ", which guarantees nothing"
        self.node.diagnostics.say(
            "mode", OK if quiet else WARN, f"{mode} decides{about}{': ' if word else ''}{word}", mode=mode, bump=bump
        )

    # -- wishes -------------------------------------------------------------------------------------------------------
    def _on_service(self, request: Any, response: Any) -> Any:
        if request.mode:
            result = self.node.set_parameters([Parameter(MODE.name, value=request.mode)])[0]
            response.success, response.message = result.successful, result.reason
        else:
            response.success = True
        response.mode = self.node.controller.mode
        return response

    def _allowed(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name != MODE.name:
                continue
            try:
                self.node.controller.check_mode(self.node.mode_word(str(parameter.value)))
            except ConfigError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _set(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == MODE.name:
                self.node.controller.set_mode(self.node.mode_word(str(parameter.value)))
