"""The client side of a hub for tests: masked frames, and peers on socket pairs."""

import contextlib
import resource
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from syncbridge_core.hub import EVENT_CLOSED, Hub, HubLimits

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
START = 1_000_000
"""The first `now` of every test, ms."""

Event = tuple[int, int, bytes, int]


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Room for so many, where the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    """Payload as a client puts it on the wire (RFC 6455 section 5.3)."""
    return bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    mask: bytes | None = MASK,
    length_bytes: int | None = None,
) -> bytes:
    """A frame of a client. `length_bytes` 0, 2 or 8 forces a form of the length; mask None omits
    the mask."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    flag = 0x80 if mask is not None else 0
    first = bytes([fin << 7 | reserved << 4 | opcode])
    if length_bytes == 0:
        header = first + bytes([flag | size])
    elif length_bytes == 2:
        header = first + bytes([flag | 126]) + struct.pack(">H", size)
    else:
        header = first + bytes([flag | 127]) + struct.pack(">Q", size)
    return header + payload if mask is None else header + mask + masked(payload, mask)


def server_frames(data: bytes, deflate: bool = False) -> list[tuple[int, bytes]]:
    """Opcode and payload of each frame that the hub wrote; whole, unmasked frames only.

    With `deflate` a frame may be compressed; its opcode has 64 (RSV1) added.
    """
    frames = []
    while data:
        first, size = data[0], data[1]
        assert (first & (0xB0 if deflate else 0xF0), size & 0x80) == (0x80, 0), "one final frame"
        start = 2
        if size == 126:
            (size,), start = struct.unpack_from(">H", data, 2), 4
        elif size == 127:
            (size,), start = struct.unpack_from(">Q", data, 2), 10
        assert len(data) >= start + size, "a whole frame"
        frames.append((first & 0x4F, data[start : start + size]))
        data = data[start + size :]
    return frames


def close_payload(code: int, reason: str = "") -> bytes:
    """Body of a close frame (section 5.5.1)."""
    return struct.pack(">H", code) + reason.encode()


@dataclass
class Peer:
    """The other end of one adopted connection."""

    socket: socket.socket
    cid: int

    def send(self, data: bytes) -> None:
        """All of `data`, blocking."""
        self.socket.sendall(data)

    def received(self) -> bytes:
        """What has arrived; empty when nothing has, or at the end of the stream."""
        data = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while part := self.socket.recv(1 << 20, socket.MSG_DONTWAIT):
                data += part
        return data

    def frames(self, deflate: bool = False) -> list[tuple[int, bytes]]:
        """The frames that have arrived."""
        return server_frames(self.received(), deflate)

    def ended(self) -> bool:
        """Whether the hub has closed the stream and everything before has been read."""
        try:
            return self.socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
        except ConnectionResetError:
            return True
        except BlockingIOError:
            return False


@dataclass
class Harness:
    """A hub, its clock and its peers."""

    hub: Hub
    now: int = START
    peers: list[Peer] = field(default_factory=list)

    def peer(
        self,
        encoding: int = 0,
        initial: bytes = b"",
        bridged: bool = False,
        send_buffer: int | None = None,
        deflate: bool = False,
        unfold: int = 0,
    ) -> Peer:
        """Adopt one end of a new socket pair; `send_buffer` makes the hub's end small."""
        ours, theirs = socket.socketpair()
        if send_buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        fd = ours.detach()
        cid = self.hub.adopt(fd, self.now, encoding, initial, bridged, deflate, unfold)
        self.peers.append(Peer(theirs, cid))
        return self.peers[-1]

    def poll(self, later: int = 0, max_events: int = 2048) -> list[Event]:
        """Move the clock on and poll once."""
        self.now += later
        return self.hub.poll(self.now, max_events)

    def closed(self, later: int = 0) -> list[tuple[int, bytes, int]]:
        """(cid, reason, code) of the connections that a poll reports as closed."""
        return [(c, data, aux) for kind, c, data, aux in self.poll(later) if kind == EVENT_CLOSED]


@contextlib.contextmanager
def hub_harness(limits: HubLimits | None = None) -> Iterator[Harness]:
    """A harness that closes everything at the end."""
    harness = Harness(Hub(limits if limits is not None else HubLimits()))
    try:
        yield harness
    finally:
        harness.hub.shutdown()
        for peer in harness.peers:
            peer.socket.close()
