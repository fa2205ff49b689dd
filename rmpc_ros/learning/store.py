"""The learner's store of transitions: an embedded database that survives being killed at any instant.

- Key (run, agent, step): inserting again changes nothing, so agents may resend whatever was not acknowledged.
- A batch is one transaction (SQLite, write-ahead log, synced before `insert` returns): after `insert` has returned the
  batch is on disk, before that nothing of it counts.
- Append-only; the only deletion is the stated retention: at most `capacity` transitions, the oldest stored go first.
  What retention has dropped stays dropped: it is not taken again when it is resent.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from rmpc_ros.errors import DataError
from rmpc_ros.learning.transition import Transition

CAPACITY = 2_000_000

_SCHEMA = """
create table if not exists transitions (
    number integer primary key autoincrement,
    run text not null, agent text not null, step integer not null, content text not null,
    unique (run, agent, step));
create table if not exists progress (
    run text not null, agent text not null, newest integer not null, dropped integer not null default -1,
    primary key (run, agent)) without rowid;
"""


@dataclass(frozen=True)
class Inserted:
    """What became of a batch.

    Attributes
    ----------
    stored : new
    known : there already with the same content
    conflicting : refused, since other content is stored under the key
    dropped : refused, since retention has dropped this step or a later one of the agent
    """

    stored: int
    known: int
    conflicting: int
    dropped: int


class TransitionStore:
    """Open or create a store.

    Parameters
    ----------
    path : database file; its folder is made
    capacity : most transitions kept

    Raises
    ------
    DataError
        The file cannot be opened, or is not such a store.
    """

    def __init__(self, path: Path, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise DataError(f"capacity = {capacity}: a store keeps at least one transition")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.capacity = path, capacity
        try:
            self._db = sqlite3.connect(path, isolation_level=None)  # transactions are opened by name below
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise DataError(f"transition store {path} cannot be opened: {error}") from error

    def close(self) -> None:
        """Release the file; everything acknowledged is in it already."""
        self._db.close()

    def __enter__(self) -> TransitionStore:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    # -- writing ------------------------------------------------------------------------------------------------------
    def insert(self, run: str, transitions: Sequence[Transition]) -> Inserted:
        """Store a batch, all of it or (on an error) nothing.

        Raises
        ------
        DataError
            A transition is not finite, or the database refused to write.
        """
        rows = [(run, t.agent, t.step, _encode(t)) for t in transitions]
        stored = known = conflicting = dropped = 0
        try:
            self._db.execute("begin immediate")
            try:
                floor = dict(self._db.execute("select agent, dropped from progress where run = ?", (run,)).fetchall())
                newest: dict[str, int] = {}
                for row in rows:
                    _, agent, step, content = row
                    if step <= floor.get(agent, -1):
                        dropped += 1
                        continue
                    done = self._db.execute(
                        "insert into transitions (run, agent, step, content) values (?, ?, ?, ?) "
                        "on conflict do nothing",
                        row,
                    )
                    if done.rowcount == 1:
                        stored += 1
                        newest[agent] = max(step, newest.get(agent, step))
                        continue
                    held = self._db.execute(
                        "select content from transitions where run = ? and agent = ? and step = ?", row[:3]
                    ).fetchone()[0]
                    known, conflicting = known + (held == content), conflicting + (held != content)
                self._db.executemany(
                    "insert into progress (run, agent, newest) values (?, ?, ?) "
                    "on conflict do update set newest = max(newest, excluded.newest)",
                    [(run, agent, step) for agent, step in newest.items()],
                )
                self._retain()
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise DataError(f"transition store {self.path}: {error}") from error
        return Inserted(stored, known, conflicting, dropped)

    def _retain(self) -> None:
        surplus = self._db.execute("select count(*) from transitions").fetchone()[0] - self.capacity
        if surplus <= 0:
            return
        last = self._db.execute(
            "select number from transitions order by number limit 1 offset ?", (surplus - 1,)
        ).fetchone()[0]
        oldest = self._db.execute(
            "select run, agent, max(step) from transitions where number <= ? group by run, agent", (last,)
        ).fetchall()
        self._db.executemany(
            "update progress set dropped = max(dropped, ?) where run = ? and agent = ?",
            [(step, run, agent) for run, agent, step in oldest],
        )
        self._db.execute("delete from transitions where number <= ?", (last,))

    # -- reading ------------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return int(self._db.execute("select count(*) from transitions").fetchone()[0])

    def newest(self, run: str, agent: str) -> int:
        """Largest step stored so far, -1 for none: what the learner acknowledges."""
        row = self._db.execute("select newest from progress where run = ? and agent = ?", (run, agent)).fetchone()
        return -1 if row is None else int(row[0])

    def missing(self, run: str, agent: str) -> list[int]:
        """Steps between the oldest and the newest stored one that are not there."""
        steps = [
            int(s)
            for (s,) in self._db.execute(
                "select step from transitions where run = ? and agent = ? order by step", (run, agent)
            )
        ]
        return sorted(set(range(steps[0], steps[-1] + 1)) - set(steps)) if steps else []

    def read(
        self, run: str | None = None, agent: str | None = None, first: int = 0, last: int | None = None
    ) -> Iterator[tuple[str, Transition]]:
        """Runs and transitions with steps first..last, ordered by run, agent, step."""
        where: list[str] = ["step >= ?"]
        values: list[Any] = [first]
        for column, value in (("run = ?", run), ("agent = ?", agent), ("step <= ?", last)):
            if value is not None:
                where.append(column)
                values.append(value)
        query = (
            f"select run, agent, step, content from transitions where {' and '.join(where)} order by run, agent, step"
        )
        for name, who, step, content in self._db.execute(query, values):
            yield name, _decode(who, step, content)

    def export_csv(self, file: TextIO) -> int:
        """Write everything as long rows run, agent, step, quantity, index, value; returns the number of transitions."""
        writer = csv.writer(file)
        writer.writerow(("run", "agent", "step", "quantity", "index", "value"))
        count = 0
        for count, (run, t) in enumerate(self.read(), start=1):  # noqa: B007 - the count is the result
            vectors = {"state": t.state, "next_state": t.next_state, "input": t.input, "disturbance": t.disturbance}
            vectors |= {f"neighbour:{name}": values for name, values in t.neighbours.items()}
            for quantity, values in vectors.items():
                writer.writerows((run, t.agent, t.step, quantity, n, repr(float(v))) for n, v in enumerate(values))
            writer.writerows((run, t.agent, t.step, f"reward:{k}", 0, repr(float(v))) for k, v in t.rewards.items())
        return count


def _encode(transition: Transition) -> str:
    content = {
        "state": transition.state.tolist(),
        "next_state": transition.next_state.tolist(),
        "input": transition.input.tolist(),
        "neighbours": {name: values.tolist() for name, values in transition.neighbours.items()},
        "disturbance": transition.disturbance.tolist(),
        "rewards": {name: float(value) for name, value in transition.rewards.items()},
    }
    try:
        return json.dumps(content, allow_nan=False, sort_keys=True)
    except ValueError as error:
        raise DataError(f"transition of '{transition.agent}' at step {transition.step} is not finite") from error


def _decode(agent: str, step: int, content: str) -> Transition:
    values = json.loads(content)
    return Transition(
        agent,
        int(step),
        np.array(values["state"]),
        np.array(values["next_state"]),
        np.array(values["input"]),
        {name: np.array(v) for name, v in values["neighbours"].items()},
        np.array(values["disturbance"]),
        values["rewards"],
    )
