"""One WebSocket as the gateway sees it. The socket itself belongs to the hub."""

from collections.abc import Callable
from enum import IntEnum
from sys import intern

from syncbridge import ids
from syncbridge.encode import NOWHERE, EnvelopeAddress
from syncbridge.ephemeral import Values
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.protocol import BehindAuth, State
from syncbridge.records.streams import Stream
from syncbridge.session import Session

NOTHING: Values = {}


class Alarm(IntEnum):
    """What the connection's current deadline is for."""

    NONE = 0
    AUTH = 1
    WARN = 2
    EXPIRE = 3


class Connection:
    """State of one connection.

    Attributes:
        cid: the hub's number.
        client: peer address, for logs. encoding: the hub's ENCODING_*.
        waiting: its AUTH has not been accepted yet. behind: what came after that AUTH.
        connected_at: when the socket came, Unix ms.
        info: metadata of the device as it is stored (JSON).
        leave_reason: the reason that other devices will see in DEVICE_LEFT.
        refused: its AUTH was refused or its token revoked, so it is about to close; its messages
            are dropped.
        gone: its socket has closed while messages still wait behind an AUTH; its departure follows
            them.
        fence: its number among the connections of its session, 0 before it has joined.
        stream: the queue of its updates, if it numbers them.
        me: its ephemeral values; replaced, never changed.
        resets: `Session.resets` when it last received a state.
        on_known: called once its AUTH was valid.
        released: its device has handed the session over: it may read, but write only after a new
            AUTH.
    """

    __slots__ = (
        "_node",
        "alarm",
        "behind",
        "cid",
        "client",
        "connected_at",
        "device_id",
        "encoding",
        "fence",
        "gone",
        "identity",
        "info",
        "leave_reason",
        "me",
        "on_known",
        "refused",
        "released",
        "resets",
        "session",
        "state",
        "stream",
        "waiting",
    )

    def __init__(self, cid: int, node: str, client: str, encoding: int) -> None:
        self.cid = cid
        self._node = node
        self.client = intern(client)  # many have the same
        self.connected_at = 0
        self.encoding = encoding
        self.state = State.NEW
        self.waiting = True
        self.behind: BehindAuth | None = None
        self.alarm = Alarm.NONE
        self.identity: Identity | None = None
        self.session: Session[Connection] | None = None
        self.device_id = ""
        self.info = b"{}"
        self.leave_reason = "disconnected"
        self.fence = 0
        self.released = False
        self.resets = 0
        self.stream: Stream | None = None
        self.me = NOTHING
        self.refused = False
        self.gone = False
        self.on_known: Callable[[], None] | None = None

    @property
    def id(self) -> str:
        """Its id, unique over all nodes; Redis stores it with the device."""
        return f"{self._node}:{self.cid:x}"

    @property
    def address(self) -> EnvelopeAddress:
        """The envelope fields of answers to it."""
        if self.session is None or self.identity is None or not self.fence:
            return NOWHERE
        owner = self.session.owner or self.identity.user_id
        return EnvelopeAddress(self.session.id, owner, self.device_id)

    def tell_known(self) -> None:
        """Call `on_known`, once: its AUTH was valid."""
        told, self.on_known = self.on_known, None
        if told is not None:
            told()

    def require_here(self, session_id: str | None, device_id: str | None) -> None:
        """Check that a message names the session and device of this socket, or none.

        Raises WRONG_SESSION, WRONG_DEVICE, and INVALID_FIELD for what is no session id.
        """
        session = self.session
        if session_id and session is not None and ids.session_id(session_id) != session.id:
            raise SyncBridgeError(
                ErrorCode.WRONG_SESSION, f"session_id: this socket is in session {session.id}"
            )
        if device_id and device_id != self.device_id:
            raise SyncBridgeError(
                ErrorCode.WRONG_DEVICE, f"device_id: this socket is device {self.device_id}"
            )


LocalSession = Session[Connection]
