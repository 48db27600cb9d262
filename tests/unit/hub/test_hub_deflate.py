"""Compressed messages through the hub: who gets which frame, and what comes in."""

import zlib
from random import Random

import pytest

from support.hub_kit import BINARY, PING, PONG, TEXT, Harness, Peer, client_frame, hub_harness
from syncbridge_core.deflate import TAIL, inflate
from syncbridge_core.hub import (
    ENCODING_PROTOBUF,
    EVENT_CLOSED,
    EVENT_LIMITED,
    EVENT_MESSAGE,
    HubLimits,
)

RSV1 = 0x40
LONG = b'{"key": "value"}' * 100


def packed(data: bytes) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def compressed(opcode: int, data: bytes) -> bytes:
    """A client's compressed message in one frame."""
    return client_frame(opcode, packed(data), reserved=4)


def messages(harness: Harness) -> list[tuple[bytes, int]]:
    return [(data, aux) for kind, _, data, aux in harness.poll() if kind == EVENT_MESSAGE]


def unfolded(frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [
        (opcode, inflate(data, 1 << 20, text=False) if opcode & RSV1 else data)
        for opcode, data in frames
    ]


def closing(harness: Harness, peer: Peer) -> tuple[int, bytes]:
    """Code and reason of the close frame that the peer got."""
    harness.hub.flush()
    *_, (opcode, payload) = peer.frames(deflate=True)
    assert opcode == 8
    return int.from_bytes(payload[:2], "big"), payload[2:]


def test_a_compressed_message_arrives_unfolded() -> None:
    """Text and binary, alone and between plain messages, in their order."""
    with hub_harness() as harness:
        peer = harness.peer(deflate=True)
        peer.send(
            client_frame(TEXT, b"plain")
            + compressed(TEXT, LONG)
            + compressed(BINARY, b"\xff" * 50)
            + client_frame(BINARY, b"plain")
        )

        expected = [(b"plain", 1), (LONG, 1), (b"\xff" * 50, 2), (b"plain", 2)]
        assert expected == messages(harness)
        assert 2 == harness.hub.statistics().inflated


def test_a_compressed_message_in_fragments() -> None:
    """RSV1 is on the first frame only (RFC 7692 section 6.1); a ping comes in between."""
    data = packed(LONG)
    with hub_harness() as harness:
        peer = harness.peer(deflate=True)
        peer.send(client_frame(TEXT, data[:3], reserved=4, fin=False) + client_frame(PING, b"?"))
        assert [] == messages(harness)
        peer.send(client_frame(0, b"", fin=False) + client_frame(0, data[3:]))

        assert [(LONG, 1)] == messages(harness)
        harness.hub.flush()
        assert [(PONG, b"?")] == peer.frames()


def test_compressed_bytes_that_came_with_the_handshake() -> None:
    """They are unfolded with the next poll."""
    with hub_harness() as harness:
        harness.peer(initial=compressed(TEXT, LONG), deflate=True)

        assert [(LONG, 1)] == messages(harness)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(client_frame(PING, b"", reserved=4), id="control frame"),
        pytest.param(
            client_frame(TEXT, b"a", fin=False) + client_frame(0, b"b", reserved=4),
            id="continuation",
        ),
        pytest.param(client_frame(TEXT, b"a", reserved=2), id="RSV2"),
        pytest.param(client_frame(TEXT, b"a", reserved=6), id="RSV1 and RSV2"),
        pytest.param(client_frame(TEXT, b"a", reserved=1), id="RSV3"),
    ],
)
def test_reserved_bits_where_they_do_not_belong(data: bytes) -> None:
    """Only RSV1, and only on the first frame of a data message; else 1002."""
    with hub_harness() as harness:
        peer = harness.peer(deflate=True)
        peer.send(data)

        assert [] == messages(harness)
        assert 1002 == closing(harness, peer)[0]


