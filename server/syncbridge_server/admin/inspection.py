"""Inspects a session for an operator, and erases it.

With `SYNCBRIDGE_KEY_WRITERS` Redis keeps the writer of each key. Without it, and for keys written
before, Redis keeps only the last writer of the session, which is the writer of keys changed at the
newest version. For keys of an older version, it is known which devices had an update accepted at
that version. An update that changed nothing leaves the same mark, so these devices are candidates
only.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from syncbridge.errors import StoreUnavailable
from syncbridge.integrity import UNREADABLE
from syncbridge.records.sessions import Read, Snapshot, Status
from syncbridge.records.writers import writer_of
from syncbridge_server.ports.store import Store
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.cold import StateDamaged
from syncbridge_server.redis.stores.keys import every_key

_ATTEMPTS = 3
_VERSIONS = 1_000_000
_STREAM = b"i"


class Key(NamedTuple):
    """A key. `value`: JSON text. `writer`: "" when that is not known. `candidates`: see above."""

    key: str
    value: bytes
    version: int
    writer: str
    candidates: list[str]


class Inspected(NamedTuple):
    """A session. `snapshot`: without its state. `bytes`: of keys and values."""

    snapshot: Snapshot
    bytes: int
    keys: list[Key]


class Inspection:
    """Looks at sessions, and erases them."""

    def __init__(self, io: RedisIO, store: Store) -> None:
        self._io = io
        self._store = store

    async def look(self, sid: str) -> Inspected:
        """A session, unpacked if need be; version 0 if never written. Raises StoreError."""
        for _ in range(_ATTEMPTS):
            snapshot: Snapshot = await self._store.call(Read(sid, owner_check=False))
            if snapshot.status is not Status.OK:
                return Inspected(snapshot, 0, [])
            reply = await self._io.script("inspect", every_key(sid), [], repeatable=True)
            if reply != [int(Status.FROZEN)]:
                break
        else:
            raise StoreUnavailable(f"session {sid} was packed again")
        try:
            return read(snapshot, reply)
        except (*UNREADABLE, KeyError, IndexError) as error:
            raise StateDamaged(f"session {sid} cannot be read") from error

    async def erase(self, sid: str) -> int:
        """Erase a session without online devices; returns their number, and keeps it if any.

        Raises StoreError.
        """
        return int(await self._io.script("erase", every_key(sid), []))


def read(snapshot: Snapshot, reply: Any) -> Inspected:
    """Decode the answer of `inspect.lua`. Raises ValueError and others for a damaged one."""
    meta, state, versions, noted = dict(_pairs(reply[0])), reply[1], reply[2], reply[3]
    current, newest, epoch = int(meta[b"v"]), meta.get(b"w", b"").decode(), meta[b"e"].decode()
    changed = {key: int(version) for key, version in _pairs(versions)}
    entries, marks = dict(_pairs(reply[4])), _marks(meta, noted, current)

    def shown(key: bytes, value: bytes) -> Key:
        version = changed.get(key, 0)
        kept = writer_of(entries.get(key), version, epoch)
        writer = newest if version == current else kept
        return Key(key.decode(), value, version, writer, [] if writer else marks.get(version, []))

    snapshot.version, snapshot.device_id, snapshot.flat = current, newest, None
    snapshot.epoch, snapshot.lineage = epoch, meta[b"l"].decode()
    keys = sorted(shown(key, value) for key, value in _pairs(state))
    return Inspected(snapshot, int(meta.get(b"n", 0)), keys)


def _marks(meta: dict[bytes, bytes], noted: list[Any], current: int) -> dict[int, list[str]]:
    """Version -> devices that had an update accepted at it, in order."""
    marks: dict[int, set[str]] = {}
    for name, record in meta.items():
        if name.startswith(_STREAM):
            for stream in record.split(b";")[:2]:
                words = stream.split(b" ")
                if len(words) == 3:
                    marks.setdefault(int(words[2]), set()).add(name[1:].decode())
    for device, ends in _pairs(noted):
        for end in ends:
            marks.setdefault(current - (current - end) % _VERSIONS, set()).add(device.decode())
    return {version: sorted(devices) for version, devices in marks.items()}


def _pairs(flat: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    items = iter(flat)
    return zip(items, items, strict=True)
