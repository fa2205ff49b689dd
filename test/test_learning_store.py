"""The learner's store: nothing lost, nothing twice, bounded."""

import csv
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.errors import DataError
from rmpc_ros.learning.outbox import Outbox
from rmpc_ros.learning.store import TransitionStore
from rmpc_ros.learning.transition import Transition


def transition(step: int, agent: str = "a", value: float = 1.0) -> Transition:
    x = np.array([step, value])
    return Transition(agent, step, x, x + 1, np.array([0.5]), {"b": np.array([2.0])}, np.zeros(2), {"profit": value})


def test_what_is_inserted_is_read_back_in_order(tmp_path: Path) -> None:
    with TransitionStore(tmp_path / "t.db") as store:
        assert store.newest("r", "a") == -1
        store.insert("r", [transition(2), transition(0), transition(1, "b")])
    with TransitionStore(tmp_path / "t.db") as store:  # after a restart
        rows = list(store.read())
        assert [(run, t.agent, t.step) for run, t in rows] == [("r", "a", 0), ("r", "a", 2), ("r", "b", 1)]
        found = rows[1][1]
        assert np.array_equal(found.next_state, transition(2).next_state)
        assert found.rewards == {"profit": 1.0} and np.array_equal(found.neighbours["b"], [2.0])
        assert (store.newest("r", "a"), store.missing("r", "a")) == (2, [1])
        assert [t.step for _, t in store.read(agent="a", first=1)] == [2]
        assert [t.step for _, t in store.read(run="r", last=0)] == [0]


def test_resending_changes_nothing_and_a_conflict_is_counted(tmp_path: Path) -> None:
    with TransitionStore(tmp_path / "t.db") as store:
        assert store.insert("r", [transition(n) for n in range(5)]).stored == 5
        again = store.insert("r", [transition(n) for n in range(3, 8)])
        assert (again.stored, again.known, again.conflicting) == (3, 2, 0)
        assert store.insert("other", [transition(0)]).stored == 1
        refused = store.insert("r", [transition(0, value=9.0), transition(7)])
        assert refused.conflicting == 1 and refused.taken == (False, True)
        assert next(iter(store.read("r")))[1].rewards["profit"] == 1.0
        assert len(store) == 9


def test_a_bad_transition_spoils_its_whole_batch_and_nothing_else(tmp_path: Path) -> None:
    with TransitionStore(tmp_path / "t.db") as store:
        store.insert("r", [transition(0)])
        with pytest.raises(DataError, match="step 2 is not finite"):
            store.insert("r", [transition(1), transition(2, value=float("nan"))])
        assert len(store) == 1


def test_retention_drops_the_oldest_and_does_not_take_them_again(tmp_path: Path) -> None:
    with TransitionStore(tmp_path / "t.db", capacity=10) as store:
        store.insert("r", [transition(n) for n in range(25)])
        assert [t.step for _, t in store.read()] == list(range(15, 25))
        again = store.insert("r", [transition(n) for n in range(25)])
        assert (again.dropped, again.known, again.stored) == (15, 10, 0)
        assert store.newest("r", "a") == 24
    with pytest.raises(DataError, match="capacity"):
        TransitionStore(tmp_path / "t.db", capacity=0)


def test_csv_export_holds_every_number(tmp_path: Path) -> None:
    out = io.StringIO()
    with TransitionStore(tmp_path / "t.db") as store:
        store.insert("r", [transition(0), transition(1)])
        assert store.export_csv(out) == 2
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert len(rows) == 2 * (2 + 2 + 1 + 2 + 1 + 1)
    assert {"run": "r", "agent": "a", "step": "1", "quantity": "state", "index": "0", "value": "1.0"} in rows


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    path.write_text("this is not a database, and long enough to be looked at as one" * 20)
    with pytest.raises(DataError, match="cannot be opened"):
        TransitionStore(path)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_learning_store import transition
from rmpc_ros.learning.outbox import Outbox
from rmpc_ros.learning.store import TransitionStore
store = TransitionStore(Path(sys.argv[1]))
first = store.newest("r", "a") + 1
while True:
    store.insert("r", [transition(n) for n in range(first, first + 20)])
    first += 20
    print(first - 1, flush=True)
