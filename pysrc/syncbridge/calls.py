"""Call sessions: a voice call of a gateway, as the rules see it.

A call is made `pending`, becomes `active`, and ends `terminated`; `FOLLOWERS` is the whole state
machine. It only goes forward, so each state is entered at most once, and the history of a call is
at most one line a state. Setting the current state is not a change, so a client that lost an answer
may repeat the request.

Details map names to text, with a limit on their size as JSON. What else happens in a call (it
rings, is held, gets a leg) is an event: `syncbridge.call_rules.events`. Nothing here waits or reads
a clock.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from syncbridge import kernels
from syncbridge.errors import ErrorCode, SyncBridgeError

ID_BYTES = 256
"""Longest id of a call, in bytes of UTF-8. A SIP Call-ID (RFC 3261 section 20.8) fits."""

DETAIL_KEYS = 16_384
"""Names in one object; the bytes are the tighter bound of those that are stored."""

DETAIL_KEY_BYTES = 256
RESERVED_ENDS = ("/history", "/events", "/heartbeat")
"""What ids must not end in: these are paths of a call."""

NULL = b"null"
DOTS = (".", "..")
"""Ids that clients take out of a URL (RFC 3986 section 5.2.4), quoted or not."""


class CallType(StrEnum):
    """What kind of gateway carries the call."""

    SIP = "SIP"
    WEBRTC = "WebRTC"


class CallState(StrEnum):
    """How far a call is."""

    PENDING = "pending"
    ACTIVE = "active"
    TERMINATED = "terminated"


FOLLOWERS: dict[CallState, frozenset[CallState]] = {
    CallState.PENDING: frozenset({CallState.ACTIVE, CallState.TERMINATED}),
    CallState.ACTIVE: frozenset({CallState.TERMINATED}),
    CallState.TERMINATED: frozenset(),
}
"""State -> states that may follow it. A call that nobody answers ends without an `active`."""


class StateChange(msgspec.Struct, frozen=True):
    """A call came into a state, at Unix ms `at`, by the caller `by`."""

    state: CallState
    at: int
    by: str


class CallEvent(msgspec.Struct, frozen=True):
    """An event in a call at Unix ms `at`, reported by the caller `by`.

    `kind`: a `syncbridge.call_rules.events.EventKind`. `value`: what its kind is about, or empty.
    """

    kind: str
    at: int
    by: str
    value: str = ""


class Call(msgspec.Struct, frozen=True):
    """A call session. Times in Unix ms. `details`: flat `[name, JSON text, ...]`, by name.

    Attributes:
        deleted_at, deleted_by: when and by whom it was deleted; 0 and empty while there is one.
        version: number of its writes, heartbeats excepted.
        events: oldest first.
        held: whether it is on hold.
        parent: id of the call that it is a leg of, or empty.
        channel: the voice channel that it is linked to, or empty.
        cause: why it ended, or empty.
        lease_until: when it ends unless another heartbeat comes; 0 without a heartbeat.
    """

    id: str
    type: CallType
    state: CallState
    created_at: int
    updated_at: int
    details: Sequence[bytes] = ()
    history: Sequence[StateChange] = ()
    deleted_at: int = 0
    deleted_by: str = ""
    version: int = 0
    events: Sequence[CallEvent] = ()
    held: bool = False
    parent: str = ""
    channel: str = ""
    cause: str = ""
    lease_until: int = 0


class NewCall(msgspec.Struct, frozen=True):
    """What a call begins with; members as `Call`'s."""

    type: CallType
    details: Sequence[bytes] = ()
    parent: str = ""
    channel: str = ""


Position = tuple[int, str]
"""Place of a call in the list: `(created_at, id)`. The list goes down, newest first."""


def sources(target: CallState) -> list[CallState]:
    """States from which a call may come into `target`."""
    return [state for state, followers in FOLLOWERS.items() if target in followers]


def check_state(text: str) -> CallState:
    """A state by its name. Raises INVALID_CALL."""
    try:
        return CallState(text)
    except ValueError:
        raise invalid("state", "pending, active or terminated is expected") from None


def check_type(text: str) -> CallType:
    """A type by its name. Raises INVALID_CALL."""
    try:
        return CallType(text)
    except ValueError:
        raise invalid("type", "SIP or WebRTC is expected") from None


