"""Who only looks on gives way, and where the system does not let it, it goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rmpc_ros.nodes import process


class Session:
    """Stands for /proc/self/autogroup: refuses some words."""

    def __init__(self, refusals: list[OSError]) -> None:
        self.refusals, self.words = refusals, []

    def exists(self) -> bool:
        return True

    def write_text(self, word: str, encoding: str) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.words.append(word)


@pytest.fixture
def leader(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that leads its session and whose priority stays."""
    monkeypatch.setattr(process.os, "nice", lambda niceness: niceness)
    monkeypatch.setattr(process.os, "getsid", lambda pid: os.getpid())
    monkeypatch.setattr(process, "BETWEEN", 0.0)
    return monkeypatch


def test_a_system_that_is_busy_with_other_sessions_is_asked_again(leader: pytest.MonkeyPatch) -> None:
    session = Session([BlockingIOError(errno.EAGAIN, "busy")] * 3)
    leader.setattr(process, "AUTOGROUP", session)
    process.give_way(10)
    assert session.words == ["10"]


@pytest.mark.parametrize("error", [BlockingIOError(errno.EAGAIN, "busy"), PermissionError(errno.EPERM, "read-only")])
def test_a_process_that_may_not_lower_its_session_says_so_and_goes_on(
    leader: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError
) -> None:
    session = Session([error] * 100)
    leader.setattr(process, "AUTOGROUP", session)
    process.give_way(10)
    assert session.words == [] and "not lowered" in capsys.readouterr().err


def test_a_session_of_others_is_left_alone(leader: pytest.MonkeyPatch) -> None:
    session = Session([])
    leader.setattr(process, "AUTOGROUP", session)
    leader.setattr(process.os, "getsid", lambda pid: os.getpid() + 1)
    process.give_way(10)
    assert session.words == []


def test_who_steps_does_not_give_way(leader: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leader.setattr(process, "AUTOGROUP", tmp_path / "none")
    leader.setattr(process.os, "nice", lambda niceness: pytest.fail("lowered"))
    process.give_way(0)
