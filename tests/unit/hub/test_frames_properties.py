"""The frame parser over generated streams: any split gives the same events, and wsproto agrees."""

import zlib
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from support.hub_kit import BINARY, CLOSE, PING, PONG, TEXT, client_frame, close_payload
from syncbridge_core.deflate import TAIL, Deflater, InflateError, inflate
from syncbridge_core.frames import FrameParser, encode_frame

MAX_MESSAGE = 1000

sizes = st.sampled_from([0, 1, 5, 125, 126, 200, 400, 1001])
masks = st.binary(min_size=4, max_size=4)
texts = st.one_of(st.text(max_size=60).map(str.encode), sizes.map(lambda n: b"t" * n))
noise = st.binary(max_size=20)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame, mostly right, sometimes breaking a rule."""
    opcode = draw(st.sampled_from([TEXT, TEXT, BINARY, 0, 0, PING, PONG, CLOSE, 3]))
    if opcode == CLOSE:
        code = draw(st.sampled_from([1000, 1001, 1005, 3000, 999]))
        payload = draw(st.one_of(st.just(b""), st.just(close_payload(code, "bye")), noise))
    elif opcode in (PING, PONG):
        payload = draw(st.binary(max_size=126))
    else:
        payload = draw(st.one_of(texts, noise))
    return client_frame(opcode, payload, fin=draw(st.booleans()), mask=draw(masks))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A legal message in fragments with legal control frames between them."""
    opcode, payload = draw(
        st.one_of(st.tuples(st.just(TEXT), texts), st.tuples(st.just(BINARY), noise))
    )
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    stream = b""
    for number, (start, end) in enumerate(
        zip([0, *cuts], [*cuts, len(payload)], strict=True),
    ):
        if number and draw(st.booleans()):
            stream += client_frame(draw(st.sampled_from([PING, PONG])), draw(noise))
        fin = number == len(cuts)
        stream += client_frame(
            0 if number else opcode, payload[start:end], fin=fin, mask=draw(masks)
        )
    return stream


streams = st.lists(st.one_of(messages(), messages(), frames()), max_size=6).map(b"".join)
raw_streams = st.one_of(streams, st.binary(max_size=60))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at the given places."""
    places = sorted({at % (len(data) + 1) for at in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@settings(deadline=None, max_examples=300)
@given(raw_streams, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    """The events depend on the bytes, never on how the network cut them."""
    whole = FrameParser(MAX_MESSAGE).feed(data)
    parser = FrameParser(MAX_MESSAGE)

    assert [event for piece in pieces(data, cuts) for event in parser.feed(piece)] == whole


@settings(deadline=None, max_examples=100)
@given(raw_streams)
def test_byte_by_byte_gives_the_same_events(data: bytes) -> None:
    """The extreme split: one byte a read."""
    whole = FrameParser(MAX_MESSAGE).feed(data)
    parser = FrameParser(MAX_MESSAGE)

    assert [event for at in range(len(data)) for event in parser.feed(data[at : at + 1])] == whole


def compression(client: bool) -> PerMessageDeflate:
    """wsproto's side of a connection without context takeover."""
    extension = PerMessageDeflate(client_no_context_takeover=True, server_no_context_takeover=True)
    if client:
        extension.finalize("permessage-deflate")
    else:
        extension.accept("permessage-deflate")
    return extension


def wsproto_events(data: bytes, deflate: bool = False) -> list[tuple[str, int, bytes]]:
    """What wsproto reads from the same stream, in our parser's words.

    wsproto knows no limit over fragments and hands text out in pieces, so both are done here.
    """
    protocol = FrameProtocol(client=False, extensions=[compression(False)] if deflate else [])
    found: list[tuple[str, int, bytes]] = []
    message = b""
    protocol.receive_bytes(data)
    try:
        for frame in protocol.received_frames():
            payload: Any = frame.payload
            if frame.opcode is Opcode.CLOSE:
                code, reason = payload
                return [*found, ("close", int(code), (reason or "").encode())]
            if frame.opcode in (Opcode.PING, Opcode.PONG):
                found.append((frame.opcode.name.lower(), 0, bytes(payload)))
                continue
            message += payload.encode() if isinstance(payload, str) else bytes(payload)
            if frame.message_finished:
                found.append(("message", int(frame.opcode), message))
                message = b""
    except ParseFailed as error:
        found.append(("failed", int(error.code), b""))
    return found


def within_limit(events: list[tuple[str, int, bytes]]) -> bool:
    """Whether the stream never met the message limit, which wsproto does not have."""
    return ("failed", int(CloseReason.MESSAGE_TOO_BIG), b"") not in events


@settings(deadline=None, max_examples=400)
@given(raw_streams)
@example(b"\x00~")
def test_wsproto_reads_the_same(data: bytes) -> None:
    """An independent parser finds the same messages, control frames and failures.

    wsproto judges a header when it is complete and ours after two bytes, hence the extra bytes.
    """
    data += bytes(14)
    ours = FrameParser(MAX_MESSAGE).feed(data)
    theirs = wsproto_events(data)
    if within_limit(ours):
        assert ours == theirs
    else:
        assert ours[:-1] == theirs[: len(ours) - 1]


