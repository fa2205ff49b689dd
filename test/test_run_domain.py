"""A run keeps to itself and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from rmpc_ros.run import domain as room
from rmpc_ros.run.domain import Domain, remove_orphaned_segments


def test_two_runs_never_share_a_domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    monkeypatch.setattr(room.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(room, "DOMAINS", range(1, 4))
    with Domain() as a, Domain() as b:
        with Domain() as c:
            taken = {d.environment["ROS_DOMAIN_ID"] for d in (a, b, c)}
            assert taken == {"1", "2", "3"}
            assert a.environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
            with pytest.raises(room.RmpcError, match="set ROS_DOMAIN_ID"), Domain():
                pass
        with Domain() as again:
            assert again.environment["ROS_DOMAIN_ID"] in taken


def test_what_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    with Domain() as domain:
        assert domain.environment == {}


def test_only_segments_of_dead_processes_are_removed(tmp_path: Path) -> None:
    old = time.time() - 60

    def segment(name: str, age: float = old) -> Path:
        for file in (tmp_path / name, tmp_path / f"{name}_el"):
            file.write_bytes(b"x")
            os.utime(file, (age, age))
        return tmp_path / name

    dead, alive, young = (
        segment(f"fastdds_{digit * 16}", age) for digit, age in (("a", old), ("b", old), ("c", time.time()))
    )
    port, foreign = segment("fastdds_port7411"), segment("something_else")
    holder = os.open(tmp_path / f"{alive.name}_el", os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert remove_orphaned_segments(tmp_path) == 1
    os.close(holder)
    assert not dead.exists()
    assert all(path.exists() for path in (alive, young, port, foreign))
