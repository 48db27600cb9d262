"""Administration: figures, lists, messages, and the admins' own channel.

Sockets whose token has role admin are members of the topic `registry.admins`. They receive
ADMIN_UPDATE: the metrics of all nodes every few seconds, and notices of events that an operator
should know. Without such sockets, nothing is computed.
"""

import time
from collections.abc import Callable

import msgspec
import structlog
import trio

from syncbridge import encode
from syncbridge.errors import StoreError
from syncbridge.messages import MessageType
from syncbridge.outbound import AdminUpdate, Audience
from syncbridge.records.sessions import Notice
from syncbridge_server.admin.asking import Answers, Asking
from syncbridge_server.admin.connection_list import (
    ConnectionList,
    ConnectionQuery,
    ConnectionRow,
    merge,
)
from syncbridge_server.admin.directory import Directory
from syncbridge_server.admin.figures import (
    ConnectionMetrics,
    FullReport,
    Latency,
    NodeFigures,
    NodeReport,
    Redis,
    Reporter,
    SessionMetrics,
    SnapshotMetrics,
    Trouble,
    connection_metrics,
    latency,
    node_figures,
    session_metrics,
    trouble,
)
from syncbridge_server.admin.survey import Survey
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.isolation import Isolation
from syncbridge_server.ports.store import Bus
from syncbridge_server.redis.link.client import RedisIO

log = structlog.get_logger("admin")

REPORT, ROSTER, BROADCAST, DISCONNECT = "report", "roster", "announcement", "disconnect"
KIND_NOTICE = "admin_notice"
VOLUME_SECONDS = 15.0


class AllMetrics(msgspec.Struct):
    """All metrics. `complete`: every live node has answered. `at`: Unix ms."""

    at: int
    complete: bool
    sessions: SessionMetrics
    connections: ConnectionMetrics
    snapshots: SnapshotMetrics | None
    nodes: list[NodeFigures]
    latency: Latency
    trouble: Trouble


class Delivery(msgspec.Struct):
    """The result of a broadcast. `complete`: false when a node did not report its count."""

    delivered: int
    complete: bool
    nodes: int


class Disconnect(msgspec.Struct):
    """A request to close a socket: number `connection_id` of a node."""

    node: str
    connection_id: int


class Announcement(msgspec.Struct):
    """A message that the other nodes send to their devices."""

    payload: msgspec.Raw
    audience: Audience
    session_id: str = ""