"""


def test_killed_in_the_middle_of_writing_nothing_acknowledged_is_lost_and_nothing_is_half_there(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "t.db", -1
    for pause in (0.02, 0.05):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate()
        lines += rest.splitlines()
        acknowledged = max([acknowledged, *(int(line) for line in lines if line.strip())])
        with TransitionStore(path) as store:
            assert store.newest("r", "a") >= acknowledged
            assert store.missing("r", "a") == []
            assert len(store) == store.newest("r", "a") + 1
            assert len(store) % 20 == 0  # whole batches only


def test_what_is_acknowledged_is_on_disk_with_all_before_it_whatever_the_order(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with TransitionStore(path) as store:
        store.insert("r", [transition(n) for n in (0, 1, 4)], previous=[-1, 0, 3])  # 2 and 3 are on their way
        assert store.acknowledged("r") == {"a": 1}
        store.insert("r", [transition(3)], previous=[2])
        assert store.acknowledged("r") == {"a": 1}
        store.insert("r", [transition(2)], previous=[1])
        assert store.acknowledged("r") == {"a": 4}
        store.insert("r", [transition(9)], previous=[4])  # the agent was away from 5 to 8
        assert store.acknowledged("r") == {"a": 9}
        store.insert("r", [transition(11)], previous=[10])
    with TransitionStore(path) as store:  # after a death: what waited is sent again
        assert store.acknowledged("r") == {"a": 9}
        again = store.insert("r", [transition(10), transition(11)], previous=[-1, 10])
        assert (again.stored, again.known) == (1, 1)
        assert store.acknowledged("r") == {"a": 11}


def test_an_outbox_survives_its_process_and_empties_when_the_learner_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.outbox"
    box = Outbox(path, "r")
    for step in (0, 1, 2, 7, 8):
        box.append(transition(step))
    box.append(transition(1, value=5.0))  # the first one of a step stays
    again = Outbox(path, "r")  # not closed: its process was killed
    assert [(t.step, before) for t, before in again.pending(-1, 10)] == [(0, -1), (1, 0), (2, 1), (7, 2), (8, 7)]
    assert again.pending(0, 1)[0][0].rewards["profit"] == 1.0
    again.acknowledge(2)
    assert [(t.step, before) for t, before in again.pending(-1, 10)] == [(7, -1), (8, 7)]
    again.append(transition(2))  # it has that already
    assert (len(again), again.acknowledged, again.count_until(7), again.before(8)) == (2, 2, 1, 7)
    assert len(Outbox(path, "another")) == 0


def test_an_outbox_is_bounded_and_counts_what_that_costs(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "a.outbox", "r", capacity=5)
    for step in range(8):
        box.append(transition(step))
    assert (len(box), box.dropped) == (5, 3)
    assert [(t.step, before) for t, before in box.pending(-1, 2)] == [(3, -1), (4, 3)]  # nobody waits for 0 to 2
    size = (tmp_path / "a.outbox").stat().st_size
    for step in range(8, 400):
        box.append(transition(step))
    assert (tmp_path / "a.outbox").stat().st_size <= size + 8192
    assert Outbox(tmp_path / "a.outbox", "r", capacity=5).dropped == 395
    with pytest.raises(DataError, match="not finite"):
        box.append(transition(400, value=float("nan")))


def test_an_outbox_that_could_not_write_once_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.outbox"
    box = Outbox(path, "r", capacity=3)
    for step in range(3):
        box.append(transition(step))
    other = sqlite3.connect(path)
    other.execute("create trigger full before insert on facts begin select raise(abort, 'the disk is full'); end")
    other.commit()
    with pytest.raises(DataError, match="the disk is full"):
        box.acknowledge(0)
    with pytest.raises(DataError, match="the disk is full"):
        box.append(transition(3))
    assert (len(box), box.acknowledged) == (4, -1)  # nothing is forgotten, and counted as it is in the file
    other.execute("drop trigger full")
    other.commit()
    box.acknowledge(0)
    box.append(transition(4))
    assert [t.step for t, _ in Outbox(path, "r").pending(-1, 10)] == [2, 3, 4]
    assert (len(box), box.acknowledged, box.dropped) == (3, 0, 1)


def test_export_to_parquet_has_every_transition(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with TransitionStore(tmp_path / "t.db") as store:
        store.insert("r", [transition(n) for n in range(5)])
        assert store.export_parquet(tmp_path / "t.parquet") == 5
    rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[3]["state"] == [3.0, 1.0] and dict(rows[3]["neighbours"]) == {"b": [2.0]}
    assert dict(rows[3]["rewards"]) == {"profit": 1.0}


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "t.db")
    other.execute("create table transitions (content text)")
    other.commit()
    with pytest.raises(DataError, match="reads format"):
        TransitionStore(tmp_path / "t.db")
