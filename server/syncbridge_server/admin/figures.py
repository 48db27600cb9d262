"""Reports of single nodes, and their sums."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from operator import attrgetter

import msgspec
import trio

from syncbridge import distinct
from syncbridge.protocol import State
from syncbridge_core.hub import ENCODING_JSON, ENCODING_PROTOBUF
from syncbridge_server.admin.gateway_metrics import closes
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.telemetry.timing import BOUNDS, Timing

Counts = dict[str, int]

ENCODINGS = {ENCODING_JSON: "json", ENCODING_PROTOBUF: "protobuf"}

# Ten thousand connections are counted in a few milliseconds: a property of an enum costs 0.2 us.
_IDENTITY, _ENCODING = attrgetter("identity"), attrgetter("encoding")
_ROLE, _USER = attrgetter("identity.role._value_"), attrgetter("identity.user_id")


class NodeReport(msgspec.Struct):
    """The figures of one node that are cheap to read. Times in Unix ms.

    `hub` are the hub's statistics: gauges `open_*` and `queued_*`, the rest counts since the start.
    `sessions`: those with a device on this node.
    """

    node: str
    pid: int
    started_at: int
    at: int
    draining: bool
    sessions: int
    writes: int
    created: int
    conflicts: int
    written_bytes: int
    hub: Counts


class Redis(msgspec.Struct):
    """The state of a node's link to Redis.

    `kind`: single, sentinel or cluster. `reason`: why it is unusable, or empty. `role`: of the
    server for writes. `replicas`: in sync when the connection was made. `durability`: when a write
    counts as done. `queued`: commands without an answer.
    """

    kind: str = ""
    version: str = ""
    role: str = ""
    replicas: int = 0
    durability: str = ""
    reason: str = ""
    queued: int = 0


class Latency(msgspec.Struct):
    """Times since the start, by bucket: of `counts`, the last has no bound. `bounds` in seconds.

    `commits`: from a write to the answer of Redis. `redis`: any batch of commands, to its answers.
    `ticks`: work on one poll of the sockets.
    """

    commits: list[int] = []
    redis: list[int] = []
    ticks: list[int] = []
    bounds: tuple[float, ...] = BOUNDS


class Trouble(msgspec.Struct):
    """Errors since the start: ERROR messages and AUTH by code, closed sockets."""

    errors: Counts = {}
    closes: Counts = {}
    auth: Counts = {}


class FullReport(msgspec.Struct):
    """A report with counted figures. `session_ids`, `user_ids`: see `syncbridge.distinct`."""

    report: NodeReport
    unauthenticated: int = 0
    by_role: Counts = {}
    by_encoding: Counts = {}
    session_ids: list[int] = []
    user_ids: list[int] = []
    latency: Latency = msgspec.field(default_factory=Latency)
    trouble: Trouble = msgspec.field(default_factory=Trouble)
    redis: Redis = msgspec.field(default_factory=Redis)


class NodeFigures(msgspec.Struct):
    """One node, as an operator sees it. `fresh`: it has just answered; else its last report.

    `redis`: null when it has not answered.
    """

    node: str
    pid: int
    started_at: int
    fresh: bool
    draining: bool
    open_connections: int
    sessions: int
    queued_bytes: int
    messages_in: int
    frames_out: int
    writes: int
    redis: Redis | None = None


class SessionMetrics(msgspec.Struct):
    """`active`: sessions with a connected device. `exact`: false when it is an estimate (3 %)."""

    active: int
    exact: bool
    devices: int
    created_total: int
    writes_total: int
    conflicts_total: int


class ConnectionMetrics(msgspec.Struct):
    """Open connections, and what went through them since each node's start."""

    open: int
    authenticated: int
    unauthenticated: int
    users: int
    by_role: Counts
    by_encoding: Counts
    queued_bytes: int
    accepted_total: int
    closed_total: int
    messages_in_total: int
    bytes_in_total: int
    frames_out_total: int
    bytes_out_total: int
    rate_limited_total: int
    protocol_errors_total: int
    slow_closed_total: int
    idle_closed_total: int


class SnapshotMetrics(msgspec.Struct):
    """Metrics of snapshots. `exact`: false when estimated from a part of the keys.

    `damaged`: unreadable sessions, which no other figure includes.
    """

    stored: int
    bytes: int
    average_bytes: int
    largest_bytes: int
    exact: bool
    written_bytes_total: int = 0
    damaged: int = 0


