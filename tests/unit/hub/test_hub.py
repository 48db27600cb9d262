"""The hub as its caller sees it: adopting, messages, topics, bounds, and the end."""

import errno
import gc
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hub_kit import (
    BINARY,
    START,
    TEXT,
    Event,
    client_frame,
    descriptors,
    hub_harness,
    masked,
    server_frames,
)
from syncbridge_core.connections import CONNECTION_BYTES, EVENT_BYTES
from syncbridge_core.hub import (
    ENCODING_PROTOBUF,
    EVENT_CLOSED,
    EVENT_LIMITED,
    EVENT_MESSAGE,
    Hub,
    HubLimits,
)


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_messages_become_events() -> None:
    """Text and binary messages of several connections come in one batch, in order for each."""
    with hub_harness() as harness:
        one, two = harness.peer(), harness.peer()
        one.send(client_frame(TEXT, b"a") + client_frame(BINARY, b"\xff"))
        two.send(client_frame(TEXT, b"c"))

        events = harness.poll()

        assert (EVENT_MESSAGE, two.cid, b"c", TEXT) in events
        assert [event for event in events if event[1] == one.cid] == [
            (EVENT_MESSAGE, one.cid, b"a", TEXT),
            (EVENT_MESSAGE, one.cid, b"\xff", BINARY),
        ]
        assert len(events) == 3


def test_a_message_that_is_refunded_does_not_count() -> None:
    """Its token goes back; more than the burst is never there, and a closed cid is no fault."""
    with hub_harness(HubLimits(rate_per_second=1, rate_burst=2)) as harness:
        peer, hub = harness.peer(), harness.hub
        kinds = []
        for _ in range(4):
            peer.send(client_frame(TEXT, b"a"))
            kinds += [kind for kind, *_ in harness.poll()]
            assert hub.refund(peer.cid)
        assert hub.refund(peer.cid)
        peer.send(client_frame(TEXT, b"b") * 3)
        kinds += [kind for kind, *_ in harness.poll()]

        assert [EVENT_MESSAGE] * 6 + [EVENT_LIMITED] == kinds
        hub.abort(peer.cid)
        assert not hub.refund(peer.cid)


def test_message_over_many_reads() -> None:
    """A message that arrives byte by byte is one event when it is whole."""
    with hub_harness() as harness:
        peer = harness.peer()
        frame = client_frame(TEXT, b"slow but sure")
        for at in range(len(frame) - 1):
            peer.send(frame[at : at + 1])
            assert harness.poll() == []
        peer.send(frame[-1:])

        assert harness.poll() == [(EVENT_MESSAGE, peer.cid, b"slow but sure", TEXT)]


def test_largest_message() -> None:
    """A message of max_message bytes, larger than one read, arrives whole."""
    payload = os.urandom(65536)
    with hub_harness() as harness:
        peer = harness.peer()
        sender = threading.Thread(target=peer.send, args=(client_frame(BINARY, payload),))
        sender.start()
        events: list[Event] = []
        while not events:
            select.select([harness.hub.fileno()], [], [], 5)
            events = harness.poll()
        sender.join()

        assert events == [(EVENT_MESSAGE, peer.cid, payload, BINARY)]


def test_initial_bytes_come_first() -> None:
    """Bytes that came with the handshake are parsed as if they had been read."""
    whole, cut = client_frame(TEXT, b"early"), client_frame(TEXT, b"cut in two")
    with hub_harness() as harness:
        initial = whole + cut[:9]
        peer = harness.peer(initial=initial)
        peer.send(cut[9:])

        assert harness.poll() == [
            (EVENT_MESSAGE, peer.cid, b"early", TEXT),
            (EVENT_MESSAGE, peer.cid, b"cut in two", TEXT),
        ]
        assert initial == whole + cut[:9], "the caller's bytes are not unmasked in place"


def test_initial_bytes_wake_the_caller() -> None:
    """Without any more bytes from the peer, the descriptor says that poll has work."""
    with hub_harness() as harness:
        peer = harness.peer(initial=client_frame(TEXT, b"early"))

        assert select.select([harness.hub.fileno()], [], [], 5)[0]
        assert harness.poll() == [(EVENT_MESSAGE, peer.cid, b"early", TEXT)]


def test_descriptor_is_readable_only_with_work() -> None:
    """fileno() is an epoll descriptor that tells when to poll."""
    with hub_harness() as harness:
        peer = harness.peer()
        poller = select.poll()
        poller.register(harness.hub.fileno(), select.POLLIN)
        assert poller.poll(0) == []

        peer.send(client_frame(TEXT, b"x"))

        assert poller.poll(5000) != []
        assert len(harness.poll()) == 1
        assert poller.poll(0) == []


