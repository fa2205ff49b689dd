"""A run keeps to itself and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rmpc_ros import bringup
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
            with pytest.raises(room.RmpcError, match="set ROS_DOMAIN_ID"), Domain():
                pass
        with Domain() as again:
            assert again.environment["ROS_DOMAIN_ID"] in taken


def test_what_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    with Domain() as domain:
        assert domain.environment == {}


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which the user has chosen nothing."""
    for name in (
        "ROS_DOMAIN_ID",
        "RMW_IMPLEMENTATION",
        bringup.PEERS,
        bringup.RANGE,
        *bringup.SOCKETS,
        *bringup.PROFILES,
    ):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("wanted", [None, "LOCALHOST"])
def test_a_run_stays_on_this_machine_and_out_of_shared_memory(
    untouched: pytest.MonkeyPatch, wanted: str | None
) -> None:
    if wanted:
        untouched.setenv(bringup.RANGE, wanted)
    with Domain() as domain:
        profile = Path(domain.environment["FASTDDS_DEFAULT_PROFILES_FILE"])
        assert domain.environment[bringup.RANGE] == "SYSTEM_DEFAULT"
    tree = ElementTree.parse(profile)
    texts = {element.tag.rpartition("}")[2]: element.text for element in tree.iter()}
    assert texts["useBuiltinTransports"] == "false" and texts["type"] == "UDPv4"
    assert {e.text for e in tree.iter() if e.tag.endswith("address")} == {"127.0.0.1"}


def test_a_wider_range_keeps_its_reach_through_sockets(untouched: pytest.MonkeyPatch) -> None:
    untouched.setenv(bringup.RANGE, "SUBNET")
    assert bringup.transport() == bringup.SOCKETS


@pytest.mark.parametrize("name", bringup.PROFILES)
def test_who_has_a_profile_keeps_it(untouched: pytest.MonkeyPatch, name: str) -> None:
    untouched.setenv(name, "mine.xml")
    with Domain() as domain:
        assert set(domain.environment) == {"ROS_DOMAIN_ID", bringup.RANGE}
        assert domain.environment[bringup.RANGE] == "LOCALHOST"


def test_peers_elsewhere_are_not_cut_off(untouched: pytest.MonkeyPatch) -> None:
    untouched.setenv(bringup.RANGE, "LOCALHOST")
    untouched.setenv("ROS_STATIC_PEERS", "192.0.2.7")
    assert bringup.transport() == {}


def test_another_middleware_is_told_nothing_about_fast_dds(untouched: pytest.MonkeyPatch) -> None:
    untouched.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    with Domain() as domain:
        assert domain.environment[bringup.RANGE] == "LOCALHOST"
        assert len(domain.environment) == 2


@pytest.mark.processes
def test_a_node_of_a_run_has_no_port_in_shared_memory(untouched: pytest.MonkeyPatch) -> None:
    look = (
        "import rclpy; rclpy.init(); node = rclpy.create_node('n')\n"
        "print(sum('fastdds' in line for line in open('/proc/self/maps') if '/dev/shm' in line))"
    )
    with Domain() as domain:
        environment = {**os.environ, **domain.environment}
        done = subprocess.run(
            [sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
    assert done.stdout.split() == ["0"]


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
