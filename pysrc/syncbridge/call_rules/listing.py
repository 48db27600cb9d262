"""Which calls a list shows, and the entity tags by which a write names the call that it is for."""

from datetime import datetime

import msgspec

from syncbridge.calls import Call, CallState, CallType, invalid
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.integrity import TIME_MOST

MOST_QUERY = 256


class CallFilter(msgspec.Struct, frozen=True):
    """The filter of a list; empty members do not filter.

    Attributes:
        since, until: Unix ms of the creation; from `since` on, and before `until` (0: no end).
        q: text that the id or a detail holds, in any case of letters.
        parent, channel: as the call's.
    """

    state: CallState | None = None
    type: CallType | None = None
    since: int = 0
    until: int = 0
    q: str = ""
    parent: str = ""
    channel: str = ""

    def matches(self, call: Call) -> bool:
        """Whether a call is shown."""
        return (
            self.state in (None, call.state)
            and self.type in (None, call.type)
            and self.since <= call.created_at
            and (not self.until or call.created_at < self.until)
            and self.parent in ("", call.parent)
            and self.channel in ("", call.channel)
            and (not self.q or holds(call, self.q))
        )


def holds(call: Call, text: str) -> bool:
    """Whether the id or the text of a detail holds `text`, in any case of letters."""
    sought = text.casefold()
    if sought in call.id.casefold():
        return True
    values = (msgspec.json.decode(value) for value in call.details[1::2])
    return any(sought in str(value).casefold() for value in values)


def parse_moment(field: str, text: str) -> int:
    """RFC 3339 text as Unix ms; 0 for no text. Raises INVALID_FIELD."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
        ms = round(moment.timestamp() * 1000) if moment.tzinfo else -1
    except (ValueError, OverflowError):
        ms = -1
    if not 0 <= ms <= TIME_MOST:
        detail = f"{field}: a time such as 2026-01-02T03:04:05Z is expected"
        raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail, field=field)
    return ms


def tag_of(call: Call) -> str:
    """The entity tag of a call, without its quotes. A call that is made anew has another one."""
    return f"{call.created_at}-{call.version}"


def parse_match(header: str) -> str:
    """The tag in an If-Match header; empty without one, and for `*`. Raises INVALID_CALL.

    A weak tag is treated as the strong one: proxies that compress answers weaken tags.
    """
    text = header.strip()
    if text in ("", "*"):
        return ""
    tag = text.removeprefix("W/")
    inner = tag[1:-1]
    if len(tag) < 2 or tag[0] != '"' or tag[-1] != '"' or len(inner) > 64 or '"' in inner:
        raise invalid("If-Match", "expected the ETag of one response")
    return inner
