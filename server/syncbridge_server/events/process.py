"""The process that delivers: a worker for each endpoint, on one process at a time.

Another process waits for the lease. Endpoints are looked at when somebody says that one was
changed, and now and then; one that was gets a new worker, which goes on where the one before has
stopped.

Endpoints of a file are put beside the others, without their secrets: whoever has the lease has them
as its own file says, also when that is read again meanwhile.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.events.endpoints import Endpoint
from syncbridge.records.sessions import Notice
from syncbridge_server.events.carrier import NEWS
from syncbridge_server.events.guard import Guard
from syncbridge_server.events.sender import Sender
from syncbridge_server.events.switch import CHANGED, NOTED_NEWS, NOTICE
from syncbridge_server.events.worker import Worker
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.endpoints import RedisEndpoints
from syncbridge_server.redis.stores.events import OWN_TAG, RedisEvents
from syncbridge_server.redis.stores.locks import HeldLock, locked
from syncbridge_server.settings import Settings

log = structlog.get_logger("deliver")

T = TypeVar("T")

LEASE = "lease:{nodes}:deliver"
LEASE_MS = 10_000
LOOK_SECONDS = 2.0
KEEP_SECONDS = 3.0
"""Between two times at which the lease is kept."""

RENEW_SECONDS = 600.0
"""Likewise, the record by which events are written."""

SEEK_SECONDS = 2.0


class Deliveries:
    """Workers for all endpoints.

    Args:
        configured: endpoints of a file. beat: called while this process works, or waits to.
    """

    def __init__(
        self,
        settings: Settings,
        io: RedisIO,
        bus: RedisBus,
        configured: Sequence[Endpoint] = (),
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._io = io
        self._life_ms = round(settings.events_after_reader * 1000)
        self._guard = Guard(settings.webhook_networks)
        self._bus = bus
        self._configured = configured
        self._anew = False
        self._beat = beat
        self._changed = trio.Event()
        self._endpoints = RedisEndpoints(io)
        self._events = RedisEvents(
            io,
            most=settings.events_kept,
            most_bytes=settings.events_bytes,
            session_ms=settings.limits().session_ttl * 1000,
        )
        self.workers: dict[str, tuple[bytes, Worker, trio.CancelScope]] = {}
        bus.on_notice(NEWS, lambda _: self._wake())
        bus.on_notice(CHANGED, lambda _: self._look())
        bus.on_resync(self._look)

    def _wake(self) -> None:
        for _, worker, _ in self.workers.values():
            worker.wake()

    def _look(self) -> None:
        """An endpoint was changed, or is to be sent something again."""
        self._changed.set()
        for _, worker, _ in self.workers.values():
            worker.look()

    def configure(self, configured: Sequence[Endpoint]) -> None:
        """The file has these endpoints now."""
        self._configured, self._anew = configured, True
        self._changed.set()

    async def run(self) -> None:
        """Deliver whenever this process has the lease, for ever."""
        while True:
            try:
                async with locked(self._io, LEASE, LEASE_MS, 0) as lease:
                    if lease is not None:
                        log.info("event_delivery_started")
                        await self._deliver_while(lease)
            except StoreError as error:
                log.warning("events_not_delivered", reason=error.detail)
            self._beat()
            await trio.sleep(SEEK_SECONDS)

    async def _deliver_while(self, lease: HeldLock) -> None:
        self._anew = True
        await self._configure()
        kept_at = keep_at = renew_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            while True:
                now, self._changed = trio.current_time(), trio.Event()
                if now >= keep_at:
                    kept = await _done(lease.keep(LEASE_MS))
                    if kept:
                        kept_at = now
                    elif kept is False or trio.current_time() >= kept_at + LEASE_MS / 2_000:
                        break  # another one delivers, or will before this one can know
                    keep_at = now + KEEP_SECONDS
                if self._anew:
                    await _done(self._configure())
                    renew_at = now
                endpoints = await _done(self._endpoints.endpoints())
                if endpoints is not None:
                    self._follow(nursery, endpoints)
                if endpoints and now >= renew_at:
                    await self._renew(any(one.selection.values for one in endpoints))
                    renew_at = now + RENEW_SECONDS
                self._beat()
                with trio.move_on_after(LOOK_SECONDS):
                    await self._changed.wait()
            nursery.cancel_scope.cancel()

    async def _renew(self, values: bool) -> None:
        """Have events written, on all nodes."""
        await _done(self._events.listen(self._life_ms, self._life_ms * values))
        self._bus.tell("*", Notice(NOTICE, "", b""))

    async def _configure(self) -> None:
        """Put the endpoints of the file beside the others, and take away those it has no more.

        One that was disabled is tried again: whoever has begun this process, or had it read its
        file again, wants it.
        """
        configured = self._configured
        found = await self._endpoints.endpoints()
        there = {one.id: one for one in found if one.configured}
        last = str(await self._events.last())
        for wanted in configured:
            old = there.pop(wanted.id, None)
            made, start = (old.created_at, old.start) if old else (_now(), last)
            if old and old.disabled and not wanted.disabled:
                status = await self._endpoints.status(old.id)
                status.failing_since = 0
                await self._endpoints.save(old.id, status)
            await self._endpoints.put(
                msgspec.structs.replace(wanted, secrets=[], created_at=made, start=start)
            )
        for gone in there:
            await self._endpoints.remove(gone)
        self._anew = configured is not self._configured

    def _own(self, found: Sequence[Endpoint]) -> dict[str, Endpoint]:
        """Those that are to be served, with their secrets."""
        secrets = {one.id: one.secrets for one in self._configured}
        return {
            one.id: msgspec.structs.replace(one, secrets=secrets[one.id]) if one.configured else one
            for one in found
            if not one.disabled and (not one.configured or one.id in secrets)
        }

    def _follow(self, nursery: trio.Nursery, endpoints: list[Endpoint]) -> None:
        """Stop workers of endpoints that are gone or changed, and begin those that are missing.

        One that was changed begins anew with the next look; the old one has noted its place then.
        """
        wanted = self._own(endpoints)
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
            await _done(self._endpoints.sweep(worker.endpoint.id))
        except Exception:
            log.exception("delivery_crashed", endpoint=worker.endpoint.id)
        finally:
            del self.workers[worker.endpoint.id]

    async def _disable(self, endpoint: Endpoint, reason: str) -> None:
        """Nothing is to be sent any more; without the store, the next failure comes here again."""
        disabled = await _done(self._endpoints.disable(endpoint.id, reason, _now()))
        if disabled is False:
            return
        await _done(self._events.note([OWN_TAG], []))
        self._bus.tell("*", Notice(NOTED_NEWS, "", b""))
        if disabled:
            log.error("endpoint_disabled", endpoint=endpoint.id, reason=reason)


def _now() -> int:
    return round(time.time() * 1000)


async def _done(asked: Awaitable[T]) -> T | None:
    """The answer; None, and a line in the log, when the store has none."""
    try:
        return await asked
    except StoreError as error:
        log.warning("delivery_waits", reason=error.detail)
        return None
