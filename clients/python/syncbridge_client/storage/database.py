"""The SQLite file: its tables, its generation, one transaction a write. Called in worker threads,
never two calls at a time.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from syncbridge_client.errors import StorageError
from syncbridge_client.operations import Edit
from syncbridge_client.queue import Pending
from syncbridge_client.replica import Replica
from syncbridge_client.values import MISSING, to_text

FORMAT = 1
BUSY_SECONDS = 5.0
"""For another process that writes at the moment."""

TABLES = """
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL,
  stream TEXT NOT NULL, acked INTEGER NOT NULL, owner TEXT NOT NULL);
CREATE TABLE operations (place INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE snap (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL);
"""


class Meta(msgspec.Struct):
    """What numbers are given by. `owner`: user and session, once they are known."""

    generation: int = 0
    stream: str = ""
    acked: int = 0
    owner: str = ""


class Snap(msgspec.Struct):
    """The server's state as it is kept."""

    state: dict[str, Any]
    version: int
    epoch: str
    lineage: str

    @classmethod
    def of(cls, replica: Replica) -> "Snap":
        """A copy that does not change."""
        return cls(dict(replica.server), replica.version, replica.epoch, replica.lineage)

    def parts(self) -> tuple[dict[str, Any], int, str, str]:
        """As `Replica.restore` takes them."""
        return self.state, self.version, self.epoch, self.lineage


class KeptEdit(msgspec.Struct, omit_defaults=True):
    """One `Edit`; a value that is not there is left out, which null is not."""

    key: str
    operation: str
    value: Any = msgspec.UNSET
    expected: Any = msgspec.UNSET


class Operation(msgspec.Struct):
    """One update as it is kept."""

    id: str
    guarded: bool
    edits: list[KeptEdit]

    @classmethod
    def of(cls, pending: Pending) -> "Operation":
        """What an update says now."""
        edits = [
            KeptEdit(key, edit.operation, unset(edit.value), unset(edit.expected))
            for key, edit in pending.edits.items()
        ]
        return cls(pending.id, pending.guarded, edits)

    def pending(self) -> Pending:
        """The update, which may have been sent."""
        edits = {
            e.key: Edit(e.operation, missing(e.value), missing(e.expected)) for e in self.edits
        }
        pending = Pending(self.id, edits, self.guarded)
        pending.sent = True
        return pending


class Kept(msgspec.Struct):
    """What a file has. `operations`: with their places, in order."""

    meta: Meta
    operations: list[tuple[int, Operation]]
    snap: Snap | None


_operation = msgspec.json.Decoder(Operation)
_snap = msgspec.json.Decoder(Snap)


class Database:
    """One file. Every method raises StorageError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def open(self, stream: str) -> Kept:
        """Open or make the file, and raise its generation. `stream`: of a new one."""
        with self._failures():
            self._connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            with self._transaction() as run:
                self._prepare(run, stream)
                run.execute("UPDATE meta SET generation = generation + 1")
                return self._read(run)

    def write(
        self, meta: Meta, changes: Sequence[tuple[int, Operation | None]], snap: Snap | None
    ) -> None:
        """One transaction: operations by place, None for one that has left."""
        with self._failures(), self._transaction() as run:
            [generation] = run.execute("SELECT generation FROM meta").fetchone()
            if generation != meta.generation:
                raise StorageError(f"{self._path}: another session has opened it")
            run.execute(
                "UPDATE meta SET stream = ?, acked = ?, owner = ?",
                (meta.stream, meta.acked, meta.owner),
            )
            for place, operation in changes:
                if operation is None:
                    run.execute("DELETE FROM operations WHERE place = ?", (place,))
                else:
                    row = (place, text(operation))
                    run.execute("INSERT OR REPLACE INTO operations VALUES (?, ?)", row)
            if snap is not None:
                run.execute("INSERT OR REPLACE INTO snap VALUES (1, ?)", (text(snap),))

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._failures():
                connection.close()

    def _prepare(self, run: sqlite3.Connection, stream: str) -> None:
        [version] = run.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in TABLES.split(";"):
                run.execute(statement)
            run.execute("INSERT INTO meta VALUES (1, 0, ?, 0, '')", (stream,))
            run.execute(f"PRAGMA user_version = {FORMAT}")
        elif version != FORMAT:
            raise StorageError(f"{self._path}: of format {version}, not {FORMAT}")

    def _read(self, run: sqlite3.Connection) -> Kept:
        row = run.execute("SELECT generation, stream, acked, owner FROM meta").fetchone()
        rows = run.execute("SELECT place, body FROM operations ORDER BY place").fetchall()
        snaps = run.execute("SELECT body FROM snap").fetchall()
        operations = [(place, _operation.decode(body)) for place, body in rows]
        return Kept(Meta(*row), operations, _snap.decode(snaps[0][0]) if snaps else None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        run = self._connection
        if run is None:
            raise StorageError(f"{self._path}: not open")
        run.execute("BEGIN IMMEDIATE")
        try:
            yield run
            run.execute("COMMIT")
        except BaseException:
            if run.in_transaction:
                run.execute("ROLLBACK")
            raise

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
            raise StorageError(f"{self._path}: {error}") from error


def text(kept: Operation | Snap) -> bytes:
    """As JSON, with integers of any size."""
    return to_text(msgspec.to_builtins(kept))


def unset(value: Any) -> Any:
    """MISSING as msgspec leaves it out."""
    return msgspec.UNSET if value is MISSING else value


def missing(value: Any) -> Any:
    """The reverse."""
    return MISSING if value is msgspec.UNSET else value
