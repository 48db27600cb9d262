"""The places of an HTTP/2 connection and of its requests.

Each stream's request has a place of its own, and can be evicted alone. The connection has one, and
its state follows its streams: it works while an application runs or a WebSocket is open; once every
stream only waits for the client, so does the connection, and it may have to give way like any
other. While one of them is being answered, it has the time of `uptake`.
"""

import trio

from syncbridge_server.listener.capacity import Occupant
from syncbridge_server.listener.uptake import Uptake


class ConnectionPlaces:
    """The state of a connection, from its streams.

    Args:
        connection: holds the connection's place. reading: cancelled when it has to give way.

    Attributes:
        uptake: how well the client reads its answers.
    """

    def __init__(self, connection: Occupant, reading: trio.CancelScope) -> None:
        self._connection = connection
        self._reading: trio.CancelScope | None = reading
        self._working: set[object] = set()
        self._stalled: set[object] = set()
        self.uptake = Uptake()

    def work(self, stream: object) -> None:
        """A stream's application works."""
        self._stalled.discard(stream)
        self._working.add(stream)
        self.review()

    def stall(self, stream: object) -> None:
        """A stream's answer waits for its client to read."""
        self._working.discard(stream)
        self._stalled.add(stream)
        self.review()

    def wait(self, stream: object, anew: bool = True) -> None:
        """A stream waits for bytes from its client, or is gone. For `anew` see `Occupant.wait`."""
        self._working.discard(stream)
        self._stalled.discard(stream)
        self.review(anew)

    def review(self, anew: bool = True) -> None:
        """Set the connection's state from its streams."""
        if self._reading is None:
            return
        if self._working:
            self._connection.work()
        elif self._stalled:
            self._connection.waiting = False
            self._connection.stall(self._reading, self.uptake.spent)
        else:
            self._connection.wait(self._reading, anew)

    @property
    def holder(self) -> str:
        """The holder of the connection."""
        return self._connection.holder

    def belong(self, user: str) -> None:
        """A user of the connection has authenticated: it no longer counts for an address."""
        self._connection.belong(user)

    def close(self) -> None:
        """The connection ends: from now on it waits, whatever its streams do."""
        self._reading = None
        self._connection.wait()


class StreamOccupant(Occupant):
    """Holds the place of one stream's request.

    Attributes:
        answered: the application has sent all of its answer.
        refused: a refusal is the answer.
    """

    __slots__ = ("_streams", "answered", "refused")

    def __init__(self, places: ConnectionPlaces, reserved: bool) -> None:
        super().__init__(reserved, places.holder)
        self._streams = places
        self.answered = self.refused = False
        places.work(self)

    def wait(self, scope: trio.CancelScope | None = None, anew: bool = True) -> None:
        super().wait(scope, anew)
        self._streams.wait(self, anew)

    def stall(self, scope: trio.CancelScope | None = None, spent: bool = False) -> None:
        super().stall(scope, spent)
        if not self.waiting:
            self._streams.stall(self)

    def work(self) -> None:
        super().work()
        self._streams.work(self)

    def belong(self, name: str, known: bool = True) -> None:
        super().belong(name, known)
        if known:
            self._streams.belong(name)

    def end(self) -> None:
        """The stream no longer needs a place."""
        self.leave_all()
        self._streams.wait(self)
