"""An agent's journal of transitions: what the learner has not acknowledged yet, in a small file with a stated bound.

- A transition that `append` has returned from survives the death of this process (SQLite, write-ahead log). It is not
  forced to disk, since that would cost milliseconds in the control step: a power cut may take the newest ones.
- At most `capacity` transitions (about half a kilobyte each); then the oldest go, counted in `dropped`.
- `pending` says of each transition which step was made before it. The oldest one kept has -1: nothing before it will
  come any more, because it is acknowledged, was dropped, or never was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmpc_ros.errors import DataError
from rmpc_ros.learning.transition import Transition, Versions, decode, encode

CAPACITY = 20_000  # transitions; at a period of 36 s more than a week without a learner

_SCHEMA = """
create table if not exists kept (
    step integer primary key, agent text not null, layout text not null, content blob not null,
    set_version integer not null, model_version integer not null, policy_version integer not null);
create table if not exists facts (name text primary key, value text not null) without rowid;
"""


class Outbox:
    """Open or create an outbox; one of another run is emptied.

    Parameters
    ----------
    path : file; its folder is made
    run : identifier of the run
    capacity : most transitions kept

    Attributes
    ----------
    dropped : transitions that the bound has cost, in this run

    Raises
    ------
    DataError
        The file cannot be opened, or is not an outbox.
    """

    def __init__(self, path: Path, run: str, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise DataError(f"capacity = {capacity}: an outbox keeps at least one transition")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.capacity = path, capacity
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = off")
            self._db.executescript(_SCHEMA)
            facts = dict(self._db.execute("select name, value from facts").fetchall())
            if facts.get("run") != run:
                self._db.executescript("begin; delete from kept; delete from facts; commit;")
                facts = {}
                self._say(run=run)
            self.dropped = int(facts.get("dropped", 0))
            self._acknowledged = int(facts.get("acknowledged", -1))
            self._count = int(self._db.execute("select count(*) from kept").fetchone()[0])
        except sqlite3.Error as error:
            raise DataError(f"outbox {path} cannot be opened: {error}") from error

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def __len__(self) -> int:
        return self._count

    @property
    def acknowledged(self) -> int:
        """Newest step that the learner has; -1: none."""
        return self._acknowledged

    def append(self, transition: Transition) -> None:
        """Keep a transition; of a step that is kept already the first one stays.

        Raises
        ------
        DataError
            It is not finite, or the file cannot be written.
        """
        t, v = transition, transition.versions
        layout, content = encode(t)
        if t.step <= self._acknowledged:
            return
        try:
            done = self._db.execute(
                "insert into kept values (?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
                (t.step, t.agent, layout, content, v.uncertainty, v.model, v.policy),
            )
            self._count += done.rowcount
            if self._count > self.capacity:
                with self._transaction():
                    self._db.execute("delete from kept where step = (select min(step) from kept)")
                    self._say(dropped=self.dropped + 1)
                self._count, self.dropped = self._count - 1, self.dropped + 1
        except sqlite3.Error as error:
            raise DataError(f"outbox {self.path}: {error}") from error

    def acknowledge(self, step: int) -> None:
        """Forget everything up to a step."""
        if step <= self._acknowledged:
            return
        try:
            with self._transaction():
                gone = self._db.execute("delete from kept where step <= ?", (step,)).rowcount
                self._say(acknowledged=step)
        except sqlite3.Error as error:
            raise DataError(f"outbox {self.path}: {error}") from error
        self._count, self._acknowledged = self._count - gone, step

    def before(self, step: int) -> int:
        """Newest step kept before a step; -1: none."""
        found = self._db.execute("select max(step) from kept where step < ?", (step,)).fetchone()[0]
        return -1 if found is None else int(found)

    def count_until(self, step: int) -> int:
        """How many are kept up to a step."""
        return int(self._db.execute("select count(*) from kept where step <= ?", (step,)).fetchone()[0])

    def pending(self, after: int, limit: int) -> list[tuple[Transition, int]]:
        """The oldest transitions later than a step, at most `limit`, each with the step kept before it or -1."""
        rows = self._db.execute("select * from kept where step > ? order by step limit ?", (after, limit))
        found, link = [], self.before(after + 1)
        for step, agent, layout, content, *versions in rows:
            found.append((decode(agent, int(step), layout, content, Versions(*versions)), link))
            link = int(step)
        return found

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; a disk that is full once does not leave a transaction open for ever."""
        self._db.execute("begin")
        with self._db:  # commits, or rolls back on an error
            yield

    def _say(self, **facts: object) -> None:
        self._db.executemany(
            "insert into facts values (?, ?) on conflict do update set value = excluded.value",
            [(name, str(value)) for name, value in facts.items()],
        )
