"""The gateway put together: takes sockets from the listener, runs the tick, stops gracefully."""

import math
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from syncbridge import encode
from syncbridge.close_codes import CloseCode
from syncbridge.errors import ErrorCode, StoreError, StoreTimeout, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.limits import Limits
from syncbridge.messages import MessageType
from syncbridge.outbound import Audience
from syncbridge.policy import Current
from syncbridge.records.sessions import Apply, Outcome, PresenceChange, Status
from syncbridge.updates import UpdateParser
from syncbridge_core.hub import Hub
from syncbridge_server.auth.connect import ConnectGate, kept_open
from syncbridge_server.gateway.admission import AdmissionLimits, UnauthenticatedConnections
from syncbridge_server.gateway.commits import Commits
from syncbridge_server.gateway.connection import Alarm, Connection
from syncbridge_server.gateway.counters import GatewayCounters
from syncbridge_server.gateway.departures import Departures
from syncbridge_server.gateway.devices import DeviceLists, Summaries
from syncbridge_server.gateway.engine import Engine
from syncbridge_server.gateway.ephemeral import EphemeralState
from syncbridge_server.gateway.fanout import Fanout
from syncbridge_server.gateway.inbound import Inbound
from syncbridge_server.gateway.joining import Joining, Verify
from syncbridge_server.gateway.membership import Membership
from syncbridge_server.gateway.message_sender import MessageSender
from syncbridge_server.gateway.presence import Presence
from syncbridge_server.gateway.quota import UserQuota
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.store_queue import StoreQueue
from syncbridge_server.gateway.sweeper import Sweeper
from syncbridge_server.gateway.users import UserIndex
from syncbridge_server.gateway.voice import VoiceLink
from syncbridge_server.isolation import Isolation
from syncbridge_server.listener.contract import Refusal
from syncbridge_server.listener.shares import holder_name
from syncbridge_server.log import Occasionally
from syncbridge_server.ports.store import Bus, Store
from syncbridge_server.telemetry.tracing import TRACING

log = structlog.get_logger("gateway")

MEND_INTERVAL = 0.02
"""Seconds after which a gap that has not closed by itself is read from the store."""

DOUBT_INTERVAL = 0.5
"""Seconds between two rounds of reads for sessions in doubt, also while Redis is away."""

SUMMARY_INTERVAL = 1.0
"""Seconds between two summaries of a large session."""

EVICTION_LOG_SECONDS = 10.0

UNFOLDED_BEFORE_AUTH = 131_072
"""Most bytes to which the messages of a socket without a valid AUTH may decompress: browsers
compress AUTH too."""

LAST_POLLS = 64
"""Polls of the sockets for messages that arrived before a stop."""


def monotonic_ms() -> int:
    """The hub's clock."""
    return time.monotonic_ns() // 1_000_000


