"""Cold sessions: the packed format, and the index of sessions to pack.

Theory of operation. A state is a hash and a sorted set: quick to change in place, and many times
as large as its text. After a while without use, both are packed into one zstd string
(`freeze.lua`), with a fifth of the memory or less; the meta hash gets the flag `z`. A script that
needs the state of such a session answers FROZEN and does nothing; the store unpacks it (`thaw.lua`)
and repeats the call. See `freezer` for the first half and `frozen_queue` for the second.

The packed state names its place. Both scripts compare it with the meta hash, so a stale packed
state never replaces a newer one.

The index is one sorted set for each bucket, session -> when to check it next. An entry is only a
hint: the node that checks decides by the session's state, and enters it again if it is too early.
So a node enters each session once, when it first changes it, and not with every write.
"""

from collections.abc import Iterable
from zlib import crc32

import msgspec
import zstandard

from syncbridge.errors import ErrorCode, StoreError
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.stores.keys import every_key

FORMAT, OLD_FORMAT = b"SB\x02", b"SB\x01"
"""First bytes of a packed state; the last one is the format version."""

LEVEL = 3
BUCKETS = 16
KNOWN_MOST = 65_536


class StateDamaged(StoreError):
    """A packed state is unreadable, or belongs to another session. Nothing was done."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.code = ErrorCode.STATE_DAMAGED
        self.retry_after = None


class Packed(msgspec.Struct, array_like=True, gc=False):
    """A state at a place. `flat`: key, value, ...; `index`: key, version, ...; deleted keys are
    only in `index`. `imprints`: key, imprint, ..., of values whose imprint does not follow from
    their text. `writers`: key, entry, ...; earlier releases omit it."""

    version: bytes
    epoch: bytes
    lineage: bytes
    flat: list[bytes]
    index: list[bytes]
    imprints: list[bytes]
    writers: list[bytes] = []


class OldPacked(msgspec.Struct, array_like=True, gc=False):
    """A state packed by format 1."""

    version: bytes
    epoch: bytes
    flat: list[bytes]
    index: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Packed)
_old_decoder = msgspec.msgpack.Decoder(OldPacked)


def pack_state(state: Packed) -> bytes:
    """Pack a state into one string with a checksum. Thread-safe. O(bytes)."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    return FORMAT + compressor.compress(_encoder.encode(state))


def unpack_state(blob: bytes, most: int) -> Packed:
    """Unpack a state.

    Args:
        most: largest size, in bytes.

    Raises:
        StateDamaged: it is no packed state, or an incomplete one.
    """
    if not blob.startswith((FORMAT, OLD_FORMAT)):
        raise StateDamaged("the packed state has an unknown format")
    frame = memoryview(blob)[len(FORMAT) :]
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= most:
            raise StateDamaged("the packed state has an impossible size")
        text = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
        return _decoder.decode(text) if blob.startswith(FORMAT) else _old(text)
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise StateDamaged(f"the packed state is damaged: {type(error).__name__}") from None


def _old(text: bytes) -> Packed:
    state = _old_decoder.decode(text)
    return Packed(state.version, state.epoch, b"", state.flat, state.index, [])


def thaw_command(io: RedisIO, sid: str, state: Packed) -> Command:
    """The call that unpacks a session; safe to repeat."""
    sizes = (len(state.flat), len(state.index), len(state.imprints))
    args: list[bytes | str | int] = [state.version, state.epoch, state.lineage, *sizes]
    args += state.flat
    for key, version in zip(state.index[::2], state.index[1::2], strict=True):
        args += (version, key)
    args += state.imprints
    args += state.writers
    return io.script_command("thaw", every_key(sid), args, repeatable=True)


def bucket_keys(bucket: int, *suffixes: str) -> tuple[str, ...]:
    """Keys of one bucket of the index, all in one slot."""
    return tuple([f"fz:{{{bucket}}}{suffix}" for suffix in suffixes])


class ColdIndex:
    """Adds sessions that this node changes to the index. One pipeline for each batch, one entry for
    each session.

    Args:
        after_ms: when to check an entered session.
    """

    def __init__(self, io: RedisIO, after_ms: int) -> None:
        self._io = io
        self._after_ms = after_ms
        self._known: dict[str, None] = {}
        self._fresh: list[str] = []

    def note(self, sid: str) -> None:
        """Note that this node changed a session. O(1)."""
        if sid in self._known:
            return
        if len(self._known) >= KNOWN_MOST:
            del self._known[next(iter(self._known))]
        self._known[sid] = None
        self._fresh.append(sid)

    def enter(self, sids: Iterable[str]) -> None:
        """Enter sessions again that left the index and are used again."""
        self._fresh += sids

    def flush(self) -> None:
        """Send the noted sessions. With a full queue they wait for the next flush."""
        if not self._fresh:
            return
        try:
            self._io.submit(self._commands(), _ignore)
        except StoreError:
            del self._fresh[:-KNOWN_MOST]
        else:
            self._fresh = []

    def _commands(self) -> list[Command]:
        buckets: dict[int, list[str]] = {}
        for sid in self._fresh:
            buckets.setdefault(crc32(sid.encode()) % BUCKETS, []).append(sid)
        commands = []
        for bucket, sids in buckets.items():
            keys = bucket_keys(bucket, "")
            commands.append(
                self._io.script_command("index", keys, [self._after_ms, *sids], repeatable=True)
            )
        return commands


def _ignore(replies: object) -> None:
    """Ignore the answer: a lost entry costs memory until another node changes the session."""
