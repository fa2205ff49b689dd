"""Who was caught breaking the rules of a shared resource, by one observer, and until when that counts.

Being named costs a user its part in the exchange. One damaged message, or one disturbance beyond the design, names an
honest user too, so a name is cleared after FORGIVEN steps without a new offence. That endangers nobody: shares, the
book and the header's cut do not rest on who is believed.
"""

from __future__ import annotations

FORGIVEN = 30  # steps of good behaviour after which a name is cleared


class Accusations:
    """One observer's list.

    Attributes
    ----------
    cleared : step at which an agent's name was cleared last, while it is clear
    """

    def __init__(self) -> None:
        self._why: dict[str, str] = {}
        self._when: dict[str, int] = {}
        self.cleared: dict[str, int] = {}

    def name(self, agent: str, step: int, why: str) -> None:
        """An offence of an agent at a step; the newest one's words are kept."""
        self._why[agent], self._when[agent] = why, step
        self.cleared.pop(agent, None)

    def advance(self, step: int) -> None:
        """Clear who has behaved for long enough at a step."""
        for agent in [a for a, at in self._when.items() if step - at >= FORGIVEN]:
            del self._why[agent], self._when[agent]
            self.cleared[agent] = step

    @property
    def reasons(self) -> dict[str, str]:
        """Why each agent is named, and when that ends if it behaves."""
        return {
            agent: f"{why} (named until step {self._when[agent] + FORGIVEN} unless it happens again)"
            for agent, why in self._why.items()
        }
