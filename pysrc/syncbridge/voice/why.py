"""Explains from answers of the REST API why a user is shown in a call or not."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import msgspec

from syncbridge.voice.timeline import SENT_AWAY, TOKEN

LINES = 12
"""Number of timeline entries printed with the explanation."""

SOURCES = {
    "webhook": "a webhook of the provider",
    "report": "a report of the device",
    "list": "the provider's list",
    "token": "a request for a token",
    "timeout": "a deadline",
    "operator": "an operator",
    "provider": "the provider's answer to a request",
}
ABSENT = {
    "left": "the end of the connection was reported with its id",
    "verified": "two independent statements said that the connection is gone",
    "expired": "the device had reported that it is in the media, then stopped reporting",
    "migration": "the call moved to another session, and they did not come over in time",
    "idle": "the call ended because nobody was in it",
    "ended": "the call was ended",
    "replaced": "the room of the call had another configuration than it was to have",
    "unopened": "the provider opened no room for the call",
}
DEVICES = {
    "left": "the device reported that it left",
    "expired": "the device that was to take the call over did not come in time",
    "handoff": "the call was handed over to another device",
    "replaced": "another device of the user reported that it is in the media",
}
MOVES = {
    "requested": "somebody asked for it",
    "age": "the session was too old",
    "lost": "the provider had lost the session",
    "moved": "participants came over",
    "stranded": "nobody came over",
    "ended": "the call was ended",
}
UNHEARD = {
    "gone": "the connection is known to be gone, or two lists did not show it",
    "full": "the call has the maximum number of connections",
    "not_held": "it names a connection that was not held",
    "other_session": "it is about another session than the call's",
    "ended": "the call had ended",
    "no_proof": "it proves nothing by itself",
    "older": "newer evidence said the opposite",
    "repeated": "the same source had said it before; another source or a later list is needed",
}
REASONS = {
    "left": ABSENT,
    "disconnected": ABSENT,
    "ended": ABSENT,
    "ignored": UNHEARD,
    "holds": DEVICES,
    "released": DEVICES,
    "migrating": MOVES,
    "migrated": MOVES,
}
"""Meanings of the reasons of an entry, by what it says."""
UNVERIFIED = {
    "empty": "the provider's list is empty, which proves nothing",
    "partial": "the provider's list is incomplete",
    "unreadable": "the provider's answer cannot be read",
    "not_found": "the provider does not know the session",
    "unreachable": "the provider does not answer",
    "refused": "the provider refuses the request",
    "rate_limited": "the provider allows no more requests for now",
    "unsupported": "the provider's lists do not tell who is there",
    "waiting": "the comparison had no budget left for it",
    "error": "the check failed; the server's log has the error",
    "broken_off": "the comparison took too long",
}
OF_ALL = "list_"
"""Prefix of a reason that is about the provider's list of calls."""


class Statement(msgspec.Struct, rename="camel"):
    """A timeline entry of the REST API."""

    at: str
    source: str
    what: str
    ref: str = ""
    user_id: str = ""
    connection_id: str = ""
    reason: str = ""
    wrong_ms: int = 0


