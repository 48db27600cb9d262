"""Reading the log of events, and waiting for more."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import structlog
import trio

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.events.cursor import START, Cursor, before, missing
from syncbridge.events.kinds import Event
from syncbridge.events.outbox import without_values
from syncbridge.events.selection import Selection
from syncbridge_server.events.carrier import NEWS
from syncbridge_server.events.search import CLOCKS_MS
from syncbridge_server.events.switch import EventSwitch
from syncbridge_server.ports.events import EventStore
from syncbridge_server.ports.store import Bus

log = structlog.get_logger("events")

PART = 256
SCANNED_MOST = 4_096
"""Entries that one reading looks at; the next one goes on behind them."""

LOOK_SECONDS = 1.0
"""Between two looks while somebody waits: news may be lost."""

WAITING_MOST = 256
"""Readers that may wait at a node."""

_decode = msgspec.json.Decoder(Event).decode


class Page(msgspec.Struct):
    """Events with the place behind each, and the place up to which was read."""

    events: list[tuple[Cursor, Event]]
    cursor: Cursor
    more: bool


class EventReader:
    """Reads for the clients of a node.

    Args:
        stopping: whether the node is about to. clock: Unix seconds.
    """

    def __init__(
        self,
        store: EventStore,
        switch: EventSwitch,
        bus: Bus,
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._switch = switch
        self._stopping = stopping
        self._clock = clock
        self._news = trio.Event()
        self.waiting = 0
        bus.on_notice(NEWS, lambda _: self.wake())
        bus.on_resync(self.wake)

    def wake(self) -> None:
        """There may be more."""
        self._news.set()
        self._news = trio.Event()

    async def read(self, after: Cursor | None, limit: int, wait: float, wanted: Selection) -> Page:
        """Events behind a place; None: behind what there is now.

        Args:
            limit: at most so many. wait: seconds to wait for the first one.

        Raises:
            SyncBridgeError: EVENTS_GAP when some behind the place are gone, EVENTS_STARTING,
                OVERLOADED when too many wait; StoreError.
        """
        await self._switch.listen(values=wanted.values)
        page = Page([], await self._store.last() if after is None else after, False)
        until = trio.current_time() + wait
        while True:
            news = self._news
            await self._advance(page, limit, wanted)
            left = until - trio.current_time()
            if page.events or page.more or left <= 0 or self._stopping():
                return page
            with self._seat(), trio.move_on_after(min(left, LOOK_SECONDS)):
                await news.wait()

    async def oldest(self) -> Cursor:
        """The place before all that is left. Raises StoreError."""
        entries = await self._store.read(START, 1)
        return before(entries[0][0]) if entries else START

    async def _advance(self, page: Page, limit: int, wanted: Selection) -> None:
        """Read until the page is full, or the end, or enough was looked at."""
        scanned = 0
        while scanned < SCANNED_MOST:
            entries = await self._store.read(page.cursor, PART)
            if entries:
                await self._require_all(page.cursor, entries[0][0])
            else:
                await self._require_past(page.cursor)
            for place, text in entries:
                event = _event(place, text)
                if event is not None and wanted.wants(event):
                    if len(page.events) == limit:
                        page.more = True
                        return
                    told = event if wanted.values else without_values(event)
                    page.events.append((place, told))
                page.cursor = place
            scanned += len(entries)
            if len(entries) < PART:
                return
        page.more = True

    async def _require_all(self, after: Cursor, first: Cursor) -> None:
        count = missing(after, first)
        if first.number <= after.number and await self.oldest() == before(first):
            # Redis came back older since, so numbers say nothing; what is left of the log does.
            count = first.number - 1
        if count:
            detail = f"{count} events behind the cursor are gone"
            raise _gap(detail, count, before(first))

    async def _require_past(self, after: Cursor) -> None:
        """A cursor later than any clock is none of this log: nothing would ever come behind it."""
        if after.ms > self._clock() * 1000 + CLOCKS_MS and after > await self._store.last():
            oldest = await self.oldest()
            raise _gap("the cursor is none of this log: it is later than now", 0, oldest)

    @contextmanager
    def _seat(self) -> Iterator[None]:
        if self.waiting >= WAITING_MOST:
            detail = f"{WAITING_MOST} readers wait at this node already"
            raise SyncBridgeError(ErrorCode.OVERLOADED, detail, retry_after=LOOK_SECONDS)
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1


def _gap(why: str, count: int, oldest: Cursor) -> SyncBridgeError:
    detail = f"{why}; go on with after={oldest}"
    return SyncBridgeError(ErrorCode.EVENTS_GAP, detail, missing=count, oldest=str(oldest))


def _event(place: Cursor, text: bytes) -> Event | None:
    """An event of the log; None for what cannot be read: nobody is kept by it from the rest."""
    try:
        return _decode(text)
    except msgspec.DecodeError:
        log.error("event_unreadable", entry=str(place))
        return None
