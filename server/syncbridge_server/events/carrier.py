"""Carries what is in the outboxes into the log, in order, on one node at a time.

Theory of operation. The node with the lease reads what follows the place of an outbox, appends it
to the log, and moves the place, both by one script that compares the place: a part is appended
once, whoever dies and whatever is sent again. Outboxes are looked at when somebody has written to
them; all of them at first, some time after the last event, and when a node is silent, which may
have written without saying so. While nothing happens, it sleeps. What is carried stays in its
outbox for a while: on a cluster the log's primary may come back older than the outbox's, and the
place then says from where to carry again.

Once a second, a round: sessions that have changed are told, each once, by the script that reads
what their outbox has. It forgets what was carried, too: an outbox costs one call a round.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.nodes import Watch
from syncbridge.records.sessions import Notice
from syncbridge_server.events.expiry import Expiry, summary
from syncbridge_server.events.outboxes import carried, place_after
from syncbridge_server.events.switch import NOTED_NEWS, EventSwitch
from syncbridge_server.ports.events import EventStore, Load, Part, Place, Round, Want
from syncbridge_server.ports.store import Bus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.locks import HeldLock, locked

log = structlog.get_logger("events")

T = TypeVar("T")

LEASE = "lease:{nodes}:events"
LEASE_SECONDS, KEEP_SECONDS, SEEK_SECONDS = 10.0, 3.0, 3.0
NEWS = "events_news"
PERIOD = 0.05
UPDATED = b"session.updated"
GATHER_SECONDS = 0.01
"""What is written in one go is carried in one go."""

ROUND_SECONDS, ROUND_MOST_SECONDS, ROUND_EVENTS = 1.0, 5.0, 100
"""Between two rounds in which changed sessions are told: a second for each so many events of the
round before, at least one and at most five. What a round costs is so bounded by the second."""

NOTED_SECONDS = 5.0
"""Between two looks at what other nodes have noted, when their notice was lost."""

WHOLE_SECONDS, FAILED_SECONDS = 60.0, 10.0
"""From an event to a look at all outboxes, and from a failure to read one."""

WATCH_SECONDS, SILENT_SECONDS = 5.0, 20.0
"""Between two looks at the nodes, each of which says something every ten seconds at most; and how
long one is silent before all outboxes are looked at."""

BACKSTOP_SECONDS = 1_800.0
"""Between two looks at all outboxes while nothing happens."""

SLOW_SECONDS = 60.0
"""Between two looks for sessions that have expired, and whether anybody reads."""

KEPT_SECONDS, IDLE_SECONDS = 5.0, 30.0
"""How long an outbox keeps what was carried; and, when nothing follows, until that is trimmed."""

PART = 128
AT_ONCE = 64
BATCH_BYTES = 1_048_576


class Carrier:
    """Attributes: carried, lost, dropped: events since the start. lag: seconds, of the newest."""

    def __init__(
        self,
        store: EventStore,
        switch: EventSwitch,
        io: RedisIO,
        bus: Bus,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._switch = switch
        self._io = io
        self._bus = bus
        self._clock = clock
        self._expiry = Expiry(store)
        self._begin({}, (), 0.0)
        self.carried = self.dropped = 0
        self.lag = 0.0
        bus.on_notice(NOTED_NEWS, lambda _: self._wake())
        bus.on_resync(self._doubt)

    def _begin(self, places: dict[str, Place], hot: Iterable[str], now: float) -> None:
        """The state of a node that begins to carry."""
        self._places = places
        self._hot = set(hot)
        self._dirty: set[str] = set()
        self._telling: set[str] = set()
        self._trims: dict[str, tuple[float, str]] = {}
        self._nodes: set[str] = set()
        self._told = 0
        self._watch = Watch(SILENT_SECONDS / 2, SILENT_SECONDS / 2)
        self._whole_at = self._noted_at = now

    def _wake(self) -> None:
        """Another node has noted something."""
        self._noted_at = 0.0
        self._switch.touched.set()

    def _doubt(self) -> None:
        """Redis was away, and may have come back older."""
        self._whole_at = 0.0
        self._wake()

    def figures(self) -> list[tuple[str, float]]:
        """For `/metrics`."""
        return [
            ("on", float(self._switch.on)),
            ("carrier", float(self._switch.carrying)),
            ("carried_total", self.carried),
            ("dropped_total", self.dropped),
            ("carry_lag_seconds", self.lag if self._switch.carrying else 0.0),
        ]

    async def run(self) -> None:
        """Carry whenever this node has the lease, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expiry.run, self._switch)
            while True:
                await self._switch.wait()
                await self._try_to_carry()
                await trio.sleep(SEEK_SECONDS)

    async def _try_to_carry(self) -> None:
        try:
            async with locked(self._io, LEASE, round(LEASE_SECONDS * 1000), 0) as lease:
                if lease is not None:
                    await self._carry_while(lease)
        except StoreError as error:
            log.warning("events_not_carried", reason=error.detail)
        finally:
            self._switch.carrying = False

    async def _carry_while(self, lease: HeldLock) -> None:
        """Work until the lease is lost, or nobody reads any more."""
        places, now = await self._store.places(), trio.current_time()
        self._begin(places, self._store.tags, now)
        self._expiry.begin()
        self._switch.carrying = True
        keep_at, look_at, began, slow_at = now + KEEP_SECONDS, now, now, now
        while self._switch.on:
            now = trio.current_time()
            if now >= keep_at:
                if not await lease.keep(round(LEASE_SECONDS * 1000)):
                    return
                keep_at = now + KEEP_SECONDS
            if now >= slow_at:
                slow_at = now + SLOW_SECONDS
                if await self._slowly(now):
                    return
            if now >= look_at:
                look_at = now + WATCH_SECONDS
                await self._look(now)
            begin = now >= began + self._pause
            if begin:
                began, self._told = now, 0
            await self._step(now, begin=begin)
            await self._rest(began + self._pause)

    @property
    def _pause(self) -> float:
        """From the begin of this round to the next one."""
        return min(max(ROUND_SECONDS, self._told / ROUND_EVENTS), ROUND_MOST_SECONDS)

    async def _rest(self, until: float) -> None:
        """Sleep until something was written, or the next round; shortly while there is more."""
        if self._hot or self._telling:
            until = min(until, trio.current_time() + PERIOD)
        with trio.move_on_at(until):
            await self._switch.touched.wait()
            await trio.sleep(GATHER_SECONDS)

    async def _look(self, now: float) -> None:
        """Whether a node is silent or gone, which may have written without noting where."""
        found = await self._store.nodes()
        silent = self._watch.look(found, now, trio.current_time())
        nodes = set(found).difference(silent)
        if self._nodes - nodes:
            self._whole_at = 0.0
        self._nodes = nodes

    async def _slowly(self, now: float) -> bool:
        """Whether it is over."""
        if await self._switch.cease():
            places = [(tag, place.entry) for tag, place in self._places.items()]
            for done in parts(places):
                await self._store.trim(done)
            await self._store.fade()
            return True
        for tags in parts(self._expiry.due(now)):
            self._hot.update(await self._expiry.tell(tags, now))
        return False

    async def _step(self, now: float, *, begin: bool) -> None:
        if begin and now >= self._whole_at:
            self._whole_at = now + BACKSTOP_SECONDS
            self._dirty.update(self._store.tags)
        self._stir(self._switch.take_touched(), now)
        if now >= self._noted_at:
            self._noted_at = now + NOTED_SECONDS
            self._stir(await self._store.noted(), now)
        rounds = dict.fromkeys(self._hot, Round.NONE) | dict.fromkeys(self._telling, Round.GO_ON)
        if begin:
            changed = self._dirty | self._switch.take_changed() | await self._store.changed()
            rounds |= dict.fromkeys(changed | self._telling, Round.BEGIN)
            self._dirty = set()
        self._hot, self._telling = set(), set()
        for tags in parts(sorted(rounds)):
            await self._carry([self._want(tag, rounds[tag], now) for tag in tags], now)
        await self._trim(now)

    def _stir(self, tags: set[str], now: float) -> None:
        """Somebody has written: who dies meanwhile may have done so without a word."""
        self._hot |= tags
        if tags:
            self._whole_at = min(self._whole_at, now + WHOLE_SECONDS)

    def _want(self, tag: str, wanted: Round, now: float) -> Want:
        """What to ask of an outbox, and with it to forget what was carried a while ago."""
        forget = ""
        if tag in self._trims and self._trims[tag][0] <= now:
            forget = self._trims.pop(tag)[1]
        return Want(tag, self._places.get(tag, Place()), wanted, forget)

    async def _carry(self, wanted: Sequence[Want], now: float) -> None:
        loads: list[Load] = []
        size = 0
        failed: list[tuple[str, StoreError]] = []
        taken = await self._store.take(wanted, PART, values=self._switch.values)
        for one, part in zip(wanted, taken, strict=True):
            if isinstance(part, StoreError):
                failed.append((one.tag, part))
                self._failed(one, now)
                continue
            self._note(one, part, now)
            if part.entries:
                tag, place = one.tag, one.place
                loads.append(
                    Load(tag, place, place_after(place, part, PART), carried(tag, place, part))
                )
                size += sum(map(len, loads[-1].events))
            if size > BATCH_BYTES:
                await self._append(loads)
                loads, size = [], 0
        if failed:
            log.warning("events_not_read", **summary(failed))
        if loads:
            await self._append(loads)

    def _failed(self, one: Want, now: float) -> None:
        """It may have been done, and is asked for again some time later."""
        self._whole_at = min(self._whole_at, now + FAILED_SECONDS)
        if one.round is not Round.NONE:
            self._dirty.add(one.tag)

    def _note(self, one: Want, part: Part, now: float) -> None:
        """What follows from a part, whatever becomes of it."""
        if part.left:
            self._telling.add(one.tag)
        if part.waiting:
            self._dirty.add(one.tag)
        if not part.entries:
            return
        if len(part.entries) == PART:
            self._hot.add(one.tag)
        if one.round is not Round.NONE:
            self._told += sum(fields[1] == UPDATED for _, fields in part.entries)
        newest = part.entries[-1][0].decode()
        self._trims.setdefault(one.tag, (now + KEPT_SECONDS, newest))
        self._whole_at = min(self._whole_at, now + WHOLE_SECONDS)
        self.lag = max(self._clock() - int(newest.partition("-")[0]) / 1000, 0.0)

    async def _append(self, loads: Sequence[Load]) -> None:
        """Append parts of some outboxes to the log."""
        places, dropped = await self._store.carry(loads)
        self.dropped += dropped
        for load, other in zip(loads, places, strict=True):
            self._places[load.tag] = load.after if other is None else other
            if other is None:
                self.carried += len(load.events)
            else:
                log.info("events_carried_again", outbox=load.tag, place=str(other))
                self._hot.add(load.tag)
                self._trims.pop(load.tag, None)
        self._bus.tell("*", Notice(NEWS, "", b""))

    async def _trim(self, now: float) -> None:
        """Outboxes that nothing came into any more forget what was carried."""
        due = [(tag, entry) for tag, (at, entry) in self._trims.items() if at + IDLE_SECONDS <= now]
        for tag, _ in due:
            del self._trims[tag]
        for part in parts(due):
            await self._store.trim(part)


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Items, some at a time: what is asked about them is one pipeline."""
    for first in range(0, len(items), AT_ONCE):
        yield items[first : first + AT_ONCE]