@settings(deadline=None)
@given(st.sampled_from([TEXT, BINARY, PING, PONG]), st.binary(max_size=125))
def test_wsproto_reads_what_we_write(opcode: int, payload: bytes) -> None:
    """A client made of wsproto reads every frame of ours, and its header is as short as ours."""
    if opcode == TEXT:
        payload = payload.hex().encode()
    client = FrameProtocol(client=True, extensions=[])
    client.receive_bytes(encode_frame(opcode, payload))

    (frame,) = client.received_frames()

    sent: Any = frame.payload
    read = sent.encode() if isinstance(sent, str) else bytes(sent)
    assert (int(frame.opcode), read, frame.message_finished) == (opcode, payload, True)


@settings(deadline=None)
@given(st.sampled_from([0, 125, 126, 65535, 65536, 70000]), st.booleans())
def test_we_read_what_wsproto_writes(size: int, fin: bool) -> None:
    """Frames of a wsproto client, with its random masks, are read back."""
    client = FrameProtocol(client=True, extensions=[])
    stream = client.send_data(b"x" * size, fin=fin)
    if not fin:
        stream += client.ping(b"between") + client.send_data(b"", fin=True)

    events = FrameParser(1 << 20).feed(bytes(stream))

    assert events[-1] == ("message", BINARY, b"x" * size)


@st.composite
def compressed_messages(draw: st.DrawFn, interrupted: bool = False) -> bytes:
    """A message, compressed or with RSV1 on bytes that are not, in two fragments.

    interrupted: a ping may stand between them. wsproto takes the rest for plain then.
    """
    opcode, payload = draw(
        st.one_of(st.tuples(st.just(TEXT), texts), st.tuples(st.just(BINARY), noise))
    )
    level, broken = draw(st.integers(0, 9)), draw(st.sampled_from([False] * 4 + [True]))
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    data = (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    if broken:
        data = b"\xfe" + draw(noise)  # a block of no known type
    cut = draw(st.integers(0, len(data)))
    between = client_frame(PING, b"p") if interrupted and draw(st.booleans()) else b""
    first = client_frame(opcode, data[:cut], fin=False, reserved=4, mask=draw(masks))
    return first + between + client_frame(0, data[cut:])


mixed_streams = st.lists(
    st.one_of(compressed_messages(), compressed_messages(), messages(), frames()), max_size=6
).map(b"".join)
interrupted_streams = st.lists(st.one_of(compressed_messages(True), frames()), max_size=6).map(
    b"".join
)


@settings(deadline=None, max_examples=200)
@given(interrupted_streams, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_gives_the_same_compressed_events(data: bytes, cuts: list[int]) -> None:
    """Also with compression the events depend on the bytes alone."""
    whole = FrameParser(MAX_MESSAGE, deflate=True).feed(data)
    parser = FrameParser(MAX_MESSAGE, deflate=True)

    assert [event for piece in pieces(data, cuts) for event in parser.feed(piece)] == whole


def unfolded(events: list[tuple[str, int, bytes]]) -> list[tuple[str, int, bytes]]:
    """Our events with compressed messages unfolded; nothing follows one that cannot be."""
    found = []
    for kind, value, payload in events:
        if kind == "message" and value & 64:
            try:
                message = inflate(payload, 1 << 20, value == TEXT | 64)
            except InflateError as error:
                return [*found, ("failed", error.code, b"")]
            found.append((kind, value & 15, message))
        else:
            found.append((kind, value, payload))
    return found


def before_failure(events: list[tuple[str, int, bytes]]) -> list[tuple[str, int, bytes]]:
    """Messages and the failure, without control frames: wsproto may fail a message before a
    control frame that stands inside it, and ours after it. For the same reason a stream that is
    wrong in two ways may fail for either of them, so the code of the failure is left out."""
    kept = [event for event in events if event[0] in ("message", "failed", "close")]
    return [("failed", 0, b"") if event[0] == "failed" else event for event in kept]


@settings(deadline=None, max_examples=400)
@given(mixed_streams)
def test_wsproto_unfolds_the_same(data: bytes) -> None:
    """An independent implementation of RFC 7692 finds the same messages and refuses the same."""
    data += bytes(14)
    ours = unfolded(FrameParser(1 << 20, deflate=True).feed(data))

    assert before_failure(ours) == before_failure(wsproto_events(data, deflate=True))


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=2000).map(lambda data: data * 2), max_size=5))
def test_wsproto_reads_what_we_compress(messages: list[bytes]) -> None:
    """A client made of wsproto reads our compressed frames one after the other."""
    client = FrameProtocol(client=True, extensions=[compression(True)])
    deflater = Deflater()
    for message in messages:
        packed = deflater.compress(message)
        if packed is not None:
            client.receive_bytes(encode_frame(BINARY | 64, packed))
            assert message == b"".join(bytes(frame.payload) for frame in client.received_frames())
