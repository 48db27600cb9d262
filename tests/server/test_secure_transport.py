"""TLS on the engine's sockets: what memory buffers must not lose, and how long they may grow."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from support.listener.listener_site import certificate
from syncbridge_server.listener.capacity import Occupant
from syncbridge_server.listener.fast.outbox import Outbox
from syncbridge_server.listener.fast.readiness import Readiness
from syncbridge_server.listener.fast.secure import SecureTransport
from syncbridge_server.listener.fast.transport import Gone

DEADLINE = 10.0


class Peer:
    """The client's side, whose bytes a test moves by hand."""

    def __init__(self, sock: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    async def shake(self, pace: int) -> None:
        """The handshake, sent in pieces of `pace` bytes."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(self.outgoing.read(), pace)
                await trio.lowlevel.wait_readable(self.sock)
                self.incoming.write(self.sock.recv(65_536))
            else:
                await self.send(self.outgoing.read(), pace)
                return

    async def send(self, data: bytes, pace: int = 65_536) -> None:
        for at in range(0, len(data), pace):
            await trio.lowlevel.wait_writable(self.sock)
            self.sock.send(data[at : at + pace])
            await trio.lowlevel.checkpoint()

    def sealed(self, *parts: bytes) -> bytes:
        """Each part as a record of its own."""
        for part in parts:
            self.tls.write(part)
        return self.outgoing.read()

    async def read(self) -> bytes:
        """What comes next; empty after close_notify."""
        while True:
            try:
                return self.tls.read(65_536)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.sock)
                data = self.sock.recv(65_536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            except ssl.SSLZeroReturnError:
                return b""


@asynccontextmanager
async def bench(folder: Path, pace: int = 65_536) -> AsyncIterator[tuple[SecureTransport, Peer]]:
    """A transport whose handshake is done, and its peer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))
    mine, theirs = socket.socketpair()
    readiness, outbox = Readiness(), Outbox()
    for one in (mine, theirs):
        one.setblocking(False)
    with mine, theirs, trio.fail_after(DEADLINE):
        transport = SecureTransport(readiness, outbox, mine, b"", 5.0, Occupant(), context)
        peer = Peer(theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readiness.run)
            async with trio.open_nursery() as shaking:
                shaking.start_soon(transport.handshake)
                shaking.start_soon(peer.shake, pace)
            yield transport, peer
            transport.release()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("pace", [1, 7, 1_000])
async def test_bytes_in_any_split(tmp_path: Path, pace: int) -> None:
    """Records are put together, and come out in order."""
    async with bench(tmp_path, pace) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.send, peer.sealed(b"a", b"bc", b"d" * 3_000), pace)
        data = b""
        while len(data) < 3_003:
            data += await transport.read()

    assert data == b"abc" + b"d" * 3_000


async def test_records_that_came_together(tmp_path: Path) -> None:
    """Each read gives what is decrypted, without waiting for the socket again."""
    async with bench(tmp_path) as (transport, peer):
        await peer.send(peer.sealed(b"a", b"b", b"c"))

        assert [b"a", b"b", b"c"] == [await transport.read() for _ in range(3)]


async def test_an_answer_larger_than_every_buffer(tmp_path: Path) -> None:
    """It arrives whole, then close_notify."""
    async with bench(tmp_path) as (transport, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            await transport.write(b"x" * 3_000_000)
            await transport.end()

        nursery.start_soon(answer)
        size = 0
        while data := await peer.read():
            size += len(data)
        peer.sock.close()

    assert size == 3_000_000


async def test_whether_the_peer_has_ended(tmp_path: Path) -> None:
    """Not while it is silent, nor within a record; what it sent is kept; with close_notify, yes."""
    async with bench(tmp_path) as (transport, peer):
        silent = transport.ended()
        record = peer.sealed(b"abc")
        await peer.send(record[:4])
        within = transport.ended()
        await peer.send(record[4:])
        sent = transport.ended()
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        await peer.send(peer.outgoing.read())

        assert [False] * 3 == [silent, within, sent]
        assert b"abc" == transport.buffer
        assert transport.ended()
        assert b"" == await transport.read()


async def test_an_end_without_close_notify_is_no_end(tmp_path: Path) -> None:
    """Something may be missing."""
    async with bench(tmp_path) as (transport, peer):
        await peer.send(peer.sealed(b"abc"))
        peer.sock.shutdown(socket.SHUT_WR)

        assert b"abc" == await transport.read()
        with pytest.raises(Gone):
            await transport.read()
        assert transport.ended()


async def test_bytes_that_are_no_record(tmp_path: Path) -> None:
    """The peer is told by an alert."""
    async with bench(tmp_path) as (transport, peer):
        await peer.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(Gone):
            await transport.read()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.end)
            with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
                await peer.read()
            peer.sock.close()


async def test_a_read_that_was_cancelled_loses_nothing(tmp_path: Path) -> None:
    """Also half a record is still there."""
    async with bench(tmp_path) as (transport, peer):
        record = peer.sealed(b"abc")
        await peer.send(record[:4])
        with trio.move_on_after(0):
            await transport.read()
        await peer.send(record[4:])

        assert b"abc" == await transport.read()


async def test_a_cut_answer_is_not_announced(tmp_path: Path) -> None:
    """After `abort` nothing more is said, whoever ends the connection."""
    async with bench(tmp_path) as (transport, peer):
        await transport.write(b"half")
        transport.abort()
        await transport.end()
        transport.sock.close()

        assert b"half" == await peer.read()
        with pytest.raises(ssl.SSLError):
            await peer.read()


async def test_nothing_is_deferred(tmp_path: Path) -> None:
    """What is encrypted must leave in its order."""
    async with bench(tmp_path) as (transport, _):
        assert not transport.defer(b"a")
