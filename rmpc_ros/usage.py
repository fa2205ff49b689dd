"""CPU time that processes have used, from the system's own book-keeping (/proc, Linux)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float | None:
    """User and system CPU seconds of a process so far; None where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold blanks
    return (int(fields[11]) + int(fields[12])) / TICKS


class Usage:
    """CPU seconds per process between the plant's first steps and its end: starting up is not counted.

    A process that was restarted in between is left out: its book begins anew.
    """

    def __init__(self) -> None:
        self._began: dict[str, tuple[int, float]] = {}
        self._first = 0
        self.steps = 0
        self.cpu_s: dict[str, float] = {}

    def begin(self, pids: Mapping[str, int], step: int) -> None:
        """Note where everybody stands; only the first call counts."""
        if not self._began:
            self._first = step
            self._began = {name: (pid, used) for name, pid in pids.items() if (used := cpu_seconds(pid)) is not None}

    def end(self, pids: Mapping[str, int], step: int) -> None:
        """Take the difference."""
        self.steps = step - self._first
        for name, (pid, before) in self._began.items():
            after = cpu_seconds(pid)
            if pids.get(name) == pid and after is not None:
                self.cpu_s[name] = after - before
