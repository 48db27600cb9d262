"""A place in the log of events: behind the entry with this name, "<ms>-<number>".

Entries are numbered without gaps, so two of them say how many are missing between. Redis may come
back older and give a number again; the time in the name is later then, and what is read behind a
cursor is told from it by that time. So a number that is not greater is no gap.
"""

from typing import NamedTuple

from syncbridge.errors import ErrorCode, SyncBridgeError

MOST = 2**63


class Cursor(NamedTuple):
    """A place. The first one is before everything."""

    ms: int = 0
    number: int = 0

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


START = Cursor()


def parse_cursor(text: str) -> Cursor:
    """A cursor out of its text. Raises INVALID_FIELD for what is none."""
    ms, _, number = text.partition("-")
    if all(part.isascii() and part.isdigit() and len(part) < 20 for part in (ms, number)):
        cursor = Cursor(int(ms), int(number))
        if max(cursor) < MOST:
            return cursor
    raise SyncBridgeError(
        ErrorCode.INVALID_FIELD,
        "after: a cursor of an answer, or latest, is expected",
        field="after",
    )


def missing(after: Cursor, following: Cursor) -> int:
    """How many entries between a place and the first one that is left behind it are gone.

    Behind the first place all are: whoever was given it had nothing before the first entry.
    """
    return max(following.number - after.number - 1, 0)


def before(entry: Cursor) -> Cursor:
    """The place before an entry."""
    return Cursor(entry.ms, max(entry.number - 1, 0))
