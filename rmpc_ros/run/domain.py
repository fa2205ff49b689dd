"""A corner of DDS for one run: a domain of its own, this machine only, and no litter in shared memory afterwards."""

from __future__ import annotations

import fcntl
import os
import random
import re
import tempfile
import time
from pathlib import Path
from types import TracebackType

from rmpc_ros.bringup import RANGE, transport
from rmpc_ros.errors import RmpcError

DOMAINS = range(1, 102)  # those whose ports lie below the ports that Linux gives to outgoing connections
SHARED_MEMORY = Path("/dev/shm")
_SEGMENT = re.compile(r"(fastdds|fastrtps)_[0-9a-f]{16}")
_YOUNG = 5.0  # seconds: younger files may belong to a process that is just starting


class Domain:
    """Environment of a run's processes. Keeps what the user has set; else takes a free ROS domain while it is open."""

    def __init__(self) -> None:
        self._lock: int | None = None
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Domain:
        discovery = os.environ.get(RANGE, "LOCALHOST")
        if RANGE not in os.environ:
            self.environment[RANGE] = discovery
        self.environment.update(transport(discovery))
        if "ROS_DOMAIN_ID" not in os.environ:
            self.environment["ROS_DOMAIN_ID"] = str(self._claim())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _claim(self) -> int:
        """A domain that no other run on this machine holds; the lock goes with this process."""
        folder = Path(tempfile.gettempdir())
        for domain in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
            try:
                lock = os.open(folder / f"rmpc_ros_domain_{domain}.lock", os.O_RDWR | os.O_CREAT, 0o666)
            except PermissionError:  # another user's lock file
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._lock = lock
            return domain
        raise RmpcError(
            f"all ROS domains {DOMAINS.start} to {DOMAINS.stop - 1} are in use by other runs; set ROS_DOMAIN_ID"
        )


def remove_orphaned_segments(folder: Path = SHARED_MEMORY) -> int:
    """Remove Fast DDS segments whose owner is dead (a killed process leaves them); returns how many.

    The owner of a segment holds a lock on the file `<segment>_el`; the system drops it with the process.
    """
    removed = 0
    for lock in folder.glob("fast*_el"):
        segment = lock.with_name(lock.name.removesuffix("_el"))
        try:
            if not _SEGMENT.fullmatch(segment.name) or time.time() - lock.stat().st_mtime < _YOUNG:
                continue
            handle = os.open(lock, os.O_RDWR)
        except (FileNotFoundError, PermissionError):  # gone meanwhile, or another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            segment.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            removed += 1
        except BlockingIOError:  # its owner lives
            continue
        finally:
            os.close(handle)
    return removed
