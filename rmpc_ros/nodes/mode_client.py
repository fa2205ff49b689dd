"""`python -m rmpc_ros.nodes.mode_client SERVICE [MODE]`: one call of an agent's `set_mode`, for `rmpc mode`.

Prints one JSON object {"success", "message", "mode"}; the exit status is 0 when the agent answered.
"""

from __future__ import annotations

import sys

from rmpc_ros.nodes.asking import PATIENCE, answered, asker, found, tell
from rmpc_ros.srv import SetMode


def ask(words: list[str]) -> dict[str, object]:
    """Call the service; an empty mode, or none, only asks.

    Raises
    ------
    TimeoutError
        Nobody offers the service here, or nobody answers.
    """
    service, mode = words[0], words[1] if len(words) > 1 else ""
    with asker("rmpc_mode") as node:
        client = node.create_client(SetMode, service)
        found(client.wait_for_service(timeout_sec=PATIENCE), f"service {service}")
        answer = answered(node, client.call_async(SetMode.Request(mode=mode)), service)
    return {"success": bool(answer.success), "message": str(answer.message), "mode": str(answer.mode)}


if __name__ == "__main__":
    sys.exit(tell(ask))
