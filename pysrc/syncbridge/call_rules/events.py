"""Events of a call apart from its states: ringing, hold, transfer, legs, links.

`RULES` is the whole table: in which states an event may be told, whether the call must be on hold
or must not, what the event is about, and what it changes. A hang-up is the call's last state, with
a cause, and no event of the list.
"""

from enum import StrEnum
from typing import Any, NamedTuple

from syncbridge.calls import Call, CallState, invalid, is_id
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.ids import channel_id

MOST_EVENTS = 256
"""Events kept of a call; the next one is refused."""

VALUE_BYTES = 256
"""Longest text that an event is about, in bytes of UTF-8."""


class EventKind(StrEnum):
    """What may happen in a call."""

    RING = "ring"
    HOLD = "hold"
    RESUME = "resume"
    TRANSFER = "transfer"
    LEG = "leg"
    PARENT = "parent"
    LINK = "link"
    UNLINK = "unlink"
    HANGUP = "hangup"


PENDING = (CallState.PENDING,)
ACTIVE = (CallState.ACTIVE,)
LIVE = (CallState.PENDING, CallState.ACTIVE)


class Rule(NamedTuple):
    """About one kind of event.

    Attributes:
        states: in which it may be told.
        member: of the body, that says what it is about; empty for none.
        held: "1" or "0": only in a call that is on hold, or is not; empty for either.
        changes: what of the call it sets: `held`, `parent`, `channel`, or nothing.
    """

    states: tuple[CallState, ...]
    member: str = ""
    held: str = ""
    changes: str = ""


RULES: dict[EventKind, Rule] = {
    EventKind.RING: Rule(PENDING),
    EventKind.HOLD: Rule(ACTIVE, held="0", changes="held"),
    EventKind.RESUME: Rule(ACTIVE, held="1", changes="held"),
    EventKind.TRANSFER: Rule(LIVE, "to"),
    EventKind.LEG: Rule(LIVE, "leg"),
    EventKind.PARENT: Rule(LIVE, "parent", changes="parent"),
    EventKind.LINK: Rule(LIVE, "channel", changes="channel"),
    EventKind.UNLINK: Rule(LIVE, changes="channel"),
    EventKind.HANGUP: Rule(LIVE, "cause"),
}


def check_kind(text: str) -> EventKind:
    """A kind by its name. Raises INVALID_CALL."""
    try:
        return EventKind(text)
    except ValueError:
        raise invalid("kind", f"one of {', '.join(EventKind)} is expected") from None


def value_of(kind: EventKind, members: dict[str, Any]) -> str:
    """The subject of an event, from the other members of its body.

    Raises:
        SyncBridgeError: INVALID_CALL (a member that this kind has not, or its own one missing or
            not acceptable).
    """
    member = RULES[kind].member
    for name in members:
        if name != member:
            raise invalid(name, f"{kind} does not allow this member")
    if not member:
        return ""
    return check_value(member, members.get(member, ""))


def check_value(member: str, text: str) -> str:
    """A text that an event or a creation is about. Raises INVALID_CALL."""
    if member == "channel":
        try:
            return channel_id(member, text)
        except SyncBridgeError as error:
            raise SyncBridgeError(ErrorCode.INVALID_CALL, error.detail, field=member) from None
    if not is_id(text):
        raise invalid(member, f"1 to {VALUE_BYTES} bytes of printable text are expected")
    return text


def refused_event(call: Call, kind: EventKind) -> SyncBridgeError:
    """Why an event cannot have happened in a call as it is."""
    if call.state is CallState.TERMINATED:
        return SyncBridgeError(
            ErrorCode.CALL_TERMINATED, "a terminated call cannot change", state=call.state
        )
    if len(call.events) >= MOST_EVENTS:
        return SyncBridgeError(
            ErrorCode.TOO_LARGE, f"events: at most {MOST_EVENTS} for one call", limit=MOST_EVENTS
        )
    hold = (
        ""
        if call.state not in RULES[kind].states
        else " on hold"
        if call.held
        else " and not on hold"
    )
    return SyncBridgeError(
        ErrorCode.CALL_TRANSITION,
        f"{kind}: the call is {call.state}{hold}",
        state=call.state,
        allowed=sorted(RULES[kind].states),
    )
