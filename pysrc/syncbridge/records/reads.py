"""Which requests change nothing, for stores in which reads have no order with writes."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from syncbridge.records.devices import ListDevices, Peek
from syncbridge.records.sessions import Compare, Read, Request, Resume, Review

T = TypeVar("T")

READS = (Compare, ListDevices, Peek, Read, Resume, Review)


def reads_apart(items: Iterable[T], request_of: Callable[[T], Request]) -> list[list[T]]:
    """Two parts in their order: what only reads, and the rest; none of them empty. O(items)."""
    parts: tuple[list[T], list[T]] = ([], [])
    for item in items:
        parts[isinstance(request_of(item), READS)].append(item)
    return [part for part in reversed(parts) if part]