class Administration:
    """One for each process. `run` must be running.

    Args:
        io: running client. bus: between the nodes. update_seconds: interval of ADMIN_UPDATE
            metrics.
        clock: Unix seconds.
        isolation: for listing sessions. reason: why Redis is unusable, or empty.
        errors: ERROR messages of this node by code, since the start.
    """

    def __init__(
        self,
        gateway: Gateway,
        io: RedisIO,
        bus: Bus,
        *,
        update_seconds: float,
        clock: Callable[[], float] = time.time,
        isolation: Isolation | None = None,
        reason: Callable[[], str] = str,
        errors: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._gateway = gateway
        self._bus = bus
        self._update_seconds = update_seconds
        self._clock = clock
        self._reporter = Reporter(gateway, clock, lambda: (link_of(io, reason()), io.times), errors)
        self._directory = Directory(io, gateway.node, self._reporter.brief)
        self._asking = Asking(bus, gateway.node)
        self._roster = ConnectionList(gateway.registry, gateway.node, gateway.hub.queued)
        self.survey = Survey(io, isolation)
        self._volume: SnapshotMetrics | None = None
        self._volume_at = -VOLUME_SECONDS
        self._asking.answer_with(REPORT, self._answer_report)
        self._asking.answer_with(ROSTER, self._roster.answer)
        self._asking.answer_with(BROADCAST, self._answer_broadcast)
        self._asking.answer_with(DISCONNECT, self._answer_disconnect)
        bus.on_notice(KIND_NOTICE, self._on_notice)

    async def run(self) -> None:
        """Keep this node's record, answer the others and inform admins, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._directory.run)
            nursery.start_soon(self._asking.run)
            nursery.start_soon(self._inform)

    # Figures

    async def metrics(self, snapshots: bool = True) -> AllMetrics:
        """The figures of all live nodes. `snapshots`: also what is stored, if Redis is
        available."""
        records = await self._live()
        answers = await self._asking.ask(REPORT, b"{}", set(records))
        fresh = answers.read(FullReport)
        stale = {n: FullReport(records[n]) for n in answers.missing if n in records}
        reports = [*fresh.values(), *stale.values()]
        nodes = [node_figures(r, r.report.node in fresh) for r in reports]
        volume = await self._stored(reports) if snapshots else None
        return AllMetrics(
            int(self._clock() * 1000),
            not answers.missing and bool(records) and not self._directory.left_out,
            session_metrics(reports),
            connection_metrics(reports),
            volume,
            sorted(nodes, key=lambda node: node.node),
            latency(reports),
            trouble(reports),
        )

    async def connections(self, question: ConnectionQuery) -> tuple[list[ConnectionRow], str, bool]:
        """A page of open connections, the next cursor, and whether every live node answered."""
        answers = await self._ask(ROSTER, msgspec.json.encode(question))
        rows, following = merge(answers.read(list[ConnectionRow]).values(), question.limit)
        return rows, following, not answers.missing

    # Messages

    async def broadcast(
        self, payload: bytes, audience: Audience = Audience.ADMINS, session_id: str = ""
    ) -> Delivery:
        """BROADCAST to devices of every node; `payload` is JSON text.

        `session_id`: the session, for the audience SESSION.
        """
        said = Announcement(msgspec.Raw(payload), audience, session_id)
        answers = await self._ask(BROADCAST, msgspec.json.encode(said))
        counts = answers.read(int).values()
        return Delivery(sum(counts), not answers.missing, len(counts))

    async def disconnect(self, node: str, connection_id: int) -> bool:
        """Close a socket on any node; True if it existed. Its client may reconnect."""
        meant = msgspec.json.encode(Disconnect(node, connection_id))
        return any((await self._ask(DISCONNECT, meant)).read(bool).values())

    def inform(self, name: str, text: str, **data: object) -> None:
        """Notify the admins' sockets of this node. `name`: for programs; `text`: for people."""
        self._inform_admins(notice_payload(name, text, data))

    def notice(self, name: str, text: str, **data: object) -> None:
        """As `inform`, on every node."""
        payload = notice_payload(name, text, data)
        self._inform_admins(payload)
        self._bus.tell("*", Notice(KIND_NOTICE, self._gateway.node, payload))

    async def _ask(self, subject: str, body: bytes) -> Answers:
        records = await self._live()
        answers = await self._asking.ask(subject, body, set(records))
        if not records or self._directory.left_out:
            answers.missing.append("others")
        return answers

    async def _live(self) -> dict[str, NodeReport]:
        """Reports of the live nodes; empty, and so incomplete, while Redis is away."""
        try:
            records = await self._directory.live()
            if self._gateway.node not in records:
                records[self._gateway.node] = self._reporter.brief()
            return records
        except StoreError:
            return {}

    async def _stored(self, reports: list[FullReport]) -> SnapshotMetrics | None:
        """Counts of what is stored, at most `VOLUME_SECONDS` old; None while Redis is away."""
        now = trio.current_time()
        if self._volume is None or now - self._volume_at >= VOLUME_SECONDS:
            try:
                self._volume = await self.survey.volume()
            except StoreError:
                return None
            self._volume_at = now
        written = sum(r.report.written_bytes for r in reports)
        return msgspec.structs.replace(self._volume, written_bytes_total=written)

    async def _answer_report(self, body: bytes) -> bytes:
        return msgspec.json.encode(await self._reporter.full())

    async def _answer_broadcast(self, body: bytes) -> bytes:
        said = msgspec.json.decode(body, type=Announcement)
        return b"%d" % self._gateway.broadcast(bytes(said.payload), said.audience, said.session_id)

    async def _answer_disconnect(self, body: bytes) -> bytes:
        meant = msgspec.json.decode(body, type=Disconnect)
        here = meant.node == self._gateway.node
        return b"true" if here and self._gateway.close_one(meant.connection_id) else b"false"

    # The admins' channel

    async def _inform(self) -> None:
        while True:
            await trio.sleep(self._update_seconds)
            if not self._gateway.admins:
                continue
            try:
                metrics = msgspec.to_builtins(await self.metrics())
                self._inform_admins(msgspec.json.encode(AdminUpdate("metrics", metrics=metrics)))
            except Exception:
                log.exception("admin_update_failed")

    def _on_notice(self, notice: Notice) -> None:
        if notice.sid != self._gateway.node:
            self._inform_admins(notice.data)

    def _inform_admins(self, payload: bytes) -> None:
        if self._gateway.admins:
            now = int(self._clock())
            frame = encode.envelope(MessageType.ADMIN_UPDATE, encode.NOWHERE, now, payload)
            self._gateway.inform_admins(frame)


def notice_payload(name: str, text: str, data: dict[str, object]) -> bytes:
    """ADMIN_UPDATE payload of a notice."""
    return msgspec.json.encode(AdminUpdate("notice", notice=name, text=text, data=data))


def link_of(io: RedisIO, reason: str) -> Redis:
    """The state of the link to Redis. `reason`: why it is unusable, or empty."""
    server, durability = io.server, io.durability
    kind = "sentinel" if io.endpoint.by_sentinel else "single"
    wanted = f"replicas:{durability.replicas}" if durability.replicas else "memory"
    link = Redis(kind, durability="fsync" if durability.fsync else wanted, reason=reason)
    link.queued = io.queued
    if server is not None:
        link.kind = "cluster" if server.cluster else kind
        link.version = ".".join(map(str, server.version))
        link.role, link.replicas = "primary", server.replicas
    return link
