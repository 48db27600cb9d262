"""Administration over HTTP: figures and lists, for viewers too; messages to devices."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from syncbridge import ids
from syncbridge.errors import ErrorCode, StoreUnavailable, SyncBridgeError
from syncbridge.identity import ADMIN_READERS, ADMINS
from syncbridge.outbound import Audience
from syncbridge_server.admin.administration import Administration, AllMetrics, Delivery
from syncbridge_server.admin.connection_list import ConnectionRow, question_of
from syncbridge_server.admin.figures import (
    ConnectionMetrics,
    Latency,
    NodeFigures,
    SessionMetrics,
    SnapshotMetrics,
    Trouble,
)
from syncbridge_server.admin.survey import Row
from syncbridge_server.auth.audit import audited
from syncbridge_server.auth.http import BearerAuth
from syncbridge_server.http.support.answers import encoded, timestamp
from syncbridge_server.http.support.pages import Cursor, PageSize, query_of
from syncbridge_server.http.support.problem import read_json
from syncbridge_server.openapi.describe import Timestamp, Uuid, describe


class BroadcastBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/broadcast`. `session_id`: the one of the audience `session`."""

    message: str
    type: str = "notification"
    data: Any = None
    audience: Audience = Audience.ADMINS
    session_id: str = ""


class ConnectionsQuery(msgspec.Struct):
    """Query of `GET /admin/connections`: of a user, in a session, of a device, or all."""

    cursor: Cursor = ""
    limit: PageSize = 100
    user_id: str = ""
    session_id: str = ""
    device_id: str = ""


class SessionsQuery(msgspec.Struct):
    """Query of `GET /admin/sessions`. `active`: only those with a device online.

    `device_id`: only those that remember this device. `session_id`: this one; the rest is not
    looked at then.
    """

    cursor: Cursor = ""
    limit: PageSize = 100
    user_id: str = ""
    active: bool = False
    device_id: str = ""
    session_id: str = ""


class SessionMetricsBody(SessionMetrics):
    """Answer of `GET /admin/metrics/sessions`. `complete`: every live node has answered."""

    at: Timestamp
    complete: bool
    nodes: list[NodeFigures]


class ConnectionMetricsBody(ConnectionMetrics):
    """Answer of `GET /admin/metrics/connections`. `complete`: every live node has answered."""

    at: Timestamp
    complete: bool
    nodes: list[NodeFigures]


class SnapshotMetricsBody(SnapshotMetrics, kw_only=True):
    """Answer of `GET /admin/metrics/snapshots`."""

    at: Timestamp
    complete: bool


class AllMetricsBody(msgspec.Struct):
    """Answer of `GET /admin/metrics/all`. `snapshots` is null while Redis is away."""

    at: Timestamp
    complete: bool
    sessions: SessionMetrics
    connections: ConnectionMetrics
    snapshots: SnapshotMetrics | None
    nodes: list[NodeFigures]
    latency: Latency
    trouble: Trouble


class SessionRow(msgspec.Struct):
    """One session. Times are null for one that was joined but never written."""

    session_id: Uuid
    user_id: str
    version: int
    epoch: str
    bytes: int
    created_at: Timestamp | None
    updated_at: Timestamp | None
    devices: int
    devices_online: int


class SessionsBody(msgspec.Struct):
    """A page of sessions. `next_cursor` is empty on the last page; other pages may be short.

    `damaged`: sessions that cannot be read and are left out here; the log names them.
    """

    sessions: list[SessionRow]
    next_cursor: str
    damaged: int


class ConnectionsBody(msgspec.Struct):
    """A page of connections. `complete`: every live node has answered."""

    connections: list[ConnectionRow]
    next_cursor: str
    complete: bool


