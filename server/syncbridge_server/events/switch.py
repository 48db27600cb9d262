"""Whether this node's scripts write events: only while somebody reads.

Theory of operation. The store has a record while events are written. Whoever reads for the first
time makes it, tells all nodes, and waits until each has said that it writes events from here on, so
that the first answer is no earlier than that. A node that has not heard the notice finds the record
with its next look. A node that starts looks before it serves; while it cannot look it writes
events, which costs little and loses nothing. Only the end of the record stops it again.

While events are written, the node notes in which outboxes something may be, and apart from them
where sessions have only changed: that is told once a second, so nobody is woken by it. While they
are not, every script runs as it always did: it is another text, see `redis.scripts`.
"""

from collections.abc import Sequence

import structlog
import trio

from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.records.sessions import Notice
from syncbridge.slots import TAGS, bucket_of
from syncbridge_server.ports.events import EventStore, Listening
from syncbridge_server.ports.store import Bus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.events import dirty, outbox

log = structlog.get_logger("events")

NOTICE = "events"
NOTED_NEWS = "events_noted"
"""Something was noted where nothing was: the node that carries may be asleep."""

CHANGED = "webhooks"
"""An endpoint was changed, or is to be sent something again."""

CHANGES = "apply"
"""The script that changes a session; it makes one seldom."""

LOOK_SECONDS = 10.0
RETRY_SECONDS = 1.0
NOTE_SECONDS = 0.05
"""How long what was written waits until others are told in which outbox it is."""

KNOW_SECONDS = 12.0
"""How long the first reader waits for the nodes."""

KNOW_LOOK_SECONDS = 0.1
RENEWALS = 96
"""A reader renews the record so often in its life."""

NAMED = 8


class EventSwitch:
    """Implements `redis.link.client.Outboxes`.

    Args:
        node: id of this node. life: seconds after the last reading in which events are written.

    Attributes:
        on: whether events are written here. since: in which time. values: with those.
        carrying: this node carries outboxes, and takes what was touched itself.
        touched: set when an event was written; replaced by `take_touched`.
    """

    def __init__(self, store: EventStore, io: RedisIO, bus: Bus, node: str, *, life: float) -> None:
        self._store = store
        self._io = io
        self._bus = bus
        self._node = node
        self._life = life
        self._look = trio.Event()
        self._changed = trio.Event()
        self._tags: set[str] = set()
        self._changes: set[str] = set()
        self._any = trio.Event()
        self._known = ""
        self._settled = ""
        self._fresh: dict[bool, float] = {}
        self.on = False
        self.since = ""
        self.values = False
        self.carrying = False
        self.touched = trio.Event()
        bus.on_notice(NOTICE, lambda _: self._look.set())
        bus.on_resync(lambda: self._look.set())

    # What scripts write

    def written(self, name: str, keys: Sequence[str]) -> Sequence[str]:
        """See `Outboxes.written`."""
        key = keys[0]
        tag = key[key.index("{") + 1 : key.index("}")]
        if name == CHANGES:
            self._changes.add(tag)
            self._any.set()
        else:
            self._touch(tag)
        server = self._io.server
        if server is not None and server.cluster:
            return (*keys, outbox(tag), dirty(tag))
        return keys

    def created(self, sid: str) -> None:
        """See `Outboxes.created`."""
        self._touch(TAGS[bucket_of(sid)])

    def _touch(self, tag: str) -> None:
        self._tags.add(tag)
        self.touched.set()
        self._any.set()

    def take_touched(self) -> set[str]:
        """The tags of the outboxes that were written to since this was asked the last time."""
        tags, self._tags = self._tags, set()
        self.touched = trio.Event()
        return tags

    def take_changed(self) -> set[str]:
        """Likewise, the tags under which sessions have changed."""
        tags, self._changes = self._changes, set()
        return tags

    # Whether they do

    async def load(self) -> None:
        """Look whether events are written; until that is known they are. Raises StoreError."""
        try:
            state = await self._store.listening()
        except StoreError:
            if not self.since:
                self._turn(True)
            raise
        await self._take(state)

    async def _take(self, state: Listening) -> None:
        self._turn(bool(state.since))
        self.since, self.values = state.since, bool(state.values)
        if state.since and self._known != state.since:
            await self._store.know(self._node, state.since)
            self._known = state.since

    def _turn(self, on: bool) -> None:
        if on == self.on:
            return
        self.on = on
        self._io.scripts.tell(on)
        self._io.outboxes = self if on else None
        if not on:
            self._known = self._settled = ""
            self._fresh = {}
            self.take_touched()
            self.take_changed()
        log.info("events_on" if on else "events_off")
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self) -> None:
        """Wait until events are written."""
        while not self.on:
            await self._changed.wait()

    async def run(self) -> None:
        """Look now and then, and tell of what was written, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._note)
            while True:
                self._look = trio.Event()
                try:
                    await self.load()
                    pause = LOOK_SECONDS
                except StoreError as error:
                    pause = RETRY_SECONDS
                    log.debug("events_unknown", reason=error.detail)
                with trio.move_on_after(pause):
                    await self._look.wait()

    async def _note(self) -> None:
        """Tell the node that carries outboxes in which there is something."""
        while True:
            await self._any.wait()
            await trio.sleep(NOTE_SECONDS)
            self._any = trio.Event()
            if self.carrying:
                continue
            tags, changed = self.take_touched(), self.take_changed()
            try:
                if await self._store.note(sorted(tags), sorted(changed)):
                    self._bus.tell("*", Notice(NOTED_NEWS, "", b""))
            except StoreError as error:
                log.debug("events_not_noted", reason=error.detail)
                self._tags |= tags
                self._changes |= changed
                await trio.sleep(RETRY_SECONDS)
                self._any.set()

    # Who reads

    async def listen(self, *, values: bool) -> None:
        """Somebody reads: have events written, and wait until every node writes them.

        Raises:
            SyncBridgeError: EVENTS_STARTING when some node does not say so in time; StoreError.
        """
        now = trio.current_time()
        if self._settled and self._settled == self.since and now < self._fresh.get(values, 0.0):
            return
        life_ms = round(self._life * 1000 * (1 + 1 / RENEWALS))
        state = await self._store.listen(life_ms, life_ms * values)
        anew = state.since != self.since or (values and not self.values)
        await self._take(state)
        if anew:
            self._bus.tell("*", Notice(NOTICE, "", b""))
        if self._settled != state.since:
            if not state.settled:
                await self._wait_for_nodes(state.since)
                await self._store.settle(state.since)
            self._settled = state.since
        self._fresh[values] = now + self._life / RENEWALS

    async def _wait_for_nodes(self, since: str) -> None:
        until = trio.current_time() + KNOW_SECONDS
        missing = await self._store.ignorant(since)
        while missing and trio.current_time() < until:
            await trio.sleep(KNOW_LOOK_SECONDS)
            missing = await self._store.ignorant(since)
        if not missing:
            return
        names = ", ".join(missing[:NAMED])
        raise SyncBridgeError(
            ErrorCode.EVENTS_STARTING,
            f"these nodes do not write events yet: {names}",
            retry_after=2.0,
        )

    def endpoints_changed(self) -> None:
        """Tell whoever delivers."""
        self._bus.tell("*", Notice(CHANGED, "", b""))

    async def cease(self) -> bool:
        """Stop on all nodes if nobody has read for long; whether that is so. Raises StoreError."""
        if not await self._store.cease():
            return False
        self._turn(False)
        self.since = ""
        self._bus.tell("*", Notice(NOTICE, "", b""))
        return True
