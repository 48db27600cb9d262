"""The state machine of one connection, as a table.

A connection is NEW until its AUTH has been accepted, JOINING while the store is asked, READY until
it closes. `TRANSITIONS[state][message]` is the state after that message; a message that has no
entry is refused with an ERROR and changes nothing. `docs/protocol.md` shows this table, and a test
holds the two together.

What comes while a connection is JOINING waits for the answer to AUTH (`BehindAuth`): it is handled
once the connection is READY, in order, and is dropped when AUTH is refused.
"""

from enum import IntEnum

from syncbridge import messages
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.messages import MessageType as M


class State(IntEnum):
    """Where a connection is."""

    NEW = 0
    JOINING = 1
    READY = 2
    CLOSED = 3


BEHIND_AUTH_MESSAGES = 64
"""Messages of one connection that may wait for the answer to AUTH."""
BEHIND_AUTH_BYTES = 262_144
"""Their bytes."""

VOICE = (
    messages.VOICE_JOIN,
    messages.VOICE_LEAVE,
    messages.VOICE_WATCH,
    messages.VOICE_UNWATCH,
    messages.SPEAKING,
)
"""Types with a name, all of them about voice."""

_ANY = (M.AUTH, M.HEARTBEAT, M.SNAPSHOT_REQUEST, M.STATE_UPDATE, M.DEVICE_LIST, *VOICE)

TRANSITIONS: dict[State, dict[int | str, State]] = {
    State.NEW: {M.AUTH: State.JOINING, M.HEARTBEAT: State.NEW},
    State.JOINING: dict.fromkeys(_ANY, State.JOINING),
    State.READY: dict.fromkeys(_ANY, State.READY),
    State.CLOSED: {},
}

INBOUND = frozenset(kind for row in TRANSITIONS.values() for kind in row)
"""Every type that a client may send in some state."""


def refusal(state: State, kind: int | str) -> SyncBridgeError:
    """Why a message type is not accepted in a state."""
    if kind not in INBOUND:
        numbers = sorted(k for k in INBOUND if isinstance(k, int))
        accepted = ", ".join([*(f"{int(k)} {M(k).name}" for k in numbers), *VOICE])
        shown = kind if isinstance(kind, int) else kind[:32]
        return SyncBridgeError(
            ErrorCode.UNKNOWN_TYPE, f"type: one of {accepted} is expected, not {shown!r}"
        )
    return SyncBridgeError(ErrorCode.AUTH_REQUIRED, "send AUTH (type 7) first")


class BehindAuth:
    """Messages that came while their connection was JOINING.

    Attributes:
        messages: (data, opcode) of each, in order.
    """

    __slots__ = ("_bytes", "_full", "messages")

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, int]] = []
        self._bytes = 0
        self._full = False

    def put(self, data: bytes, opcode: int) -> None:
        """Keep a message. Raises RATE_LIMITED when there is no room.

        What comes after a message for which there was no room is refused as well, even if it is
        shorter: what is handled is what was sent, up to a point.
        """
        self._bytes += len(data)
        self._full |= self._bytes > BEHIND_AUTH_BYTES
        self._full |= len(self.messages) >= BEHIND_AUTH_MESSAGES
        if self._full:
            detail = (
                f"wait for AUTH_SUCCESS: {BEHIND_AUTH_MESSAGES} messages and {BEHIND_AUTH_BYTES}"
                " bytes may come before it"
            )
            raise SyncBridgeError(ErrorCode.RATE_LIMITED, detail, retry_after=1.0)
        self.messages.append((data, opcode))
