"""The learner's ledger: every update it has published, so that a restarted learner goes on where the last one died.

SQLite, synced before `enter` returns: an update is published after it is in the ledger, so no version number is given
twice. What is in force for an agent is the newest entry that is for it.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from rmpc_ros.errors import DataError
from rmpc_ros.learning.update import Subject, Update

_SCHEMA = """
create table if not exists updates (
    run text not null, subject text not null, version integer not null, plant text not null, agents text not null,
    kind text not null, content text not null, certificate text not null, primary key (run, subject, version));
"""


class Ledger:
    """Open or create the ledger of a run.

    Raises
    ------
    DataError
        The file cannot be opened, or is not a ledger.
    """

    def __init__(self, path: Path, run: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.run = path, run
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise DataError(f"ledger {path} cannot be opened: {error}") from error

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def enter(self, update: Update) -> None:
        """Write an update down.

        Raises
        ------
        DataError
            Its version is not newer than all of its subject, or the file cannot be written.
        """
        newest = self.newest_version(update.subject)
        if update.version <= newest:
            raise DataError(f"{update.subject} version {update.version} is not newer than {newest}")
        u = update
        try:
            content, evidence = (json.dumps(part, allow_nan=False) for part in (u.content, u.certificate))
            self._db.execute(
                "insert into updates values (?, ?, ?, ?, ?, ?, ?, ?)",
                (self.run, u.subject, u.version, u.plant, json.dumps(u.agents), u.kind, content, evidence),
            )
        except (sqlite3.Error, ValueError) as error:
            raise DataError(f"ledger {self.path}: {error}") from error

    def newest_version(self, subject: Subject) -> int:
        """Newest version of a subject; 0: none."""
        query = "select max(version) from updates where run = ? and subject = ?"
        found = self._db.execute(query, (self.run, subject)).fetchone()[0]
        return 0 if found is None else int(found)

    def entries(self, subject: Subject) -> list[Update]:
        """All updates of a subject, oldest first."""
        rows = self._db.execute(
            "select plant, agents, version, kind, content, certificate from updates where run = ? and subject = ? "
            "order by version",
            (self.run, subject),
        )
        return [
            Update(subject, plant, tuple(json.loads(agents)), int(v), kind, json.loads(content), json.loads(evidence))
            for plant, agents, v, kind, content, evidence in rows
        ]

    def in_force(self, subject: Subject, agent: str) -> Update | None:
        """Newest update of a subject that is for an agent."""
        return next((u for u in reversed(self.entries(subject)) if not u.agents or agent in u.agents), None)
