"""Which events somebody wants."""

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.events.kinds import KINDS, Event

LOST = "events.lost"
"""Told to everybody whom it may concern, whatever is wanted."""


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Empty members select everything.

    Attributes:
        kinds: names, or `session.*` for all names that begin so.
        session_id, user_id, channel_id: what an event must be about.
        waddle_id: the waddle whose channel it must be about.
        values: whether `session.updated` has values.
    """

    kinds: tuple[str, ...] = ()
    session_id: str = ""
    user_id: str = ""
    channel_id: str = ""
    values: bool = False
    waddle_id: str = ""

    def wants(self, event: Event) -> bool:
        """O(kinds)."""
        if event.type == LOST:
            return True
        return (
            (not self.kinds or any(_fits(kind, event.type) for kind in self.kinds))
            and self.session_id in ("", event.session_id)
            and self.user_id in ("", event.user_id)
            and self.channel_id in ("", event.channel_id)
            and self.waddle_id in ("", event.waddle_id)
        )


def _fits(kind: str, name: str) -> bool:
    return name.startswith(kind[:-1]) if kind.endswith(".*") else kind == name


def parse_kinds(field: str, names: list[str]) -> tuple[str, ...]:
    """Kinds as they are asked for. Raises INVALID_FIELD for one that there is not."""
    for name in names:
        if not any(_fits(name, kind) for kind in KINDS):
            families = sorted({kind.partition(".")[0] + ".*" for kind in KINDS})
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                f"{field}: no kind {name[:64]!r}; there are {', '.join([*KINDS, *families])}",
                field=field,
            )
    return tuple(dict.fromkeys(names))
