"""The learner's store of transitions: an embedded database that survives being killed at any instant.

- Key (run, agent, step): inserting again changes nothing, so agents may resend whatever was not acknowledged.
- A batch is one transaction (SQLite, write-ahead log, synced before `insert` returns): after `insert` has returned the
  batch is on disk, before that nothing of it counts.
- Append-only; the only deletion is the stated retention: at most `capacity` transitions, the oldest stored go first.
  What retention has dropped stays dropped: it is not taken again when it is resent.
- Acknowledged is the newest step that is on disk with all before it. Steps may have gaps (an agent that was away), so
  each transition says which one its sender made before it.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from rmpc_ros.errors import DataError
from rmpc_ros.learning.transition import Transition, Versions, decode, encode

CAPACITY = 2_000_000

FORMAT = 2  # of the file, kept in SQLite's user_version
ROWS = 20_000  # of an export that are in memory at once

_SCHEMA = """
create table if not exists layouts (id integer primary key, layout text not null unique);
create table if not exists transitions (
    number integer primary key autoincrement,
    run text not null, agent text not null, step integer not null,
    layout integer not null, content blob not null,
    set_version integer not null, model_version integer not null, policy_version integer not null,
    unique (run, agent, step));
create table if not exists progress (
    run text not null, agent text not null, newest integer not null default -1, dropped integer not null default -1,
    acknowledged integer not null default -1,
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
    taken : (transitions,) whether each was stored or known: what the store refused is not learned from either
    """

    stored: int
    known: int
    conflicting: int
    dropped: int
    taken: tuple[bool, ...] = ()


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
        self._waiting: dict[tuple[str, str], dict[int, int]] = {}  # on disk, but something before them is not
        try:
            self._db = sqlite3.connect(path, isolation_level=None)  # transactions are opened by name below
            found = self._db.execute("pragma user_version").fetchone()[0]
            if found not in (0, FORMAT) or (found == 0 and self._db.execute("select 1 from sqlite_master").fetchone()):
                raise DataError(f"transition store {path}: format {found}; this program reads format {FORMAT}")
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            self._db.executescript(f"{_SCHEMA} pragma user_version = {FORMAT};")
            self._count = int(self._db.execute("select count(*) from transitions").fetchone()[0])
            self._layouts = {layout: int(n) for n, layout in self._db.execute("select id, layout from layouts")}
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
    def insert(self, run: str, transitions: Sequence[Transition], previous: Sequence[int] | None = None) -> Inserted:
        """Store a batch, all of it or (on an error) nothing.

        Parameters
        ----------
        previous : of each transition, the step that its sender made before it; -1 (the default): none will come

        Raises
        ------
        DataError
            A transition is not finite, or the database refused to write.
        """
        encoded = [encode(t) for t in transitions]
        before = [-1] * len(transitions) if previous is None else previous
        tally = dict.fromkeys(("stored", "known", "conflicting", "dropped"), 0)
        newest: dict[str, int] = {}
        came: dict[str, dict[int, int]] = {}
        taken: list[bool] = []
        try:
            self._db.execute("begin immediate")
            try:
                progress = {
                    agent: (int(dropped), int(acknowledged))
                    for agent, dropped, acknowledged in self._db.execute(
                        "select agent, dropped, acknowledged from progress where run = ?", (run,)
                    )
                }
                for t, (layout, content), link in zip(transitions, encoded, before, strict=True):
                    floor = progress.get(t.agent, (-1, -1))[0]
                    what = "dropped" if t.step <= floor else self._put(run, t, layout, content)
                    tally[what] += 1
                    taken.append(what in ("stored", "known"))
                    came.setdefault(t.agent, {})[t.step] = link
                    if what == "stored":
                        newest[t.agent] = max(t.step, newest.get(t.agent, t.step))
                reached = {
                    agent: self._reached(run, agent, links, max(progress.get(agent, (-1, -1))))
                    for agent, links in came.items()
                }
                self._db.executemany(
                    "insert into progress (run, agent, newest, acknowledged) values (?, ?, ?, ?) on conflict do "
                    "update set newest = max(newest, excluded.newest), "
                    "acknowledged = max(acknowledged, excluded.acknowledged)",
                    [(run, agent, newest.get(agent, -1), step) for agent, (step, _) in reached.items()],
                )
                surplus = self._count + tally["stored"] - self.capacity
                if surplus > 0:
                    self._retain(surplus)
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                self._layouts = {layout: int(n) for n, layout in self._db.execute("select id, layout from layouts")}
                raise
        except sqlite3.Error as error:
            raise DataError(f"transition store {self.path}: {error}") from error
        self._count += tally["stored"] - max(surplus, 0)
        for agent, (_, waiting) in reached.items():
            self._waiting[run, agent] = waiting
        return Inserted(**tally, taken=tuple(taken))

    def _put(self, run: str, t: Transition, layout: str, content: bytes) -> str:
        """Insert one row; what became of it."""
        number = self._layouts.get(layout)
        if number is None:
            number = self._db.execute("insert into layouts (layout) values (?)", (layout,)).lastrowid
            assert number is not None
            self._layouts[layout] = number
        v = t.versions
        done = self._db.execute(
            "insert into transitions (run, agent, step, layout, content, set_version, model_version, policy_version) "
            "values (?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
            (run, t.agent, t.step, number, content, v.uncertainty, v.model, v.policy),
        )
        if done.rowcount == 1:
            return "stored"
        held = self._db.execute(
            "select layout, content from transitions where run = ? and agent = ? and step = ?", (run, t.agent, t.step)
        ).fetchone()
        return "known" if held == (number, content) else "conflicting"

    def _reached(self, run: str, agent: str, links: dict[int, int], known: int) -> tuple[int, dict[int, int]]:
        """Newest step with everything before it, and what waits for something before it."""
        waiting = self._waiting.get((run, agent), {}) | links
        for step in sorted(waiting):
            if waiting[step] > known:
                continue
            known = max(known, step)
            del waiting[step]
        return known, waiting

    def _retain(self, surplus: int) -> None:
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
        return self._count

    def acknowledged(self, run: str) -> dict[str, int]:
        """Newest step of each agent that is on disk with all before it."""
        rows = self._db.execute("select agent, acknowledged from progress where run = ? order by agent", (run,))
        return {str(agent): int(step) for agent, step in rows}

    def runs(self) -> list[str]:
        """Identifiers of all runs."""
        return [str(run) for (run,) in self._db.execute("select distinct run from progress order by run")]

    def newest(self, run: str, agent: str) -> int:
        """Largest step stored so far, -1 for none."""
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
            "select run, agent, step, layouts.layout, content, set_version, model_version, policy_version "
            f"from transitions join layouts on layouts.id = transitions.layout where {' and '.join(where)} "
            "order by run, agent, step"
        )
        for name, who, step, layout, content, *versions in self._db.execute(query, values):
            yield name, decode(who, int(step), layout, content, Versions(*versions))

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

    def export_parquet(self, path: Path) -> int:
        """Write everything as a Parquet file, a row per transition; returns their number.

        Columns run, agent, step, set_version, model_version, policy_version; state, next_state, input, disturbance as
        lists; neighbours and rewards as maps. Needs the extra `train`.

        Raises
        ------
        DataError
            pyarrow is not installed.
        """
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise DataError("Parquet needs pyarrow: pip install rmpc_ros[train], or export CSV") from error
        vector, whole = pa.list_(pa.float64()), pa.int64()
        columns = [("run", pa.string()), ("agent", pa.string()), ("step", whole)]
        columns += [(name, whole) for name in ("set_version", "model_version", "policy_version")]
        columns += [(name, vector) for name in ("state", "next_state", "input", "disturbance")]
        columns += [("neighbours", pa.map_(pa.string(), vector)), ("rewards", pa.map_(pa.string(), pa.float64()))]
        schema = pa.schema(columns)
        count = 0
        with pq.ParquetWriter(path, schema) as writer:
            rows = self.read()
            while batch := list(islice(rows, ROWS)):
                writer.write_table(pa.Table.from_pylist([_row(run, t) for run, t in batch], schema=schema))
                count += len(batch)
        return count


def _row(run: str, t: Transition) -> dict[str, Any]:
    return {
        "run": run,
        "agent": t.agent,
        "step": t.step,
        "set_version": t.versions.uncertainty,
        "model_version": t.versions.model,
        "policy_version": t.versions.policy,
        "state": t.state.tolist(),
        "next_state": t.next_state.tolist(),
        "input": t.input.tolist(),
        "disturbance": t.disturbance.tolist(),
        "neighbours": [(name, values.tolist()) for name, values in t.neighbours.items()],
        "rewards": list(t.rewards.items()),
    }
