"""The gateway put together: takes sockets from the listener, runs the tick, stops gracefully."""

import math
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import structlog
import trio

from syncbridge import encode
from syncbridge.close_codes import CloseCode
from syncbridge.errors import ErrorCode, StoreError, StoreTimeout, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.limits import Limits
from syncbridge.messages import MessageType
from syncbridge.records.sessions import Apply, Outcome, PresenceChange, Status
from syncbridge.updates import UpdateParser
from syncbridge_core.hub import Hub
from syncbridge_server.gateway.commits import Commits
from syncbridge_server.gateway.connection import Alarm, Connection
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.departures import Departures
from syncbridge_server.gateway.devices import DeviceLists
from syncbridge_server.gateway.engine import Engine
from syncbridge_server.gateway.entrance import Entrance
from syncbridge_server.gateway.fanout import Fanout
from syncbridge_server.gateway.inbound import Inbound
from syncbridge_server.gateway.joining import Joining, Verify
from syncbridge_server.gateway.pace import Pace
from syncbridge_server.gateway.post import Post
from syncbridge_server.gateway.presence import Presence
from syncbridge_server.gateway.quota import UserQuota
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.sweeper import Sweeper
from syncbridge_server.gateway.tally import Tally
from syncbridge_server.gateway.users import UserIndex
from syncbridge_server.gateway.voice import VoiceLink
from syncbridge_server.listener.contract import Refusal
from syncbridge_server.ports.store import Bus, Store

log = structlog.get_logger("gateway")

MEND_INTERVAL = 0.02
"""Seconds that a hole between two sources of commits is given to close by itself."""

DOUBT_INTERVAL = 0.5
"""Seconds between two rounds of reads for sessions in doubt, also while Redis is away."""

TICK_MS = 2.0


def monotonic_ms() -> int:
    """The hub's clock."""
    return time.monotonic_ns() // 1_000_000


