"""A proxy before Redis that closes the connection at a chosen moment."""

import contextlib
import socket
import threading
from pathlib import Path


class CuttingProxy:
    """Forwards a Unix socket to another one.

    `cut_next_reply` lets the next request through to Redis, waits for its reply, and closes the
    connection instead of handing the reply on: Redis has done it, and the client does not know.
    """

    def __init__(self, path: Path, upstream: Path) -> None:
        self._upstream = upstream
        self._cut = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.url = f"unix://{path}"
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next_reply(self) -> None:
        """Lose the next reply and the connection with it."""
        self._cut.set()

    def close(self) -> None:
        """Close everything."""
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._upstream))
                self._sockets += [client, server]
                threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def _answer(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self._cut.is_set():
                    self._cut.clear()
                    self.cuts += 1
                    break
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