def test_compression_that_was_not_negotiated() -> None:
    """RSV1 on a connection without the extension is 1002."""
    with hub_harness() as harness:
        peer = harness.peer()
        peer.send(compressed(TEXT, LONG))

        assert [] == messages(harness)
        assert 1002 == closing(harness, peer)[0]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param(client_frame(TEXT, b"\xff" * 9, reserved=4), 1007, id="not deflate"),
        pytest.param(compressed(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(compressed(TEXT, b"x" * 1001), 1009, id="one byte above the bound"),
        pytest.param(compressed(BINARY, bytes(1 << 24)), 1009, id="a bomb"),
    ],
)
def test_a_message_that_cannot_be_used(frame: bytes, code: int) -> None:
    """It closes with its code; what stands before it is delivered and what follows is not."""
    with hub_harness(HubLimits(max_message=1000)) as harness:
        peer, other = harness.peer(deflate=True), harness.peer(deflate=True)
        peer.send(client_frame(TEXT, b"before") + frame + client_frame(TEXT, b"after"))
        other.send(compressed(TEXT, b"fine"))

        found = harness.poll()

        assert {(peer.cid, b"before"), (other.cid, b"fine")} == {event[1:3] for event in found}
        assert code == closing(harness, peer)[0]
        assert 1 == harness.hub.statistics().protocol_errors
        peer.send(client_frame(8, code.to_bytes(2, "big")))
        peer.socket.close()
        ended = [event for _ in range(2) for event in harness.poll() if event[0] == EVENT_CLOSED]
        assert [(peer.cid, code)] == [(cid, aux) for _, cid, _, aux in ended]


