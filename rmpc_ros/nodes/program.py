"""What a node's program runs first and last: a signal ends it cleanly from the first moment on, and it ends quickly."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def run(kind: str) -> int:
    """Run one node with the usual ROS arguments; returns the exit status.

    Until the node has its own signal handlers, importing takes a second or more: a signal during that time ends the
    program as cleanly as later on.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from rmpc_ros.nodes.process import main

    status = main(kind)
    gc.freeze()  # the system frees what is left; searching it for cycles takes half a second of CPU in each process
    return status
