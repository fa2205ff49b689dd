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
    for event in supervised:
        told = _told(event)
        if told is not None:
            found.append(Happening(event["step"] * run.period, told[0], f"process {event['process']}", told[1]))
    return sorted(found, key=lambda h: h.time)


def _told(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """Level and words of a supervisor's event; None for one that is not worth a line."""
    agent = event.get("agent")
    match event["event"]:
        case "died":
            return "ERROR", f"died ({event['how']})"
        case "restarted":
            return "WARN", f"restarted, time {event['restarts']}"
        case "kill":
            return "WARN", f"injected fault: kills {agent}"
        case "revive":
            return "WARN", f"end of the injected fault: {agent} may come back"
        case "back":
            return "OK", f"hears {agent} again"
        case "given up":
            return "ERROR", f"not restarted any more ({event['how']}); the run went on without it"
        case "did not end":
            return "WARN", "did not end on SIGINT and was killed"
    return None


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
