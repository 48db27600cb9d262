"""Deadlines, pings, idle connections and rate limits, by moving the caller's clock."""

import select

import pytest

from support.hub_kit import CLOSE, PING, PONG, TEXT, client_frame, close_payload, hub_harness
from syncbridge_core.hub import (
    EVENT_CLOSED,
    EVENT_DEADLINE,
    EVENT_LIMITED,
    EVENT_MESSAGE,
    HubLimits,
)

QUIET = HubLimits(ping_interval=0, idle_timeout=0)
SLOW_RATE = QUIET._replace(rate_per_second=2, rate_burst=3, flood_messages=5)


def test_deadline_fires_once() -> None:
    """EVENT_DEADLINE comes at its time, not before, not again."""
    with hub_harness(QUIET) as harness:
        peer = harness.peer()
        deadline = harness.now + 10_000
        assert harness.hub.set_deadline(peer.cid, deadline)

        assert harness.poll(9_999) == []
        assert harness.poll(1) == [(EVENT_DEADLINE, peer.cid, b"", deadline)]
        assert harness.poll(100_000) == []


def test_deadlines_close_together() -> None:
    """Two deadlines a millisecond apart each fire at their own time."""
    with hub_harness(QUIET) as harness:
        one, two = harness.peer(), harness.peer()
        harness.hub.set_deadline(one.cid, harness.now + 5)
        harness.hub.set_deadline(two.cid, harness.now + 6)

        fired = [[event[1] for event in harness.poll(1)] for _ in range(7)]

        assert fired == [[], [], [], [], [one.cid], [two.cid], []]


def test_deadline_moved_and_cleared() -> None:
    """A later deadline replaces the first; 0 clears it."""
    with hub_harness(QUIET) as harness:
        moved, cleared = harness.peer(), harness.peer()
        for peer in (moved, cleared):
            harness.hub.set_deadline(peer.cid, harness.now + 100)
        later = harness.now + 5000
        harness.hub.set_deadline(moved.cid, later)
        harness.hub.set_deadline(cleared.cid, 0)

        assert harness.poll(4999) == []
        assert harness.poll(1) == [(EVENT_DEADLINE, moved.cid, b"", later)]


def test_closing_connection_has_no_deadline() -> None:
    """A connection that is being closed does not report a deadline any more."""
    with hub_harness(QUIET) as harness:
        peer = harness.peer()
        harness.hub.set_deadline(peer.cid, harness.now + 100)
        harness.hub.close(peer.cid, 1000)

        assert not harness.hub.set_deadline(peer.cid, harness.now + 200)
        assert harness.poll(1000) == []


def test_timer_wakes_the_caller() -> None:
    """With a connection open the descriptor becomes readable by itself within a period."""
    with hub_harness(QUIET) as harness:
        harness.peer()

        assert select.select([harness.hub.fileno()], [], [], 5)[0]
        assert harness.poll() == []
        assert select.select([harness.hub.fileno()], [], [], 0)[0] == []


def test_empty_hub_sleeps() -> None:
    """Without a connection no timer runs, also after the last has gone."""
    with hub_harness(QUIET) as harness:
        harness.hub.abort(harness.peer().cid)
        harness.poll()

        assert select.select([harness.hub.fileno()], [], [], 0.6)[0] == []


def test_ping_after_silence() -> None:
    """A ping goes out ping_interval after the last byte or the last ping."""
    limits = QUIET._replace(ping_interval=25_000)
    with hub_harness(limits) as harness:
        peer = harness.peer()
        harness.poll(24_999)
        assert peer.frames() == []
        harness.poll(1)
        assert peer.frames() == [(PING, b"")]
        harness.poll(24_999)
        assert peer.frames() == []

        peer.send(client_frame(PONG))
        harness.poll()
        harness.poll(24_999)
        assert peer.frames() == []
        harness.poll(1)

        assert peer.frames() == [(PING, b"")]
        assert (harness.hub.statistics().pings, harness.hub.statistics().pongs) == (2, 1)


def test_traffic_replaces_pings() -> None:
    """A peer that is heard from needs no ping."""
    limits = QUIET._replace(ping_interval=1000)
    with hub_harness(limits) as harness:
        peer = harness.peer()
        for _ in range(10):
            peer.send(client_frame(TEXT, b"x"))
            assert [event[0] for event in harness.poll(900)] == [EVENT_MESSAGE]

        assert peer.frames() == []
        assert harness.hub.last_received(peer.cid) == harness.now


