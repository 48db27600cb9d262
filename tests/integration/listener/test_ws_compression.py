"""permessage-deflate from the handshake to the messages, on each way to the server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from integration.listener.test_ws_conformance import WAYS, Way, open_way
from support.listener.listener_site import open_site
from support.listener.ws_raw import TEXT, Client
from syncbridge_core.deflate import Deflater, inflate

OFFER = {"sec-websocket-extensions": "permessage-deflate; client_max_window_bits"}
LONG = b'{"type": 5, "payload": {"key": "value"}}' * 40


@pytest.fixture(params=[name for name in WAYS if name != "bridge"])
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(request.param, tmp_path) as way:
        yield way


async def read_compressed(client: Client) -> bytes:
    """The next data frame, which must be compressed."""
    await client._need(2)
    assert client.received[0] == 0x80 | 0x40 | TEXT
    client.received[0] &= ~0x40
    return inflate(await client.message(), 1 << 20, text=True)


async def test_compressed_messages_in_both_directions(way: Way) -> None:
    """The answer names what was agreed; a compressed message comes back compressed."""
    answer = await way.ask(extra=OFFER)
    packed = Deflater().compress(LONG)

    assert packed is not None
    expected = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    assert expected == answer.headers["sec-websocket-extensions"]
    for _ in range(2):
        await answer.open.send(TEXT, packed, rsv=4)
        assert LONG == await read_compressed(answer.open)
    await answer.open.text("short")
    assert (TEXT, b"short") == await answer.open.frame()


async def test_a_small_bomb_is_closed(way: Way) -> None:
    """A few bytes that unfold above the bound close with 1009, garbage with 1007."""
    for payload, code in ((Deflater().compress(bytes(1 << 20)), 1009), (b"\xff\xff", 1007)):
        client = await way.open(OFFER)
        await client.send(TEXT, payload or b"", rsv=4)
        assert code == (await client.closing())[0]


async def test_an_offer_that_breaks_the_grammar(way: Way) -> None:
    """400, before the sink hears of it."""
    answer = await way.ask(extra={"sec-websocket-extensions": "permessage-deflate; ="})

    assert (400, []) == (answer.status, way.sink.clients)


async def test_the_bridge_leaves_compression_to_the_asgi_server(tmp_path: Path) -> None:
    """Frames to the sink's end of the bridge are plain, whatever the client and server agreed."""
    async with open_way("bridge", tmp_path) as way:
        answer = await way.ask(extra=OFFER)
        await answer.open.text("x" * 2000)

        assert "server_no_context_takeover" not in answer.headers.get(
            "sec-websocket-extensions", ""
        )
        assert 0 == way.sink.hub.statistics().deflated
        assert 0 == way.sink.hub.statistics().inflated


@pytest.mark.parametrize("window", [9, 12, 15])
async def test_an_independent_client(tmp_path: Path, window: int) -> None:
    """A client made of wsproto talks compressed; with a small window it talks plain."""
    async with open_site(tmp_path, "plain") as site:
        stream = await trio.open_tcp_stream("127.0.0.1", site.ports["plain"])
        extension = PerMessageDeflate(server_max_window_bits=window)
        ws = WSConnection(ConnectionType.CLIENT)
        request = Request(host="127.0.0.1", target="/ws", extensions=[extension])
        await stream.send_all(ws.send(request))
        text, answers = LONG.decode(), []
        with trio.fail_after(20):
            while len(answers) < 3:
                ws.receive_data(await stream.receive_some(65_536))
                for event in ws.events():
                    if isinstance(event, AcceptConnection):
                        for _ in range(3):
                            await stream.send_all(ws.send(TextMessage(data=text)))
                    elif isinstance(event, TextMessage):
                        answers.append(event.data)
        await stream.send_all(ws.send(CloseConnection(code=1000)))
        await stream.aclose()

        assert [text] * 3 == answers
        statistics = site.sink.hub.statistics()
        assert (3, 3) == (statistics.deflated, statistics.inflated) or window < 12


async def test_memory_of_a_connection_does_not_grow(tmp_path: Path) -> None:
    """Nothing is kept between messages: the second is as long as the first, in each direction."""
    async with open_way("plain", tmp_path) as way:
        client = await way.open(OFFER)
        lengths = []
        for _ in range(3):
            await client.text(LONG.decode())
            assert LONG == await read_compressed(client)
            lengths.append(way.sink.hub.statistics().bytes_out)

        assert lengths[2] - lengths[1] == lengths[1] - lengths[0] < 200
