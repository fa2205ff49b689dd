"""`python -m rmpc_ros.nodes.setpoint_client NODE [STATE=VALUE ...]`: an agent's set-points, for `rmpc setpoint`.

Prints one JSON object {"success", "message", "setpoints"}; the exit status is 0 when the agent answered.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import rclpy
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient

from rmpc_ros.nodes.setpoints import PREFIX

PATIENCE = 15.0  # seconds to find the node, and again to be answered


def ask(agent: str, wanted: dict[str, float]) -> dict[str, object]:
    """Set the set-points that are named, all or none, and read all of them.

    Raises
    ------
    TimeoutError
        Nobody offers the parameters here, or nobody answers.
    """
    node = rclpy.create_node("rmpc_setpoint", use_global_arguments=False)
    client = AsyncParameterClient(node, agent)

    def answered(future: Any) -> Any:
        rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE)
        if not future.done() or future.result() is None:
            raise TimeoutError(f"{agent} did not answer within {PATIENCE:g} s")
        return future.result()

    try:
        if not client.wait_for_services(timeout_sec=PATIENCE):
            raise TimeoutError(f"no node {agent} within {PATIENCE:g} s: is the plant running, and is this its domain?")
        success, message = True, ""
        names = sorted(answered(client.list_parameters([PREFIX.rstrip(".")], 2)).result.names)
        unknown = sorted({PREFIX + state for state in wanted} - set(names))
        if unknown:
            states = ", ".join(name.removeprefix(PREFIX) for name in names)
            success, message = False, f"no state {unknown[0].removeprefix(PREFIX)!r}; there are {states}"
        elif wanted:
            values = [Parameter(PREFIX + state, value=value).to_parameter_msg() for state, value in wanted.items()]
            result = answered(client.set_parameters_atomically(values)).result
            success, message = bool(result.successful), str(result.reason)
        read = answered(client.get_parameters(names)).values
    finally:
        node.destroy_node()
    setpoints = {name.removeprefix(PREFIX): value.double_value for name, value in zip(names, read, strict=True)}
    return {"success": success, "message": message, "setpoints": setpoints}


def main(words: list[str]) -> int:
    """One call; the error in one line on standard error."""
    rclpy.init(args=[])
    try:
        wanted = {state: float(value) for state, _, value in (word.partition("=") for word in words[1:])}
        print(json.dumps(ask(words[0].rstrip("/"), wanted)))
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
