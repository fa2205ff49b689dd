"""What happened in a run, in order: levels that changed on /diagnostics, and what the supervisor did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmpc_ros.report.data import RunData


@dataclass(frozen=True)
class Happening:
    """A line of the report's table."""

    time: float
    level: str
    who: str
    what: str


def happenings(run: RunData, supervised: Sequence[Mapping[str, Any]] = ()) -> list[Happening]:
    """Everything worth a line, by plant time [s]."""
    found = []
    levels: dict[str, str] = {}
    for status in run.statuses:
        before = levels.get(status.name)
        levels[status.name] = status.level
        if status.level != before and not (before is None and status.level == "OK"):
            found.append(Happening(status.time, status.level, status.name, status.message))
    words = {
        "died": lambda e: ("ERROR", f"died ({e.get('how')})"),
        "restarted": lambda e: ("WARN", f"restarted, time {e.get('restarts')}"),
        "kill": lambda e: ("WARN", f"injected fault: kills {e.get('agent')}"),
        "revive": lambda e: ("WARN", f"end of the injected fault: {e.get('agent')} may come back"),
        "back": lambda e: ("OK", f"hears {e.get('agent')} again"),
        "did not end": lambda e: ("WARN", "did not end on SIGINT and was killed"),
    }
    for event in supervised:
        if event["event"] in words:
            level, text = words[event["event"]](event)
            found.append(Happening(event["step"] * run.period, level, f"process {event['process']}", text))
    return sorted(found, key=lambda h: h.time)


def silent_spans(run: RunData, agent: str) -> list[tuple[int, int]]:
    """Steps [first, last] that an agent did not report: its actuators ran its last plan."""
    reports = run.agents[agent].reports
    spans: list[tuple[int, int]] = []
    for k in range(run.steps):
        if k in reports:
            continue
        if spans and spans[-1][1] == k - 1:
            spans[-1] = (spans[-1][0], k)
        else:
            spans.append((k, k))
    return spans