class Gateway:
    """All WebSockets of this process.

    Args:
        hub: owns the sockets. store, bus: Redis.
        verify: see `joining.Verify`. gate: asks the application who may join which session.
        node: this process's name among all nodes.
        holder: address -> whose share its connections count for; see `shares.holder_name`.
        policy: who may write which keys.
        isolation: in which devices of dead nodes are taken offline, session by session.
        patience: seconds within which the store has answered, by its own deadline.
        clock: wall clock in Unix seconds. monotonic: milliseconds, for the hub.

    Attributes:
        membership, presence: this node among the others, and its sessions in the store.
        voice: where voice is attached. sender: puts messages on connections.
        ephemeral: what devices say of themselves.
        evicted: connections without AUTH that gave way to newer ones.
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
        gate: ConnectGate | None = None,
        holder: Callable[[str], str] = holder_name,
        patience: float = 5.0,
        isolation: Isolation | None = None,
        policy: Current | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], int] = monotonic_ms,
    ) -> None:
        self.hub = hub
        self.gate = gate
        self.limits = limits
        self.node = node
        self.draining = False
        self.evicted = 0
        self._occasionally = Occasionally(EVICTION_LOG_SECONDS, lambda: self.monotonic() / 1000)
        self._idle = trio.Event()
        self._quiet = trio.Event()
        self._clock = clock
        self.monotonic = monotonic
        unauthenticated = UnauthenticatedConnections(limits.unauthenticated_per_address, holder)
        self.registry = Registry(hub, unauthenticated)
        self._admission = AdmissionLimits(limits, unauthenticated, holder)
        self.store_queue = StoreQueue(store, self._after)
        self._commits = Commits(self.store_queue, self._committed, patience)
        self.voice = VoiceLink()
        self.sender = MessageSender(hub, self.registry, clock)
        self.fanout = Fanout(self.registry, self.sender, self.store_queue)
        self.ephemeral = EphemeralState(
            hub, self.registry, self.sender, bus, limits, monotonic=monotonic, clock=clock
        )
        self._summaries = Summaries(
            self.registry,
            self.sender,
            self.voice,
            self.ephemeral,
            limits=limits,
            clock=clock,
            monotonic=monotonic,
        )
        self.departures = Departures(
            hub,
            self.registry,
            self.sender,
            self.store_queue,
            self.voice,
            self.ephemeral,
            self._summaries,
            node=node,
            clock=clock,
        )
        self.quota = UserQuota(limits, monotonic)
        self.users = UserIndex(store, self.store_queue, self.quota, clock)
        self._joining = Joining(
            hub,
            self.registry,
            self.sender,
            self.store_queue,
            self.fanout,
            self.departures,
            self._summaries,
            self.users,
            self.voice,
            self.quota,
            verify=verify,
            gate=gate,
            settle=self._after,
            limits=limits,
            node=node,
            clock=clock,
            monotonic=monotonic,
        )
        self.parser = UpdateParser(limits)
        self.policy = policy or Current()
        inbound = Inbound(limits)
        self._load = inbound.load
        self.engine = Engine(
            hub,
            self.registry,
            self.sender,
            self.store_queue,
            self.fanout,
            self._joining,
            self.departures,
            DeviceLists(self.sender, self.store_queue, self.voice, self.ephemeral, self._summaries),
            self.parser,
            inbound,
            self.quota,
            self.voice,
            self.ephemeral,
            self.users,
            self.policy,
            expiry_grace=limits.expiry_grace,
            clock=clock,
            monotonic=monotonic,
        )
        lease = limits.presence_timeout
        sweeper = Sweeper(store, timeout=lease, isolation=isolation)
        self.membership = Membership(
            store,
            sweeper,
            node=node,
            timeout=lease,
            on_forgotten=self._forgotten,
            in_use=self._in_use,
            clock=clock,
        )
        self.presence = Presence(
            self.registry,
            self.store_queue,
            self.fanout,
            self._joining,
            self.departures,
            self.users,
            sweeper,
            node=node,
            timeout=lease,
            ttl=limits.session_ttl,
            named=self.membership.named,
        )
        bus.on_commits(self._on_commits)
        bus.on_presence(self.announce)
        bus.on_resync(self.doubt)
        bus.on_unreadable(self._on_unreadable)

    # The listener's side

    def admit(self, client: str) -> Refusal | None:
        """Admit or refuse another WebSocket."""
        if self.draining:
            return Refusal(503, ErrorCode.DRAINING.wire, "the server is shutting down", 1)
        places = len(self.registry.connections)
        verdict = self._admission.admit(client, self.monotonic() / 1000, places)
        if isinstance(verdict, Connection):
            self._evict(verdict)
            return None
        return verdict

    def _evict(self, connection: Connection) -> None:
        """Close a connection without AUTH at once, to free its slot."""
        code = CloseCode.TOO_MANY_CONNECTIONS
        self.hub.close(connection.cid, code, code.reason)
        self.hub.flush()
        self.hub.abort(connection.cid)
        self.departures.closed(connection)
        self.evicted += 1
        if self._occasionally.due():
            log.warning(
                "websocket_slots_low",
                bound=self.limits.connections,
                evicted=self.evicted,
            )

    def adopt(
        self,
        sock: socket.socket,
        *,
        encoding: int,
        client: str,
        initial: bytes,
        bridged: bool,
        deflate: bool,
        on_known: Callable[[], None] | None = None,
    ) -> int:
        """Take a socket whose handshake is done; it has `auth_timeout` to send AUTH."""
        now = self.monotonic()
        unfold = UNFOLDED_BEFORE_AUTH if deflate else 0
        cid = self.hub.adopt(sock.fileno(), now, encoding, initial, bridged, deflate, unfold)
        sock.detach()
        connection = Connection(cid, self.node, client, encoding)
        connection.connected_at = int(self._clock() * 1000)
        connection.alarm = Alarm.AUTH
        connection.on_known = on_known
        self.registry.add(connection)
        self.hub.set_deadline(cid, now + self.limits.auth_timeout * 1000)
        return cid

    # Running

    async def run(self) -> None:
        """Serve all sockets until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump)
            nursery.start_soon(self._load)
            nursery.start_soon(self._mend)
            nursery.start_soon(self._settle_doubts)
            nursery.start_soon(self._commits.run)
            nursery.start_soon(self.users.run)
            nursery.start_soon(kept_open, self.gate)
            nursery.start_soon(self.ephemeral.run)
            nursery.start_soon(self._summarise)
            nursery.start_soon(self.membership.run)
            nursery.start_soon(self.presence.run)
            nursery.start_soon(self.presence.verify)

    async def drain(self, spread: float, deadline: float) -> None:
        """Tell every client to reconnect, spread over `spread` seconds, and wait for them to leave.

        Messages that have arrived are handled and answered first; later ones are refused. Returns
        when all sockets are closed and all departures are stored, or after `deadline` seconds.
        """
        self.draining = True
        with trio.move_on_after(deadline):
            with trio.move_on_after(deadline / 2):
                await self._answer_all()
            for connection in self.registry:
                self._dismiss(connection, random.uniform(0, spread))  # noqa: S311
            self.hub.flush()
            self._check_idle()
            await self._idle.wait()

    async def _answer_all(self) -> None:
        """Handle what has arrived, and wait until everything is answered."""
        for _ in range(LAST_POLLS):
            events = self.hub.poll(self.monotonic())
            if not events:
                break
            self.engine.handle(events)
        self.engine.leaving = True
        while self.store_queue.in_flight:
            await self._quiet.wait()

    async def _pump(self) -> None:
        fd = self.hub.fileno()
        while True:
            await trio.lowlevel.wait_readable(fd)
            began = time.perf_counter()
            self.engine.handle(self.hub.poll(self.monotonic()))
            self.hub.flush()
            self.counters.ticks.observe(time.perf_counter() - began)
            self._check_idle()

    async def _mend(self) -> None:
        while True:
            await self.fanout.wanted.wait()
            await trio.sleep(MEND_INTERVAL)
            self.fanout.mend_holes()
            self.store_queue.dispatch()

    async def _settle_doubts(self) -> None:
        while True:
            await trio.sleep(DOUBT_INTERVAL)
            self.fanout.mend_doubts()
            self.store_queue.dispatch()
            if not self.presence.verifying and not self.fanout.reads:
                self.fanout.rollbacks.report()

    async def _summarise(self) -> None:
        while True:
            await self._summaries.wanted.wait()
            await trio.sleep(SUMMARY_INTERVAL)
            self._summaries.tell()
            self.hub.flush()

    def _after(self) -> None:
        self.store_queue.dispatch()
        self.hub.flush()
        self._check_idle()

    def _check_idle(self) -> None:
        if self.draining and not self.store_queue.in_flight:
            self._quiet.set()
            self._quiet = trio.Event()
            if not self.registry.connections:
                self._idle.set()

    def _dismiss(self, connection: Connection, delay: float) -> None:
        error = SyncBridgeError(
            ErrorCode.DRAINING, "the server is restarting; reconnect", retry_after=delay
        )
        self.sender.error(connection, error, None)
        code = CloseCode.SERVICE_RESTART
        reason = f"{code.reason}; reconnect in {math.ceil(delay * 1000)} ms"
        self.hub.close(connection.cid, code, reason)

    def doubt(self) -> None:
        """Messages or data may have been lost: compare every session here with the store."""
        self.membership.broke()
        self.presence.doubt()

    def _forgotten(self) -> None:
        self.presence.forgotten()

    def _in_use(self) -> bool:
        """Whether the store may still list devices of this node as online."""
        return bool(self.registry.sessions) or self.departures.stale_devices

    def _on_unreadable(self, session_id: str) -> None:
        """A message of another node is unreadable: doubt its session, or all if that is unknown."""
        session = self.registry.sessions.get(session_id)
        if session is not None:
            self.fanout.mend(session)
            self.departures.verify(session)
            self.store_queue.dispatch()
        elif not session_id:
            self.doubt()

    def _on_commits(self, commits: Any) -> None:
        self.fanout.receive(commits)
        self._after()

    # What REST and administration do to sockets

    def announce(self, change: PresenceChange) -> None:
        """Announce a presence change of the store to the devices of its session here."""
        self.departures.heard(change)
        self._after()

    async def require_join(self, identity: Identity, session_id: str) -> None:
        """Apply the application's decision on joins to a REST caller. Raises FORBIDDEN,
        OVERLOADED."""
        if self.gate is not None:
            await self.gate.require(identity, session_id, identity.device_id)

    def commit(self, request: Apply) -> Awaitable[Outcome]:
        """Write, and deliver the result to the devices here before returning it.

        Raises:
            StoreError: as a Store raises it. SyncBridgeError: QUOTA_EXCEEDED.
        """
        self.quota.keep(request)
        if TRACING.on:
            request.trace = TRACING.current()
        return self._commits.commit(request)

    def _committed(self, request: Apply, answer: Outcome | StoreError) -> None:
        if isinstance(answer, StoreTimeout):
            self.fanout.doubts.add(request.sid)
        elif isinstance(answer, Outcome) and changed(answer):
            if request.trace:
                with TRACING.child("frames", request.trace):
                    self.engine.committed(request, answer)
            else:
                self.engine.committed(request, answer)
            self.users.seen(request.user_id, request.sid)

    def close_revoked(self, matches: Callable[[Identity, str], bool]) -> list[str]:
        """Close every connection whose token matches; returns the user of each.

        Args:
            matches: (identity, device id) -> whether it is revoked.
        """
        users = []
        for connection in self.registry:
            identity = connection.identity
            if identity is not None and matches(identity, connection.device_id):
                code = CloseCode.TOKEN_REVOKED
                connection.refused, connection.behind = True, None
                self.hub.close(connection.cid, code, code.reason)
                users.append(identity.user_id)
        self.hub.flush()
        return users

    def close_one(self, cid: int) -> bool:
        """Close a connection for an operator; returns whether it existed. Its client may
        reconnect."""
        connection = self.registry.connections.get(cid)
        if connection is None:
            return False
        self.hub.close(cid, CloseCode.GOING_AWAY, "closed by an operator")
        self.hub.flush()
        return True

    def broadcast(self, payload: bytes, audience: Audience, session_id: str = "") -> int:
        """BROADCAST to devices of this node; returns how many there are.

        `session_id`: required for the audience SESSION.
        """
        topics = {Audience.ADMINS: self.registry.admins, Audience.ALL: self.registry.everyone}
        topic = topics.get(audience)
        if topic is None:
            session = self.registry.sessions.get(session_id)
            if session is None:
                return 0
            topic = session.topic
        frame = encode.envelope(MessageType.BROADCAST, encode.NOWHERE, int(self._clock()), payload)
        delivered = self.sender.everyone(topic, frame)
        self.hub.flush()
        return delivered

    @property
    def admins(self) -> int:
        """How many sockets here have role admin."""
        return self.hub.topic_size(self.registry.admins)

    def inform_admins(self, frame: bytes) -> int:
        """Send an encoded message to the sockets here with role admin."""
        delivered = self.sender.everyone(self.registry.admins, frame)
        self.hub.flush()
        return delivered

    @property
    def counters(self) -> GatewayCounters:
        """The counters of this node."""
        return self.store_queue.counters


def changed(outcome: Outcome) -> bool:
    """Whether a write made a new version."""
    return outcome.status is Status.OK and outcome.version != outcome.prev_version


def node_name() -> str:
    """A name that is unique to this process."""
    return os.urandom(6).hex()