class AdminRoutes:
    """The routes. `message_bytes`: largest body of a broadcast."""

    def __init__(
        self, administration: Administration, authenticate: BearerAuth, message_bytes: int
    ) -> None:
        self._administration = administration
        self._authenticate = authenticate
        self._message_bytes = message_bytes

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [
            Route("/admin/metrics/sessions", self.session_metrics, methods=["GET"]),
            Route("/admin/metrics/connections", self.connection_metrics, methods=["GET"]),
            Route("/admin/metrics/snapshots", self.snapshot_metrics, methods=["GET"]),
            Route("/admin/metrics/all", self.all_metrics, methods=["GET"]),
            Route("/admin/sessions", self.sessions, methods=["GET"]),
            Route("/admin/connections", self.connections, methods=["GET"]),
            Route("/admin/broadcast", self.broadcast, methods=["POST"]),
        ]

    @describe("Metrics of sessions", answers={200: SessionMetricsBody})
    async def session_metrics(self, request: Request) -> Response:
        """Of all nodes. A session with devices on several nodes counts once."""
        metrics = await self._metrics(request, snapshots=False)
        return answer(metrics.sessions, metrics, nodes=metrics.nodes)

    @describe("Metrics of connections", answers={200: ConnectionMetricsBody})
    async def connection_metrics(self, request: Request) -> Response:
        """Of all nodes; what ends in `_total` counts since each node's start."""
        metrics = await self._metrics(request, snapshots=False)
        return answer(metrics.connections, metrics, nodes=metrics.nodes)

    @describe("Metrics of snapshots", answers={200: SnapshotMetricsBody})
    async def snapshot_metrics(self, request: Request) -> Response:
        """Number and size of the stored states; an estimate when there are very many."""
        metrics = await self._metrics(request)
        if metrics.snapshots is None:
            raise StoreUnavailable("Redis does not answer")
        return answer(metrics.snapshots, metrics)

    @describe("All metrics combined", answers={200: AllMetricsBody})
    async def all_metrics(self, request: Request) -> Response:
        """Sessions, connections, what is stored, and the nodes themselves."""
        metrics = await self._metrics(request)
        return encoded(msgspec.structs.asdict(metrics) | {"at": timestamp(metrics.at)})

    @describe("List sessions", answers={200: SessionsBody}, query=SessionsQuery)
    async def sessions(self, request: Request) -> Response:
        """Every session that is stored or joined, in no particular order."""
        await self._authenticate(request, ADMIN_READERS)
        query = query_of(request, SessionsQuery)
        survey = self._administration.survey
        if query.session_id:
            found = await survey.one(ids.session_id(query.session_id))
        else:
            found = await survey.page(
                query.cursor, query.limit, query.user_id, query.active, query.device_id
            )
        rows, following, damaged = found
        return encoded(SessionsBody([session_row(row) for row in rows], following, damaged))

    @describe("List open connections", answers={200: ConnectionsBody}, query=ConnectionsQuery)
    async def connections(self, request: Request) -> Response:
        """Of all nodes, by node and age. Each one open during the whole walk is listed once."""
        await self._authenticate(request, ADMIN_READERS)
        query = query_of(request, ConnectionsQuery)
        rows, following, complete = await self._administration.connections(
            question_of(query.cursor, query.limit, query.user_id, query.session_id, query.device_id)
        )
        return encoded(ConnectionsBody(rows, following, complete))

    @describe("Broadcast a message to devices", body=BroadcastBody, answers={200: Delivery})
    async def broadcast(self, request: Request) -> Response:
        """BROADCAST to the admin channel, or to the `audience`, on every node; `delivered` counts
        the devices.
        """
        identity = await self._authenticate(request, ADMINS)
        body = await read_json(request, BroadcastBody, self._message_bytes)
        members = {"message": body.message, "type": body.type}
        if body.data is not None:
            members["data"] = body.data
        if (body.audience is Audience.SESSION) != bool(body.session_id):
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                "session_id: required with the audience session, and allowed with no other",
                field="session_id",
            )
        if body.session_id:
            ids.session_id(body.session_id)
        audited(request.scope, audience=body.audience.value, session_id=body.session_id)
        payload = msgspec.json.encode(members)
        delivery = await self._administration.broadcast(payload, body.audience, body.session_id)
        self._administration.notice(
            "broadcast",
            f"{identity.user_id} sent a message to {delivery.delivered} devices",
            user_id=identity.user_id,
            delivered=delivery.delivered,
            message=body.message,
            audience=body.audience.value,
        )
        return encoded(delivery)

    async def _metrics(self, request: Request, snapshots: bool = True) -> AllMetrics:
        await self._authenticate(request, ADMIN_READERS)
        return await self._administration.metrics(snapshots)


def session_row(row: Row) -> SessionRow:
    """A row of Redis as a body."""
    return SessionRow(
        row.session_id,
        row.owner,
        row.version,
        row.epoch,
        row.bytes,
        timestamp(row.created_at) if row.created_at else None,
        timestamp(row.updated_at) if row.updated_at else None,
        row.devices,
        row.devices_online,
    )


def answer(part: msgspec.Struct, metrics: AllMetrics, **more: object) -> Response:
    """One part of the metrics, and when and of whom they are."""
    common = {"at": timestamp(metrics.at), "complete": metrics.complete}
    return encoded(msgspec.structs.asdict(part) | common | more)
