"""Outgoing queues: one write a flush, shared frames, and what a slow reader costs."""

from support.hub_kit import (
    BINARY,
    CLOSE,
    TEXT,
    Harness,
    Peer,
    close_payload,
    hub_harness,
    server_frames,
)
from syncbridge_core.hub import (
    ENCODING_PROTOBUF,
    EVENT_CLOSED,
    EVENT_HUSHED,
    EVENT_RESYNC,
    KIND_NOTICE,
    KIND_REPLY,
    KIND_SPEAKING,
    KIND_STATE,
    HubLimits,
)

SMALL = HubLimits(conflate_bytes=4000, max_outbox=20_000)
FILLER = b"f" * 900


def block(harness: Harness, peer: Peer) -> None:
    """Fill the socket until the kernel refuses a frame, so that the queue is not empty."""
    while harness.hub.queued(peer.cid) == 0:
        assert harness.hub.send(peer.cid, FILLER)
        harness.hub.flush()


def read_all(harness: Harness, peer: Peer) -> bytes:
    """Let the peer read until nothing more comes."""
    data = b""
    while part := peer.received():
        data += part
        harness.hub.poll(harness.now)
    return data


def test_frames_of_a_tick_leave_in_one_call() -> None:
    """A burst for one connection is one system call, in order, whatever its length."""
    with hub_harness() as harness:
        peer = harness.peer()
        for number in range(50):
            assert harness.hub.send(peer.cid, b"%d" % number)
        before = harness.hub.statistics().writes

        written = harness.hub.flush()

        assert (written, harness.hub.statistics().writes - before) == (50, 1)
        assert peer.frames() == [(TEXT, b"%d" % number) for number in range(50)]


def test_nothing_is_written_before_flush() -> None:
    """send and publish only queue; queued() counts header and payload."""
    with hub_harness() as harness:
        peer = harness.peer()
        harness.hub.send(peer.cid, b"x" * 126)

        assert (harness.hub.queued(peer.cid), peer.received()) == (130, b"")
        assert harness.hub.statistics().queued_bytes == 130
        assert harness.hub.flush() == 1
        assert harness.hub.flush() == 0
        assert harness.hub.queued(peer.cid) == 0


def test_publish_uses_the_encoding_of_each_member() -> None:
    """JSON members get text, protobuf members the binary twin, or nothing without one."""
    with hub_harness() as harness:
        json, proto = harness.peer(), harness.peer(encoding=ENCODING_PROTOBUF)
        topic = harness.hub.open_topic()
        for peer in (json, proto):
            harness.hub.subscribe(topic, peer.cid)

        assert harness.hub.publish(topic, b"{}", binary=b"\x08\x01") == 2
        assert harness.hub.publish(topic, b"[]") == 1
        harness.hub.flush()

        assert json.frames() == [(TEXT, b"{}"), (TEXT, b"[]")]
        assert proto.frames() == [(BINARY, b"\x08\x01")]


def test_publish_leaves_out_one_member() -> None:
    """`exclude` is the sender; an unknown topic reaches nobody."""
    with hub_harness() as harness:
        peers = [harness.peer() for _ in range(3)]
        topic = harness.hub.open_topic()
        for peer in peers:
            harness.hub.subscribe(topic, peer.cid)

        assert harness.hub.publish(topic, b"x", exclude=peers[1].cid) == 2
        assert harness.hub.publish(topic + 1, b"x") == 0
        harness.hub.flush()

        assert [peer.frames() for peer in peers] == [[(TEXT, b"x")], [], [(TEXT, b"x")]]


def test_a_full_socket_keeps_every_frame_whole() -> None:
    """Frames larger than the socket buffer arrive whole and in order once the peer reads."""
    payloads = [bytes([65 + number]) * 70_000 for number in range(8)]
    with hub_harness() as harness:
        peer = harness.peer(send_buffer=4096)
        for payload in payloads:
            assert harness.hub.send(peer.cid, payload)
        harness.hub.flush()
        assert harness.hub.queued(peer.cid) > 0

        data = read_all(harness, peer)

        assert server_frames(data) == [(TEXT, payload) for payload in payloads]
        assert harness.hub.statistics().queued_bytes == 0


def test_blocked_socket_is_not_tried_again() -> None:
    """While the kernel has no room, more sends cost no system calls."""
    with hub_harness() as harness:
        peer = harness.peer(send_buffer=4096)
        block(harness, peer)
        writes = harness.hub.statistics().writes

        for _ in range(10):
            harness.hub.send(peer.cid, b"more")
            harness.hub.flush()

        assert harness.hub.statistics().writes == writes


