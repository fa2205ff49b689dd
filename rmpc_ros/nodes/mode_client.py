"""`python -m rmpc_ros.nodes.mode_client SERVICE [MODE]`: one call of an agent's `set_mode`, for `rmpc mode`.

Prints one JSON object {"success", "message", "mode"}; the exit status is 0 when the agent answered.
"""

from __future__ import annotations

import json
import sys

import rclpy

from rmpc_ros.srv import SetMode

PATIENCE = 15.0  # seconds to find the service, and again to be answered


def ask(service: str, mode: str) -> dict[str, object]:
    """Call the service; an empty mode only asks.

    Raises
    ------
    TimeoutError
        Nobody offers the service here, or nobody answers.
    """
    node = rclpy.create_node("rmpc_mode", use_global_arguments=False)
    client = node.create_client(SetMode, service)
    if not client.wait_for_service(timeout_sec=PATIENCE):
        raise TimeoutError(f"no service {service} within {PATIENCE:g} s: is the plant running, and is this its domain?")
    future = client.call_async(SetMode.Request(mode=mode))
    rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE)
    answer = future.result() if future.done() else None
    node.destroy_node()
    if answer is None:
        raise TimeoutError(f"{service} did not answer within {PATIENCE:g} s")
    return {"success": bool(answer.success), "message": str(answer.message), "mode": str(answer.mode)}


def main(words: list[str]) -> int:
    """One call; the error in one line on standard error."""
    rclpy.init(args=[])
    try:
        print(json.dumps(ask(words[0], words[1] if len(words) > 1 else "")))
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
