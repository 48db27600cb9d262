"""Requests about sessions, their answers, and messages between nodes.

Values travel as raw compact JSON text (`bytes`), keys as UTF-8 `bytes`; `sets` are flat lists
`[key, value, key, value, ...]`. Times are Unix milliseconds unless a name says otherwise.
`server/syncbridge_server/ports/store.py` states the guarantees of a store.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from syncbridge.errors import StoreError


class Place(NamedTuple):
    """A place in a session's history. Equal places mean equal histories.

    Attributes:
        lineage: token of the version; "" when a client has none: judged by the others alone.
    """

    epoch: str = ""
    version: int = 0
    lineage: str = ""


class Status(IntEnum):
    """How a script ended. The numbers are those of the Lua scripts."""

    OK = 0
    DUPLICATE = 1
    CONFLICT = 2
    AHEAD = 3
    NOT_FOUND = 4
    FORBIDDEN = 5
    TOO_LARGE = 6
    TOO_MANY_KEYS = 7
    TOO_MANY_DEVICES = 8
    FENCED = 9
    FROZEN = 10
    """The state is packed away. Never leaves the store, which unpacks it and asks again."""
    BASE_LOST = 11
    """The base of the write is not a place of this history (any more)."""
    GAP = 12
    """The number is not the next of its stream."""
    UNKNOWN_STREAM = 13
    """The stream is not known, and the number is not its first."""
    OLD = 14
    """The session has the keys of format 1. Never leaves the store, which moves it."""
    ABSENT = 15
    """A key that must be there is not; the outcome's conflicts name it."""
    PRECONDITION = 16
    TYPE_MISMATCH = 17
    NOT_AN_INTEGER = 18
    OUT_OF_RANGE = 19
    NO_DEVICE = 20
    NO_TOKEN = 21
    SPENT = 22
    EXPIRED = 23
    WRONG_DEVICE = 24


class Mode(IntEnum):
    """How a write treats keys that changed after its `base_version`."""

    REJECT = 0
    """Any such key: nothing is applied, `Status.CONFLICT` with the server's values."""
    OVERWRITE = 1
    """The write wins."""
    YIELD = 2
    """Such keys are left out, the others are applied; the outcome names them."""
    WHOLE = 3
    """Any change at all after `base_version` is a conflict (full snapshots)."""


class Operation(IntEnum):
    """What a write does with its one key, in the script; the numbers are those of `apply.lua`.

    Other nodes and devices see the result, never the operation. An absent key counts as 0 for
    INCR and as `[]` for APPEND; MAX and MIN then set the operand.
    """

    SET = 0
    """Not one key but a change set: `sets` and `deletes` as they are."""
    INCR = 1
    """Add an integer; exact, within 64 bits. Else NOT_AN_INTEGER or OUT_OF_RANGE."""
    APPEND = 2
    """Add one element to an array."""
    MAX = 3
    """Keep the greater number, compared exactly."""
    MIN = 4
    """Keep the lesser number, compared exactly."""
    SETNX = 5
    """Set if the key does not exist; else PRECONDITION."""
    CAS = 6
    """Set if the value's bytes are `expected`, b"" for no such key; else PRECONDITION."""


class Apply(msgspec.Struct, gc=False):
    """One write of a session.

    Args:
        sid: session id, canonical UUID text.
        user_id: owner given to a session that this write creates.
        device_id: the writer.
        sets: flat key/value list. deletes: keys.
        mutation_id: idempotency key, scoped by device; empty for none.
        base_version: version the writer has seen; -1 for none.
        mode: see `Mode`.
        owner_check: refuse with FORBIDDEN unless `user_id` owns the session.
        create: make the session when it does not exist; else NOT_FOUND.
        replace: delete every key that is not in `sets`.
        app_version: stored with the session when not empty.
        operation: if not SET, `sets` is one key and its operand, and `deletes` is empty.
        expected: for CAS.
        fence: the `Welcome.fence` of the writer's connection. A device that has handed the session
            over is refused with FENCED until it joins again. 0: no check.
        base_lineage: token of `base_version`; "" judges that by its number alone.
        stream, seq: the queue of the device and the number of this update in it, 0 for none. With
            a stream `mutation_id` is only told to others.
        trace: id of a trace, told to other nodes.
        must_exist: keys without which the write is refused with ABSENT.
    """

    sid: str
    user_id: str
    device_id: str
    sets: list[bytes]
    deletes: list[bytes]
    mutation_id: str = ""
    base_version: int = -1
    mode: Mode = Mode.OVERWRITE
    owner_check: bool = True
    create: bool = True
    replace: bool = False
    app_version: str = ""
    fence: int = 0
    operation: Operation = Operation.SET
    expected: bytes = b""
    base_lineage: str = ""
    stream: str = ""
    seq: int = 0
    trace: str = ""
    must_exist: list[bytes] = []


