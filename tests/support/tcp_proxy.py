"""A TCP proxy before a server, to cut, silence and refuse connections; threads, for any loop."""

import contextlib
import socket
import threading

HOLD_SECONDS = 60.0


class TcpProxy:
    """Forwards 127.0.0.1:`port` to `upstream`, which may change.

    `deaf`: what the server answers is thrown away. `mute`: what the client says is. What is in
    `holding` ("deaf", "mute") is kept instead, and passes later; `held`: so many chunks of it are
    here, the rest is in the sockets. `cut()` closes every connection; while `refusing`, new ones
    are closed at once.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.deaf = False
        self.mute = False
        self.refusing = False
        self.held = 0
        self._holding: frozenset[str] = frozenset()
        self._moved = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> "TcpProxy":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self.cut()

    @property
    def holding(self) -> frozenset[str]:
        """What is kept."""
        return self._holding

    @holding.setter
    def holding(self, what: frozenset[str]) -> None:
        with self._moved:
            self._holding = what
            self._moved.notify_all()

    def cut(self) -> None:
        """Close every connection without a word."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open(client)

    def _open(self, client: socket.socket) -> None:
        try:
            if self.refusing:
                raise OSError
            server = socket.create_connection(("127.0.0.1", self.upstream), 5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._sockets += [client, server]
        for source, target, lost in ((client, server, "mute"), (server, client, "deaf")):
            arguments = (source, target, lost)
            threading.Thread(target=self._copy, args=arguments, daemon=True).start()

    def _hold(self, lost: str) -> None:
        with self._moved:
            self.held += lost in self._holding
            self._moved.wait_for(lambda: lost not in self._holding, HOLD_SECONDS)
            self.held = 0

    def _copy(self, source: socket.socket, target: socket.socket, lost: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._hold(lost)
                if not getattr(self, lost):
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
