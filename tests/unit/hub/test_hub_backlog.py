"""Very many connections to write to: slices, their order, and what goes before them."""

import select
from collections.abc import Iterator

import pytest

from support.hub_kit import TEXT, Harness, Peer, client_frame, descriptors, hub_harness
from syncbridge_core.hub import EVENT_MESSAGE, KIND_NOTICE

SLICE = 1024
MANY = SLICE + 500


@pytest.fixture(autouse=True)
def _many_descriptors() -> Iterator[None]:
    """Room for so many socket pairs."""
    with descriptors(8192):
        yield


@pytest.fixture
def harness() -> Iterator[Harness]:
    """A hub."""
    with hub_harness() as harness:
        yield harness


def crowd(harness: Harness, count: int = MANY) -> tuple[int, list[Peer]]:
    """A topic and its members."""
    topic = harness.hub.open_topic()
    peers = [harness.peer() for _ in range(count)]
    for peer in peers:
        harness.hub.subscribe(topic, peer.cid)
    return topic, peers


def texts(peer: Peer) -> list[bytes]:
    """The payloads that have arrived."""
    return [payload for opcode, payload in peer.frames() if opcode == TEXT]


def due(harness: Harness) -> bool:
    """Whether the hub asks to be polled at once."""
    return bool(select.select([harness.hub.fileno()], [], [], 1)[0])


def drained(harness: Harness) -> int:
    """Turn the loop as a caller does, until nothing is left; how many frames were written."""
    total = 0
    while written := harness.hub.flush():
        total += written
        harness.poll()
    return total


def test_a_flush_writes_a_slice(harness: Harness) -> None:
    """The first ones are written to, and the descriptor asks for the rest."""
    topic, peers = crowd(harness)
    harness.hub.publish(topic, b"m")

    assert SLICE == harness.hub.flush()
    assert [[b"m"]] * SLICE == [texts(peer) for peer in peers[:SLICE]]
    assert not any(texts(peer) for peer in peers[SLICE:])
    assert due(harness)
    assert [] == harness.poll()
    assert MANY - SLICE == harness.hub.flush()
    assert [[b"m"]] * (MANY - SLICE) == [texts(peer) for peer in peers[SLICE:]]
    assert 0 == harness.hub.flush()


def test_as_many_as_a_slice_are_written_at_once(harness: Harness) -> None:
    """Nothing is put off that one flush can do."""
    topic, _ = crowd(harness, SLICE)
    harness.hub.publish(topic, b"m")

    assert SLICE == harness.hub.flush()


def test_a_reply_goes_before_the_backlog(harness: Harness) -> None:
    """Also to somebody who waits there: what waited goes with it, once and in order."""
    topic, peers = crowd(harness)
    harness.hub.publish(topic, b"m")
    harness.hub.flush()
    served, waiting, other = peers[0], peers[-1], harness.peer()
    texts(served)
    for peer in (served, waiting, other):
        harness.hub.send(peer.cid, b"reply")
    before = harness.hub.statistics().writes

    assert 1 + 2 + 1 + (MANY - SLICE - 1) == harness.hub.flush()
    assert 3 + (MANY - SLICE - 1) == harness.hub.statistics().writes - before
    assert [b"reply"] == texts(served) == texts(other)
    assert [b"m", b"reply"] == texts(waiting)


def test_a_reply_of_poll_goes_before_the_backlog(harness: Harness) -> None:
    """A pong does not wait for a broadcast."""
    topic, peers = crowd(harness)
    harness.hub.publish(topic, b"m")
    harness.hub.flush()
    peers[-1].send(client_frame(9, b"!"))
    harness.poll()

    assert [(TEXT, b"m"), (10, b"!")] == peers[-1].frames()
    assert MANY - SLICE - 1 == harness.hub.flush()


def test_messages_are_heard_between_slices(harness: Harness) -> None:
    """What a client says while a broadcast goes out comes with the next poll."""
    topic, peers = crowd(harness)
    harness.hub.publish(topic, b"m")
    harness.hub.flush()
    peers[3].send(client_frame(TEXT, b"hello"))

    assert [(EVENT_MESSAGE, peers[3].cid, b"hello", TEXT)] == harness.poll()


def test_a_second_broadcast_joins_the_first(harness: Harness) -> None:
    """Who has not been written to gets both in one call; then those who had the first."""
    topic, peers = crowd(harness)
    harness.hub.publish(topic, b"one")
    harness.hub.flush()
    harness.hub.publish(topic, b"two")
    before = harness.hub.statistics().writes

    assert 2 * (MANY - SLICE) + (2 * SLICE - MANY) == harness.hub.flush()
    assert SLICE == harness.hub.statistics().writes - before
    assert [b"one", b"two"] == texts(peers[-1])
    assert [b"one", b"two"] == texts(peers[0])
    assert [b"one"] == texts(peers[SLICE - 1])
    drained(harness)
    assert [b"two"] == texts(peers[SLICE - 1])


def test_everybody_gets_everything_once(harness: Harness) -> None:
    """Broadcasts faster than slices: all arrive, in order, and nobody is written to in vain."""
    topic, peers = crowd(harness, 3 * SLICE)
    for number in range(20):
        harness.hub.publish(topic, b"%d" % number)
        harness.hub.flush()
        harness.poll()
    drained(harness)

    wanted = [b"%d" % number for number in range(20)]
    assert all(texts(peer) == wanted for peer in peers)
    assert 0 == harness.hub.statistics().queued_bytes


def test_who_leaves_is_forgotten_and_a_slot_used_again(harness: Harness) -> None:
    """A newcomer in the place of one who waited gets what is his own, and that once."""
    topic, peers = crowd(harness)
    harness.hub.publish(topic, b"m", KIND_NOTICE)
    harness.hub.flush()
    gone = peers[-1]
    harness.hub.abort(gone.cid)
    harness.poll()
    newcomer = harness.peer()
    assert newcomer.cid & 0xFFFFFF == gone.cid & 0xFFFFFF
    harness.hub.send(newcomer.cid, b"welcome")

    assert 1 + MANY - SLICE - 1 == harness.hub.flush()
    assert [b"welcome"] == texts(newcomer)
    assert [] == texts(gone)
    assert 0 == drained(harness)


def test_the_table_grows_while_a_backlog_waits(harness: Harness) -> None:
    """New connections move the list of those who wait; none is lost."""
    topic, peers = crowd(harness)
    harness.hub.publish(topic, b"m")
    harness.hub.flush()
    newcomers = [harness.peer() for _ in range(600)]
    for peer in newcomers:
        harness.hub.send(peer.cid, b"welcome")
    drained(harness)

    assert [[b"m"]] * MANY == [texts(peer) for peer in peers]
    assert [[b"welcome"]] * 600 == [texts(peer) for peer in newcomers]


def test_closing_many_takes_slices_too(harness: Harness) -> None:
    """Close frames queue behind what waits; every client sees both."""
    topic, peers = crowd(harness)
    harness.hub.publish(topic, b"m")
    harness.hub.flush()
    for peer in peers:
        harness.hub.close(peer.cid, 1012)
    drained(harness)

    assert all([8] == [op for op, _ in frames][-1:] for frames in map(Peer.frames, peers))