class Outcome(msgspec.Struct, gc=False):
    """The result of a write.

    Attributes:
        version, prev_version: equal when nothing changed.
        sets, deletes: what really changed (writes of equal bytes are dropped), to be fanned out.
        conflicts: flat `[key, server value or b"" when deleted, ...]` for CONFLICT and YIELD, and
            of the one key of an operation that was refused.
        result: value of the key after an operation. spelling: what stands beside it; b"?" asks
            for a `Seal` with the spelling of the result.
        lineage, prev_lineage: tokens of the versions; the latter is "" when nothing changed or
            there was no version before.
        last: number of the stream's last update. Of a DUPLICATE that is the last one, `version` is
            the version which that update made, and `lineage` is "".
    """

    status: Status
    version: int = 0
    prev_version: int = 0
    epoch: str = ""
    sets: list[bytes] = []
    deletes: list[bytes] = []
    created: bool = False
    created_at: int = 0
    updated_at: int = 0
    expires_at: int = 0
    conflicts: list[bytes] = []
    result: bytes = b""
    lineage: str = ""
    prev_lineage: str = ""
    last: int = 0
    spelling: bytes = b""


class DeviceInfo(msgspec.Struct, gc=False, omit_defaults=True):
    """A device as it is stored beside the session (JSON in Redis)."""

    device_type: str = ""
    device_name: str = ""
    os_version: str = ""
    app_version: str = ""
    node: str = ""
    conn: str = ""
    connected_at: int = 0


class Hello(msgspec.Struct, gc=False):
    """A device joins: check the owner, register device, presence and node, and read the state.

    Args:
        conn: unique id of this connection; a later `Leave` with another one does nothing.
        since: place to resume from, or None for the whole state.
        known: place of the node's replica when it has one: the state is then not sent again if it
            still fits.
        stream: name of the device's queue, "" for none. roster: whether the devices are wanted.
    """

    sid: str
    user_id: str
    device_id: str
    conn: str
    info: bytes
    node: str
    owner_check: bool = True
    since: Place | None = None
    known: Place | None = None
    max_devices: int = 32
    stream: str = ""
    roster: bool = True


class Device(msgspec.Struct, gc=False):
    """One registered device.

    `seen`: when it was seen last, Unix ms; while it is online, the time of the answer. `fence`:
    number of its live connection, 0 when it has none. `conn`: that connection's id.
    """

    device_id: str
    info: bytes
    seen: int
    online: bool
    fence: int = 0
    conn: str = ""


class Welcome(msgspec.Struct, gc=False):
    """Answer to `Hello`.

    Attributes:
        full: flat key/value list of the whole state, or None when `sets`/`deletes` are the delta
            since the asked version (`resumed`), or when `fresh` says the node's replica is current.
        devices: empty when the roster was not asked for.
        replaced: `(node, conn)` of the connection that this device had before, or None.
        fence: number of this connection. Within a session each new connection gets a greater one,
            so that what is late can be told from what is new.
        reason: why `full` is there in place of a difference: `rolled_back`, `epoch`, `resync`.
        applied: number of the last update of the device's stream, -1 when that is not known.
        online, newest: how many devices are online now, and the newest fence before this one.
        nodes: those with devices in the session.
    """

    status: Status
    version: int = 0
    epoch: str = ""
    owner: str = ""
    full: list[bytes] | None = None
    fresh: bool = False
    resumed: bool = False
    sets: list[bytes] = []
    deletes: list[bytes] = []
    devices: list[Device] = []
    replaced: tuple[str, str] | None = None
    fence: int = 0
    lineage: str = ""
    reason: str = ""
    applied: int = -1
    online: int = 0
    newest: int = 0
    nodes: list[str] = []


class Resume(msgspec.Struct, gc=False):
    """Read the changes since a place, or the whole state if those are unknown.

    `devices`: whose streams are read with it.
    """

    sid: str
    place: Place
    user_id: str = ""
    owner_check: bool = False
    devices: list[str] = []


class Resumed(msgspec.Struct, gc=False):
    """Answer to `Resume`: `full` is None when `sets` and `deletes` are the delta.

    `reason` is that of `Welcome`. `streams`: one record for each device asked for, see
    docs/decisions/0009-the-layout-of-redis.md.
    """

    status: Status
    version: int = 0
    epoch: str = ""
    full: list[bytes] | None = None
    sets: list[bytes] = []
    deletes: list[bytes] = []
    lineage: str = ""
    reason: str = ""
    owner: str = ""
    streams: list[bytes] = []


class Read(msgspec.Struct, gc=False):
    """Read a session whole. `etag`: the reader's place; equal means no state is sent."""

    sid: str
    user_id: str = ""
    owner_check: bool = True
    etag: Place | None = None


class Snapshot(msgspec.Struct, gc=False):
    """Answer to `Read`; `flat` is None when the etag fitted."""

    status: Status
    version: int = 0
    epoch: str = ""
    owner: str = ""
    device_id: str = ""
    app_version: str = ""
    created_at: int = 0
    updated_at: int = 0
    expires_at: int = 0
    flat: list[bytes] | None = None
    lineage: str = ""


class Review(msgspec.Struct, gc=False):
    """Read a whole session, with what is known of its state at version `base`, for a merge."""

    sid: str
    user_id: str = ""
    owner_check: bool = True
    base: int = 0
    base_lineage: str = ""


