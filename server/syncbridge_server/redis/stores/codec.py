"""Requests of `syncbridge.records.sessions` to script calls, and their replies back to answers.

Pure functions without I/O. The order of KEYS and ARGV is written at the top of each script; the
tests run both sides against a real server, which is what keeps them in step.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from syncbridge.limits import Limits
from syncbridge.records.sessions import (
    Answer,
    Apply,
    Device,
    Hello,
    Leave,
    Left,
    Lost,
    Outcome,
    Read,
    Resume,
    Resumed,
    Review,
    Reviewed,
    SessionRequest,
    Snapshot,
    Status,
    Touch,
    Touched,
    Welcome,
)

WAITING_TTL_MS = 3_600_000
"""How long the devices of a session that does not exist yet are remembered."""

Argument = bytes | str | int


class Settings(msgspec.Struct, frozen=True):
    """What every call carries besides its request: our node, and the limits."""

    node: str
    ttl_ms: int
    state_bytes: int
    state_keys: int
    mutations: int
    tombstones: int
    value_bytes: int

    @classmethod
    def of(cls, node: str, limits: Limits) -> "Settings":
        """From the limits of the contract."""
        return cls(
            node=node,
            ttl_ms=limits.session_ttl * 1000,
            state_bytes=limits.state_bytes,
            state_keys=limits.state_keys,
            mutations=limits.idempotency_ids,
            tombstones=limits.tombstones,
            value_bytes=limits.value_bytes,
        )


class Call(msgspec.Struct, gc=False, frozen=True):
    """A script call: its name, keys and arguments, and whether it may be sent twice."""

    script: str
    keys: tuple[str, ...]
    args: Sequence[Argument]
    repeatable: bool


def _keys(sid: str, letters: str) -> tuple[str, ...]:
    return tuple([f"s:{{{sid}}}:{letter}" for letter in letters])


_busy_keys = lru_cache(2_048)(_keys)
"""For what is done often to few sessions; a session that is only joined has no entry."""


def encode_apply(request: Apply, settings: Settings, epoch: str) -> Call:
    """Raises ValueError when a key appears twice."""
    sets, deletes = request.sets, request.deletes
    if len(sets) + len(deletes) > 2:
        names = sets[::2]
        if len({*names, *deletes}) != len(names) + len(deletes):
            raise ValueError("a key appears twice in one write")
    flags = request.owner_check + 2 * request.create + 4 * request.replace + 8 * request.operation
    args: list[Argument] = [
        len(sets) >> 1,
        len(deletes),
        int(request.mode),
        request.base_version,
        flags,
        request.user_id,
        request.device_id,
        request.mutation_id,
        epoch,
        request.app_version,
        settings.node,
        settings.ttl_ms,
        settings.state_bytes,
        settings.state_keys,
        settings.mutations,
        settings.tombstones,
        request.fence,
        *sets,
        *deletes,
    ]
    if request.operation:
        args += (request.expected, settings.value_bytes)
    return Call("apply", _busy_keys(request.sid, "mdkinoj"), args, bool(request.mutation_id))


def encode_hello(request: Hello, settings: Settings) -> Call:
    epoch, version, _ = request.since or ("", -1, "")
    known = request.known or ("", -1, "")
    args: list[Argument] = [
        request.user_id,
        request.device_id,
        request.conn,
        request.info,
        request.node,
        int(request.owner_check),
        epoch,
        version,
        known[0],
        known[1],
        request.max_devices,
        request.presence_ms,
        settings.ttl_ms,
        WAITING_TTL_MS,
    ]
    # Not repeatable: the second answer would not name the connection that the first replaced.
    return Call("hello", _keys(request.sid, "mdkipvonz"), args, False)


def encode_resume(request: Resume) -> Call:
    args: list[Argument] = [
        request.user_id,
        int(request.owner_check),
        request.place.epoch,
        request.place.version,
    ]
    return Call("resume", _keys(request.sid, "mdk"), args, True)


def encode_read(request: Read) -> Call:
    epoch, version, _ = request.etag or ("", -1, "")
    args: list[Argument] = [request.user_id, int(request.owner_check), epoch, version]
    return Call("read", _keys(request.sid, "md"), args, True)


def encode_review(request: Review) -> Call:
    args: list[Argument] = [request.user_id, int(request.owner_check), request.base]
    return Call("review", _keys(request.sid, "mdkj"), args, True)


def encode_leave(request: Leave) -> Call:
    args: list[Argument] = [
        request.device_id,
        request.conn,
        request.node,
        int(request.forget),
        int(request.last),
        request.reason,
    ]
    # Not repeatable: the second answer would say that nothing changed.
    return Call("leave", _keys(request.sid, "pvon"), args, False)


def encode_touch(request: Touch, settings: Settings) -> Call:
    args: list[Argument] = [
        request.node,
        request.presence_ms,
        settings.ttl_ms,
        WAITING_TTL_MS,
        *(device_id for device_id, _ in request.devices),
    ]
    return Call("touch", _keys(request.sid, "mdkipvonz"), args, True)


_STATUS = {int(status): status for status in Status}


def decode_apply(reply: list[Any], request: Apply, settings: Settings) -> Outcome:
    status = _STATUS[reply[0]]
    if len(reply) == 1:
        return Outcome(status)
    whole = reply[8]
    return Outcome(
        status,
        reply[1],
        reply[2],
        reply[3].decode(),
        request.sets if whole else reply[9],
        request.deletes if whole else reply[10],
        bool(reply[4]),
        reply[5],
        reply[6],
        reply[7],
        reply[11],
        reply[12] if len(reply) > 12 else b"",
    )


def _changes(keys: list[bytes], values: list[bytes | None]) -> tuple[list[bytes], list[bytes]]:
    sets: list[bytes] = []
    deletes: list[bytes] = []
    for key, value in zip(keys, values, strict=True):
        if value is None:
            deletes.append(key)
        else:
            sets += (key, value)
    return sets, deletes


def devices(
    leases: list[bytes], registry: list[bytes], connections: list[bytes], now: int
) -> list[Device]:
    """Registered devices, from a script's flat replies."""
    deadlines = dict(zip(leases[::2], map(int, leases[1::2]), strict=True))
    live = dict(zip(connections[::2], connections[1::2], strict=True))
    found = []
    for name, info in zip(registry[::2], registry[1::2], strict=True):
        deadline = deadlines.get(name, 0)
        fence = connection(live.get(name, b""))[2]
        found.append(Device(name.decode(), info, deadline, deadline > now, fence))
    return found


