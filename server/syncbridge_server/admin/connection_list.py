"""The list of open connections over all nodes, in pages.

A connection has a place: the name of its node and its number there, which is never reused. The
place of the last row is the cursor, so pages stay correct while connections open and close: each
connection that is open during the whole walk is listed once. Every node from the cursor's on
returns its first `limit` rows, and the first `limit` of all are the page. Each node makes one pass
over its connections.
"""

import heapq
from collections.abc import Callable, Iterable

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.protocol import State
from syncbridge_server.admin.figures import ENCODINGS
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.gateway.registry import Registry

MAX_NODE_NAME = 64


class ConnectionQuery(msgspec.Struct):
    """A query to nodes: connections after a place, of a user, session and device, or all."""

    node: str
    cid: int
    limit: int
    user_id: str
    session_id: str = ""
    device_id: str = ""


class ConnectionRow(msgspec.Struct):
    """One open connection. Times in Unix ms; empty members before AUTH."""

    node: str
    connection_id: int
    session_id: str
    user_id: str
    device_id: str
    role: str
    state: str
    encoding: str
    client: str
    connected_at: int
    queued_bytes: int


class ConnectionList:
    """Lists this node's connections. `queued`: bytes queued for a connection."""

    def __init__(self, registry: Registry, node: str, queued: Callable[[int], int]) -> None:
        self._registry = registry
        self._node = node
        self._queued = queued

    async def answer(self, body: bytes) -> bytes:
        """A `ConnectionQuery` in, this node's rows out."""
        question = msgspec.json.decode(body, type=ConnectionQuery)
        return msgspec.json.encode(self.rows(question))

    def rows(self, question: ConnectionQuery) -> list[ConnectionRow]:
        """The first rows of this node after the query's place. O(connections)."""
        if self._node < question.node:
            return []
        after = question.cid if self._node == question.node else 0
        chosen = heapq.nsmallest(
            question.limit,
            (c for c in self._registry.connections.values() if c.cid > after and fits(c, question)),
            key=lambda c: c.cid,
        )
        return [self._row(c) for c in chosen]

    def _row(self, connection: Connection) -> ConnectionRow:
        identity, session = connection.identity, connection.session
        return ConnectionRow(
            self._node,
            connection.cid,
            session.id if session is not None else "",
            identity.user_id if identity is not None else "",
            connection.device_id,
            identity.role.value if identity is not None else "",
            connection.state.name.lower(),
            ENCODINGS[connection.encoding],
            connection.client,
            connection.connected_at,
            self._queued(connection.cid),
        )


def fits(connection: Connection, question: ConnectionQuery) -> bool:
    """Whether a connection matches the query."""
    identity = connection.identity
    if connection.state is State.CLOSED:
        return False
    session = connection.session.id if connection.session is not None else ""
    return (
        (not question.user_id or (identity is not None and identity.user_id == question.user_id))
        and question.session_id in ("", session)
        and question.device_id in ("", connection.device_id)
    )


def merge(parts: Iterable[list[ConnectionRow]], limit: int) -> tuple[list[ConnectionRow], str]:
    """Merge the nodes' answers into a page, and the next cursor, "" at the end."""
    rows = [row for part in parts for row in part]
    rows.sort(key=lambda row: (row.node, row.connection_id))
    page = rows[:limit]
    if len(page) < limit:
        return page, ""
    return page, f"{page[-1].node}:{page[-1].connection_id:x}"


def question_of(
    cursor: str, limit: int, user_id: str, session_id: str = "", device_id: str = ""
) -> ConnectionQuery:
    """The query for a page. Raises INVALID_FIELD for an invalid cursor."""
    meant = (limit, user_id, session_id, device_id)
    if not cursor:
        return ConnectionQuery("", 0, *meant)
    node, colon, cid = cursor.rpartition(":")
    try:
        if not colon or len(node) > MAX_NODE_NAME or len(cid) > 16 or not cid.isalnum():
            raise ValueError
        return ConnectionQuery(node, int(cid, 16), *meant)
    except ValueError:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD,
            "cursor: send the next_cursor of the page before",
            field="cursor",
        ) from None
