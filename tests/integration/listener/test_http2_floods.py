"""HTTP/2 under attack and under `h2spec`: a flood ends in GOAWAY, others are served meanwhile."""

import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import h2.errors
import pytest
import trio
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)

from support.listener.http_site import HttpSite, answer, http_site, read_all
from support.listener.tls_client import TlsStream, open_tls_stream
from support.listener.ws_raw import DEADLINE
from syncbridge_server.listener.http2_restless import CAPACITY, PER_SECOND, RESET_COST, Restlessness

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
SCRIPT = Path(__file__).parents[3] / "scripts" / "h2spec.sh"
LEAST_CASES = 140
COUNT = 20_000
"""Far more frames than any account pays for, and far fewer than a second of an attack has."""


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await trio.sleep_forever()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, await read_all(receive))


@pytest.fixture
async def site() -> AsyncIterator[HttpSite]:
    refused: list[str] = []
    async with http_site(
        "tls",
        {"/": hello, "/slow": slow, "/echo": echo},
        on_refused=lambda refusal, client, door: refused.append(refusal.detail),
    ) as site:
        site.log = refused
        yield site


def headers(stream_id: int, path: str = "/slow", end: bool = True, **more: str) -> bytes:
    fields = {":method": "GET", ":scheme": "https", ":authority": "a", ":path": path, **more}
    frame = HeadersFrame(stream_id, data=Encoder().encode(fields.items()))
    frame.flags.add("END_HEADERS")
    if end:
        frame.flags.add("END_STREAM")
    return frame.serialize()


def rapid_reset() -> Iterator[bytes]:
    for number in range(COUNT):
        stream_id = 2 * number + 1
        yield headers(stream_id) + RstStreamFrame(stream_id, error_code=8).serialize()


def resets_of_ours() -> Iterator[bytes]:
    """Malformed requests, each of which the server must reset."""
    for number in range(COUNT):
        yield headers(2 * number + 1, connection="close")


def pings() -> Iterator[bytes]:
    yield from (PingFrame(0, opaque_data=b"12345678").serialize() for _ in range(COUNT))


def settings() -> Iterator[bytes]:
    yield from (SettingsFrame(0, settings={4: 65_535}).serialize() for _ in range(COUNT))


def priorities() -> Iterator[bytes]:
    yield from (PriorityFrame(2 * n + 1, stream_weight=9).serialize() for n in range(COUNT))


def empty_data() -> Iterator[bytes]:
    yield headers(1, "/echo", end=False)
    yield from (DataFrame(1).serialize() for _ in range(COUNT))


def many_streams() -> Iterator[bytes]:
    yield from (headers(2 * number + 1) for number in range(COUNT))


def continuations() -> Iterator[bytes]:
    """A head that never ends (CVE-2024-27316)."""
    begun = HeadersFrame(1, data=b"\x00\x01a\x01b").serialize()
    yield begun
    yield from (b"\x00\x00\x05\x09\x00\x00\x00\x00\x01\x00\x01a\x01b" for _ in range(COUNT))


FLOODS = [
    rapid_reset,
    resets_of_ours,
    pings,
    settings,
    priorities,
    empty_data,
    many_streams,
    continuations,
]


BOUNDED = (resets_of_ours, many_streams, continuations)
"""For what arrives of these at once, h2 itself has a bound."""


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
async def test_a_flood_ends_in_goaway(site: HttpSite, flood: Callable[[], Iterator[bytes]]) -> None:
    """GOAWAY is the last word on its connection, and a client beside it is answered."""
    stream = await open_tls_stream(site.port, "h2")
    beside = await open_tls_stream(site.port, "h2")
    await beside.send_all(PREFACE)
    with trio.fail_after(DEADLINE):
        code = await flooded(stream, flood())
        await beside.send_all(headers(1, "/"))
        answers = Frames(beside)
        while not isinstance(answered := await answers.next(), DataFrame):
            assert answered is not None

    expected = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
    if flood in BOUNDED:
        expected = h2.errors.ErrorCodes.PROTOCOL_ERROR
    else:
        assert ["too many HTTP/2 frames without a request"] == site.log
    assert expected == code
    assert b"hello" == answered.data
    for one in (stream, beside):
        await trio.aclose_forcefully(one)


async def flooded(stream: TlsStream, flood: Iterator[bytes]) -> int:
    """Send it all, and read meanwhile: the error code of the GOAWAY."""
    code = -1

    async def send() -> None:
        try:
            await stream.send_all(PREFACE + b"".join(flood))
        except trio.BrokenResourceError:
            pass  # the server has closed

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        found = Frames(stream)
        while (frame := await found.next()) is not None:
            if isinstance(frame, GoAwayFrame):
                code = frame.error_code
        nursery.cancel_scope.cancel()
    return code


