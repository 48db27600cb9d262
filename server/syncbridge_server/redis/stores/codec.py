"""Encodes requests of `syncbridge.records.sessions` as script calls, and decodes their replies.

Pure functions. Each script documents the order of its KEYS and ARGV; tests run both sides against a
real server.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from syncbridge.integrity import TIME_MOST, VERSION_MOST
from syncbridge.kernels import spelling, spellings
from syncbridge.limits import Limits
from syncbridge.records.sessions import (
    Answer,
    Apply,
    Compare,
    Compared,
    Device,
    Hello,
    Leave,
    Left,
    Lost,
    Operation,
    Outcome,
    Place,
    Read,
    Resume,
    Resumed,
    Review,
    Reviewed,
    Seal,
    Sealed,
    Snapshot,
    Status,
    Touch,
    Touched,
    Welcome,
)
from syncbridge.records.streams import stream_name
from syncbridge_server.redis.stores.keys import (
    OTHERS,
    held_key,
    meta_key,
    old_meta_key,
    session_keys,
)

log = structlog.get_logger(__name__)

OWNER_CHECK, GUARDED, TRACE, OLD_DATA = 1, 2, 4, 8
CREATE, REPLACE, SPELLINGS, FREE_ID, BASE, DELETES = 16, 32, 64, 128, 256, 512
MODE, OPERATION = 1_024, 4_096
ROSTER, FORGET, LAST = 16, 16, 32
"""Flags, see docs/decisions/0009-the-layout-of-redis.md."""

COMPARED = ("v", "e", "l", "t", "b", "g", "s")
"""Fields of meta that a comparison reads, before those of the streams."""

NOWHERE = Place("", -1)

Argument = bytes | str | int


class StoreSettings(msgspec.Struct):
    """Options of every script call.

    Attributes:
        node: id of this node. ttl_ms: life of a session after its last refresh.
        old_data: keys of format 1 may exist, so scripts look for them. Not in a cluster: they are
            in other slots, and format 1 ran on no cluster.
        cluster: every key that a script may use is declared, not only the first.
        nonce: makes 8 random bytes, for the token of a version.
    """

    node: str
    ttl_ms: int
    state_bytes: int
    nonce: Callable[[], bytes]
    old_data: bool = True
    cluster: bool = False

    @classmethod
    def of(cls, node: str, limits: Limits, nonce: Callable[[], bytes]) -> "StoreSettings":
        """Build them from the contract's limits."""
        return cls(node, limits.session_ttl * 1000, limits.state_bytes, nonce)

    def flags(self, owner_check: bool = False) -> int:
        """The flags of any script."""
        return owner_check + OLD_DATA * (self.old_data and not self.cluster)

    def keys(self, sid: str, *more: str) -> tuple[str, ...]:
        """The keys of a call: the session's meta key and `more`, the old meta key last."""
        keys = (meta_key(sid), *more)
        if self.cluster:
            return (*keys, *session_keys(sid, OTHERS))
        return (*keys, old_meta_key(sid)) if self.old_data else keys


class ScriptCall(msgspec.Struct, gc=False, frozen=True):
    """A script call: its name, keys and arguments, and whether it may be sent twice.

    Without a script, a plain command whose name is the first argument.
    """

    script: str
    keys: tuple[str, ...]
    args: Sequence[Argument]
    repeatable: bool


