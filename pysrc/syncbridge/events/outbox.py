"""Events out of what the scripts have written into an outbox.

An entry has `k` the kind, `s` a session, `u` its owner or the user, and the fields of its kind, as
`_DATA` reads them; or `j`, its data as JSON, and `c` the key of a channel with its waddle `W`. Ids
of users and devices are text of ours, but what stands in Redis may be any bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from syncbridge.events import kinds
from syncbridge.events.kinds import KINDS, Event
from syncbridge.integrity import TIME_MOST
from syncbridge.voice.naming import id_of_key, waddle_of

Fields = Mapping[str, bytes]
encode = msgspec.json.Encoder().encode


class Unreadable(Exception):
    """An entry that no script of ours has written."""


def time_text(ms: int) -> str:
    """Unix ms as RFC 3339 text in UTC; the nearest moment that can be written so."""
    seconds, rest = divmod(min(max(ms, 0), TIME_MOST), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"


def new_event(
    event_id: str,
    name: str,
    ms: int,
    data: Any,
    *,
    session_id: str = "",
    user_id: str = "",
    channel_id: str = "",
    waddle_id: str = "",
) -> Event:
    """An event of a kind of ours; `data`: what it says, or that as JSON."""
    raw = data if isinstance(data, Raw) else Raw(encode(data))
    about = (session_id, user_id, channel_id, waddle_id)
    return Event(event_id, name, KINDS[name][0], time_text(ms), raw, *about)


def event_of(tag: str, entry: bytes, flat: Sequence[bytes]) -> Event:
    """The event of an entry of an outbox. Raises Unreadable.

    Args:
        tag: of the outbox. entry: its name, "<ms>-<number>".
    """
    try:
        fields = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        name = fields["k"].decode()
        read = _DATA.get(name)
        data = read(fields) if read is not None else _as_json(name, fields["j"])
        key = _text(fields, "c") if read is None else ""
        return new_event(
            f"{tag}-{entry.decode()}",
            name,
            int(entry.partition(b"-")[0]),
            data,
            session_id=_text(fields, "s"),
            user_id=_text(fields, "u"),
            channel_id=id_of_key(key),
            waddle_id=_text(fields, "W") or waddle_of(key) or "",
        )
    except (ValueError, KeyError, TypeError, msgspec.DecodeError) as error:
        raise Unreadable(f"{type(error).__name__}") from None


def _as_json(name: str, text: bytes) -> Raw:
    """Data that is JSON already. Raises ValueError for what is not data of the kind."""
    msgspec.json.decode(text, type=KINDS[name][1])
    return Raw(text)


def netstrings(packed: bytes) -> list[bytes]:
    """Texts out of `<size> <bytes>...`. Raises ValueError."""
    texts, at = [], 0
    while at < len(packed):
        space = packed.index(b" ", at)
        end = space + 1 + int(packed[at:space])
        if end > len(packed):
            raise ValueError("a text is cut off")
        texts.append(packed[space + 1 : end])
        at = end
    return texts


def without_values(event: Event) -> Event:
    """The event as it is for who does not want values. The same one where there are none."""
    if event.type != "session.updated" or b'"values":' not in bytes(event.data):
        return event
    told = msgspec.json.decode(event.data, type=kinds.SessionUpdated)
    told.values = UNSET
    return msgspec.structs.replace(event, data=Raw(encode(told)))


def _text(fields: Fields, name: str) -> str:
    return fields.get(name, b"").decode(errors="replace")


def _number(fields: Fields, name: str) -> int:
    return int(fields.get(name) or b"0")


def _created(fields: Fields) -> kinds.SessionCreated:
    place = (_number(fields, "v"), _text(fields, "e"), _text(fields, "l"))
    return kinds.SessionCreated(*place, _text(fields, "d"), _text(fields, "a"))


def _updated(fields: Fields) -> kinds.SessionUpdated:
    keys = [key.decode(errors="replace") for key in netstrings(fields.get("K", b""))]
    told = kinds.SessionUpdated(
        _number(fields, "f"),
        _number(fields, "v"),
        _text(fields, "e"),
        _text(fields, "l"),
        _text(fields, "d"),
        keys,
        not fields.get("m"),
    )
    if values := netstrings(fields.get("V", b"")):
        texts = [Raw(value or b"null") for value in values]
        told.values = dict(zip(keys, texts, strict=True))
    return told


def _joined(fields: Fields) -> kinds.DeviceJoined:
    who = (_text(fields, "d"), _text(fields, "w"))
    return kinds.DeviceJoined(*who, _number(fields, "n"), bool(fields.get("p")))


def _left(fields: Fields) -> kinds.DeviceLeft:
    return kinds.DeviceLeft(_text(fields, "d"), _text(fields, "r"), _number(fields, "n"))


def _handoff(fields: Fields) -> kinds.HandoffCreated:
    devices = (_text(fields, "a"), _text(fields, "b"))
    return kinds.HandoffCreated(*devices, time_text(_number(fields, "x")))


def _redeemed(fields: Fields) -> kinds.HandoffRedeemed:
    return kinds.HandoffRedeemed(_text(fields, "a"), _text(fields, "b"), _number(fields, "v"))


def _call_created(fields: Fields) -> kinds.CallSessionCreated:
    return kinds.CallSessionCreated(_text(fields, "i"), _text(fields, "y"), _text(fields, "w"))


def _call_changed(fields: Fields) -> kinds.CallSessionChanged:
    states = (_text(fields, "i"), _text(fields, "v"), _text(fields, "f"))
    return kinds.CallSessionChanged(*states, _text(fields, "w"), _text(fields, "r"))


def _call_deleted(fields: Fields) -> kinds.CallSessionDeleted:
    return kinds.CallSessionDeleted(_text(fields, "i"), _text(fields, "w"))


def _letter(fields: Fields) -> kinds.DeadLetterKept:
    return kinds.DeadLetterKept(
        _text(fields, "i") or "webhook", _text(fields, "n"), _text(fields, "r")
    )


_DATA: Mapping[str, Callable[[Fields], msgspec.Struct]] = {
    "session.created": _created,
    "session.updated": _updated,
    "session.expired": lambda fields: kinds.SessionExpired(),
    "device.joined": _joined,
    "device.left": _left,
    "handoff.created": _handoff,
    "handoff.redeemed": _redeemed,
    "call_session.created": _call_created,
    "call_session.changed": _call_changed,
    "call_session.deleted": _call_deleted,
    "dead_letter.kept": _letter,
}
"""What reads an entry of a kind; the others have their data as JSON."""
