"""Delivers the events of one endpoint: reads the log, posts, and stores what fails."""

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.events import kinds
from syncbridge.events.batches import Gathering
from syncbridge.events.cursor import Cursor, before, missing, parse_cursor
from syncbridge.events.delivery import Delivery, Fate, Item
from syncbridge.events.endpoints import Endpoint, headers_of
from syncbridge.events.kinds import Event
from syncbridge.events.outbox import encode, new_event, time_text, without_values
from syncbridge_server.events.sender import Answer, Sender
from syncbridge_server.ports.endpoints import EndpointStore, Status
from syncbridge_server.ports.events import EventStore

log = structlog.get_logger("deliver")

AT_ONCE, FEW = 32, 4
"""Attempts under way: while events arrive, and while that is not known."""

PART = 128
LOOK_SECONDS = 5.0
"""Between two looks for what nobody has told of: news of the log, events to be replayed."""

SAVE_SECONDS = 1.0
"""Between two times at which is noted how it goes."""

FULL_SECONDS = 0.05

RETRY_SECONDS = 1.0
GONE = 410

_decode = msgspec.json.Decoder(Event).decode
Disable = Callable[[Endpoint, str], Awaitable[None]]


class Worker:
    """Serves one endpoint until it is cancelled.

    Args:
        disable: told when nothing is to be sent any more, and why. clock: Unix seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: EndpointStore,
        events: EventStore,
        sender: Sender,
        disable: Disable,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.endpoint = endpoint
        self._store = store
        self._events = events
        self._sender = sender
        self._disable = disable
        self._clock = clock
        self._delivery = Delivery(Cursor(), random.random)
        self._gathering = Gathering(endpoint.batch_events, endpoint.batch_ms / 1000)
        self.status = Status()
        self._saved = Status()
        self._held_up_to = "0-0"
        self._holding = trio.Lock()
        self._wake = trio.Event()
        self._news = trio.Event()
        self._look_at = 0.0
        self._ahead = clock() - trio.current_time()

    def wake(self) -> None:
        """There may be more in the log."""
        self._news.set()

    def look(self) -> None:
        """Something may be to be sent again."""
        self._look_at = 0.0
        self.wake()

    def _now(self) -> float:
        """Unix seconds as they go on from the start: no jump of the clock gives up an event."""
        return trio.current_time() + self._ahead

    async def run(self) -> None:
        """Deliver, for ever."""
        await self._begin()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._kept_up, self._read)
                nursery.start_soon(self._kept_up, self._look)
                await self._send(nursery)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(RETRY_SECONDS):
                await self._save()
            await self._sender.aclose()

    async def _begin(self) -> None:
        """Go on where the process before has stopped."""
        while True:
            try:
                self.status = await self._store.status(self.endpoint.id)
                self._saved = msgspec.structs.replace(self.status)
                start = parse_cursor(self.status.cursor or self.endpoint.start)
                failing = self.status.failing_since / 1000
                self._delivery = Delivery(start, random.random, failing)
                await self._load()
            except StoreError as error:
                log.warning("endpoint_not_read", endpoint=self.endpoint.id, reason=error.detail)
                await trio.sleep(RETRY_SECONDS)
            else:
                return

    async def _kept_up(self, step: Callable[[], Awaitable[None]]) -> None:
        """A step again and again; while the store is away, later."""
        while True:
            try:
                await step()
            except StoreError as error:
                log.warning("delivery_waits", endpoint=self.endpoint.id, reason=error.detail)
                await trio.sleep(RETRY_SECONDS)

    # What is to be sent

    async def _read(self) -> None:
        """Take the next events of the log, when there is room for them."""
        self._news = trio.Event()
        room = min(self._delivery.room, PART)
        entries = await self._events.read(self._delivery.seen, room) if room > 0 else []
        if entries:
            await self._tell_missing(entries[0][0])
        for place, text in entries:
            await self._offer(place, text)
        wait = await self._offer_batch()
        if entries:
            self._wake.set()
        if len(entries) < max(room, 1):
            with trio.move_on_after(min(wait, LOOK_SECONDS if room > 0 else FULL_SECONDS)):
                await self._news.wait()

    async def _offer(self, place: Cursor, text: bytes) -> None:
        try:
            event = _decode(text)
        except msgspec.DecodeError:
            log.error("event_unreadable", entry=str(place))
            self._delivery.offer(place, None)
            return
        selection = self.endpoint.selection
        if not selection.wants(event):
            self._delivery.offer(place, None)
            return
        await self._take(place, event, text if selection.values else encode(without_values(event)))

    async def _take(self, place: Cursor, event: Event, body: bytes) -> None:
        """An event that is wanted: to be sent, or gathered first."""
        if self.endpoint.batch_events > 1:
            self._delivery.gather(place)
            self._gathering.add(place, event.id, body, trio.current_time())
            if self._gathering.full:
                await self._offer_batch()
        elif lane := self._delivery.offer(place, event, body):
            await self._surely(partial(self._hold, lane))

    async def _offer_batch(self) -> float:
        """Offer what was gathered when it is time; seconds until it is."""
        wait = self._gathering.wait(trio.current_time())
        if wait == 0:
            if lane := self._delivery.offer_batch(*self._gathering.take()):
                await self._surely(partial(self._hold, lane))
            self._wake.set()
        return wait or LOOK_SECONDS

    async def _tell_missing(self, first: Cursor) -> None:
        """The log has dropped events that were not taken: that is told in their place."""
        seen = self._delivery.seen
        if not (count := missing(seen, first)):
            return
        span = (time_text(seen.ms), time_text(first.ms))
        lost = new_event(
            f"lost-{seen}", "events.lost", first.ms, kinds.EventsLost(count, "", "", *span)
        )
        await self._take(before(first), lost, encode(lost))

    async def _look(self) -> None:
        """Events that somebody has asked to be sent again; note how it goes."""
        await trio.sleep(SAVE_SECONDS)
        if trio.current_time() >= self._look_at:
            self._look_at = trio.current_time() + LOOK_SECONDS
            await self._load()
        await self._save()

    async def _load(self) -> None:
        items, self._held_up_to = await self._store.held(self.endpoint.id, self._held_up_to)
        for item in items:
            self._delivery.load(item)
        if items:
            self._wake.set()

    async def _save(self) -> None:
        delivery = self._delivery
        self.status.cursor = str(delivery.cursor)
        self.status.failing_since = round(delivery.failing_since * 1000) * delivery.down
        if self.status != self._saved:
            await self._store.save(self.endpoint.id, self.status)
            self._saved = msgspec.structs.replace(self.status)

    # Sending

    async def _send(self, nursery: trio.Nursery) -> None:
        while True:
            self._wake = trio.Event()
            while self._delivery.under_way < (AT_ONCE if self._delivery.proven else FEW):
                item = self._delivery.next(self._now())
                if item is None:
                    break
                nursery.start_soon(self._attempt, item)
            due = self._delivery.due()
            wait = LOOK_SECONDS if due is None else max(due - self._now(), 0.01)
            with trio.move_on_after(min(wait, LOOK_SECONDS)):
                await self._wake.wait()

    async def _attempt(self, item: Item) -> None:
        try:
            if item.entry and not item.text:
                item.text = await self._store.text(self.endpoint.id, item.entry)
        except StoreError as error:
            log.warning("delivery_waits", endpoint=self.endpoint.id, reason=error.detail)
            await trio.sleep(RETRY_SECONDS)
            self._delivery.given_back(item)
        else:
            await self._deliver(item)
        self._wake.set()

    async def _deliver(self, item: Item) -> None:
        if not item.text:  # somebody has removed it
            self._delivery.delivered(item)
            return
        headers = headers_of(self.endpoint, item.event_id, item.text, self._clock())
        answer = await self._sender.post(headers, item.text)
        if answer.good:
            await self._arrived(item)
        else:
            await self._failed(item, answer)

    async def _arrived(self, item: Item) -> None:
        now = self._clock()
        self.status.delivered += 1
        self.status.delivered_at = round(now * 1000)
        if item.places:
            self.status.late_ms = max(round(now * 1000) - item.places[0].ms, 0)
        if item.entry:
            await self._surely(partial(self._store.release, self.endpoint.id, item.entry))
        self._delivery.delivered(item)

    async def _failed(self, item: Item, answer: Answer) -> None:
        fate = self._delivery.failed(item, self._now(), answer.asked)
        self.status.failed += 1
        self.status.failed_at = round(self._clock() * 1000)
        self.status.last_error = answer.error
        if fate is Fate.DEAD:
            await self._bury(item, answer.error)
            return
        if item.entry:
            item.text = b""
            await self._surely(partial(self._store.note, self.endpoint.id, item))
        else:
            await self._surely(partial(self._hold, item.lane))
        if fate is Fate.DISABLED or answer.status == GONE:
            await self._disable(self.endpoint, answer.error)

    async def _bury(self, item: Item, reason: str) -> None:
        """Make a dead letter of an event that is not waited for any more."""
        self.status.dead += 1
        await self._surely(partial(self._store.bury, self.endpoint.id, item, reason))
        log.warning("event_given_up", endpoint=self.endpoint.id, event_id=item.event_id)

    async def _surely(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do something that must be noted, when the store is back at the latest."""
        while True:
            try:
                return await step()
            except StoreError as error:
                log.warning("delivery_waits", endpoint=self.endpoint.id, reason=error.detail)
                await trio.sleep(RETRY_SECONDS)

    async def _hold(self, lane: str) -> None:
        """Store apart what waits in a lane whose first event has failed, in order."""
        async with self._holding:
            while item := self._delivery.to_hold(lane):
                if self._delivery.dropped(item):
                    await self._bury(item, "too many events wait")
                    continue
                entry = await self._store.hold(self.endpoint.id, item)
                if not self._delivery.kept(item, entry):
                    await self._store.release(self.endpoint.id, entry)