class Reporter:
    """Reports of this node.

    Args:
        clock: Unix seconds.
        link: state of the link to Redis. errors: ERROR messages by code, since the start.
    """

    def __init__(
        self,
        gateway: Gateway,
        clock: Callable[[], float] = time.time,
        link: "Callable[[], tuple[Redis, Timing]] | None" = None,
        errors: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._gateway = gateway
        self._link = link
        self._errors = errors
        self._clock = clock
        self._started_at = int(clock() * 1000)

    def brief(self) -> NodeReport:
        """O(1)."""
        gateway = self._gateway
        counters = gateway.counters
        return NodeReport(
            gateway.node,
            os.getpid(),
            self._started_at,
            int(self._clock() * 1000),
            gateway.draining,
            len(gateway.registry.sessions),
            counters.writes,
            counters.created,
            counters.conflicts,
            counters.written_bytes,
            gateway.hub.statistics()._asdict(),
        )

    async def full(self) -> FullReport:
        """O(connections); ids are hashed on another thread."""
        connections = list(self._gateway.registry)
        ready = [c for c in connections if c.state is State.READY]
        sessions = [sid for sid, s in self._gateway.registry.sessions.items() if s.devices]
        known = list(filter(_IDENTITY, ready))
        users = set(map(_USER, known))
        redis, times = self._link() if self._link is not None else (Redis(), Timing())
        counters = self._gateway.counters
        return FullReport(
            self.brief(),
            len(connections) - len(ready),
            Counter(map(_ROLE, known)),
            {ENCODINGS[e]: n for e, n in Counter(map(_ENCODING, connections)).items()},
            await trio.to_thread.run_sync(distinct.sketch, sessions),
            await trio.to_thread.run_sync(distinct.sketch, users),
            Latency(counters.commits.counts, times.counts, counters.ticks.counts),
            self._trouble(),
            redis,
        )

    def _trouble(self) -> Trouble:
        gateway = self._gateway
        return Trouble(self._errors(), closes(gateway.engine.closes), dict(gateway.counters.auth))


def node_figures(full: FullReport, fresh: bool) -> NodeFigures:
    """A report as a row of the list of nodes."""
    report, hub = full.report, full.report.hub
    return NodeFigures(
        report.node,
        report.pid,
        report.started_at,
        fresh,
        report.draining,
        hub.get("open_connections", 0),
        report.sessions,
        hub.get("queued_bytes", 0),
        hub.get("messages_in", 0),
        hub.get("frames_out", 0),
        report.writes,
        full.redis if fresh else None,
    )


def latency(reports: Iterable[FullReport]) -> Latency:
    """Latencies of all nodes together."""
    found = [report.latency for report in reports]
    return Latency(
        added([one.commits for one in found]),
        added([one.redis for one in found]),
        added([one.ticks for one in found]),
    )


def added(rows: Iterable[list[int]]) -> list[int]:
    """Sums of counts by bucket; nodes without counts are left out."""
    return [sum(column) for column in zip(*filter(None, rows), strict=True)]


def trouble(reports: Iterable[FullReport]) -> Trouble:
    """Errors of all nodes together."""
    errors, ends, auth = Counter[str](), Counter[str](), Counter[str]()
    for report in reports:
        errors.update(report.trouble.errors)
        ends.update(report.trouble.closes)
        auth.update(report.trouble.auth)
    return Trouble(dict(errors), dict(ends), dict(auth))


def session_metrics(reports: Iterable[FullReport]) -> SessionMetrics:
    """Sessions of all nodes; one with devices on several counts once."""
    reports = list(reports)
    active, exact = distinct.count(r.session_ids for r in reports)
    return SessionMetrics(
        active,
        exact,
        sum(sum(r.by_role.values()) for r in reports),
        sum(r.report.created for r in reports),
        sum(r.report.writes for r in reports),
        sum(r.report.conflicts for r in reports),
    )


def connection_metrics(reports: Iterable[FullReport]) -> ConnectionMetrics:
    """Connections of all nodes."""
    reports = list(reports)
    hub: Counter[str] = Counter()
    roles: Counter[str] = Counter()
    encodings: Counter[str] = Counter()
    for report in reports:
        hub.update(report.report.hub)
        roles.update(report.by_role)
        encodings.update(report.by_encoding)
    return ConnectionMetrics(
        open=hub["open_connections"],
        authenticated=sum(roles.values()),
        unauthenticated=sum(r.unauthenticated for r in reports),
        users=distinct.count(r.user_ids for r in reports)[0],
        by_role=dict(roles),
        by_encoding=dict(encodings),
        queued_bytes=hub["queued_bytes"],
        accepted_total=hub["accepted"],
        closed_total=hub["closed"],
        messages_in_total=hub["messages_in"],
        bytes_in_total=hub["bytes_in"],
        frames_out_total=hub["frames_out"],
        bytes_out_total=hub["bytes_out"],
        rate_limited_total=hub["rate_limited"],
        protocol_errors_total=hub["protocol_errors"],
        slow_closed_total=hub["slow_closed"],
        idle_closed_total=hub["idle_closed"],
    )