def explained(
    user_id: str, channel: Mapping[str, Any] | None, entries: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Lines that explain why a user is shown or not. O(participants + entries).

    Args:
        channel: the answer of `GET /voice/channels/{id}`; None: there never was a call.
        entries: timeline entries about the user and the whole call, the latest first.
    """
    said = msgspec.convert(entries, list[Statement])
    if channel is None:
        return [f"{user_id} is not shown: the channel has had no call yet."]
    name = channel["channelId"]
    person = next((p for p in channel["participants"] if p["userId"] == user_id), None)
    if person is not None:
        lines = [f"{user_id} is shown in the call of {name}, since {person['joinedAt']}."]
        lines += _shown(person, channel)
    elif channel["session"] is None:
        lines = [f"{user_id} is not shown: there is no call in {name}.", *_absent(user_id, said)]
    else:
        lines = [f"{user_id} is not shown in the call of {name}.", *_absent(user_id, said)]
    if user_id in channel.get("removing", ()):
        lines.append("They were sent away, and the provider must still remove them.")
    lines += _verified(channel)
    if said:
        lines += ["", "Timeline, the latest first:", *map(line_of, said[:LINES])]
    return lines


def line_of(one: Statement) -> str:
    """A timeline entry as one line."""
    by = f"{one.source} {one.ref}".strip()
    about = " ".join(part for part in (one.user_id, one.connection_id) if part)
    known = REASONS.get(one.what, {})
    why = f" ({known.get(one.reason, one.reason)})" if one.reason else ""
    return f"  {one.at}  {by}: {one.what} {about}".rstrip() + why


def _shown(person: Mapping[str, Any], channel: Mapping[str, Any]) -> Iterator[str]:
    if person["state"] == "moving":
        yield "The call is about to move to another device of theirs."
    evidence = person["evidence"]
    if evidence is None:
        yield "Only services, admins and the user can see the evidence."
        return
    if evidence["source"]:
        yield f"First shown by {_by(evidence['source'], evidence['ref'])}."
    confirmed = evidence["lastConfirmedBy"]
    by = f" by {_by(confirmed)}" if confirmed else ""
    yield f"Last confirmed at {evidence['lastConfirmedAt']}{by}."
    if evidence["deviceId"]:
        yield f"Device {evidence['deviceId']} holds the call."
    for one in evidence["connections"]:
        yield from _connection(one, channel["session"]["generation"])


def _connection(one: Mapping[str, Any], generation: int) -> Iterator[str]:
    name = one["connectionId"] or "without an id"
    yield f"Connection {name}: last seen at {one['seenAt']}."
    if one["generation"] != generation:
        yield "  It is in the session before; the call has moved, and they have not come over yet."
    for doubt in one["doubts"]:
        by = _by(doubt["source"])
        yield f"  Doubted: {by} at {doubt['at']} is one negative; a second one removes it."
    if one["leaseUntil"] is not None:
        yield f"  Its device has reported, and must report again before {one['leaseUntil']}."


def _absent(user_id: str, said: Sequence[Statement]) -> Iterator[str]:
    """Why a user is not in the call: the last leave, and later evidence without an effect."""
    about = [one for one in said if one.user_id == user_id]
    last = next((one for one in about if one.what == "left"), None)
    since = about[: about.index(last)] if last is not None else about
    going = takewhile(lambda one: one.what not in ("joined", TOKEN), about[len(since) :])
    for one in [*since, *(one for one in going if one.what == SENT_AWAY)]:
        by = _by(one.source, one.ref)
        if one.what == "ignored":
            yield f"At {one.at} {by} was ignored: {UNHEARD.get(one.reason, one.reason)}."
        elif one.what == TOKEN:
            yield f"At {one.at} they got a token; nothing has shown them in the media since."
        elif one.what == SENT_AWAY:
            yield f"At {one.at} {by} removed them; they need a new token to come back."
    if last is not None:
        why, by = ABSENT.get(last.reason, last.reason), _by(last.source, last.ref)
        yield f"They were in the call until {last.at}: {why}. The last evidence was {by}."
        if last.wrong_ms:
            yield f"They were shown for at most {last.wrong_ms / 1000:g} s too long."
    elif not about:
        yield "The timeline has no entry about them."


def _verified(channel: Mapping[str, Any]) -> Iterator[str]:
    reason = channel["health"]["reason"]
    if reason:
        name = reason.removeprefix(OF_ALL)
        why = UNVERIFIED.get(name, f"the provider's answer: {name}")
        what = "any call" if name != reason else "this call"
        yield f"The latest comparisons could not verify {what}: {why}."


def _by(source: str, ref: str = "") -> str:
    return f"{SOURCES.get(source, source)} ({ref})" if ref else SOURCES.get(source, source)
