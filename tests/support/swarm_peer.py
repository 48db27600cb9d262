"""A small WebSocket server on threads, for tests of the client swarm.

wsproto speaks the protocol, so the swarm is judged by somebody else's reading of RFC 6455. What the
server says is decided by a `respond` function that gets each text message. A POST instead of a
handshake goes to `respond` as well, with its body, on a wire that is not a WebSocket.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

Respond = Callable[["Peer", "Wire", str], None]
SECONDS = 10.0
"""Bound of every wait; nothing waits so long unless a test fails."""


class Wire:
    """One accepted connection, seen from the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.ws = WSConnection(ConnectionType.SERVER)
        self.events: list[Event] = []
        self.lock = threading.Lock()

    def send(self, text: str) -> None:
        self.emit(Message(text))

    def ping(self, payload: bytes) -> None:
        self.emit(Ping(payload))

    def close(self, code: int) -> None:
        self.emit(CloseConnection(code))

    def emit(self, event: Event) -> None:
        with self.lock:
            self.sock.sendall(self.ws.send(event))

    def raw(self, data: bytes, chunk: int = 0) -> None:
        """Bytes as they are, in pieces of `chunk` that leave one by one."""
        with self.lock:
            for at in range(0, len(data), chunk or len(data)):
                self.sock.sendall(data[at : at + (chunk or len(data))])


class Peer:
    """Listens on a free loopback port while the block runs."""

    def __init__(self, respond: Respond, *, reject: int = 0, deaf: bool = False) -> None:
        self.respond = respond
        self.reject = reject
        self.hear = threading.Event()
        if not deaf:
            self.hear.set()
        self.wires: list[Wire] = []
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hear.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for wire in list(self.wires):
            _hang_up(wire.sock)
        for thread in list(self.threads):
            thread.join(SECONDS)

    def events(self, kind: type[Event]) -> list[Event]:
        return [event for wire in self.wires for event in wire.events if isinstance(event, kind)]

    def await_events(self, kind: type[Event], count: int) -> list[Event]:
        """Wait until `count` events of one kind have come in over all wires."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.events(kind)) >= count, SECONDS)
        return self.events(kind)

    def broadcast(self, text: str) -> None:
        """Send to every connected client."""
        for wire in list(self.wires):
            with suppress(OSError, LocalProtocolError):
                wire.send(text)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            first = sock.recv(65536)
            if first.startswith(b"POST"):
                self._answer_post(sock, first)
                return
            wire = Wire(sock)
            wire.ws.receive_data(first)
            while self._handle(wire) and self.hear.wait(SECONDS):
                data = sock.recv(65536)
                wire.ws.receive_data(data or None)
        except (OSError, RemoteProtocolError):
            pass
        finally:
            _hang_up(sock)

    def _handle(self, wire: Wire) -> bool:
        """Everything that is there; False when the connection is over."""
        for event in wire.ws.events():
            self._note(wire, event)  # first: the client may act as soon as it is answered
            if isinstance(event, Request) and self.reject:
                wire.emit(RejectConnection(status_code=self.reject))
                return False
            if isinstance(event, Request):
                wire.emit(AcceptConnection())
            elif isinstance(event, Ping):
                wire.emit(event.response())
            if isinstance(event, CloseConnection):
                return False
            if isinstance(event, TextMessage) and event.message_finished:
                self.respond(self, wire, event.data)
        return True

    def _note(self, wire: Wire, event: Event) -> None:
        if isinstance(event, Pong | TextMessage | BytesMessage | CloseConnection | Request):
            with self.changed:
                if isinstance(event, Request):
                    self.wires.append(wire)
                wire.events.append(event)
                self.changed.notify_all()

    def _answer_post(self, sock: socket.socket, request: bytes) -> None:
        body = request.partition(b"\r\n\r\n")[2] or sock.recv(65536)
        self.respond(self, Wire(sock), body.decode())
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()