def test_speaking_goes_first() -> None:
    """Above conflate_bytes queued SPEAKING frames are dropped, the rest stays."""
    with hub_harness(SMALL) as harness:
        peer = harness.peer(send_buffer=4096)
        block(harness, peer)
        for _ in range(3):
            harness.hub.send(peer.cid, b"s" * 500, KIND_SPEAKING)
        for _ in range(2):
            harness.hub.send(peer.cid, b"u" * 900, KIND_STATE)

        payloads = [payload[:1] for _, payload in server_frames(read_all(harness, peer))]

        assert payloads.count(b"s") == 0
        assert payloads.count(b"u") == 2
        statistics = harness.hub.statistics()
        assert (statistics.speaking_dropped, statistics.state_dropped) == (3, 0)


def test_who_missed_speaking_is_told_once_when_it_has_drained() -> None:
    """One HUSHED for queued frames and new ones that were dropped; nothing for who missed none."""
    with hub_harness(SMALL) as harness:
        peer, other = harness.peer(send_buffer=4096), harness.peer(send_buffer=4096)
        for slow in (peer, other):
            block(harness, slow)
        for _ in range(12):
            harness.hub.send(peer.cid, b"s" * 500, KIND_SPEAKING)
        harness.hub.send(peer.cid, b"u" * 900, KIND_REPLY)
        assert harness.poll() == []

        events = []
        for slow in (other, peer):
            while slow.received():
                events += harness.poll()

        assert events == [(EVENT_HUSHED, peer.cid, b"", 0)]
        harness.hub.send(peer.cid, b"ann speaks", KIND_SPEAKING)
        harness.hub.flush()
        assert peer.frames() == [(TEXT, b"ann speaks")]
        assert harness.poll() == []


def test_stale_reader_is_told_once_when_it_has_drained() -> None:
    """STATE frames are dropped from the oldest on, and one RESYNC names its tag."""
    with hub_harness(SMALL) as harness:
        peer = harness.peer(send_buffer=4096)
        block(harness, peer)
        for tag in range(100, 120):
            assert harness.hub.send(peer.cid, b"u" * 900, KIND_STATE, tag)
        assert harness.poll() == []

        data, events = b"", []
        while part := peer.received():
            data += part
            events += harness.poll()

        assert events == [(EVENT_RESYNC, peer.cid, b"", 100)]
        assert harness.hub.statistics().state_dropped == 20
        assert {payload[:1] for _, payload in server_frames(data)} == {b"f"}
        harness.hub.send(peer.cid, b"fresh", KIND_STATE, 120)
        harness.hub.flush()
        assert peer.frames() == [(TEXT, b"fresh")]


def test_replies_pass_a_stale_reader() -> None:
    """A stale connection loses only STATE; replies and notices are still queued in order."""
    with hub_harness(SMALL) as harness:
        peer = harness.peer(send_buffer=4096)
        block(harness, peer)
        for tag in range(1, 9):
            harness.hub.send(peer.cid, b"u" * 900, KIND_STATE, tag)
        harness.hub.send(peer.cid, b"reply", KIND_REPLY)
        harness.hub.send(peer.cid, b"notice", KIND_NOTICE)

        payloads = [payload for _, payload in server_frames(read_all(harness, peer))]

        assert payloads[-2:] == [b"reply", b"notice"]


def test_large_tag_survives() -> None:
    """A tag has 64 bits."""
    tag = (1 << 64) - 1
    with hub_harness(SMALL) as harness:
        peer = harness.peer(send_buffer=4096)
        block(harness, peer)
        for _ in range(8):
            harness.hub.send(peer.cid, b"u" * 900, KIND_STATE, tag)
        peer.received()

        events = [event for _ in range(20) if peer.received() or True for event in harness.poll()]

        assert events == [(EVENT_RESYNC, peer.cid, b"", tag)]


def test_too_slow_reader_is_closed() -> None:
    """Above max_outbox the queue is dropped and the socket closed with 4008, once."""
    with hub_harness(SMALL) as harness:
        peer, other = harness.peer(send_buffer=4096), harness.peer()
        block(harness, peer)
        sent = 0
        while harness.hub.send(peer.cid, FILLER):
            sent += 1
            assert sent < 100, "the queue is bounded"

        harness.hub.flush()
        events = harness.poll()

        assert events == [(EVENT_CLOSED, peer.cid, b"reads too slowly", 4008)]
        assert harness.poll() == []
        assert harness.hub.statistics().slow_closed == 1
        assert harness.hub.statistics().queued_bytes == 0
        assert harness.hub.is_open(other.cid)


