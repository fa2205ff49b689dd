"""A commitment survives whatever happens to the process that wrote it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpc_ros.errors import DataError
from rmpc_ros.network.journal import Journal, decode, encode, facts_of


@dataclass(frozen=True)
class Promise:
    agent: str
    step: int
    names: tuple[str, ...]
    center: np.ndarray
    transform: np.ndarray | None


@dataclass(frozen=True)
class Other:
    agent: str
    step: int


def test_the_newest_record_is_read_back_after_reopening(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep" / "a.journal")
    for n in range(7):
        journal.write(f"record {n}".encode())
    journal.close()
    again = Journal(tmp_path / "deep" / "a.journal")
    assert again.read().payload == b"record 6"
    again.write(b"next")
    assert again.read() == Journal(again.path).read()
    assert again.read().number == 8


def test_a_record_cut_anywhere_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal(path)
    journal.write(b"old" * 50)
    before = path.read_bytes()
    journal.write(b"new" * 50)
    after = path.read_bytes()
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    first, last = changed[0], changed[-1]
    for cut in range(first, last):  # bytes before `cut` reached the disk, the rest did not
        path.write_bytes(after[:cut] + before[cut:])
        assert Journal(path).read().payload == b"old" * 50
    path.write_bytes(after)
    assert Journal(path).read().payload == b"new" * 50


@given(st.integers(0, 400), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_flipped_byte_never_gives_a_wrong_record(tmp_path_factory, position: int, mask: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("j") / "a.journal"
    journal = Journal(path)
    journal.write(b"A" * 100)
    journal.write(b"B" * 120)
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(bytes(data))
    found = Journal(path).read()
    assert found is None or found.payload in (b"A" * 100, b"B" * 120)


def test_the_file_does_not_grow_with_the_run_but_with_the_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.journal")
    journal.write(b"x" * 3000)
    size = journal.path.stat().st_size
    for _ in range(50):
        journal.write(b"y" * 3000)
    assert journal.path.stat().st_size == size
    journal.write(b"z" * 100_000)
    assert journal.path.stat().st_size > size
    assert journal.read().payload == b"z" * 100_000
    assert not list(tmp_path.glob("*.new"))


def test_a_missing_empty_or_foreign_file_holds_no_record(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    assert Journal(path).read() is None
    for content in (b"", b"RMPC", b"something else entirely, long enough for a head"):
        path.write_bytes(content)
        assert Journal(path).read() is None
    journal = Journal(path)
    journal.write(b"fresh")
    assert Journal(path).read().payload == b"fresh"


WRITER = """
import sys
from pathlib import Path
from rmpc_ros.network.journal import Journal
journal = Journal(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    journal.write(b"%d " % n * 4000)
    print(n, flush=True)
"""


def test_a_killed_writer_has_on_disk_all_it_announced(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(40):
        announced = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.communicate(timeout=10)[0].split()
    announced = int(rest[-1]) if rest else announced
    found = Journal(path).read()
    assert found.number in (announced, announced + 1)
    assert found.payload == b"%d " % found.number * 4000


def test_dataclasses_come_back_exactly(tmp_path: Path) -> None:
    promise = Promise("reactor1", 12, ("xA", "T"), np.random.default_rng(0).normal(size=(5, 2)), None)
    plan = Promise("reactor1", 12, (), np.zeros((0, 3)), np.array([[np.pi]]))
    payload = encode({"promise": promise, "plan": plan}, run="r1", step=12)
    assert facts_of(payload) == {"run": "r1", "step": 12}
    back = decode(payload, {"promise": Promise, "plan": Promise})
    assert back["promise"].names == ("xA", "T")
    assert back["promise"].transform is None
    assert np.array_equal(back["promise"].center, promise.center)
    assert back["plan"].center.shape == (0, 3)
    assert back["plan"].transform[0, 0] == np.pi


def test_a_record_of_another_version_is_refused() -> None:
    payload = encode({"promise": Other("a", 1)})
    with pytest.raises(DataError, match="expected"):
        decode(payload, {"promise": Promise})
    with pytest.raises(DataError, match="plan"):
        decode(payload, {"plan": Promise})