def encode_apply(request: Apply, settings: StoreSettings) -> ScriptCall:
    """Raises ValueError when a key appears twice."""
    sets, deletes = request.sets, request.deletes
    if len(sets) + len(deletes) > 2:
        names = sets[::2]
        if len({*names, *deletes}) != len(names) + len(deletes):
            raise ValueError("a key appears twice in one write")
    marks = spellings(sets)
    free_id = bool(request.mutation_id) and not request.seq
    args: list[Argument] = [
        0,  # flags; see below
        request.user_id,
        request.device_id,
        settings.node,
        request.fence,
        stream_name(request.stream) if request.seq else "",
        request.seq,
        settings.nonce(),
        request.mutation_id,
        len(sets) >> 1,
        *sets,
    ]
    flags = settings.flags(request.owner_check) + MODE * request.mode
    if request.create:
        flags += CREATE
    if free_id:
        flags += FREE_ID
    if deletes:
        flags += DELETES
        args += (len(deletes), *deletes)
    if request.base_version >= 0:
        flags += BASE
        args += (request.base_version, request.base_lineage)
    if request.replace:
        flags += REPLACE
        args.append(request.app_version)
    if request.must_exist:
        flags += GUARDED
        args += (len(request.must_exist), *request.must_exist)
    if request.operation is not Operation.SET:
        flags += OPERATION * request.operation
    if request.operation is Operation.CAS:
        args += (request.expected, spelling(request.expected) if request.expected else b"")
    if marks:
        flags += SPELLINGS
        args += marks
    if request.trace:
        flags += TRACE
        args.append(request.trace)
    args[0] = flags
    if settings.cluster and free_id:
        keys = settings.keys(request.sid, f"{meta_key(request.sid)[:-1]}f:{request.device_id}")
    else:
        keys = settings.keys(request.sid)
    return ScriptCall("apply", keys, args, free_id or request.seq > 0)