def test_closing_a_slow_reader_never_tears_a_frame() -> None:
    """What the peer got is whole frames, then perhaps a beginning of one, and nothing after."""
    with hub_harness(SMALL) as harness:
        peer = harness.peer(send_buffer=4096)
        while harness.hub.send(peer.cid, FILLER):
            harness.hub.flush()
        harness.poll()

        data = peer.received()

        frame = bytes([0x81, 126]) + len(FILLER).to_bytes(2, "big") + FILLER
        whole, rest = divmod(len(data), len(frame))
        assert data[: whole * len(frame)] == frame * whole
        last = bytes([0x88, 18]) + close_payload(4008, "reads too slowly")
        assert frame.startswith(data[whole * len(frame) :]) or data.endswith(last)
        assert rest < len(frame)


def test_burst_to_a_reader_that_keeps_up_is_not_slow() -> None:
    """Before dropping, the hub tries to write: a burst above the bounds reaches a ready peer."""
    limits = HubLimits(conflate_bytes=4000, max_outbox=8000)
    with hub_harness(limits) as harness:
        peer = harness.peer()
        for tag in range(60):
            assert harness.hub.send(peer.cid, FILLER, KIND_STATE, tag)
        harness.hub.flush()

        assert peer.frames() == [(TEXT, FILLER)] * 60
        assert harness.hub.statistics().state_dropped == 0


def test_one_frame_above_max_outbox_is_sent() -> None:
    """A full state may be larger than the bound when nothing else waits."""
    limits = HubLimits(conflate_bytes=1000, max_outbox=2000)
    with hub_harness(limits) as harness:
        peer = harness.peer(send_buffer=4096)
        big = b"b" * 100_000

        assert harness.hub.send(peer.cid, big)
        harness.hub.flush()

        assert server_frames(read_all(harness, peer)) == [(TEXT, big)]


def test_slow_member_does_not_hold_up_the_topic() -> None:
    """publish closes a slow member while it walks the topic; the others get every frame."""
    with hub_harness(SMALL) as harness:
        slow = harness.peer(send_buffer=4096)
        others = [harness.peer() for _ in range(5)]
        topic = harness.hub.open_topic()
        for peer in (others[0], slow, *others[1:]):
            harness.hub.subscribe(topic, peer.cid)
        block(harness, slow)

        closed = []
        for _ in range(40):
            harness.hub.publish(topic, FILLER, KIND_NOTICE)
            harness.hub.flush()
            closed += harness.closed()

        assert closed == [(slow.cid, b"reads too slowly", 4008)]
        assert [len(peer.frames()) for peer in others] == [40] * 5
        assert harness.hub.topic_size(topic) == 5


def test_close_frame_comes_after_what_is_queued() -> None:
    """close() lets a slow peer read the rest first, then the close frame."""
    with hub_harness() as harness:
        peer = harness.peer(send_buffer=4096)
        block(harness, peer)
        harness.hub.send(peer.cid, b"last words")
        harness.hub.close(peer.cid, 1000, "bye")

        frames = server_frames(read_all(harness, peer))

        assert frames[-2:] == [(TEXT, b"last words"), (CLOSE, close_payload(1000, "bye"))]


def test_many_small_frames_are_bounded_too() -> None:
    """Frames without payload cannot grow the queue past its number of entries."""
    with hub_harness(HubLimits(max_outbox=1 << 30, conflate_bytes=1 << 29)) as harness:
        peer = harness.peer(send_buffer=4096)
        block(harness, peer)
        sent = 0
        while sent < 70_000 and harness.hub.send(peer.cid, b""):
            sent += 1

        harness.hub.flush()

        assert sent <= 65_536
        assert [event[3] for event in harness.poll()] == [4008]


def test_stale_reader_that_dies_gets_no_resync() -> None:
    """Nobody is brought up to date after the end."""
    with hub_harness(SMALL) as harness:
        peer = harness.peer(send_buffer=4096)
        block(harness, peer)
        for tag in range(20):
            harness.hub.send(peer.cid, b"u" * 900, KIND_STATE, tag)
        peer.socket.close()

        assert harness.closed() == [(peer.cid, b"", 1006)]
        assert harness.poll() == []