def check_id(text: str) -> str:
    """The id of a new call: 1 to `ID_BYTES` bytes of printable text. Raises INVALID_CALL.

    It may hold slashes, but must not look like a path of another call (`RESERVED_ENDS`), and not be
    one of `DOTS`.
    """
    if not is_id(text):
        raise invalid("id", f"1 to {ID_BYTES} bytes of printable text are expected")
    if text in DOTS:
        raise invalid("id", f"{text} cannot be an id: no URL could address it")
    if text.endswith(RESERVED_ENDS):
        raise invalid("id", f"must not end in {' or '.join(RESERVED_ENDS)}")
    return text


def is_id(text: str) -> bool:
    """Whether a call could have this id; any other one is an id of no call."""
    return bool(text) and text.isprintable() and len(text.encode()) <= ID_BYTES


def parse_details(data: bytes | msgspec.Raw, max_bytes: int, removals: bool = False) -> list[bytes]:
    """A JSON object of texts as flat `[name, JSON text, ...]`.

    `removals`: a value may be null as well, which takes the detail away.

    Raises:
        SyncBridgeError: TOO_LARGE (above `max_bytes`, or too many names), INVALID_CALL (not an
            I-JSON object, RFC 7493, or a value that is no text).
    """
    limits = kernels.DocumentLimits(
        max_bytes=max_bytes,
        max_keys=DETAIL_KEYS,
        max_key_bytes=DETAIL_KEY_BYTES,
        max_value_bytes=max_bytes,
    )
    try:
        split = kernels.split(memoryview(data), limits)
    except kernels.DocumentError as error:
        raise _refused_details(error, max_bytes) from None
    for name, value in split.items():
        if value[:1] != b'"' and not (removals and value == NULL):
            expected = "text, or null to remove it," if removals else "text"
            raise invalid("details", f"{name.decode()!r}: {expected} is expected")
    return split.flat()


def details_bytes(flat: Sequence[bytes]) -> int:
    """What details count for: names and values, and the quotes, colon and comma between them."""
    return sum(map(len, flat)) + 2 * len(flat)


def refused_step(call: Call, target: CallState) -> SyncBridgeError:
    """Why a call does not come into `target`."""
    if call.state is CallState.TERMINATED:
        return SyncBridgeError(
            ErrorCode.CALL_TERMINATED, "a terminated call cannot change", state=call.state
        )
    return SyncBridgeError(
        ErrorCode.CALL_TRANSITION,
        f"{call.state} cannot change to {target}",
        state=call.state,
        allowed=sorted(FOLLOWERS[call.state]),
    )


def merge_pages(parts: Iterable[Sequence[Position]], limit: int) -> tuple[list[Position], bool]:
    """The newest `limit` of several lists, and whether there are more. O(n log n)."""
    together = sorted((p for part in parts for p in part), key=_order, reverse=True)
    return together[:limit], len(together) > limit


def cursor_of(position: Position) -> str:
    """A position as text, for the next page."""
    return f"{position[0]}-{position[1]}"


def parse_cursor(text: str) -> Position | None:
    """The position that a cursor names; None for the first page. Raises INVALID_FIELD."""
    if not text:
        return None
    at, dash, call_id = text.partition("-")
    if not (dash and at.isascii() and at.isdigit() and len(at) < 16 and is_id(call_id)):
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, "cursor: expected the next_cursor of a page", field="cursor"
        )
    return int(at), call_id


def _order(position: Position) -> tuple[int, bytes]:
    """As Redis orders a sorted set: by score, then by bytes."""
    return position[0], position[1].encode()


def _refused_details(error: kernels.DocumentError, max_bytes: int) -> SyncBridgeError:
    if error.status == 413:
        return SyncBridgeError(
            ErrorCode.TOO_LARGE, f"details: {error}", field="details", limit=max_bytes
        )
    return invalid("details", str(error))


def invalid(field: str, text: str) -> SyncBridgeError:
    """The error for an invalid member: INVALID_CALL."""
    return SyncBridgeError(ErrorCode.INVALID_CALL, f"{field}: {text}", field=field)
