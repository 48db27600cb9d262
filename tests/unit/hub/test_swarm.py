"""The client swarm against a server that speaks RFC 6455 through wsproto."""

import json
import socket
import time
from collections.abc import Callable

import pytest
from wsproto.events import CloseConnection, Pong, Request, TextMessage

from support.swarm_peer import SECONDS, Peer, Wire
from syncbridge_core.swarm import KEY, SEQUENCE_FIELD, UPDATE_VALUE, Progress, Swarm

ACK = '{"type":2,"payload":{}}'
NEWS = '{"type":13,"payload":{}}'
BEAT = b'{"type":1,"payload":{}}'


def silent(peer: Peer, wire: Wire, text: str) -> None:
    """Hears and says nothing."""


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """An unmasked frame of less than 126 bytes."""
    return bytes([first, len(payload)]) + payload


def connected(peer: Peer, count: int = 1) -> Swarm:
    swarm = Swarm("127.0.0.1", peer.port, count)
    assert swarm.connect(seconds=SECONDS).opened == count
    return swarm


def lose(swarm: Swarm, index: int) -> None:
    """Make a server that closes on any text close one connection, and wait until it has."""
    swarm.send(index, b"leave me")
    stop = time.monotonic() + SECONDS
    while swarm.is_open(index) and time.monotonic() < stop:
        swarm.idle(0.01)


def says(data: bytes, chunk: int = 0) -> Callable[[Peer, Wire, str], None]:
    """A server that answers any text with these bytes."""
    return lambda peer, wire, text: wire.raw(data, chunk)


def heard(peer: Peer) -> int:
    """Characters of text that the server has got."""
    return sum(len(e.data) for e in peer.events(TextMessage) if isinstance(e, TextMessage))


# ---- Connecting -------------------------------------------------------------------------------


def test_connect_opens_every_client_and_times_each() -> None:
    """Without first messages a client is open after the handshake, and each has a latency."""
    with Peer(silent) as peer:
        swarm = Swarm("127.0.0.1", peer.port, 20)
        result = swarm.connect(concurrency=3, seconds=SECONDS)

        assert (result.opened, result.failed, result.error) == (20, 0, "")
        assert (len(result.latency), swarm.opened) == (20, 20)
        assert all(swarm.is_open(index) for index in range(20))
        swarm.close(reset=True)


def test_the_handshake_names_host_path_and_subprotocol() -> None:
    """The request is a complete RFC 6455 opening handshake for the URL."""
    with Peer(silent) as peer:
        swarm = Swarm("127.0.0.1", peer.port, 1, path="/live?x=1", subprotocol="one.v1")
        swarm.connect(seconds=SECONDS)
        swarm.close(reset=True)

        (request,) = peer.events(Request)
    assert isinstance(request, Request)
    assert (request.host, request.target) == (f"127.0.0.1:{peer.port}", "/live?x=1")
    assert request.subprotocols == ["one.v1"]
    assert KEY == "dGhlIHNhbXBsZSBub25jZQ=="


def test_each_client_sends_its_own_first_message() -> None:
    """First messages arrive whole and unmasked by the server, one for each connection."""
    messages = [json.dumps({"type": 7, "token": "t" * size}).encode() for size in (1, 200, 60_000)]
    with Peer(lambda peer, wire, text: wire.send('{"type":8}')) as peer:
        swarm = Swarm("127.0.0.1", peer.port, 3)
        result = swarm.connect(messages, seconds=SECONDS)
        swarm.close(reset=True)

        texts = {
            "".join(e.data for e in wire.events if isinstance(e, TextMessage))
            for wire in peer.wires
        }
    assert result.opened == 3
    assert texts == {message.decode() for message in messages}


@pytest.mark.parametrize("kind", [6, 9])
def test_a_refused_first_message_is_a_failed_client(kind: int) -> None:
    """ERROR and AUTH_FAILURE mean that the client is not open."""
    with Peer(lambda peer, wire, text: wire.send(f'{{"type": {kind}}}')) as peer:
        swarm = Swarm("127.0.0.1", peer.port, 2)
        result = swarm.connect([b"{}", b"{}"], seconds=SECONDS)

    assert (result.opened, result.failed, len(result.latency)) == (0, 2, 0)


def test_any_other_reply_to_the_first_message_opens() -> None:
    """A server with another protocol is welcome: any text but a refusal will do."""
    with Peer(lambda peer, wire, text: wire.send("hello")) as peer:
        result = Swarm("127.0.0.1", peer.port, 1).connect([b"hi"], seconds=SECONDS)

    assert result.opened == 1


