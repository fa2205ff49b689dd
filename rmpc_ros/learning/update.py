"""A new uncertainty set, model or policy for some agents: versioned, with what vouches for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Subject = Literal["uncertainty", "model", "policy"]
SUBJECTS: tuple[Subject, ...] = get_args(Subject)


@dataclass(frozen=True)
class Update:
    """A new uncertainty set, model or policy for some agents.

    Attributes
    ----------
    subject : "uncertainty", "model" or "policy"
    kind : family of the set, kind of the model or policy
    agents : whom it is for; empty for every agent
    version : counts up; only a newer one replaces what is in force
    content, certificate : JSON objects
    """

    subject: Subject
    plant: str
    agents: tuple[str, ...]
    version: int
    kind: str
    content: dict[str, Any]
    certificate: dict[str, Any]