def encode_hello(request: Hello, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [
        settings.flags(request.owner_check) + ROSTER * request.roster,
        request.user_id,
        request.device_id,
        request.node,
        request.conn,
        request.info,
        *(request.since or NOWHERE),
        *(request.known or NOWHERE),
        stream_name(request.stream),
        request.max_devices,
    ]
    # Not repeatable: the second answer would not name the connection that the first replaced.
    keys = settings.keys(request.sid, held_key(request.sid, request.node))
    return ScriptCall("hello", keys, args, False)


def encode_resume(request: Resume, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [
        settings.flags(request.owner_check),
        request.user_id,
        *request.place,
        *request.devices,
    ]
    return ScriptCall("resume", settings.keys(request.sid), args, True)


def encode_read(request: Read, settings: StoreSettings) -> ScriptCall:
    flags = settings.flags(request.owner_check)
    args: list[Argument] = [flags, request.user_id, *(request.etag or NOWHERE)]
    return ScriptCall("read", settings.keys(request.sid), args, True)


def encode_review(request: Review, settings: StoreSettings) -> ScriptCall:
    flags = settings.flags(request.owner_check)
    args: list[Argument] = [flags, request.user_id, request.base, request.base_lineage]
    return ScriptCall("review", settings.keys(request.sid), args, True)


def encode_leave(request: Leave, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [
        settings.flags() + FORGET * request.forget + LAST * request.last,
        request.device_id,
        request.conn,
        request.node,
        request.reason,
    ]
    # Not repeatable: the second answer would say that nothing changed.
    keys = settings.keys(request.sid, held_key(request.sid, request.node))
    return ScriptCall("leave", keys, args, False)


def encode_touch(request: Touch, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [settings.flags(), request.node]
    for pair in request.devices:
        args += pair
    keys = settings.keys(request.sid, held_key(request.sid, request.node))
    return ScriptCall("touch", keys, args, True)


def encode_compare(request: Compare, settings: StoreSettings) -> ScriptCall:
    fields = [*COMPARED, *(f"i{device}" for device in request.devices)]
    return ScriptCall("", (meta_key(request.sid),), ["HMGET", meta_key(request.sid), *fields], True)


def encode_seal(request: Seal, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [request.key, request.place.version, request.place.lineage]
    return ScriptCall("seal", settings.keys(request.sid), [*args, request.spelling], True)


_STATUS = {int(status): status for status in Status}


def decode_apply(reply: list[Any], request: Apply, settings: StoreSettings) -> Outcome:
    """Decode an answer; it is shorter than its list if the rest is 0 or empty."""
    outcome = Outcome(_STATUS[reply[0]])
    if len(reply) < 4:
        return outcome
    version: int = reply[1]
    before = reply[4].decode() if len(reply) > 4 else ""
    outcome.version, outcome.lineage, outcome.epoch = version, reply[2].decode(), reply[3].decode()
    outcome.prev_version = version - 1 if before else version
    outcome.prev_lineage = "" if before == "-" else before
    if len(reply) > 5:
        outcome.last = reply[5]
    if len(reply) == 7:
        outcome.updated_at = reply[6]
        outcome.sets, outcome.deletes = request.sets, request.deletes
    elif len(reply) > 7:
        _decode_long(reply, request, outcome)
    return outcome


def _decode_long(reply: list[Any], request: Apply, outcome: Outcome) -> None:
    outcome.updated_at, outcome.created = reply[6], bool(reply[7])
    outcome.created_at, outcome.expires_at, whole = reply[8:11]
    outcome.sets = request.sets if whole else reply[11]
    outcome.deletes = request.deletes if whole else reply[12]
    if len(reply) > 13:
        outcome.conflicts = reply[13]
    if len(reply) > 14:
        outcome.result, outcome.spelling = reply[14], reply[15]


def _changes(keys: list[bytes], values: list[bytes | None]) -> tuple[list[bytes], list[bytes]]:
    sets: list[bytes] = []
    deletes: list[bytes] = []
    for key, value in zip(keys, values, strict=True):
        if value is None:
            deletes.append(key)
        else:
            sets += (key, value)
    return sets, deletes


def devices(flat: list[bytes], now: int) -> list[Device]:
    """Registered devices, from the flat hash of their records. Unreadable ones are left out: they
    keep nobody out of the session.
    """
    found = []
    for name, record in zip(flat[::2], flat[1::2], strict=True):
        try:
            found.append(_device(name, record, now))
        except ValueError as error:
            log.warning("device_unreadable", why=type(error).__name__)
    return found


def _device(name: bytes, record: bytes, now: int) -> Device:
    """Decode a device's record. Raises ValueError for a damaged one."""
    head, _, info = record.partition(b"\n")
    fence, seen, node, conn = head.split(b" ", 3)
    online = node != b"-"
    at, held = now if online else int(seen), int(fence)
    if not (0 <= at <= TIME_MOST and 0 <= held <= VERSION_MOST):
        raise ValueError("a number is out of range")
    if not online:
        return Device(name.decode(), info, at, False)
    return Device(name.decode(), info, at, True, held, conn.decode())


def connection(head: bytes) -> tuple[str, str, int]:
    """(node, conn, fence) from "fence seen node conn"; empty and 0 without a connection."""
    if not head:
        return "", "", 0
    fence, _, node, conn = head.decode().split(" ", 3)
    held = int(fence)
    if not 0 <= held <= VERSION_MOST:
        raise ValueError("a fence is out of range")
    return node, conn, held


def decode_hello(reply: list[Any], request: Hello, settings: StoreSettings) -> Welcome:
    status = _STATUS[reply[0]]
    if status is not Status.OK:
        place = _place(reply)
        return Welcome(status, place.version, place.epoch, lineage=place.lineage)
    place = _place(reply)
    welcome = Welcome(status, place.version, place.epoch, reply[4].decode(), lineage=place.lineage)
    kind = reply[5]
    if kind == 0:
        welcome.full = reply[7]
    elif kind == 1:
        welcome.resumed = True
        welcome.sets, welcome.deletes = _changes(reply[7], reply[8])
    else:
        welcome.fresh = True
    welcome.reason, welcome.fence = reply[6].decode(), reply[9]
    node, conn, _ = connection(reply[10])
    welcome.replaced = (node, conn) if node else None
    welcome.nodes = [name.decode() for name in reply[12]]
    welcome.applied, welcome.online, welcome.newest = reply[13:16]
    welcome.devices = devices(reply[16], reply[11])
    return welcome


def _place(reply: list[Any]) -> Place:
    """The place in an answer with version, epoch and lineage after its status."""
    if len(reply) < 4:
        return Place()
    return Place(reply[2].decode(), reply[1], reply[3].decode())


def decode_resume(reply: list[Any], request: Resume, settings: StoreSettings) -> Resumed:
    status = _STATUS[reply[0]]
    if status is not Status.OK:
        return Resumed(status)
    place = _place(reply)
    resumed = Resumed(status, place.version, place.epoch, lineage=place.lineage)
    resumed.reason, resumed.owner, resumed.streams = reply[5].decode(), reply[8].decode(), reply[9]
    if reply[4] == 0:
        resumed.full = reply[6]
    else:
        resumed.sets, resumed.deletes = _changes(reply[6], reply[7])
    return resumed


def decode_read(reply: list[Any], request: Read, settings: StoreSettings) -> Snapshot:
    status = _STATUS[reply[0]]
    if status is not Status.OK:
        return Snapshot(status)
    place = _place(reply)
    return Snapshot(
        status,
        place.version,
        place.epoch,
        reply[4].decode(),
        reply[5].decode(),
        reply[6].decode(),
        reply[7],
        reply[8],
        reply[9] + settings.ttl_ms,
        None if reply[10] else reply[11],
        lineage=place.lineage,
    )


def decode_review(reply: list[Any], request: Review, settings: StoreSettings) -> Reviewed:
    status = _STATUS[reply[0]]
    if status is not Status.OK:
        return Reviewed(status)
    place, journal = _place(reply), read_journal(reply[8], reply[1])
    reviewed = Reviewed(status, place.version, place.epoch, reply[4], reply[6], reply[7], journal)
    reviewed.lineage, reviewed.verified = place.lineage, bool(reply[5])
    return reviewed


def read_journal(entries: list[bytes], version: int) -> list[tuple[int, bytes, bytes]]:
    """(version, key, imprint of the value before) of the gapless history, oldest first.

    The last entry is that of `version`. Keys and imprints may hold any byte.
    """
    lines: list[tuple[int, bytes, bytes]] = []
    for at, entry in zip(range(version, 0, -1), reversed(entries), strict=False):
        rest = entry[13:]
        if rest == b"*":
            break
        changed = []
        while rest:
            key_size, size, rest = rest.split(b" ", 2)
            end = int(key_size) + 1 + int(size)
            changed.append((at, rest[: int(key_size)], rest[int(key_size) + 1 : end]))
            rest = rest[end + 1 :]
        lines += reversed(changed)
    lines.reverse()
    return lines


def decode_leave(reply: list[Any], request: Leave, settings: StoreSettings) -> Left:
    nodes = [name.decode() for name in reply[2]]
    return Left(bool(reply[0]), reply[1], reply[3], nodes, reply[4])


def decode_touch(reply: list[Any], request: Touch, settings: StoreSettings) -> Touched:
    lost = reply[5]
    return Touched(
        reply[0],
        reply[1].decode(),
        [
            Lost(name.decode(), connection(where)[0], barred)
            for name, where, barred in zip(lost[::3], lost[1::3], lost[2::3], strict=True)
        ],
        lineage=reply[2].decode(),
        online=reply[3],
        newest=reply[4],
    )


def decode_compare(reply: list[Any], request: Compare, settings: StoreSettings) -> Compared:
    version, epoch, lineage, refreshed, online, newest, nodes = (f or b"" for f in reply[:7])
    return Compared(
        Place(epoch.decode(), int(version or 0), lineage.decode()),
        int(refreshed or 0),
        int(online or 0),
        int(newest or 0),
        [record or b"" for record in reply[7:]],
        nodes.decode(),
    )


def decode_seal(reply: int, request: Seal, settings: StoreSettings) -> Sealed:
    return Sealed(bool(reply))


CODECS: dict[type, tuple[Callable[..., ScriptCall], Callable[..., Answer]]] = {
    Apply: (encode_apply, decode_apply),
    Hello: (encode_hello, decode_hello),
    Resume: (encode_resume, decode_resume),
    Read: (encode_read, decode_read),
    Review: (encode_review, decode_review),
    Leave: (encode_leave, decode_leave),
    Touch: (encode_touch, decode_touch),
    Compare: (encode_compare, decode_compare),
    Seal: (encode_seal, decode_seal),
}
"""The encoder and decoder of each request."""
