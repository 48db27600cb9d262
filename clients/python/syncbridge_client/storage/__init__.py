"""The queue and the last state in an SQLite file: they survive the end of the process, and every
update is carried out once.

    async with connect(url, token=token, device_id="phone", store=offline("phone.db")) as session:
        ...

Theory of operation. An update leaves the program only when it is in the file, as it is, at its
place. After a restart everything in the file counts as sent and is not changed any more; its number
in the stream follows from its place and the last acknowledged number, so what the server has
carried out is recognised. An acknowledged update leaves the file in the same transaction that
raises that number.

One task writes, a transaction at a time with all that waits by then, in a worker thread. Who opens
the file raises its generation; whoever has an older one writes no more. When the file cannot be
written, `StorageFailed` says so once, and what comes is kept in memory only.
"""

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread

from syncbridge_client.dialogue import Dialogue
from syncbridge_client.errors import StorageError
from syncbridge_client.queue import Pending
from syncbridge_client.storage.database import Database, Meta, Operation, Snap

SNAP_SECONDS = 1.0
"""The state is written at most so often."""

WRITE_SECONDS = 10.0
"""For the last transaction, when the session is left."""


class OfflineStore:
    """Keeps one session's queue and state; made by `offline`, given to `connect`, used once.

    Attributes:
        durable: updates are safe in the file; False after it has failed, and when it has turned out
            to be that of another user or session.
    """

    def __init__(self, path: str | Path) -> None:
        self.durable = True
        self._database = Database(Path(path))
        self._meta = Meta()
        self._places: dict[str, int] = {}
        self._last_place = self._found = 0
        self._dirty: dict[str, Pending | None] = {}
        self._meta_dirty = self._snap_dirty = False
        self._snap_at = 0.0
        self._foreign = False
        self._wanted = anyio.Event()
        self._written = anyio.Event()
        self._dialogue: Dialogue | None = None
        self._failed: Callable[[StorageError], None] = ignore
        self._wake: Callable[[], None] = ignore_nothing

    async def open(
        self,
        dialogue: Dialogue,
        failed: Callable[[StorageError], None],
        wake: Callable[[], None],
    ) -> bool:
        """Bring back what was kept; whether there was a state.

        Raises:
            StorageError: the file cannot be opened, or is none of ours.
        """
        self._dialogue, self._failed, self._wake = dialogue, failed, wake
        queue = dialogue.replica.queue
        kept = await anyio.to_thread.run_sync(self._database.open, queue.stream)
        self._meta = kept.meta
        queue.stream, queue.acked = kept.meta.stream, kept.meta.acked
        for place, operation in kept.operations:
            pending = operation.pending()
            self._places[pending.id] = self._last_place = place
            queue.restore(pending)
        self._found = self._last_place
        queue.journal = self
        queue.flushed = queue.marks
        if kept.snap is not None:
            dialogue.replica.restore(*kept.snap.parts())
        dialogue.replica.refresh()
        return kept.snap is not None

    def belongs(self, owner: str) -> bool:
        """Whether what was kept belongs to this user and session; the first time it does."""
        if not self._meta.owner:
            self._meta.owner = owner
            self._want_meta()
        if self._meta.owner != owner:
            self._withdraw()
        return self._meta.owner == owner

    def _withdraw(self) -> None:
        """The file is somebody else's: what this session has put in it must not be sent by them."""
        for update_id in [*self._places, *self._dirty]:
            if self._place(update_id) > self._found:
                self._dirty[update_id] = None
        self._foreign = True
        self._wanted.set()

    # The queue's journal

    def put(self, pending: Pending) -> None:
        """See `Journal`."""
        self._dirty[pending.id] = pending
        self._wanted.set()

    def remove(self, update_id: str) -> None:
        """See `Journal`."""
        if update_id in self._places or self._dirty.get(update_id) is not None:
            self._dirty[update_id] = None
            self._wanted.set()

    def moved(self) -> None:
        """See `Journal`."""
        self._want_meta()

    def changed(self) -> None:
        """The server's state has changed."""
        self._snap_dirty = True
        self._wanted.set()

    def _want_meta(self) -> None:
        self._meta_dirty = True
        self._wanted.set()

    # Writing

    @property
    def _idle(self) -> bool:
        return not (self._dirty or self._meta_dirty)

    async def stored(self) -> bool:
        """Wait until all updates made so far are in the file; False when they cannot be."""
        while self.durable and not (self._idle and self._flushed):
            await self._written.wait()
        return self.durable

    @property
    def _flushed(self) -> bool:
        assert self._dialogue is not None
        queue = self._dialogue.replica.queue
        return queue.flushed >= queue.marks

    async def run(self) -> None:
        """Write what waits, until cancelled or failed."""
        while self.durable:
            if self._idle and not self._snap_due():
                self._wanted = anyio.Event()
                wait = self._snap_at - anyio.current_time() if self._snap_dirty else None
                with anyio.move_on_after(wait):
                    await self._wanted.wait()
                continue
            await self._write()

    async def close(self) -> None:
        """Write what waits, the state too, and close the file."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(WRITE_SECONDS):
            if self._dialogue is not None and self.durable:
                self._snap_at = 0.0
                await self._write()
                self.durable = self.durable and not self._foreign
            await anyio.to_thread.run_sync(self._database.close)

    def _snap_due(self) -> bool:
        return self._snap_dirty and anyio.current_time() >= self._snap_at

    async def _write(self) -> None:
        assert self._dialogue is not None
        replica = self._dialogue.replica
        queue = replica.queue
        marks = queue.marks
        meta = Meta(self._meta.generation, queue.stream, queue.acked, self._meta.owner)
        changes = [
            (self._place(update_id), None if pending is None else Operation.of(pending))
            for update_id, pending in self._dirty.items()
        ]
        gone = [update_id for update_id, pending in self._dirty.items() if pending is None]
        snap = Snap.of(replica) if self._snap_due() and replica.known else None
        self._dirty, self._meta_dirty = {}, False
        if snap is not None:
            self._snap_dirty, self._snap_at = False, anyio.current_time() + SNAP_SECONDS
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._database.write, meta, changes, snap)
        except StorageError as error:
            self._fail(error)
        else:
            for update_id in gone:
                self._places.pop(update_id, None)
            queue.flushed = marks
        self._written.set()
        self._written = anyio.Event()
        self._wake()

    def _place(self, update_id: str) -> int:
        if update_id not in self._places:
            self._last_place += 1
            self._places[update_id] = self._last_place
        return self._places[update_id]

    def _fail(self, error: StorageError) -> None:
        """From here on in memory only."""
        assert self._dialogue is not None
        self.durable = False
        queue = self._dialogue.replica.queue
        queue.journal = None
        queue.flushed = float("inf")
        self._failed(error)


def offline(path: str | Path) -> OfflineStore:
    """A store in an SQLite file, made if it is not there: one a user, session and device."""
    return OfflineStore(path)


def ignore(error: StorageError) -> None:
    """Nobody is told yet."""


def ignore_nothing() -> None:
    """Nobody is woken yet."""
