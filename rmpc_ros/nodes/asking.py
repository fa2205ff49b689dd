"""What the clients of a running agent share: one question, its answer as one line of JSON, errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.node import Node

PATIENCE = 15.0  # seconds to find whom to ask, and again to be answered


@contextmanager
def asker(name: str) -> Iterator[Node]:
    """A node for one question."""
    node = rclpy.create_node(name, use_global_arguments=False)
    try:
        yield node
    finally:
        node.destroy_node()


def found(there: bool, whom: str) -> None:
    """Go on only where somebody is there to be asked.

    Raises
    ------
    TimeoutError
        Nobody is.
    """
    if not there:
        raise TimeoutError(f"no {whom} within {PATIENCE:g} s: is the plant running, and is this its domain?")


def answered(node: Node, future: Any, whom: str) -> Any:
    """Result of a call.

    Raises
    ------
    TimeoutError
        There is none in time.
    """
    rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE)
    if not future.done() or future.result() is None:
        raise TimeoutError(f"{whom} did not answer within {PATIENCE:g} s")
    return future.result()


def tell(ask: Callable[[list[str]], dict[str, object]]) -> int:
    """Ask with the command line's words and print the answer; the exit status is 0 when there was one."""
    rclpy.init(args=[])
    try:
        print(json.dumps(ask(sys.argv[1:])))
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0
