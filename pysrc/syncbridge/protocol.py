"""The state machine of one connection, as a table.

A connection is NEW until its AUTH has been accepted, JOINING while the store is asked, READY until
it closes. `TRANSITIONS[state][message]` is the state after that message; a message that has no
entry is refused with an ERROR and changes nothing. `docs/protocol.md` shows this table, and a test
holds the two together.
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


VOICE = (
    messages.VOICE_JOIN,
    messages.VOICE_LEAVE,
    messages.VOICE_WATCH,
    messages.VOICE_UNWATCH,
    messages.SPEAKING,
)
"""Types with a name, all of them about voice."""

TRANSITIONS: dict[State, dict[int | str, State]] = {
    State.NEW: {M.AUTH: State.JOINING, M.HEARTBEAT: State.NEW},
    State.JOINING: {M.HEARTBEAT: State.JOINING},
    State.READY: {
        M.AUTH: State.READY,
        M.HEARTBEAT: State.READY,
        M.SNAPSHOT_REQUEST: State.READY,
        M.STATE_UPDATE: State.READY,
        M.DEVICE_LIST: State.READY,
        **dict.fromkeys(VOICE, State.READY),
    },
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
    if state is State.NEW:
        return SyncBridgeError(ErrorCode.AUTH_REQUIRED, "send AUTH (type 7) first")
    return SyncBridgeError(
        ErrorCode.INVALID_MESSAGE, "wait for AUTH_SUCCESS before sending anything else"
    )