def test_events_outside_poll_wake_the_caller() -> None:
    """abort() leaves an event for poll and makes the descriptor readable, with nobody left too."""
    with hub_harness() as harness:
        peer = harness.peer()
        assert harness.hub.abort(peer.cid)

        assert select.select([harness.hub.fileno()], [], [], 5)[0]
        assert harness.poll() == [(EVENT_CLOSED, peer.cid, b"", 1006)]
        assert harness.poll() == []
        assert peer.ended()


def test_cids_are_not_reused() -> None:
    """A slot is used again, its cid is not, and the old cid does nothing."""
    with hub_harness() as harness:
        seen = []
        for _ in range(20):
            peer = harness.peer()
            seen.append(peer.cid)
            harness.hub.abort(peer.cid)
        new = harness.peer()
        hub, old = harness.hub, seen[-1]
        topic = hub.open_topic()

        assert len({*seen, new.cid}) == 21
        assert min(seen) > 0
        assert not any([hub.is_open(old), hub.send(old, b"x"), hub.close(old, 1000)])
        assert not any([hub.abort(old), hub.set_deadline(old, 5), hub.set_rate(old, 1, 1)])
        assert not any([hub.subscribe(topic, old), hub.unsubscribe(topic, old)])
        assert (hub.queued(old), hub.last_received(old)) == (0, 0)
        assert hub.is_open(new.cid)
        assert len(harness.closed()) == 20


@pytest.mark.parametrize("cid", [0, 1, (1 << 24) - 1, 1 << 60, (1 << 64) - 1])
def test_cids_that_never_were(cid: int) -> None:
    """Any number is safe as a cid."""
    with hub_harness() as harness:
        harness.peer()

        assert not harness.hub.is_open(cid)
        assert not harness.hub.send(cid, b"x")


def test_lost_connection_is_reported_once() -> None:
    """A socket that ends without a close frame gives one EVENT_CLOSED with 1006."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(client_frame(TEXT, b"last") + client_frame(TEXT, b"cut")[:4])
        peer.socket.close()

        assert harness.poll() + harness.poll() == [
            (EVENT_MESSAGE, peer.cid, b"last", TEXT),
            (EVENT_CLOSED, peer.cid, b"", 1006),
        ]
        assert not harness.hub.is_open(peer.cid)
        assert harness.poll() == []


def test_send_to_a_dead_socket() -> None:
    """A write that fails ends the connection without a signal or an exception."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.socket.close()
        assert harness.hub.send(peer.cid, b"x")

        assert harness.hub.flush() == 0
        assert harness.closed() == [(peer.cid, b"", 1006)]


def test_membership_ends_with_the_connection() -> None:
    """A connection leaves its topics when it is gone, and may subscribe twice without harm."""
    with hub_harness() as harness:
        peer, other = harness.peer(), harness.peer()
        topic = harness.hub.open_topic()
        assert harness.hub.subscribe(topic, peer.cid)
        assert harness.hub.subscribe(topic, peer.cid)
        assert harness.hub.subscribe(topic, other.cid)
        assert harness.hub.topic_size(topic) == 2

        harness.hub.abort(peer.cid)

        assert harness.hub.topic_size(topic) == 1
        assert harness.hub.publish(topic, b"x") == 1
        assert harness.hub.unsubscribe(topic, other.cid)
        assert not harness.hub.unsubscribe(topic, other.cid)
        assert harness.hub.close_topic(topic)
        assert not harness.hub.close_topic(topic)
        assert not harness.hub.subscribe(topic, other.cid)


def test_full_hub_refuses() -> None:
    """Above max_connections adopt raises and the descriptor stays the caller's."""
    with hub_harness(HubLimits(max_connections=1)) as harness:
        first = harness.peer()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with pytest.raises(OSError, match="cannot take") as refused:
                harness.hub.adopt(ours.fileno(), START)
            assert refused.value.errno == errno.EMFILE
            ours.sendall(b"still ours")
            assert theirs.recv(20) == b"still ours"

        harness.hub.abort(first.cid)
        assert harness.hub.is_open(harness.peer().cid)


def test_bad_descriptor_is_refused() -> None:
    """adopt raises OSError for what epoll cannot watch, and loses no slot over it."""
    with hub_harness() as harness, Path("/dev/null").open("rb") as file:
        for fd in (-1, file.fileno()):
            with pytest.raises(OSError, match="cannot take"):
                harness.hub.adopt(fd, START)

        assert harness.hub.statistics().open_connections == 0
        assert harness.hub.is_open(harness.peer().cid)