def connection(text: bytes) -> tuple[str, str, int]:
    """(node, conn, fence) out of "conn fence node"; empty and 0 when there is none."""
    parts = text.decode().split(" ")
    fence = int(parts[1]) if len(parts) == 3 else 0
    return (parts[-1], parts[0], fence) if len(parts) > 1 else ("", "", 0)


def decode_hello(reply: list[Any], request: Hello, settings: Settings) -> Welcome:
    status = _STATUS[reply[0]]
    if status is not Status.OK:
        return Welcome(status, *_position(reply))
    welcome = Welcome(status, reply[1], reply[2].decode(), reply[3].decode())
    kind = reply[4]
    if kind == 0:
        welcome.full = reply[5]
    elif kind == 1:
        welcome.resumed = True
        welcome.sets, welcome.deletes = _changes(reply[5], reply[6])
    else:
        welcome.fresh = True
    welcome.devices = devices(reply[7], reply[8], reply[9], reply[10])
    welcome.fence = reply[12]
    node, conn, _ = connection(reply[13])
    welcome.replaced = (node, conn) if node else None
    return welcome


def _position(reply: list[Any]) -> tuple[int, str]:
    return (reply[1], reply[2].decode()) if len(reply) > 1 else (0, "")


def decode_resume(reply: list[Any], request: Resume, settings: Settings) -> Resumed:
    status = _STATUS[reply[0]]
    if status is not Status.OK:
        return Resumed(status)
    resumed = Resumed(status, *_position(reply))
    if reply[3] == 0:
        resumed.full = reply[4]
    else:
        resumed.sets, resumed.deletes = _changes(reply[4], reply[5])
    return resumed


def decode_read(reply: list[Any], request: Read, settings: Settings) -> Snapshot:
    status = _STATUS[reply[0]]
    if status is not Status.OK:
        return Snapshot(status)
    return Snapshot(
        status,
        reply[1],
        reply[2].decode(),
        reply[3].decode(),
        reply[4].decode(),
        reply[5].decode(),
        reply[6],
        reply[7],
        reply[8] + settings.ttl_ms,
        None if reply[9] else reply[10],
    )


def decode_review(reply: list[Any], request: Review, settings: Settings) -> Reviewed:
    status = _STATUS[reply[0]]
    if status is not Status.OK:
        return Reviewed(status)
    version, epoch = _position(reply)
    journal = [_journal_line(line) for line in reply[6]]
    return Reviewed(status, version, epoch, reply[3], reply[4], reply[5], journal)


def _journal_line(line: bytes) -> tuple[int, bytes, bytes]:
    """`version key-length key imprint`; key and imprint may hold any byte."""
    version, length, rest = line.split(b" ", 2)
    size = int(length)
    return int(version), rest[:size], rest[size + 1 :]


def decode_leave(reply: list[Any], request: Leave, settings: Settings) -> Left:
    return Left(bool(reply[0]), reply[1], reply[3])


def decode_touch(reply: list[Any], request: Touch, settings: Settings) -> Touched:
    lost = reply[2]
    return Touched(
        reply[0],
        reply[1].decode(),
        [
            Lost(name.decode(), connection(where)[0], barred)
            for name, where, barred in zip(lost[::3], lost[1::3], lost[2::3], strict=True)
        ],
    )


def encode(request: SessionRequest, settings: Settings, new_epoch: Callable[[], str]) -> Call:
    """Any of them; `new_epoch` makes the epoch of a session that a write may create."""
    match request:
        case Apply():
            return encode_apply(request, settings, new_epoch() if request.create else "")
        case Hello():
            return encode_hello(request, settings)
        case Resume():
            return encode_resume(request)
        case Read():
            return encode_read(request)
        case Review():
            return encode_review(request)
        case Leave():
            return encode_leave(request)
        case Touch():
            return encode_touch(request, settings)
        case _:
            raise NotImplementedError(type(request))


_DECODERS: dict[type, Callable[[list[Any], Any, Settings], Answer]] = {
    Apply: decode_apply,
    Hello: decode_hello,
    Resume: decode_resume,
    Read: decode_read,
    Review: decode_review,
    Leave: decode_leave,
    Touch: decode_touch,
}


def decode(reply: list[Any], request: SessionRequest, settings: Settings) -> Answer:
    """The answer type that belongs to the request."""
    return _DECODERS[type(request)](reply, request, settings)