class Frames:
    """What the server sends."""

    def __init__(self, stream: TlsStream) -> None:
        self._stream = stream
        self._data = b""

    async def next(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        while True:
            if len(self._data) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self._data[:9]))
                if len(self._data) >= 9 + length:
                    frame.parse_body(memoryview(self._data[9 : 9 + length]))
                    self._data = self._data[9 + length :]
                    return frame
            try:
                more = bytes(await self._stream.receive_some(65_536))
            except (trio.BrokenResourceError, OSError):
                return None
            if not more:
                return None
            self._data += more


async def test_resets_of_ours_that_are_paced(site: HttpSite) -> None:
    """Each is waited for, so that h2 sees no more than one stream at a time."""
    stream = await open_tls_stream(site.port, "h2")
    await stream.send_all(PREFACE)
    found, resets, code = Frames(stream), 0, -1
    with trio.fail_after(DEADLINE):
        await stream.send_all(headers(1, connection="close"))
        while (frame := await found.next()) is not None:
            if isinstance(frame, GoAwayFrame):
                code = frame.error_code
            elif isinstance(frame, RstStreamFrame):
                resets += 1
                await stream.send_all(headers(2 * resets + 1, connection="close"))

    assert h2.errors.ErrorCodes.ENHANCE_YOUR_CALM == code
    assert CAPACITY / RESET_COST <= resets < 2 * CAPACITY / RESET_COST
    await trio.aclose_forcefully(stream)


async def test_many_requests_are_no_flood(site: HttpSite) -> None:
    """A thousand requests on one connection, each with a PING: all are answered."""
    stream = await open_tls_stream(site.port, "h2")
    await stream.send_all(PREFACE)
    seen, found = 0, Frames(stream)
    with trio.fail_after(DEADLINE):
        for start in range(0, 1_000, 50):
            ids = range(2 * start + 1, 2 * (start + 50), 2)
            ping = PingFrame(0, opaque_data=b"12345678").serialize()
            await stream.send_all(b"".join(headers(number, "/") + ping for number in ids))
            while seen < start + 50:
                frame = await found.next()
                assert frame is not None
                assert not isinstance(frame, GoAwayFrame)
                seen += isinstance(frame, DataFrame) and bool(frame.data)

    assert (1_000, []) == (seen, site.log)
    await trio.aclose_forcefully(stream)


def test_the_account() -> None:
    """It pays for a burst, is refilled by time and answers, and never holds more than at first."""
    account = Restlessness(0.0)
    for _ in range(int(CAPACITY / RESET_COST)):
        account.refuse(0.0)
    assert not account.spent
    account.answered()
    account.refuse(0.0)
    assert not account.spent
    account.refuse(0.0)
    assert account.spent
    later = 2 * CAPACITY / PER_SECOND
    for _ in range(int(CAPACITY / RESET_COST)):
        account.refuse(later)
    assert not account.spent


async def test_h2spec(site: HttpSite, tmp_path: Path) -> None:
    """Every case of h2spec, strict ones too (RFC 9113 and 7541)."""
    done = await trio.run_process(["bash", str(SCRIPT)], capture_stdout=True, check=False)
    if done.returncode == 3 and shutil.which("go") is None:
        pytest.skip("NOT RUN: h2spec is not here, and there is no Go to build it with")
    assert 0 == done.returncode
    report = tmp_path / "report.xml"
    options = ["--tls", "--insecure", "--strict", "--timeout", "3", "--junit-report", str(report)]
    command = [done.stdout.decode().strip(), "--host", "127.0.0.1", "--port", str(site.port)]
    with trio.fail_after(120):
        ran = await trio.run_process(
            [*command, *options], stdout=subprocess.DEVNULL, check=False, stderr=subprocess.DEVNULL
        )
    cases = cases_of(await trio.Path(report).read_text())

    assert [] == [name for name, ok in cases if not ok]
    assert 0 == ran.returncode
    assert len(cases) >= LEAST_CASES


def cases_of(text: str) -> list[tuple[str, bool]]:
    """Each case of a JUnit report, and whether it passed."""
    cases = ET.fromstring(text).iter("testcase")
    return [
        (f"{case.get('package')}: {case.get('classname')}", case.find("failure") is None)
        for case in cases
    ]