def test_a_server_that_refuses_the_handshake_fails_the_client() -> None:
    """A 403 is no WebSocket."""
    with Peer(silent, reject=403) as peer:
        swarm = Swarm("127.0.0.1", peer.port, 2)
        result = swarm.connect(seconds=SECONDS)

    assert (result.opened, result.failed, swarm.totals.protocol_errors) == (0, 2, 2)


def test_nobody_listening_is_a_failure_with_its_reason() -> None:
    """The system's word for it is in the result."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    result = Swarm("127.0.0.1", port, 3).connect(seconds=SECONDS)

    assert (result.opened, result.failed, result.error) == (0, 3, "Connection refused")


def test_a_server_that_never_answers_fails_at_the_deadline() -> None:
    """The deadline bounds the wait; what was under way counts as failed."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        result = Swarm("127.0.0.1", mute.getsockname()[1], 2).connect(seconds=0.05)

    assert (result.opened, result.failed) == (0, 2)


def test_connect_again_opens_what_was_lost() -> None:
    """Clients that are open stay; the others get another try."""
    with Peer(lambda peer, wire, text: wire.close(1001)) as peer:
        swarm = connected(peer, 3)
        lose(swarm, 1)
        before = swarm.opened
        result = swarm.connect(seconds=SECONDS)
        swarm.close(reset=True)

    assert (before, result.opened, len(result.latency)) == (2, 3, 1)


# ---- Reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 0])
def test_frames_may_be_split_anywhere(chunk: int) -> None:
    """Three messages, one with a 16-bit length, counted whatever pieces they come in."""
    long = b"x" * 300
    data = frame(b"one") + b"\x81\x7e\x01\x2c" + long + frame(b"three")
    with Peer(says(data, chunk)) as peer:
        swarm = connected(peer)
        result = swarm.receive(3, SECONDS, trigger=lambda: swarm.send(0, b"go"))
        swarm.close(reset=True)

    assert (result.done, result.totals.payload_bytes) == (3, 308)
    assert result.totals.protocol_errors == 0


def test_a_message_of_a_megabyte_is_one_message() -> None:
    """A frame with a 64-bit length is put together from many reads."""
    payload = b'{"type":13}' + b" " * (1 << 20)
    data = b"\x81\x7f" + len(payload).to_bytes(8, "big") + payload
    with Peer(says(data)) as peer:
        swarm = connected(peer)
        result = swarm.receive(1, SECONDS, wanted_type=13, trigger=lambda: swarm.send(0, b"go"))
        swarm.close(reset=True)

    assert (result.done, result.totals.payload_bytes) == (1, len(payload))


def test_fragments_make_one_message_and_may_enclose_a_ping() -> None:
    """The type of a fragmented message is that of its first fragment; a ping may come between."""
    data = (
        frame(b'{"type":13,', 0x01) + frame(b"?", 0x89) + frame(b'"x":', 0x00) + frame(b"1}", 0x80)
    )
    with Peer(says(data)) as peer:
        swarm = connected(peer)
        result = swarm.receive(1, SECONDS, wanted_type=13, trigger=lambda: swarm.send(0, b"go"))
        pongs = peer.await_events(Pong, 1)
        swarm.close(reset=True)

    assert (result.done, result.totals.messages, result.totals.pings) == (1, 1, 1)
    assert [bytes(pong.payload) for pong in pongs if isinstance(pong, Pong)] == [b"?"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x81\x00\x00\x00\x00x",  # masked
        frame(b"x", 0xC1),  # reserved bit
        frame(b"x", 0x83),  # reserved opcode
        frame(b"x", 0x80),  # continuation of nothing
        frame(b"x", 0x01) + frame(b"y", 0x81),  # a message inside a message
        frame(b"", 0x09),  # fragmented ping
        b"\x89\x7e\x00\x80" + b"x" * 128,  # long ping
        b"\x81\x7e\x00\x05" + b"x" * 5,  # length not in its shortest form
        b"\x81\x7f" + (5).to_bytes(8, "big") + b"x" * 5,
        b"\x81\x7f\xff" + b"\x00" * 7,  # highest bit of the length
        b"\x81\x7f" + (1 << 30).to_bytes(8, "big"),  # longer than any message of a session
    ],
)
def test_a_frame_no_server_may_send_ends_the_connection(data: bytes) -> None:
    """It counts as a protocol error and as a closed connection, and no message comes of it."""
    with Peer(says(data)) as peer:
        swarm = connected(peer)
        result = swarm.receive(1, SECONDS, trigger=lambda: swarm.send(0, b"go"))

    assert (result.done, result.totals.protocol_errors, result.totals.closed) == (0, 1, 1)
    assert not swarm.is_open(0)