def test_silent_peer_is_closed() -> None:
    """idle_timeout without a byte ends the connection with 4006, pings or not."""
    with hub_harness() as harness:
        peer = harness.peer()
        events = [event for _ in range(119) for event in harness.poll(1000)]
        assert events == []

        reason = "nothing heard for too long"
        assert harness.poll(1000) == [(EVENT_CLOSED, peer.cid, reason.encode(), 4006)]
        assert peer.frames() == [(PING, b"")] * 4 + [(CLOSE, close_payload(4006, reason))]
        assert peer.ended()
        assert harness.hub.statistics().idle_closed == 1


def test_bytes_in_time_keep_a_connection() -> None:
    """A byte just before the timeout counts from then on; so does a late poll that finds it."""
    with hub_harness() as harness:
        peer, other = harness.peer(), harness.peer()
        peer.send(client_frame(PONG))
        harness.poll(119_999)
        other.send(client_frame(PONG))

        assert harness.closed(1) == []
        assert harness.closed(119_998) == []
        assert harness.closed(1) == [(peer.cid, b"nothing heard for too long", 4006)]


def test_unread_bytes_stop_the_idle_timeout() -> None:
    """When the caller was late, bytes that wait in the kernel prove that the peer lives."""
    with hub_harness(HubLimits(rate_per_second=0)) as harness:
        peers = [harness.peer() for _ in range(3)]
        for peer in peers:
            peer.send(client_frame(TEXT, b"m"))

        first = harness.poll(500_000, max_events=1)
        rest = harness.poll()

        assert [event[0] for event in first + rest] == [EVENT_MESSAGE] * 3


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([client_frame(TEXT, b"a", fin=False)], id="the last frame never comes"),
        pytest.param([client_frame(TEXT, bytes(100))[:50]], id="the frame never ends"),
        pytest.param(
            [client_frame(TEXT, b"a", fin=False)] + [client_frame(0, b"b", fin=False)] * 9,
            id="frame by frame",
        ),
        pytest.param(
            [client_frame(TEXT, b"whole") + client_frame(TEXT, b"", fin=False)]
            + [client_frame(PONG)] * 9,
            id="behind a whole message, and with pongs",
        ),
    ],
)
def test_a_message_must_end_in_time(parts: list[bytes]) -> None:
    """`message_timeout` after it began its connection is failed with 4006, whatever else comes."""
    with hub_harness(QUIET._replace(message_timeout=10_000)) as harness:
        peer = harness.peer()
        for part in parts:
            peer.send(part)
            assert EVENT_CLOSED not in [event[0] for event in harness.poll()]
            harness.poll(9_999 // len(parts))
        assert [] == peer.frames()

        harness.poll(10_000 - 9_999 // len(parts) * len(parts))

        harness.hub.flush()
        assert [(CLOSE, close_payload(4006, "message not ended in time"))] == peer.frames()
        assert 1 == harness.hub.statistics().idle_closed


def test_messages_that_end_have_their_time_each() -> None:
    """Fragments in time are a message, and the next one's time is its own."""
    with hub_harness(QUIET._replace(message_timeout=10_000)) as harness:
        peer = harness.peer()
        for _ in range(4):
            peer.send(client_frame(TEXT, b"a", fin=False))
            assert [] == harness.poll(1)
            peer.send(client_frame(0, b"b"))
            assert [(EVENT_MESSAGE, peer.cid, b"ab", 1)] == harness.poll(9_998)

        assert [] == harness.poll(100_000)


def test_bridged_connection_gets_no_pings() -> None:
    """Our own socket pair is not pinged, but goes when it is silent too long."""
    with hub_harness() as harness:
        peer = harness.peer(bridged=True)
        events = [event for _ in range(119) for event in harness.poll(1000)]

        assert (events, peer.frames()) == ([], [])
        assert harness.closed(1000) == [(peer.cid, b"nothing heard for too long", 4006)]


def test_rate_limit_and_refill() -> None:
    """A burst passes, then EVENT_LIMITED says when the next token is there; then it is."""
    with hub_harness(SLOW_RATE) as harness:
        peer = harness.peer()
        peer.send(client_frame(TEXT, b"m") * 4)
        assert [(event[0], event[3]) for event in harness.poll()] == [
            (EVENT_MESSAGE, TEXT),
            (EVENT_MESSAGE, TEXT),
            (EVENT_MESSAGE, TEXT),
            (EVENT_LIMITED, 500),
        ]

        peer.send(client_frame(TEXT, b"soon"))
        assert harness.poll(499) == [(EVENT_LIMITED, peer.cid, b"soon", 1)]
        peer.send(client_frame(TEXT, b"now"))
        assert harness.poll(1) == [(EVENT_MESSAGE, peer.cid, b"now", TEXT)]
        assert harness.hub.statistics().rate_limited == 2


def test_tokens_stop_at_the_burst() -> None:
    """A long silence, or a clock that runs back, gives no more than the burst."""
    with hub_harness(SLOW_RATE) as harness:
        peer = harness.peer()
        harness.poll(10**12)
        peer.send(client_frame(TEXT, b"m") * 4)
        assert [event[0] for event in harness.poll()] == [EVENT_MESSAGE] * 3 + [EVENT_LIMITED]

        peer.send(client_frame(TEXT, b"m"))
        assert [event[0] for event in harness.poll(-(10**12))] == [EVENT_LIMITED]


def test_flood_closes() -> None:
    """After flood_messages limited ones in a row comes one with 0; the rest is dropped.

    What the caller answers before it closes goes out first.
    """
    with hub_harness(SLOW_RATE) as harness:
        peer = harness.peer()
        peer.send(client_frame(TEXT, b"m") * 50)

        events = harness.poll()
        harness.hub.send(peer.cid, b"last words")
        harness.hub.close(peer.cid, 4007, "too many messages")
        harness.hub.flush()

        assert [e[0] for e in events] == [EVENT_MESSAGE] * 3 + [EVENT_LIMITED] * 6
        assert [e[3] > 0 for e in events[3:]] == [True] * 5 + [False]
        assert peer.frames() == [
            (TEXT, b"last words"),
            (CLOSE, close_payload(4007, "too many messages")),
        ]
        peer.socket.close()
        assert harness.closed() == [(peer.cid, b"too many messages", 4007)]


def test_token_between_limited_messages_is_no_flood() -> None:
    """The count starts again with each message that had a token."""
    with hub_harness(SLOW_RATE) as harness:
        peer = harness.peer()
        for _ in range(10):
            peer.send(client_frame(TEXT, b"m") * 4)
            harness.poll(500)

        assert harness.hub.is_open(peer.cid)
        assert harness.hub.statistics().rate_limited > 5


def test_pings_count() -> None:
    """Pings above the rate are not answered, and a flood of them closes."""
    with hub_harness(SLOW_RATE) as harness:
        peer = harness.peer()
        peer.send(client_frame(PING, b"p") * 5)
        assert harness.poll() == []
        assert peer.frames() == [(PONG, b"p")] * 3

        peer.send(client_frame(PING, b"p") * 50)
        assert harness.poll() == []
        assert peer.frames() == [(CLOSE, close_payload(4007, "too many messages"))]


def test_rate_of_one_connection() -> None:
    """set_rate gives one connection its own bucket; 0 lifts the limit."""
    with hub_harness(SLOW_RATE) as harness:
        free, tight = harness.peer(), harness.peer()
        assert harness.hub.set_rate(free.cid, 0, 0)
        assert harness.hub.set_rate(tight.cid, 1, 1)
        for peer in (free, tight):
            peer.send(client_frame(TEXT, b"m") * 5)

        events = harness.poll()

        assert [event[0] for event in events if event[1] == free.cid] == [EVENT_MESSAGE] * 5
        kinds = [event[0] for event in events if event[1] == tight.cid]
        assert kinds == [EVENT_MESSAGE] + [EVENT_LIMITED] * 4


@pytest.mark.parametrize("rate", [1, 3, 7, 1000, 1_000_000])
def test_wait_for_a_token_is_exact(rate: int) -> None:
    """After the announced wait there is a token, one millisecond earlier there is none."""
    with hub_harness(QUIET) as harness:
        peer = harness.peer()
        harness.hub.set_rate(peer.cid, rate, 1)
        peer.send(client_frame(TEXT, b"m") * 2)
        wait = harness.poll()[-1][3]
        assert wait == -(-1000 // rate)

        peer.send(client_frame(TEXT, b"m"))
        assert [event[0] for event in harness.poll(wait)] == [EVENT_MESSAGE]
