"""Who has the places of an HTTP/2 connection and of its requests.

The request of a stream has a place of its own, which it loses alone. The connection has one, and
what it does is what its streams do: it works while an application works for it, or a WebSocket is
open in it; once every stream only waits for the client, so does the connection, and it may have to
give way as any other one. One of them that is being answered gives it the time of `uptake`.
"""

import trio

from syncbridge_server.listener.capacity import Occupant
from syncbridge_server.listener.uptake import Uptake


class ConnectionPlaces:
    """What the streams of one connection do.

    Args:
        connection: has the place of the connection.
        reading: is cancelled when it has to give way.

    Attributes:
        uptake: how the client takes what the streams have for it.
    """

    def __init__(self, connection: Occupant, reading: trio.CancelScope) -> None:
        self._connection = connection
        self._reading: trio.CancelScope | None = reading
        self._working: set[object] = set()
        self._stalled: set[object] = set()
        self.uptake = Uptake()

    def work(self, stream: object) -> None:
        """A stream is worked on."""
        self._stalled.discard(stream)
        self._working.add(stream)
        self.review()

    def stall(self, stream: object) -> None:
        """The answer of a stream waits to be taken."""
        self._working.discard(stream)
        self._stalled.add(stream)
        self.review()

    def wait(self, stream: object, anew: bool = True) -> None:
        """A stream waits to be sent something, or is gone. For `anew` see `Occupant.wait`."""
        self._working.discard(stream)
        self._stalled.discard(stream)
        self.review(anew)

    def review(self, anew: bool = True) -> None:
        """Have the connection do what its streams do."""
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
        """Whose place the connection is."""
        return self._connection.holder

    def belong(self, user: str) -> None:
        """A user is known who uses the connection: it counts for no address any more."""
        self._connection.belong(user)

    def close(self) -> None:
        """The connection is over: from now on it waits, whatever its streams do."""
        self._reading = None
        self._connection.wait()


class StreamOccupant(Occupant):
    """Whoever has the place of the request of one stream.

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
        """The stream needs no place any more."""
        self.leave_all()
        self._streams.wait(self)