def test_a_close_is_answered_and_ends_a_phase_when_it_was_the_last() -> None:
    """The server's close frame comes back to it, and with nobody left the phase is over."""
    with Peer(lambda peer, wire, text: wire.close(1001)) as peer:
        swarm = connected(peer)
        result = swarm.receive(5, SECONDS, trigger=lambda: swarm.send(0, b"go"))
        (reply,) = peer.await_events(CloseConnection, 1)

    assert (result.totals.closed, result.totals.protocol_errors) == (1, 0)
    assert isinstance(reply, CloseConnection)
    assert reply.code == 1001


def test_receive_counts_the_wanted_type_only() -> None:
    """Other messages are in the totals, errors by themselves, but not in the count."""
    texts = [ACK, NEWS, '{"type":6}', '{"type": 13}', '{"kind":13}', NEWS]
    data = b"".join(frame(text.encode()) for text in texts)
    with Peer(says(data)) as peer:
        swarm = connected(peer)
        result = swarm.receive(3, SECONDS, wanted_type=13, trigger=lambda: swarm.send(0, b"go"))
        swarm.close(reset=True)

    assert (result.done, result.goal, len(result.latency)) == (3, 3, 3)
    assert (result.totals.messages, result.totals.errors) == (6, 1)


def test_receive_gives_up_at_its_deadline() -> None:
    """Fewer messages than asked for: the result says how many."""
    with Peer(says(frame(b"one"))) as peer:
        swarm = connected(peer)
        result = swarm.receive(2, 1.0, trigger=lambda: swarm.send(0, b"go"))
        swarm.close(reset=True)

    assert (result.done, result.goal) == (1, 2)


# ---- Sending ----------------------------------------------------------------------------------


def test_echo_sends_the_next_when_the_reply_is_in() -> None:
    """A closed loop: as many requests as replies, and one more for each client."""

    def respond(peer: Peer, wire: Wire, text: str) -> None:
        wire.send(NEWS)
        wire.send(ACK)

    with Peer(respond) as peer:
        swarm = connected(peer, 3)
        result = swarm.echo(BEAT, 0.2, clients=2, reply_type=2)
        swarm.close(reset=True)
        requests = len(peer.events(TextMessage))
        quiet = [
            wire for wire in peer.wires if not any(isinstance(e, TextMessage) for e in wire.events)
        ]

    assert result.done > 0
    assert len(result.latency) == result.done
    assert result.done <= requests <= result.done + 2
    assert len(quiet) == 1


def test_what_a_full_socket_does_not_take_is_sent_later() -> None:
    """Messages wait in a bounded buffer, nothing is lost of what `send` accepted."""
    message = b"m" * 65_536
    with Peer(silent, deaf=True) as peer:
        swarm = connected(peer)
        accepted = 0
        while swarm.send(0, message) and accepted < 1000:
            accepted += 1
        peer.hear.set()
        stop = time.monotonic() + SECONDS
        while heard(peer) < accepted * len(message) and time.monotonic() < stop:
            swarm.idle(0.01)
        swarm.close(reset=True)

    assert 16 <= accepted < 1000
    assert heard(peer) == accepted * len(message)


def test_close_says_goodbye() -> None:
    """Each server connection gets a close frame with 1000, and the clients are gone after it."""
    with Peer(silent) as peer:
        swarm = connected(peer, 4)
        swarm.close(seconds=SECONDS)
        codes = [
            e.code for e in peer.await_events(CloseConnection, 4) if isinstance(e, CloseConnection)
        ]

    assert (codes, swarm.opened) == ([1000] * 4, 0)


# ---- Updates ----------------------------------------------------------------------------------


def template(extra: str = "") -> bytes:
    value, number = UPDATE_VALUE.decode(), SEQUENCE_FIELD.decode()
    return json.dumps({"type": 5, "id": number, "payload": {"value": value}, "x": extra}).encode()


def shared(peer: Peer, wire: Wire, text: str) -> None:
    """Everybody gets the update, which names its value twice as the real message does."""
    value = json.loads(text)["payload"]["value"]
    peer.broadcast(json.dumps({"type": 5, "changes": {"k": value}, "value": value}))


def test_updates_are_acknowledged_and_delivered_once_each() -> None:
    """One acknowledgement and two copies an update; a value named twice in a frame counts once."""
    with Peer(shared) as peer:
        swarm = connected(peer, 3)
        result = swarm.updates([template("a"), template("b")], 200, 0.5, senders=[0, 2], copies=2)
        swarm.close(reset=True)
        texts = [e.data for e in peer.events(TextMessage) if isinstance(e, TextMessage)]

    assert (result.sent, result.unsent, result.acknowledged) == (100, 0, 100)
    assert (result.delivered, result.expected, result.repeated) == (200, 200, 0)
    assert (len(result.acks), len(result.latency), len(result.lag)) == (100, 200, 100)
    messages = [json.loads(text) for text in texts]
    assert sorted(int(m["id"]) for m in messages) == list(range(100))
    assert {m["x"] for m in messages} == {"a", "b"}
    assert all(m["payload"]["value"] == f"upd-{m['id']}" for m in messages)


