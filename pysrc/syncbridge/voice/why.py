"""Why somebody is shown in a call or not, in plain words, out of what the REST API tells."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

LINES = 12
"""Entries that are told beside the answer."""

SOURCES = {
    "webhook": "a webhook of the provider",
    "report": "a report of the device",
    "list": "the provider's list",
    "token": "a request for a token",
    "timeout": "a deadline",
    "operator": "an operator",
    "provider": "the provider's answer to us",
}
ABSENT = {
    "left": "the connection was said to have ended, by its id",
    "verified": "two statements, independent of each other, said that the connection is gone",
    "expired": "the device had reported that it is in the media, and then fell silent",
    "migration": "the call moved to another session, and they did not come over in time",
    "idle": "the call ended, because nobody was in it",
    "ended": "the call was ended",
}
UNHEARD = {
    "gone": "what it names is known to be gone, or the provider had not shown it twice",
    "full": "the call holds as many connections as it may",
    "not_held": "it speaks of a connection that was not held",
    "other_session": "it is about another session than the call's",
    "ended": "the call had ended",
    "no_proof": "by itself it proves nothing",
    "older": "something newer said the opposite",
    "repeated": "the same source had said it before; it takes another one, or a later list",
}
UNVERIFIED = {
    "empty": "the provider's list is empty, which proves nothing",
    "list_empty": "the provider's list of calls is empty, which proves nothing",
    "not_found": "the provider does not know the session",
    "waiting": "the comparison did not get round to it",
    "broken_off": "the comparison took too long",
}


class Statement(msgspec.Struct, rename="camel"):
    """An entry of a timeline, as the REST API tells it."""

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
    """Lines that say why a user is shown or not. O(participants + entries).

    Args:
        channel: the answer of `GET /voice/channels/{id}`; None: there never was a call.
        entries: of its timeline, those about the user and the whole call, the latest first.
    """
    said = msgspec.convert(entries, list[Statement])
    if channel is None:
        return [f"{user_id} is not shown: there was no call in this channel yet."]
    name = channel["channelId"]
    person = next((p for p in channel["participants"] if p["userId"] == user_id), None)
    if person is not None:
        lines = [f"{user_id} is shown in the call of {name}, since {person['joinedAt']}."]
        lines += _shown(user_id, person["evidence"])
    elif channel["session"] is None:
        lines = [f"{user_id} is not shown: there is no call in {name}.", *_absent(user_id, said)]
    else:
        lines = [f"{user_id} is not shown in the call of {name}.", *_absent(user_id, said)]
    lines += _verified(channel)
    if said:
        lines += ["", "What was said, the latest first:", *map(line_of, said[:LINES])]
    return lines


def line_of(one: Statement) -> str:
    """An entry in one line."""
    by = f"{one.source} {one.ref}".strip()
    about = " ".join(part for part in (one.user_id, one.connection_id) if part)
    known = ABSENT | UNHEARD
    why = f" ({known.get(one.reason, one.reason)})" if one.reason else ""
    return f"  {one.at}  {by}: {one.what} {about}".rstrip() + why


def _shown(user_id: str, evidence: Mapping[str, Any] | None) -> Iterator[str]:
    if evidence is None:
        yield "Why is told to services, to admins, and to the user."
        return
    if evidence["source"]:
        yield f"First shown by {_by(evidence['source'], evidence['ref'])}."
    confirmed = evidence["lastConfirmedBy"]
    by = f" by {_by(confirmed)}" if confirmed else ""
    yield f"Last confirmed at {evidence['lastConfirmedAt']}{by}."
    if evidence["deviceId"]:
        yield f"Device {evidence['deviceId']} holds the call."
    for one in evidence["connections"]:
        yield from _connection(user_id, one)


def _connection(user_id: str, one: Mapping[str, Any]) -> Iterator[str]:
    name = one["connectionId"] or "without an id"
    yield f"Connection {name}: last seen at {one['seenAt']}."
    for doubt in one["doubts"]:
        by = _by(doubt["source"])
        yield f"  Doubted: {by} of {doubt['at']} speaks against it; one more statement removes it."
    if one["leaseUntil"] is not None:
        yield f"  Its device has reported, and must report again before {one['leaseUntil']}."


def _absent(user_id: str, said: Sequence[Statement]) -> Iterator[str]:
    """Why somebody is not there: what happened last, and what was said since in vain."""
    about = [one for one in said if one.user_id == user_id]
    last = next((one for one in about if one.what == "left"), None)
    since = about[: about.index(last)] if last is not None else about
    for one in since:
        by = _by(one.source, one.ref)
        if one.what == "ignored":
            yield f"At {one.at} {by} spoke of them, in vain: {UNHEARD.get(one.reason, one.reason)}."
        elif one.what == "token":
            yield f"At {one.at} they were given a token; nothing has shown them in the media since."
        elif one.what == "sent_away":
            yield f"At {one.at} {by} sent them away: they need a new token to come back."
    if last is not None:
        why, by = ABSENT.get(last.reason, last.reason), _by(last.source, last.ref)
        yield f"They were there until {last.at}: {why}. The last word was {by}."
        if last.wrong_ms:
            yield f"They were shown for at most {last.wrong_ms / 1000:g} s too long."
    elif not about:
        yield "Nothing was said about them, as far back as the timeline goes."


def _verified(channel: Mapping[str, Any]) -> Iterator[str]:
    reason = channel["health"]["reason"]
    if reason:
        why = UNVERIFIED.get(reason, f"the provider's answer: {reason}")
        yield f"Nobody could verify this call in the latest comparisons: {why}."


def _by(source: str, ref: str = "") -> str:
    return f"{SOURCES.get(source, source)} ({ref})" if ref else SOURCES.get(source, source)