class Reviewed(msgspec.Struct, gc=False):
    """Answer to `Review`.

    Attributes:
        flat: the whole state. floor: deletions up to this version may be forgotten.
        changed: keys that were set or deleted after `base`.
        journal: `(version, key, imprint of the value before)` of the newest changes, oldest first;
            the imprints are those of `syncbridge.kernels.imprint`.
        verified: `base` with its lineage is a place of this history.
    """

    status: Status
    version: int = 0
    epoch: str = ""
    floor: int = 0
    flat: list[bytes] = []
    changed: list[bytes] = []
    journal: list[tuple[int, bytes, bytes]] = []
    lineage: str = ""
    verified: bool = True


class Leave(msgspec.Struct, gc=False):
    """A connection ended. Nothing happens unless the device's connection is still `conn`.

    `forget` removes the device from the registry instead of marking it offline. `last` says that
    this node has no other device in the session, so that it stops receiving its commits.
    `reason` is what other nodes are told.
    """

    sid: str
    device_id: str
    conn: str
    node: str
    forget: bool = False
    last: bool = False
    reason: str = "disconnected"


class Left(msgspec.Struct, gc=False):
    """Answer to `Leave`: whether the device is offline now, and the time (Unix ms).

    `fence` is that of the connection that ended. `nodes` have devices in the session, of which
    `online` are online.
    """

    changed: bool
    at: int = 0
    fence: int = 0
    nodes: list[str] = []
    online: int = 0


class Touch(msgspec.Struct, gc=False):
    """Enter this node again in a session in which it has devices, and renew its life.

    `devices`: pairs of device and connection (`Hello.conn`).
    """

    sid: str
    node: str
    devices: list[tuple[str, str]]


class Lost(msgspec.Struct, gc=False):
    """A device that is connected here, but not registered here any more.

    `node`: where its connection is now, empty when it has none: its lease was over, it handed the
    session over, or Redis has forgotten it. `barred`: the least fence with which it may write.
    """

    device_id: str
    node: str
    barred: int


class Touched(msgspec.Struct, gc=False):
    """Answer to `Touch`: where the session is now, for the node to compare with its replica.

    `online` and `newest` (fence) are to be compared with the roster.
    """

    version: int
    epoch: str
    lost: list[Lost] = []
    lineage: str = ""
    online: int = 0
    newest: int = 0


class Compare(msgspec.Struct, gc=False):
    """Where a session is now, by one plain command. `devices`: whose streams are read with it."""

    sid: str
    devices: list[str] = []


class Compared(msgspec.Struct, gc=False):
    """Answer to `Compare`. An absent session has an empty place.

    `refreshed`: when its expiry was refreshed (Unix ms). `online`, `newest` and `streams` as in
    `Touched` and `Resumed`. `nodes`: those with devices there, separated by spaces.
    """

    place: Place
    refreshed: int = 0
    online: int = 0
    newest: int = 0
    streams: list[bytes] = []
    nodes: str = ""


class Seal(msgspec.Struct, gc=False):
    """Note the spelling of a value that a script could not tell, if the key was not changed since.

    `place`: of the session when the value was made.
    """

    sid: str
    key: bytes
    place: Place
    spelling: bytes


class Sealed(msgspec.Struct, gc=False):
    """Answer to `Seal`: whether it was noted."""

    done: bool


class Query(msgspec.Struct, gc=False):
    """Base of the requests of `syncbridge.records.devices`."""


class Result(msgspec.Struct, gc=False):
    """Base of the answers of `syncbridge.records.devices`."""


SessionRequest = Apply | Hello | Resume | Read | Review | Leave | Touch | Compare | Seal
Request = SessionRequest | Query
Answer = (
    Outcome | Welcome | Resumed | Snapshot | Reviewed | Left | Touched | Compared | Sealed | Result
)
Deliver = Callable[[Sequence[Answer | StoreError]], None]


class Commit(msgspec.Struct, gc=False):
    """A commit of another node."""

    sid: str
    version: int
    prev_version: int
    epoch: str
    device_id: str
    correlation_id: str
    sets: list[bytes]
    deletes: list[bytes]
    lineage: str = ""
    prev_lineage: str = ""
    trace: str = ""


class PresenceChange(msgspec.Struct, gc=False):
    """A device came or went. Told by the script that did it, to every node with devices there.

    Attributes:
        event: `joined`, or why it left: `closed`, `timeout`, `disconnected`, `handoff`, and
            `removed` for a device that was signed out.
        fence: number of the connection that came or went.
        version: of the session then.
        detail: `joined`: the device's info, JSON. `handoff`: id of the target device.
        online, newest: devices online after it, and the newest fence; 0 when not known.
    """

    sid: str
    event: str
    fence: int
    version: int
    device_id: str
    detail: bytes
    online: int = 0
    newest: int = 0


class Notice(msgspec.Struct, gc=False):
    """Any other message between nodes. `kind` names it, `data` is JSON text."""

    kind: str
    sid: str
    data: bytes