def test_the_warm_up_is_sent_but_not_timed() -> None:
    """Half a second of warm-up at 100/s leaves 50 updates out of the histograms."""
    with Peer(shared) as peer:
        swarm = connected(peer, 2)
        result = swarm.updates([template()], 100, 0.5, senders=[0], warmup=0.5)
        swarm.close(reset=True)

    assert (result.sent, result.delivered, len(result.latency)) == (100, 100, 50)


def test_refused_updates_end_the_run_and_are_counted() -> None:
    """An ERROR for each update: nothing to wait for, nothing acknowledged."""
    with Peer(lambda peer, wire, text: wire.send('{"type":6}')) as peer:
        swarm = connected(peer, 2)
        result = swarm.updates([template()], 100, 0.2, senders=[0], drain=SECONDS)
        swarm.close(reset=True)

    assert (result.totals.errors, result.acknowledged, result.delivered) == (20, 0, 0)
    assert result.seconds < SECONDS


def test_a_second_frame_with_an_update_counts_as_repeated() -> None:
    """What comes again is neither an acknowledgement nor a delivery."""

    def twice(peer: Peer, wire: Wire, text: str) -> None:
        shared(peer, wire, text)
        shared(peer, wire, text)

    with Peer(twice) as peer:
        swarm = connected(peer, 2)
        result = swarm.updates([template()], 100, 0.1, senders=[0], drain=SECONDS)
        swarm.close(reset=True)

    assert (result.acknowledged, result.delivered) == (10, 10)
    assert 0 < result.repeated <= 20


def test_updates_of_a_client_that_is_gone_are_unsent() -> None:
    """A sender without a connection is reported, and nobody waits for its updates."""
    with Peer(lambda peer, wire, text: wire.close(1001)) as peer:
        swarm = connected(peer, 2)
        lose(swarm, 0)
        result = swarm.updates([template()], 100, 0.1, senders=[0], drain=SECONDS)
        swarm.close(reset=True)

    assert (result.sent, result.unsent, result.expected) == (0, 10, 0)


# ---- The caller's side ------------------------------------------------------------------------


def test_watch_sees_progress_and_may_end_a_phase() -> None:
    """`watch` is called between slices; what it raises comes out of the phase."""
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with Peer(silent) as peer:
        swarm = connected(peer)
        with pytest.raises(KeyboardInterrupt):
            swarm.receive(5, SECONDS, watch=watch)
        swarm.close(reset=True)

    assert [(p.done, p.goal) for p in seen] == [(0, 5), (0, 5)]
    assert 0 < seen[0].seconds < seen[1].seconds < SECONDS


@pytest.mark.parametrize(
    ("port", "count", "path"),
    [(80, 0, "/ws"), (0, 1, "/ws"), (65_536, 1, "/ws"), (80, 1, "/ws HTTP/1.1\r\nX: y")],
)
def test_nonsense_is_refused(port: int, count: int, path: str) -> None:
    """Counts, ports and line breaks that cannot be."""
    with pytest.raises(ValueError, match=r"count|port|line break"):
        Swarm("127.0.0.1", port, count, path=path)


def test_phases_check_what_they_are_given() -> None:
    """Each phase says what is wrong before it does anything."""
    with Peer(silent) as peer:
        swarm = Swarm("127.0.0.1", peer.port, 2)
        with pytest.raises(RuntimeError, match="connected"):
            swarm.idle(1)
        with pytest.raises(ValueError, match="first message"):
            swarm.connect([b"only one"])
        swarm.connect(seconds=SECONDS)
        with pytest.raises(RuntimeError, match="connected"):
            swarm.connect()
        with pytest.raises(ValueError, match="seconds"):
            swarm.idle(0)
        with pytest.raises(ValueError, match="64 KiB"):
            swarm.send(0, b"x" * 65_537)
        with pytest.raises(ValueError, match="such client"):
            swarm.is_open(2)
        with pytest.raises(ValueError, match="not a client"):
            swarm.updates([template()], 1, 1, senders=[2])
        with pytest.raises(ValueError, match="UPDATE_VALUE"):
            swarm.updates([b"{}"], 1, 1, senders=[0])
        swarm.close(reset=True)
