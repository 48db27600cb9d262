"""Sockets of the HTTP engine: what must not be lost when one wait and one sender serve them all."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import trio
import trio.testing

from syncbridge_server.listener.capacity import Occupant
from syncbridge_server.listener.fast.limits import READ_BYTES, TOGETHER_BYTES, TURN_CONNECTIONS
from syncbridge_server.listener.fast.outbox import Outbox
from syncbridge_server.listener.fast.readiness import Readiness
from syncbridge_server.listener.fast.transport import Gone, Transport

DEADLINE = 10.0


class Bench(NamedTuple):
    """A transport, and the socket of its peer, which does not block."""

    transport: Transport
    peer: socket.socket

    async def read(self, size: int) -> bytes:
        """So many bytes, as the peer sees them."""
        data = b""
        while len(data) < size:
            await trio.lowlevel.wait_readable(self.peer)
            piece = self.peer.recv(size - len(data))
            if not piece:
                break
            data += piece
        return data

    def fill(self) -> int:
        """Send until the peer takes no more; returns how many bytes that were."""
        sent = 0
        while True:
            try:
                sent += self.transport.sock.send(b"." * 4096)
            except BlockingIOError:
                return sent


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    mine, peer = socket.socketpair()
    readiness, outbox = Readiness(), Outbox()
    for one in (mine, peer):
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with mine, peer, trio.fail_after(DEADLINE):
        transport = Transport(readiness, outbox, mine, b"", 5.0, Occupant())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readiness.run)
            nursery.start_soon(outbox.run)
            yield Bench(transport, peer)
            nursery.cancel_scope.cancel()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def test_bytes_that_came_while_nobody_waited() -> None:
    """Their event is long past when the reader comes."""
    async with bench() as one:
        one.peer.send(b"a")
        await trio.testing.wait_all_tasks_blocked()

        assert b"a" == await one.transport.read()


async def test_bytes_that_did_not_fit_into_one_read() -> None:
    """There is one event for all of them."""
    async with bench() as one:
        one.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_BYTES)
        size = one.peer.send(bytes(READ_BYTES + 1000))
        assert size > READ_BYTES
        got = [len(await one.transport.read()), len(await one.transport.read())]

        assert [READ_BYTES, size - READ_BYTES] == got


@pytest.mark.parametrize("waits", [False, True])
async def test_an_end_that_came_with_the_last_bytes(waits: bool) -> None:
    """One event for both: the bytes first, then the end, and again the end."""
    async with bench() as one:
        if not waits:
            one.peer.send(b"last")
            one.peer.shutdown(socket.SHUT_WR)
            await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            got: list[bytes] = []

            async def reader() -> None:
                got.extend([await one.transport.read() for _ in range(3)])

            nursery.start_soon(reader)
            if waits:
                await trio.testing.wait_all_tasks_blocked()
                one.peer.send(b"last")
                one.peer.shutdown(socket.SHUT_WR)

        assert [b"last", b"", b""] == got


async def test_a_read_that_was_cancelled_loses_nothing() -> None:
    """Whoever reads next gets what came meanwhile."""
    async with bench() as one:
        with trio.move_on_after(0):
            await one.transport.read()
        one.peer.send(b"a")
        await turns()

        assert b"a" == await one.transport.read()


async def test_a_peer_that_resets_is_gone() -> None:
    """Not an end of the stream."""
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as peer:
        mine, _ = server.accept()
        with mine:
            mine.setblocking(False)
            readiness = Readiness()
            transport = Transport(readiness, Outbox(), mine, b"", 5.0, Occupant())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(readiness.run)
                with pytest.raises(Gone):
                    await transport.read()
                nursery.cancel_scope.cancel()


async def test_deferred_answers_leave_by_themselves() -> None:
    """Nobody has to read or write for it, and not before the turn is over."""
    async with bench() as one:
        assert one.transport.defer(b"ab")
        assert one.transport.defer(b"cd")
        with pytest.raises(BlockingIOError):
            one.peer.recv(1)

        assert b"abcd" == await one.read(4)


async def test_what_is_written_comes_behind_what_was_deferred() -> None:
    """Answers keep their order, whichever way each goes."""
    async with bench() as one:
        assert one.transport.defer(b"first ")
        await one.transport.write(b"second")

        assert b"first second" == await one.read(12)
        assert not one.transport.defer(bytes(TOGETHER_BYTES + 1))


async def test_a_peer_that_does_not_take_its_answer_gets_it_later() -> None:
    """What is left is sent while the connection waits for the next request."""
    async with bench() as one:
        before = one.fill()
        assert one.transport.defer(b"answer")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.transport.read)
            await trio.testing.wait_all_tasks_blocked()
            data = await one.read(before + 6)
            nursery.cancel_scope.cancel()

        assert data[before:] == b"answer"


async def test_an_answer_is_sent_before_the_end_of_the_stream_is_told() -> None:
    """A client that closes its side after the request still gets the answer."""
    async with bench() as one:
        before = one.fill()
        one.peer.shutdown(socket.SHUT_WR)
        assert one.transport.defer(b"answer")
        async with trio.open_nursery() as nursery:
            ends: list[bytes] = []

            async def reader() -> None:
                ends.append(await one.transport.read())

            nursery.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            assert not ends
            assert (await one.read(before + 6))[before:] == b"answer"

        assert [b""] == ends


async def test_an_answer_that_nobody_takes_ends_the_connection(autojump_clock: object) -> None:
    """The write timeout holds for deferred answers too."""
    async with bench() as one:
        one.fill()
        assert one.transport.defer(b"answer")
        with pytest.raises(Gone):
            await one.transport.read()

        assert one.transport.broken
        assert not one.transport.defer(b"more")


async def test_what_is_let_go_is_sent_first() -> None:
    """Whoever takes the socket over begins behind our last answer."""
    async with bench() as one:
        assert one.transport.defer(b"ab")
        one.transport.release()
        one.transport.sock.send(b"c")

        assert b"abc" == await one.read(3)
        one.transport.release()


async def test_many_ready_connections_leave_turns_to_others() -> None:
    """Everybody is served, in portions, and another task runs in between."""
    count, turns_seen = 5 * TURN_CONNECTIONS, list[str]()
    readiness = Readiness()
    pairs = [socket.socketpair() for _ in range(count)]
    transports = []
    for mine, peer in pairs:
        mine.setblocking(False)
        transports.append(Transport(readiness, Outbox(), mine, b"", 5.0, Occupant()))
        peer.send(b"x")

    async def reader(transport: Transport) -> None:
        assert b"x" == await transport.read()
        turns_seen.append("r")

    async def other() -> None:
        while turns_seen.count("r") < count:
            turns_seen.append("o")
            await trio.lowlevel.checkpoint()

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readiness.run)
            async with trio.open_nursery() as readers:
                for transport in transports:
                    readers.start_soon(reader, transport)
                readers.start_soon(other)
            nursery.cancel_scope.cancel()
    for mine, peer in pairs:
        mine.close()
        peer.close()

    portions = [len(portion) for portion in "".join(turns_seen).split("o")]
    assert sum(portions) == count
    assert max(portions) <= 2 * TURN_CONNECTIONS
