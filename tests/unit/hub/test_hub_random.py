"""Random use of a hub: whatever the order of calls, each end is told once and nothing is left."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from support.hub_kit import (
    CLOSE,
    PING,
    TEXT,
    Event,
    Harness,
    Peer,
    client_frame,
    close_payload,
    hub_harness,
)
from syncbridge_core.hub import EVENT_CLOSED, EVENT_MESSAGE, HubLimits

LIMITS = HubLimits(
    max_message=5000,
    conflate_bytes=3000,
    max_outbox=12_000,
    rate_per_second=20,
    rate_burst=10,
    flood_messages=30,
)


class Chaos:
    """Makes one random call after the other and keeps what the hub reported."""

    def __init__(self, harness: Harness, seed: int) -> None:
        self.harness = harness
        self.hub = harness.hub
        self.random = random.Random(seed)
        self.topics = [self.hub.open_topic() for _ in range(3)]
        self.events: list[Event] = []
        self.number = 0
        self.cut: set[int] = set()

    def step(self) -> None:
        """One call."""
        actions = [self.adopt, self.talk, self.talk, self.read, self.poll, self.poll, self.push]
        self.random.choice([*actions, self.push, self.flush, self.membership, self.end])()

    def any_peer(self) -> Peer | None:
        """Some peer, open or not."""
        return self.random.choice(self.harness.peers) if self.harness.peers else None

    def adopt(self) -> None:
        """A new connection, now and then with bytes, with a small buffer, or a deadline."""
        initial = self.random.choice([b"", b"", client_frame(PING), client_frame(3)])
        buffer = self.random.choice([None, 4096])
        peer = self.harness.peer(self.random.randrange(2), initial, send_buffer=buffer)
        self.hub.subscribe(self.random.choice(self.topics), peer.cid)
        if self.random.random() < 0.3:
            self.hub.set_deadline(peer.cid, self.harness.now + self.random.randrange(1, 3000))

    def talk(self) -> None:
        """A peer sends messages, rubbish, a close frame, or hangs up."""
        if (peer := self.any_peer()) is None or peer.socket.fileno() < 0:
            return
        if peer.cid in self.cut:
            return  # What follows half a frame would be read as its other half.
        self.number += 1
        payload = b"%d " % self.number + b"x" * self.random.choice([0, 10, 3000])
        frame = client_frame(TEXT, payload)
        kind = self.random.random()
        if kind < 0.05:
            peer.socket.close()
            return
        if kind < 0.15:
            whole = [
                client_frame(CLOSE, close_payload(1000)),
                client_frame(TEXT, b"\xff"),
                client_frame(PING, b"p"),
            ]
            half = frame[: self.random.randrange(len(frame))]
            frame = self.random.choice([*whole, half])
            if frame is half:
                self.cut.add(peer.cid)
        try:
            peer.socket.setblocking(False)
            peer.socket.sendall(frame)
        except OSError:
            peer.socket.close()

    def read(self) -> None:
        """A peer reads what has come."""
        if (peer := self.any_peer()) is not None and peer.socket.fileno() >= 0:
            peer.received()

    def poll(self) -> None:
        """Time goes on, mostly a little."""
        later = self.random.choice([0, 1, 50, 400, 30_000])
        self.events += self.harness.poll(later, self.random.choice([1, 10, 2048]))

    def push(self) -> None:
        """Frames of every kind, to one or to many."""
        payload = b"p" * self.random.choice([0, 100, 1000, 20_000])
        kind, tag = self.random.randrange(4), self.random.randrange(1 << 64)
        if (peer := self.any_peer()) is not None and self.random.random() < 0.5:
            self.hub.send(peer.cid, payload, kind, tag)
        else:
            self.hub.publish(self.random.choice(self.topics), payload, kind, tag, binary=payload)

    def flush(self) -> None:
        """The end of a tick."""
        self.hub.flush()

    def membership(self) -> None:
        """Somebody joins, leaves, or a topic is replaced."""
        at = self.random.randrange(3)
        if (peer := self.any_peer()) is not None:
            change = self.random.choice([self.hub.subscribe, self.hub.unsubscribe])
            change(self.topics[at], peer.cid)
        if self.random.random() < 0.1:
            self.hub.close_topic(self.topics[at])
            self.topics[at] = self.hub.open_topic()

    def end(self) -> None:
        """We close or abort one."""
        if (peer := self.any_peer()) is not None and self.random.random() < 0.4:
            if self.random.random() < 0.5:
                self.hub.close(peer.cid, 4009, "replaced")
            else:
                self.hub.abort(peer.cid)

    def finish(self) -> None:
        """All peers hang up; the hub notices within two polls."""
        for peer in self.harness.peers:
            peer.socket.close()
        for _ in range(40):
            self.hub.flush()
            self.events += self.harness.poll(200_000)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32), st.integers(10, 400))
def test_each_end_is_told_once_and_nothing_is_left(seed: int, steps: int) -> None:
    """Every cid has one EVENT_CLOSED, nothing after it, and all gauges return to zero."""
    with hub_harness(LIMITS) as harness:
        chaos = Chaos(harness, seed)
        for _ in range(steps):
            chaos.step()
        chaos.finish()

        closed = Counter(event[1] for event in chaos.events if event[0] == EVENT_CLOSED)
        assert closed == Counter({peer.cid: 1 for peer in harness.peers})
        last = {event[1]: event[0] for event in chaos.events}
        assert set(last.values()) <= {EVENT_CLOSED}
        statistics = harness.hub.statistics()
        assert (statistics.open_connections, statistics.queued_bytes) == (0, 0)
        assert statistics.accepted == statistics.closed == len(harness.peers)
        assert [harness.hub.topic_size(topic) for topic in chaos.topics] == [0, 0, 0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1 << 32))
def test_messages_arrive_in_order(seed: int) -> None:
    """The numbers of one peer's messages never go back, whatever else happens."""
    with hub_harness(LIMITS) as harness:
        chaos = Chaos(harness, seed)
        for _ in range(300):
            chaos.step()
        chaos.finish()

        for peer in harness.peers:
            numbers = [
                int(data.split()[0])
                for kind, cid, data, _ in chaos.events
                if (kind, cid) == (EVENT_MESSAGE, peer.cid)
            ]
            assert numbers == sorted(numbers)