def test_bad_arguments_raise() -> None:
    """Values that C would misread are refused before they get there."""
    with hub_harness() as harness:
        peer = harness.peer()
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(ValueError, match="encoding"):
            harness.hub.adopt(ours.fileno(), START, 2)
        with pytest.raises(ValueError, match="kind"):
            harness.hub.send(peer.cid, b"x", 4)
        with pytest.raises(ValueError, match="kind"):
            harness.hub.publish(1, b"x", -1)
        with pytest.raises(ValueError, match="close frame"):
            harness.hub.close(peer.cid, 1006)
        with pytest.raises(OverflowError):
            harness.hub.send(peer.cid, b"x", 1, 1 << 64)
        with pytest.raises(ValueError, match="max_message"):
            Hub(HubLimits(max_message=0))
        with pytest.raises(ValueError, match="max_outbox"):
            Hub(HubLimits(max_outbox=1 << 31))


def test_poll_is_bounded_and_loses_nothing() -> None:
    """About max_events come back; the descriptor stays readable until the rest is read."""
    with hub_harness(HubLimits(rate_per_second=0)) as harness:
        peers = [harness.peer() for _ in range(40)]
        for peer in peers:
            peer.send(client_frame(TEXT, b"m") * 20)

        events: list[Event] = []
        polls = 0
        while len(events) < 800:
            assert select.select([harness.hub.fileno()], [], [], 5)[0]
            batch = harness.poll(max_events=50)
            assert 0 < len(batch) < 50 + 700
            events += batch
            polls += 1

        assert polls >= 10
        assert sorted(event[1] for event in events) == sorted(
            p.cid for p in peers for _ in "m" * 20
        )
        assert harness.poll() == []


def test_busy_connection_does_not_starve_others() -> None:
    """One connection with much to read takes its share of a poll and no more."""
    with hub_harness(HubLimits(rate_per_second=0)) as harness:
        busy, quiet = harness.peer(), harness.peer()
        busy.socket.setblocking(False)
        flood = client_frame(TEXT, b"m" * 100) * 100
        for _ in range(1000):
            try:
                busy.socket.send(flood)
            except BlockingIOError:
                break
        quiet.send(client_frame(TEXT, b"q"))

        seen = [event[1] for _ in range(3) for event in harness.poll(max_events=300)]

        assert quiet.cid in seen


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for a few thousand sockets."""
    with descriptors(4096):
        yield


@pytest.mark.usefixtures("many_descriptors")
def test_thousand_connections() -> None:
    """Eleven hundred connections exchange messages, share a broadcast, and close without a leak."""
    before = open_descriptors()
    with hub_harness() as harness:
        peers = [harness.peer() for _ in range(1100)]
        topic = harness.hub.open_topic()
        for number, peer in enumerate(peers):
            harness.hub.subscribe(topic, peer.cid)
            peer.send(client_frame(TEXT, b"%d" % number))
        events: list[Event] = []
        while len(events) < 1100:
            events += harness.poll()
        expected = {(EVENT_MESSAGE, p.cid, b"%d" % n, TEXT) for n, p in enumerate(peers)}
        assert set(events) == expected

        assert harness.hub.publish(topic, b"to all") == 1100
        assert harness.hub.flush() + harness.hub.flush() == 1100
        assert {peer.received() for peer in peers} == {b"\x81\x06to all"}

        for peer in peers:
            peer.socket.close()
        closed: list[tuple[int, bytes, int]] = []
        while len(closed) < 1100:
            closed += harness.closed()
        assert sorted(cid for cid, _, _ in closed) == sorted(peer.cid for peer in peers)
        statistics = harness.hub.statistics()
        assert (statistics.open_connections, statistics.accepted, statistics.closed) == (
            0,
            1100,
            1100,
        )
        assert harness.hub.topic_size(topic) == 0
    assert open_descriptors() == before


def test_slots_are_used_again() -> None:
    """Many short connections do not grow the table: every slot number stays below the peak."""
    with hub_harness() as harness:
        for _ in range(2000):
            peer = harness.peer()
            assert peer.cid & 0xFFFFFF < 300
            harness.hub.send(peer.cid, b"never flushed")
            harness.hub.abort(peer.cid)
            peer.socket.close()
        assert harness.hub.flush() == 0
        assert len(harness.poll()) == 2000


def test_an_idle_connection_is_small() -> None:
    """The C records of an idle connection stay far below 400 bytes."""
    due, dirty, backlog, subscriptions = 8, 4, 4, 16

    assert CONNECTION_BYTES == 192
    assert CONNECTION_BYTES + EVENT_BYTES + due + dirty + backlog + subscriptions < 300


COLLECTS_ANYWHERE = sys.version_info < (3, 12)
"""Whether Python collects garbage where an object is made; since 3.12 only between bytecodes."""


class CallsBack:
    """Part of a reference cycle whose finalizer uses the hub."""

    inside_poll = False

    def __init__(self, hub: Hub, cid: int) -> None:
        self.cycle, self.hub, self.cid = self, hub, cid

    def __del__(self) -> None:
        self.hub.abort(self.cid)
        if self.inside_poll:
            for call in (lambda: self.hub.poll(START), self.hub.shutdown):
                with pytest.raises(RuntimeError, match="inside poll"):
                    call()


def test_finalizers_inside_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection in the middle of poll may abort connections, but not poll or shut down.

    Where Python collects after poll only, it may abort connections there.
    """
    with hub_harness(HubLimits(rate_per_second=0)) as harness:
        busy = harness.peer()
        busy.send(client_frame(TEXT, b"m") * 3000)
        victims = [harness.peer().cid for _ in range(100)]
        for cid in victims:
            CallsBack(harness.hub, cid)

        with monkeypatch.context() as patch:
            patch.setattr(CallsBack, "inside_poll", COLLECTS_ANYWHERE)
            events = harness.poll(max_events=5000)
        gc.collect()
        events += harness.poll()

        assert [event[1] for event in events if event[0] == EVENT_MESSAGE] == [busy.cid] * 3000
        assert sorted(event[1] for event in events if event[0] == EVENT_CLOSED) == victims


