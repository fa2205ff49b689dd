"""One node's statuses for /diagnostics: a level, a sentence a person can act on, and numbers beside it."""

from __future__ import annotations

from collections import Counter

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE


class Diagnostics:
    """Collects statuses and counters between publications.

    Parameters
    ----------
    name : full name of the node; statuses are called `name` or `name: part`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rejected: Counter[str] = Counter()
        self.urgent = False
        self._latest: dict[str, DiagnosticStatus] = {}

    def say(self, part: str, level: bytes, message: str, **numbers: object) -> None:
        """Set the status of a part of the node; a changed level is published at once."""
        name = f"{self.name}: {part}" if part else self.name
        before = self._latest.get(part)
        self.urgent = self.urgent or before is None or before.level != level
        values = [KeyValue(key=key, value=_shown(value)) for key, value in numbers.items()]
        self._latest[part] = DiagnosticStatus(
            level=level, name=name, message=message, hardware_id=self.name, values=values
        )

    def reject(self, reason: str) -> None:
        """Count a refused message; `reason` is a short class of reasons followed by ': ' and details."""
        kind = reason.partition(": ")[0]
        self.rejected[kind] += 1
        self.say(
            "messages",
            WARN,
            f"refused {self.rejected.total()}, last: {reason}",
            rejected=self.rejected.total(),
            **{f"rejected ({kind})": count for kind, count in sorted(self.rejected.items())},
        )

    def statuses(self) -> list[DiagnosticStatus]:
        """Everything to publish now."""
        self.urgent = False
        return list(self._latest.values())


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
