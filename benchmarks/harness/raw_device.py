"""One device on a plain socket, for counting the bytes of each frame as the server wrote it.

Speaks both subprotocols, with and without permessage-deflate, and knows the length of every frame
with its header. Blocking, and for a handful of messages: the swarm is for load.
"""

import json
import os
import socket
import zlib
from types import TracebackType
from typing import Any, NamedTuple, Self

from google.protobuf.message import Message

from syncbridge.proto.syncbridge.v1 import syncbridge_pb2 as pb
from syncbridge_core.swarm import KEY

TIMEOUT = 10.0
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
AUTH, SNAPSHOT_REQUEST = 7, 3
COMPRESSED = 0x40
TAIL = b"\x00\x00\xff\xff"
Dict = dict[str, Any]


class Received(NamedTuple):
    """A message. `kind`: its type; `size`: bytes of its frame; `content`: a dict or Envelope."""

    kind: int
    size: int
    compressed: bool
    content: Any


class RawDevice:
    """A connection after its handshake. Raises OSError, TimeoutError among them."""

    def __init__(self, port: int, *, protobuf: bool = False, deflate: bool = False) -> None:
        self.protobuf = protobuf
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        self._socket.sendall(_upgrade(port, protobuf, deflate))
        head = b"".join(iter(self._stream.readline, b"\r\n"))
        if b" 101 " not in head or deflate != (b"permessage-deflate" in head):
            raise OSError(f"the handshake was answered with {head!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, kind: int, payload: Dict) -> None:
        """One message. As protobuf AUTH and SNAPSHOT_REQUEST only."""
        if self.protobuf:
            self._write(BINARY, _envelope(kind, payload).SerializeToString())
        else:
            self._write(TEXT, json.dumps({"type": kind, "payload": payload}).encode())

    def receive(self, kind: int) -> Received:
        """The next message of that type; others are dropped."""
        while True:
            found = self._read()
            if found.kind == kind:
                return found

    def _write(self, opcode: int, data: bytes) -> None:
        mask = os.urandom(4)
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        masked = bytes(byte ^ mask[n & 3] for n, byte in enumerate(data))
        self._socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def _read(self) -> Received:
        first, second = self._exactly(2)
        size, header = second & 127, 2
        if size >= 126:
            extended = 2 if size == 126 else 8
            size, header = int.from_bytes(self._exactly(extended), "big"), 2 + extended
        data = self._exactly(size)
        opcode, compressed = first & 15, bool(first & COMPRESSED)
        if opcode == CLOSE:
            raise OSError(f"the server closed the connection: {data!r}")
        if opcode == PING:
            return Received(-1, header + size, False, None)
        if compressed:
            data = zlib.decompressobj(-15).decompress(data + TAIL)
        if opcode == BINARY:
            envelope = pb.Envelope.FromString(data)
            return Received(envelope.type, header + size, compressed, envelope)
        message = json.loads(data)
        return Received(message["type"], header + size, compressed, message)

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise OSError("the connection has ended")
        return data


def _upgrade(port: int, protobuf: bool, deflate: bool) -> bytes:
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    if protobuf:
        lines.append("Sec-WebSocket-Protocol: syncbridge.proto.v1")
    if deflate:
        lines.append("Sec-WebSocket-Extensions: permessage-deflate")
    return "\r\n".join([*lines, "", ""]).encode()


def _envelope(kind: int, payload: Dict) -> Message:
    envelope = pb.Envelope(type=pb.MessageType.Name(kind))
    if kind == AUTH:
        envelope.auth.CopyFrom(pb.Auth(**payload))
    elif kind == SNAPSHOT_REQUEST:
        envelope.snapshot_request.SetInParent()
    return envelope
