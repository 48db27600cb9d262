"""The parts of events of a node, put together out of its settings."""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec
import structlog
import trio
from prometheus_client import CollectorRegistry

from syncbridge.errors import StoreError, StoreRejected
from syncbridge.events import kinds
from syncbridge.records.sessions import Place
from syncbridge.slots import TAGS, bucket_of
from syncbridge_server.events.beside import LOCAL, deliver_beside
from syncbridge_server.events.carrier import Carrier
from syncbridge_server.events.endpoint_figures import EndpointFigures
from syncbridge_server.events.reading import EventReader
from syncbridge_server.events.switch import EventSwitch
from syncbridge_server.observability import register_reading
from syncbridge_server.ports.store import Bus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.embedded import WORKER_REDIS
from syncbridge_server.redis.stores.endpoints import RedisEndpoints
from syncbridge_server.redis.stores.events import RedisEvents, outbox
from syncbridge_server.settings import Settings

log = structlog.get_logger("events")

Call = tuple[list[str], list[bytes | str | int]]
"""Keys and arguments of `event_put`."""

ONCE_MS = 3_600_000
"""How long it is known that what several nodes notice was told."""

NOTICED_MOST = 16_384
"""Events that wait for Redis to come back; what is noticed beyond that is not told."""

PART = 256
RETRY_SECONDS = 1.0

RECENT_SECONDS = 3_000.0
"""What happened longer ago was told by whoever noticed it then: before the above is over."""


class Events:
    """Events on a node.

    Args:
        stopping: whether the node is about to.

    Attributes:
        switch, reader: see there. store, endpoints: of events, and of where they are posted to.
        networks: private ones in which endpoints may be.
    """

    def __init__(
        self,
        settings: Settings,
        io: RedisIO,
        bus: Bus,
        node: str,
        registry: CollectorRegistry,
        stopping: Callable[[], bool],
    ) -> None:
        self.store = RedisEvents(
            io,
            most=settings.events_kept,
            most_bytes=settings.events_bytes,
            session_ms=settings.limits().session_ttl * 1000,
        )
        self._io = io
        self._redis_addr = os.environ.get(WORKER_REDIS, "") if settings.dev else ""
        self._log_format = settings.log_format
        self.networks = settings.webhook_networks or (LOCAL if settings.dev else ())
        self.endpoints = RedisEndpoints(io)
        self._wanted = None if settings.webhooks else self.endpoints.count
        self.switch = EventSwitch(self.store, io, bus, node, life=settings.events_after_reader)
        self._noticed: deque[Call] = deque()
        self._more = trio.Event()
        self._carrier = Carrier(self.store, self.switch, io, bus)
        self.reader = EventReader(self.store, self.switch, bus, stopping)
        self._figures = EndpointFigures(self.endpoints, self.store, self.switch)
        register_reading(registry, "syncbridge_events", self._carrier.figures)
        register_reading(registry, "syncbridge_webhooks_out", self._figures.figures)

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.switch.run)
            nursery.start_soon(self._carrier.run)
            nursery.start_soon(self._figures.run)
            nursery.start_soon(self._write)
            if self._redis_addr:
                nursery.start_soon(
                    deliver_beside, self._redis_addr, self.networks, self._log_format, self._wanted
                )

    def rolled_back(self, sid: str, owner: str, place: Place, reason: str) -> None:
        """A node has seen that a session went back."""
        told = kinds.SessionRolledBack(place.version, place.epoch, place.lineage, reason)
        about = f"{sid}:{place.epoch}:{place.version}:{place.lineage}"
        self._put(TAGS[bucket_of(sid)], about, "session.rolled_back", told, "s", sid, "u", owner)

    def revoked(self, kind: str, value: str, user_id: str, at: float) -> None:
        """A node has learned that tokens were taken back; one that starts, of all of a week."""
        if time.time() - at > RECENT_SECONDS:
            return
        told = kinds.TokensRevoked(kind, value, user_id)
        owner = value if kind == "user" else user_id
        about = f"revoked:{kind}:{value}:{user_id}:{at}"
        self._put(TAGS[0], about, "tokens.revoked", told, "u", owner)

    def _put(self, tag: str, about: str, kind: str, data: msgspec.Struct, *more: str) -> None:
        """Write an event that no script writes; once, however many nodes have noticed the same."""
        if not self.switch.on:
            return
        if len(self._noticed) >= NOTICED_MOST:
            log.error("event_not_written", kind=kind, reason="too many wait for Redis")
            return
        keys = [outbox(tag), f"eo:{{{tag}}}:{about}"]
        self._noticed.append((keys, [ONCE_MS, "k", kind, "j", msgspec.json.encode(data), *more]))
        self._more.set()

    async def _write(self) -> None:
        """Write what was noticed, when Redis is back at the latest, for ever."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while part := list(islice(self._noticed, PART)):
                if not await self._written(part):
                    await trio.sleep(RETRY_SECONDS)
                    continue
                for _ in part:
                    self._noticed.popleft()

    async def _written(self, part: Sequence[Call]) -> bool:
        """Whether no more is to be done about some events; one that is written stays so."""
        commands = [
            self._io.script_command("event_put", keys, args, repeatable=True) for keys, args in part
        ]
        try:
            replies = await self._io.request(commands)
        except StoreError as error:  # its queue is full
            replies = [error]
        for reply in replies:
            if isinstance(reply, StoreRejected):
                log.error("event_not_written", reason=reply.detail)
            elif isinstance(reply, StoreError):
                log.warning("event_waits", reason=reply.detail)
                return False
        return True