def test_statistics_count_traffic() -> None:
    """Bytes, messages, frames and writes are counted as they were."""
    with hub_harness() as harness:
        peer = harness.peer()
        frame = client_frame(TEXT, b"12345")
        peer.send(frame)
        harness.poll()
        harness.hub.open_topic()
        harness.hub.send(peer.cid, b"abc")
        harness.hub.send(peer.cid, b"def")
        harness.hub.flush()

        statistics = harness.hub.statistics()
        assert (statistics.messages_in, statistics.bytes_in) == (1, len(frame))
        assert (statistics.frames_out, statistics.bytes_out, statistics.writes) == (2, 10, 1)
        assert (statistics.open_connections, statistics.open_topics) == (1, 1)


def test_shutdown_closes_everything() -> None:
    """After shutdown no descriptor is left, every call is harmless, and a second one too."""
    before = open_descriptors()
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(client_frame(TEXT, b"unfinished")[:8])
        harness.poll()
        harness.hub.send(peer.cid, b"never sent")
        harness.hub.shutdown()
        harness.hub.shutdown()

        assert peer.ended()
        assert harness.poll() == []
        assert (harness.hub.flush(), harness.hub.fileno()) == (0, -1)
        assert not harness.hub.is_open(peer.cid)
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(OSError, match="shut down"):
            harness.hub.adopt(ours.fileno(), START)
        with pytest.raises(OSError, match="shut down"):
            harness.hub.open_topic()
    assert open_descriptors() == before


def test_forgotten_hub_frees_its_descriptors() -> None:
    """A hub that is only dropped closes what it had."""
    before = open_descriptors()
    hub = Hub()
    ours, theirs = socket.socketpair()
    hub.adopt(ours.detach(), START, ENCODING_PROTOBUF)
    del hub

    assert theirs.recv(1) == b""
    theirs.close()
    assert open_descriptors() == before


def test_echo_of_every_size() -> None:
    """Sizes around the header forms go in and out unchanged over TCP."""
    with socket.socket() as listener, hub_harness() as harness:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
            cid = harness.hub.adopt(accepted.detach(), START, ENCODING_PROTOBUF)
            events: list[Event] = []
            for size in (0, 1, 125, 126, 127, 4096):
                payload = masked(bytes(size))
                client.sendall(client_frame(BINARY, payload))
                events = []
                while not events:
                    select.select([harness.hub.fileno()], [], [], 5)
                    events = harness.poll()
                assert events == [(EVENT_MESSAGE, cid, payload, BINARY)]
                harness.hub.send(cid, payload)
                harness.hub.flush()
                assert server_frames(client.recv(1 << 16)) == [(BINARY, payload)]