def test_a_message_that_grew_by_compression() -> None:
    """One of exactly the bound is accepted though its compressed form is longer."""
    noise = Random(1).randbytes(1000)
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    data = (stored.compress(noise) + stored.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    with hub_harness(HubLimits(max_message=len(noise))) as harness:
        harness.peer(deflate=True).send(client_frame(BINARY, data, reserved=4))

        assert len(data) > len(noise)
        assert [(noise, 2)] == messages(harness)


def test_the_wire_has_a_bound_too() -> None:
    """Compressed bytes far above the bound are refused with their header."""
    with hub_harness(HubLimits(max_message=1000)) as harness:
        peer = harness.peer(deflate=True)
        peer.send(client_frame(BINARY, b"x" * 1190, reserved=4)[:14])
        harness.poll()

        assert (1009, b"message too big") == closing(harness, peer)


def test_a_limited_message_is_unfolded_too() -> None:
    """Whoever sends too fast is told with the message in hand, compressed or not."""
    with hub_harness(HubLimits(rate_per_second=1, rate_burst=1)) as harness:
        harness.peer(deflate=True).send(compressed(TEXT, b"one") + compressed(TEXT, b"two"))

        found = harness.poll()

        assert [(EVENT_MESSAGE, b"one"), (EVENT_LIMITED, b"two")] == [
            (kind, data) for kind, _, data, _ in found
        ]


def test_a_compressed_flood_above_the_rate_costs_no_unfolding() -> None:
    """Of a flood the first few in a row are read, each to 4 KiB at most; the rest not at all."""
    with hub_harness(HubLimits(rate_per_second=1, rate_burst=1)) as harness:
        harness.peer(deflate=True).send(
            compressed(TEXT, b"one") + compressed(TEXT, b"two") + compressed(TEXT, LONG * 40) * 150
        )

        found = harness.poll()

        assert [(EVENT_MESSAGE, b"one"), (EVENT_LIMITED, b"two")] == [
            (kind, data) for kind, _, data, _ in found[:2]
        ]
        assert {(EVENT_LIMITED, b"")} == {(kind, data) for kind, _, data, _ in found[2:]}
        assert 152 == len(found)
        assert 17 == harness.hub.statistics().inflated


@pytest.mark.parametrize(
    ("data", "count", "delivered"),
    [
        pytest.param(b"{}", 200, 8, id="many small ones: each takes a unit"),
        pytest.param(bytes(3000), 5, 2, id="few large ones"),
        pytest.param(bytes(1 << 20), 1, 0, id="a bomb"),
    ],
)
def test_before_trust_unfolding_has_a_budget(data: bytes, count: int, delivered: int) -> None:
    """8 KiB for all messages; whoever is above is closed as a flood, and no more is unfolded."""
    with hub_harness(HubLimits(rate_per_second=0)) as harness:
        peer = harness.peer(deflate=True, unfold=8192)
        peer.send(compressed(BINARY, data) * count)

        assert [(data, 2)] * delivered == messages(harness)
        assert 4007 == closing(harness, peer)[0]
        assert harness.hub.statistics().inflated <= delivered + 1


def test_trust_lifts_the_budget() -> None:
    """After `trust` messages are held to the largest size only."""
    with hub_harness(HubLimits(rate_per_second=0)) as harness:
        peer = harness.peer(deflate=True, unfold=1024)
        peer.send(compressed(BINARY, bytes(1024)))
        assert 1 == len(messages(harness))
        assert harness.hub.trust(peer.cid)
        peer.send(compressed(BINARY, bytes(60_000)) * 3)

        assert [60_000] * 3 == [len(data) for data, _ in messages(harness)]


def test_a_broadcast_is_compressed_once() -> None:
    """Each member gets its form: plain or compressed, text or binary; two compressions in all."""
    with hub_harness() as harness:
        topic = harness.hub.open_topic()
        plain = [harness.peer() for _ in range(3)]
        deflate = [harness.peer(deflate=True) for _ in range(3)]
        binary = [harness.peer(ENCODING_PROTOBUF, deflate=True) for _ in range(2)]
        old = harness.peer(ENCODING_PROTOBUF)
        for peer in (deflate[0], plain[0], binary[0], deflate[1], old, *plain[1:], deflate[2]):
            harness.hub.subscribe(topic, peer.cid)
        harness.hub.subscribe(topic, binary[1].cid)

        assert 9 == harness.hub.publish(topic, LONG, binary=LONG[::-1])
        harness.hub.flush()

        assert [(TEXT, LONG)] * 3 == [peer.frames()[0] for peer in plain]
        assert [(BINARY, LONG[::-1])] == old.frames()
        sent = [peer.frames(deflate=True) for peer in deflate]
        assert sent == [sent[0]] * 3
        assert [(TEXT | RSV1, LONG)] == unfolded(sent[0])
        assert [(BINARY | RSV1, LONG[::-1])] * 2 == [
            unfolded(peer.frames(deflate=True))[0] for peer in binary
        ]
        statistics = harness.hub.statistics()
        assert 2 == statistics.deflated
        assert statistics.deflate_saved > len(LONG)


def test_a_broadcast_to_a_large_topic() -> None:
    """Above the size from which the walk runs without the GIL, nobody is missed or served twice."""
    with hub_harness() as harness:
        topic = harness.hub.open_topic()
        peers = [harness.peer(deflate=at % 7 == 3) for at in range(1100)]
        for peer in peers:
            harness.hub.subscribe(topic, peer.cid)

        assert 1099 == harness.hub.publish(topic, LONG, exclude=peers[5].cid)
        while harness.hub.flush():
            harness.poll()

        counts = [len(unfolded(peer.frames(deflate=True))) for peer in peers]
        assert [0 if at == 5 else 1 for at in range(1100)] == counts
        assert 1 == harness.hub.statistics().deflated


@pytest.mark.parametrize("payload", [LONG[:511], Random(1).randbytes(2000)])
def test_what_is_short_or_does_not_compress_goes_plain(payload: bytes) -> None:
    """Below the bound, or when it gains nothing, deflate members share the plain frame."""
    with hub_harness() as harness:
        topic = harness.hub.open_topic()
        peer = harness.peer(ENCODING_PROTOBUF, deflate=True)
        harness.hub.subscribe(topic, peer.cid)

        assert 1 == harness.hub.publish(topic, b"", binary=payload)
        assert harness.hub.send(peer.cid, payload)
        harness.hub.flush()

        assert [(BINARY, payload)] * 2 == peer.frames()
        assert 0 == harness.hub.statistics().deflated


def test_a_topic_without_deflate_members_compresses_nothing() -> None:
    """Work is done for a member that needs it, not because a connection somewhere might."""
    with hub_harness() as harness:
        topic = harness.hub.open_topic()
        harness.peer(deflate=True)
        harness.hub.subscribe(topic, harness.peer().cid)

        assert 1 == harness.hub.publish(topic, LONG)
        assert 0 == harness.hub.statistics().deflated


def test_a_single_message_is_compressed() -> None:
    """`send` compresses for the connection that negotiated it, from the bound on."""
    with hub_harness(HubLimits(deflate_from=100)) as harness:
        peer, plain = harness.peer(deflate=True), harness.peer()
        for size in (99, 100):
            harness.hub.send(peer.cid, LONG[:size])
            harness.hub.send(plain.cid, LONG[:size])
        harness.hub.flush()

        sent = peer.frames(deflate=True)
        assert [TEXT, TEXT | RSV1] == [opcode for opcode, _ in sent]
        assert [(TEXT, LONG[:99]), (TEXT | RSV1, LONG[:100])] == unfolded(sent)
        assert [(TEXT, LONG[:99]), (TEXT, LONG[:100])] == plain.frames()


def test_the_bounds_of_the_outbox_count_compressed_bytes() -> None:
    """A slow reader holds the bytes that it will be sent."""
    with hub_harness() as harness:
        peer = harness.peer(deflate=True)
        harness.hub.send(peer.cid, LONG)

        assert 0 < harness.hub.queued(peer.cid) < 200
