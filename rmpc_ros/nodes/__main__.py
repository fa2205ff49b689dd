"""`python -m rmpc_ros.nodes FILE`: the nodes of one process, as `rmpc run` starts them."""

import signal
import sys
from pathlib import Path
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def start(file: Path) -> int:
    """Run the nodes that a file describes; a signal while they are still being imported ends the process cleanly."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from rmpc_ros.nodes.process import packed

    return packed(file)


sys.exit(start(Path(sys.argv[1])))
