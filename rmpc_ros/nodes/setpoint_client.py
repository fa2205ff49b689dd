"""`python -m rmpc_ros.nodes.setpoint_client NODE [STATE=VALUE ...]`: an agent's set-points, for `rmpc setpoint`.

Prints one JSON object {"success", "message", "setpoints"}; the exit status is 0 when the agent answered.
"""

from __future__ import annotations

import sys

from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient

from rmpc_ros.nodes.asking import PATIENCE, answered, asker, found, tell
from rmpc_ros.nodes.setpoints import PREFIX


def ask(words: list[str]) -> dict[str, object]:
    """Set the set-points that are named, all or none, and read all of them.

    Raises
    ------
    TimeoutError
        Nobody offers the parameters here, or nobody answers.
    """
    agent = words[0].rstrip("/")
    wanted = {state: float(value) for state, _, value in (word.partition("=") for word in words[1:])}
    with asker("rmpc_setpoint") as node:
        client = AsyncParameterClient(node, agent)
        found(client.wait_for_services(timeout_sec=PATIENCE), f"node {agent}")
        success, message = True, ""
        names = sorted(answered(node, client.list_parameters([PREFIX.rstrip(".")], 2), agent).result.names)
        unknown = sorted({PREFIX + state for state in wanted} - set(names))
        if unknown:
            states = ", ".join(name.removeprefix(PREFIX) for name in names)
            success, message = False, f"no state {unknown[0].removeprefix(PREFIX)!r}; there are {states}"
        elif wanted:
            values = [Parameter(PREFIX + state, value=value).to_parameter_msg() for state, value in wanted.items()]
            result = answered(node, client.set_parameters_atomically(values), agent).result
            success, message = bool(result.successful), str(result.reason)
        read = answered(node, client.get_parameters(names), agent).values
    setpoints = {name.removeprefix(PREFIX): value.double_value for name, value in zip(names, read, strict=True)}
    return {"success": success, "message": message, "setpoints": setpoints}


if __name__ == "__main__":
    sys.exit(tell(ask))
