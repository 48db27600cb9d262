"""Who is connected here, and in which session."""

from collections.abc import Callable, Iterator

from syncbridge.identity import Role
from syncbridge.session import Session
from syncbridge_core.hub import ENCODING_PROTOBUF, Hub
from syncbridge_server.gateway.admission import UnauthenticatedConnections
from syncbridge_server.gateway.connection import Connection, LocalSession


class Registry:
    """Connections by cid and sessions by id; keeps the hub's topics in step with them.

    Attributes:
        everyone: topic of all who are in a session. admins: of those with role admin.
        waiting: client address -> connections that have not authenticated.
        unauthenticated: connections without a valid AUTH. sockets: user -> number of connections.
        binary: how many connections take protobuf, in a session or not; each session has its own
            count, so that nothing is encoded for nobody.
        on_admin: called with each connection of role admin that enters a session.
    """

    def __init__(self, hub: Hub, unauthenticated: UnauthenticatedConnections | None = None) -> None:
        self._hub = hub
        self.everyone = hub.open_topic()
        self.admins = hub.open_topic()
        self.binary = 0
        self.connections: dict[int, Connection] = {}
        self.waiting: dict[str, int] = {}
        self.unauthenticated = (
            UnauthenticatedConnections() if unauthenticated is None else unauthenticated
        )
        self.sockets: dict[str, int] = {}
        self.sessions: dict[str, LocalSession] = {}
        self.on_admin: Callable[[LocalSession, Connection], None] = _ignore

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self.connections.values()))

    @property
    def authenticated(self) -> int:
        """Connections whose AUTH was accepted. O(addresses with one that was not)."""
        return len(self.connections) - sum(self.waiting.values())

    def add(self, connection: Connection) -> None:
        """A new connection, not in any session yet."""
        self.connections[connection.cid] = connection
        self.binary += takes_protobuf(connection)
        self.waiting[connection.client] = self.waiting.get(connection.client, 0) + 1
        self.unauthenticated.add(connection)

    def known(self, connection: Connection) -> None:
        """Its AUTH was valid: it counts for its user, and may send large compressed messages."""
        assert connection.identity is not None
        user_id = connection.identity.user_id
        self.unauthenticated.discard(connection)
        self._hub.trust(connection.cid)
        self.sockets[user_id] = self.sockets.get(user_id, 0) + 1

    def session(self, session_id: str) -> LocalSession:
        """The session with this id, created here if it has no member."""
        session = self.sessions.get(session_id)
        if session is None:
            session = Session(session_id, self._hub.open_topic())
            self.sessions[session_id] = session
        return session

    def enter(self, session: LocalSession, connection: Connection) -> Connection | None:
        """Make a connection a member; return the one that its device had before."""
        previous = session.devices.get(connection.device_id)
        if previous is not None:
            self._hub.unsubscribe(session.topic, previous.cid)
            session.binary -= takes_protobuf(previous)
        session.devices[connection.device_id] = connection
        session.binary += takes_protobuf(connection)
        self._hub.subscribe(session.topic, connection.cid)
        self._hub.subscribe(self.everyone, connection.cid)
        self._settle(connection)
        self.follow_role(connection)
        if connection.identity is not None and connection.identity.role is Role.ADMIN:
            self.on_admin(session, connection)
        return previous

    def follow_role(self, connection: Connection) -> None:
        """Add a connection to `admins` or remove it, by the role of its token."""
        if connection.identity is not None and connection.identity.role is Role.ADMIN:
            self._hub.subscribe(self.admins, connection.cid)
        else:
            self._hub.unsubscribe(self.admins, connection.cid)

    def remove(self, connection: Connection) -> bool:
        """Forget a connection; True if it was its device's current one."""
        self.unauthenticated.discard(connection)
        if self.connections.pop(connection.cid, None) is not None:
            self.binary -= takes_protobuf(connection)
            self._settle(connection)
            self._forget_socket(connection)
        session = connection.session
        if session is None:
            return False
        return self.expel(session, connection)

    def _forget_socket(self, connection: Connection) -> None:
        if connection.identity is None:
            return
        user_id = connection.identity.user_id
        self.sockets[user_id] -= 1
        if not self.sockets[user_id]:
            del self.sockets[user_id]

    def _settle(self, connection: Connection) -> None:
        """A connection has authenticated or closed: its address has a slot more."""
        if connection.waiting:
            connection.waiting = False
            left = self.waiting[connection.client] - 1
            if left:
                self.waiting[connection.client] = left
            else:
                del self.waiting[connection.client]

    def expel(self, session: LocalSession, connection: Connection) -> bool:
        """Take a connection out of its session; True if it was its device's current one."""
        if session.devices.get(connection.device_id) is not connection:
            return False
        del session.devices[connection.device_id]
        session.binary -= takes_protobuf(connection)
        self._hub.unsubscribe(session.topic, connection.cid)
        return True

    def release(self, session: LocalSession) -> None:
        """Forget a session without members."""
        if session.empty and self.sessions.get(session.id) is session:
            del self.sessions[session.id]
            self._hub.close_topic(session.topic)


def _ignore(session: LocalSession, connection: Connection) -> None:
    """Nobody wants to know."""


def takes_protobuf(connection: Connection) -> bool:
    """Whether a connection's messages are protobuf and not JSON."""
    return connection.encoding == ENCODING_PROTOBUF
