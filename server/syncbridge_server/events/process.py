"""The process that delivers: a worker for each endpoint, on one process at a time.

Another process waits for the lease. Endpoints are looked at once a second; one that was changed
gets a new worker, which goes on where the one before has stopped.
"""

import time
from collections.abc import Awaitable
from typing import TypeVar

import msgspec
import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.events import kinds
from syncbridge.events.endpoints import Endpoint
from syncbridge.slots import TAGS
from syncbridge_server.events.carrier import NEWS
from syncbridge_server.events.guard import Guard
from syncbridge_server.events.sender import Sender
from syncbridge_server.events.worker import Worker
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.endpoints import RedisEndpoints
from syncbridge_server.redis.stores.events import RedisEvents, outbox
from syncbridge_server.redis.stores.locks import HeldLock, locked
from syncbridge_server.settings import Settings

log = structlog.get_logger("deliver")

T = TypeVar("T")

LEASE = "lease:{nodes}:deliver"
LEASE_MS = 10_000
LOOK_SECONDS = 1.0
KEEP_LOOKS = 3
"""At one of so many looks the lease is kept."""

RENEW_LOOKS = 600
"""Likewise, the record by which events are written."""

SEEK_SECONDS = 2.0


class Deliveries:
    """Workers for all endpoints."""

    def __init__(self, settings: Settings, io: RedisIO, bus: RedisBus) -> None:
        self._io = io
        self._life_ms = round(settings.events_after_reader * 1000)
        self._guard = Guard(settings.webhook_networks)
        self._endpoints = RedisEndpoints(io)
        self._events = RedisEvents(
            io,
            most=settings.events_kept,
            most_bytes=settings.events_bytes,
            session_ms=settings.limits().session_ttl * 1000,
        )
        self.workers: dict[str, tuple[bytes, Worker, trio.CancelScope]] = {}
        bus.on_notice(NEWS, lambda _: self._wake())
        bus.on_resync(self._wake)

    def _wake(self) -> None:
        for _, worker, _ in self.workers.values():
            worker.wake()

    async def run(self) -> None:
        """Deliver whenever this process has the lease, for ever."""
        while True:
            try:
                async with locked(self._io, LEASE, LEASE_MS, 0) as lease:
                    if lease is not None:
                        log.info("Delivering events")
                        await self._deliver_while(lease)
            except StoreError as error:
                log.warning("events_not_delivered", reason=error.detail)
            await trio.sleep(SEEK_SECONDS)

    async def _deliver_while(self, lease: HeldLock) -> None:
        async with trio.open_nursery() as nursery:
            look = 0
            while look % KEEP_LOOKS or await _done(lease.keep(LEASE_MS)) is not False:
                endpoints = await _done(self._endpoints.endpoints())
                if endpoints is not None:
                    self._follow(nursery, endpoints)
                if endpoints and look % RENEW_LOOKS == 0:
                    values = any(one.selection.values for one in endpoints)
                    await _done(self._events.listen(self._life_ms, self._life_ms * values))
                look += 1
                await trio.sleep(LOOK_SECONDS)
            nursery.cancel_scope.cancel()

    def _follow(self, nursery: trio.Nursery, endpoints: list[Endpoint]) -> None:
        """Stop workers of endpoints that are gone or changed, and begin those that are missing.

        One that was changed begins anew with the next look; the old one has noted its place then.
        """
        wanted = {one.id: one for one in endpoints if not one.disabled}
        for name, (text, _, scope) in list(self.workers.items()):
            if name not in wanted or msgspec.json.encode(wanted[name]) != text:
                scope.cancel()
        for name, endpoint in wanted.items():
            if name not in self.workers:
                sender = Sender(endpoint.url, self._guard)
                worker = Worker(endpoint, self._endpoints, self._events, sender, self._disable)
                scope = trio.CancelScope()
                self.workers[name] = (msgspec.json.encode(endpoint), worker, scope)
                nursery.start_soon(self._work, worker, scope)

    async def _work(self, worker: Worker, scope: trio.CancelScope) -> None:
        """One worker; that it crashes is its own endpoint's trouble alone."""
        try:
            with scope:
                await worker.run()
        except Exception:
            log.exception("delivery_crashed", endpoint=worker.endpoint.id)
        finally:
            del self.workers[worker.endpoint.id]

    async def _disable(self, endpoint: Endpoint, reason: str) -> None:
        """Note that nothing is sent any more, and tell of it."""
        current = await _done(self._endpoints.find(endpoint.id))
        if current is None or current.disabled:
            return
        current.disabled, current.disabled_at = reason, round(time.time() * 1000)
        told = kinds.EndpointDisabled(endpoint.id, endpoint.url, current.disabled)
        args: list[bytes | str | int] = [0, "k", "endpoint.disabled"]
        args += ["j", msgspec.json.encode(told)]
        await _done(self._endpoints.put(current))
        await _done(self._io.script("event_put", [outbox(TAGS[0])], args))
        log.error("Endpoint disabled", endpoint=endpoint.id, reason=current.disabled)


async def _done(asked: Awaitable[T]) -> T | None:
    """The answer; None, and a line in the log, when the store has none."""
    try:
        return await asked
    except StoreError as error:
        log.warning("delivery_waits", reason=error.detail)
        return None