class Gateway:
    """All WebSockets of this process.

    Args:
        hub: owns the sockets. store, bus: Redis.
        verify: see `joining.Verify`.
        node: this process's name among all nodes.
        max_connections: above it new handshakes get 503; 0 for no bound.
        tick_ms: see `Pace`. patience: seconds within which the store has answered, by its own
            deadline.
        clock: wall clock in Unix seconds. monotonic: milliseconds, for the hub.

    Attributes:
        voice: where voice is attached. post: puts messages on connections.
    """

    def __init__(
        self,
        hub: Hub,
        store: Store,
        bus: Bus,
        *,
        verify: Verify,
        limits: Limits,
        node: str,
        max_connections: int = 0,
        tick_ms: float = TICK_MS,
        patience: float = 5.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], int] = monotonic_ms,
    ) -> None:
        self.hub = hub
        self.limits = limits
        self.node = node
        self.draining = False
        self._idle = trio.Event()
        self._pace = Pace(tick_ms)
        self._max_connections = max_connections
        self._clock = clock
        self.monotonic = monotonic
        self.registry = Registry(hub)
        self._entrance = Entrance(limits, self.registry.waiting)
        self.courier = Courier(store, self._after)
        self._commits = Commits(self.courier, self._committed, patience)
        self.voice = VoiceLink()
        self.post = Post(hub, self.registry, clock)
        self.fanout = Fanout(self.registry, self.post, self.courier)
        self.departures = Departures(
            hub, self.registry, self.post, self.courier, self.voice, node=node, clock=clock
        )
        self.users = UserIndex(self.courier, clock)
        self._joining = Joining(
            hub,
            self.registry,
            self.post,
            self.courier,
            self.fanout,
            self.departures,
            self.users,
            self.voice,
            verify=verify,
            limits=limits,
            node=node,
            clock=clock,
            monotonic=monotonic,
        )
        self.parser = UpdateParser(limits)
        self.engine = Engine(
            hub,
            self.registry,
            self.post,
            self.courier,
            self.fanout,
            self._joining,
            self.departures,
            DeviceLists(self.post, self.courier, self.voice),
            self.parser,
            Inbound(limits),
            UserQuota(limits, monotonic),
            self.voice,
            expiry_grace=limits.expiry_grace,
            clock=clock,
            monotonic=monotonic,
        )
        self._presence = Presence(
            self.registry,
            self.courier,
            self.fanout,
            self._joining,
            self.departures,
            self.users,
            node=node,
            timeout=limits.presence_timeout,
        )
        self._sweeper = Sweeper(store, node=node, timeout=limits.presence_timeout)
        bus.on_commits(self._on_commits)
        bus.on_presence(self.announce)
        bus.on_resync(self._presence.touch_all)

    # The listener's side

    def admit(self, client: str) -> Refusal | None:
        """Whether another WebSocket is welcome."""
        if self.draining:
            return Refusal(503, ErrorCode.DRAINING.wire, "the server is shutting down", 1)
        if 0 < self._max_connections <= len(self.registry.connections):
            return Refusal(503, ErrorCode.OVERLOADED.wire, "the server has no room", 5)
        return self._entrance.admit(client, self.monotonic() / 1000)

    def adopt(
        self,
        sock: socket.socket,
        *,
        encoding: int,
        client: str,
        initial: bytes,
        bridged: bool,
        deflate: bool,
    ) -> int:
        """Take a socket whose handshake is done; it has `auth_timeout` to send AUTH."""
        now = self.monotonic()
        cid = self.hub.adopt(sock.fileno(), now, encoding, initial, bridged, deflate)
        sock.detach()
        connection = Connection(cid, self.node, client, encoding)
        connection.connected_at = int(self._clock() * 1000)
        connection.alarm = Alarm.AUTH
        self.registry.add(connection)
        self.hub.set_deadline(cid, now + self.limits.auth_timeout * 1000)
        return cid

    # Running

    async def run(self) -> None:
        """Serve all sockets until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump)
            nursery.start_soon(self._mend)
            nursery.start_soon(self._settle_doubts)
            nursery.start_soon(self._commits.run)
            nursery.start_soon(self._presence.run)
            nursery.start_soon(self._sweeper.run)

    async def drain(self, spread: float, deadline: float) -> None:
        """Ask every client to reconnect, at times spread over `spread` seconds, and see them off.

        Returns when all sockets are closed and all departures are stored, or after `deadline`
        seconds.
        """
        self.draining = True
        for connection in self.registry:
            self._dismiss(connection, random.uniform(0, spread))  # noqa: S311
        self.hub.flush()
        self._check_idle()
        with trio.move_on_after(deadline):
            await self._idle.wait()

    async def _pump(self) -> None:
        fd = self.hub.fileno()
        while True:
            await trio.lowlevel.wait_readable(fd)
            pause = self._pace.delay(trio.current_time() * 1000)
            if pause > 0:
                await trio.sleep(pause / 1000)
            began = trio.current_time() * 1000
            asked = self.engine.handle(self.hub.poll(self.monotonic()))
            self.hub.flush()
            self._pace.ticked(began, asked)
            self._check_idle()

    async def _mend(self) -> None:
        while True:
            await self.fanout.wanted.wait()
            self.fanout.wanted = trio.Event()
            await trio.sleep(MEND_INTERVAL)
            self.fanout.mend_holes()
            self.courier.dispatch()

    async def _settle_doubts(self) -> None:
        while True:
            await trio.sleep(DOUBT_INTERVAL)
            self.fanout.mend_doubts()
            self.courier.dispatch()

    def _after(self) -> None:
        self.courier.dispatch()
        self.hub.flush()
        self._check_idle()

    def _check_idle(self) -> None:
        if self.draining and not self.registry.connections and not self.courier.in_flight:
            self._idle.set()

    def _dismiss(self, connection: Connection, delay: float) -> None:
        error = SyncBridgeError(
            ErrorCode.DRAINING, "the server restarts; reconnect", retry_after=delay
        )
        self.post.error(connection, error, None)
        code = CloseCode.SERVICE_RESTART
        reason = f"{code.reason}; reconnect in {math.ceil(delay * 1000)} ms"
        self.hub.close(connection.cid, code, reason)

    def _on_commits(self, commits: Any) -> None:
        self.fanout.receive(commits)
        self._after()

    # What REST and administration do to sockets

    def announce(self, change: PresenceChange) -> None:
        """A device came or went, as the store has it: tell the devices of its session here."""
        self.departures.heard(change)
        self._after()

    async def commit(self, request: Apply) -> Outcome:
        """Write, and give the result to the devices here before it is returned.

        Raises:
            StoreError: as a Store raises it.
        """
        return await self._commits.commit(request)

    def _committed(self, request: Apply, answer: Outcome | StoreError) -> None:
        if isinstance(answer, StoreTimeout):
            self.fanout.doubts.add(request.sid)
        elif isinstance(answer, Outcome) and changed(answer):
            self.engine.committed(request, answer)
            self.users.seen(request.user_id, request.sid)

    def close_revoked(self, matches: Callable[[Identity, str], bool]) -> int:
        """Close every connection whose token is meant; returns how many.

        Args:
            matches: (identity, device id) -> whether it is revoked.
        """
        count = 0
        for connection in self.registry:
            identity = connection.identity
            if identity is not None and matches(identity, connection.device_id):
                code = CloseCode.TOKEN_REVOKED
                self.hub.close(connection.cid, code, code.reason)
                count += 1
        self.hub.flush()
        return count

    def broadcast(self, payload: bytes) -> int:
        """BROADCAST to every connected device of this node; returns how many there are."""
        frame = encode.envelope(MessageType.BROADCAST, encode.NOWHERE, int(self._clock()), payload)
        delivered = self.post.everyone(self.registry.everyone, frame)
        self.hub.flush()
        return delivered

    @property
    def admins(self) -> int:
        """How many sockets here have role admin."""
        return self.hub.topic_size(self.registry.admins)

    def inform_admins(self, frame: bytes) -> int:
        """A message that is ready, to the sockets here that have role admin."""
        delivered = self.post.everyone(self.registry.admins, frame)
        self.hub.flush()
        return delivered

    @property
    def tally(self) -> Tally:
        """What this node has written."""
        return self.courier.tally


def changed(outcome: Outcome) -> bool:
    """Whether a write made a new version."""
    return outcome.status is Status.OK and outcome.version != outcome.prev_version


def node_name() -> str:
    """A name that no other process has."""
    return os.urandom(6).hex()
