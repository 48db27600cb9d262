"""Content codings: choosing one, unfolding bodies within bounds, compressing answers."""

import gzip
import random
import zlib
from collections.abc import Iterator

import httpx
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge_server.http.support.compression import LEAST, THREAD_FROM, Compressing
from syncbridge_server.http.support.encoding import (
    CODINGS,
    COMPRESS,
    choose_coding,
    coding_of,
    unfold,
    wire_bound,
)
from syncbridge_server.http.support.problem import exception_handlers, read_body

LIMIT = 5000
TEXT = b'{"key": "value"}' * 200


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        ("br, gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("deflate", "deflate"),
        ("GZIP", "gzip"),
        ("gzip;q=0.5, deflate;q=0.7", "deflate"),
        ("gzip;q=1.0, zstd;q=0.9", "gzip"),
        ("gzip;q=0", ""),
        ("gzip; q=0.000, *;q=0", ""),
        ("*", "zstd"),
        ("*;q=0.1, zstd;q=0", "gzip"),
        ("br;q=1.0, *;q=0.5", "zstd"),
        ("gzip;q=2", ""),
        ("gzip;q=x", ""),
        ("gzip;level=9", ""),
        (",,;,=;q", ""),
    ],
)
def test_the_coding_of_an_answer(header: str, coding: str) -> None:
    """The client's weights first, our order among equals; what is not grammar is not accepted."""
    assert coding == choose_coding(header)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_accept_encoding_is_judged(header: str) -> None:
    """No header makes an error."""
    assert choose_coding(header) in ("", *CODINGS)


@pytest.mark.parametrize(
    ("header", "coding"),
    [("", ""), ("identity", ""), ("gzip", "gzip"), ("x-gzip", "gzip"), (" Deflate ", "deflate")],
)
def test_the_coding_of_a_body(header: str, coding: str) -> None:
    """RFC 9110 section 8.4.1: names in any case, `x-gzip` is gzip, `identity` is none."""
    assert coding == coding_of(header)


@pytest.mark.parametrize("header", ["br", "compress", "gzip, gzip", "gzip;q=1", "\xff"])
def test_a_body_in_an_unknown_coding(header: str) -> None:
    """What is not spoken, and chains, are refused."""
    with pytest.raises(SyncBridgeError) as caught:
        coding_of(header)
    assert ErrorCode.UNSUPPORTED_ENCODING is caught.value.code


@pytest.mark.parametrize("coding", CODINGS)
@settings(deadline=None)
@given(body=st.binary(max_size=LIMIT))
def test_bodies_come_back(coding: str, body: bytes) -> None:
    """Every body within the bound is unfolded to what it was, also the empty one."""
    assert body == unfold(COMPRESS[coding](body), coding, LIMIT)


@pytest.mark.parametrize("coding", CODINGS)
def test_the_bound_is_exact(coding: str) -> None:
    """A body of the bound is read, one byte more is not; noise of the bound fits on the wire."""
    noise = random.Random(1).randbytes(LIMIT)

    assert noise == unfold(COMPRESS[coding](noise), coding, LIMIT)
    assert len(COMPRESS[coding](noise)) <= wire_bound(LIMIT)
    assert unfold(COMPRESS[coding](noise + b"x"), coding, LIMIT) is None


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_not_unfolded(coding: str) -> None:
    """64 MiB of zeros in a few kilobytes are above the bound, and only the bound is produced."""
    packers = {
        "zstd": lambda: zstandard.ZstdCompressor().compress(bytes(1 << 26)),
        "gzip": lambda: zlib.compress(bytes(1 << 26), wbits=31),
        "deflate": lambda: zlib.compress(bytes(1 << 26)),
    }

    assert unfold(packers[coding](), coding, LIMIT) is None


@pytest.mark.parametrize("coding", CODINGS)
def test_damaged_bodies(coding: str) -> None:
    """Cut off anywhere, changed, empty, or with something behind it: INVALID_ENCODING."""
    whole = COMPRESS[coding](TEXT)
    checked = coding != "zstd"  # a zstd frame of ours carries no checksum
    bad = [whole[:cut] for cut in range(len(whole))] + [whole + b"x", b"plain text"]
    bad += [whole[:-1] + bytes([whole[-1] ^ 1])] if checked else []
    for body in bad:
        with pytest.raises(SyncBridgeError) as caught:
            unfold(body, coding, LIMIT)
        assert ErrorCode.INVALID_ENCODING is caught.value.code


def test_bodies_in_several_members() -> None:
    """gzip members and zstd frames in a row are one body, but not without end."""
    for coding in ("gzip", "zstd"):
        piece = COMPRESS[coding](b"ab")
        assert b"ababab" == unfold(piece * 3, coding, LIMIT)
        with pytest.raises(SyncBridgeError):
            unfold(piece * 100, coding, LIMIT)
    with pytest.raises(SyncBridgeError):
        unfold(zlib.compress(b"ab") * 2, "deflate", LIMIT)


def test_a_window_above_the_bound_is_refused() -> None:
    """RFC 9659: a zstd body that asks for more than 8 MiB of window is not decoded."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = packer.compress(TEXT) + packer.flush()

    with pytest.raises(SyncBridgeError):
        unfold(body, "zstd", LIMIT)


@pytest.mark.parametrize("coding", CODINGS)
@settings(deadline=None)
@given(body=st.binary(max_size=60))
def test_any_body_is_judged(coding: str, body: bytes) -> None:
    """Any bytes are a body, too large, or one typed error."""
    try:
        decoded = unfold(body, coding, 10)
    except SyncBridgeError:
        decoded = None
    assert decoded is None or len(decoded) <= 10


# Over HTTP


def route(name: str) -> Response:
    """The answers of the application below."""
    etag = {"ETag": '"e-1"'}
    return {
        "json": lambda: Response(TEXT, media_type="application/json", headers=etag),
        "weak": lambda: Response(TEXT, media_type="text/plain", headers={"ETag": 'W/"e-1"'}),
        "short": lambda: PlainTextResponse("x" * (LEAST - 1)),
        "least": lambda: PlainTextResponse("x" * LEAST),
        "large": lambda: PlainTextResponse("abc" * THREAD_FROM),
        "image": lambda: Response(TEXT, media_type="image/png"),
        "noise": lambda: Response(random.Random(2).randbytes(3000), media_type="text/plain"),
        "secret": lambda: Response(
            TEXT, media_type="application/json", headers={"Cache-Control": "no-store"}
        ),
        "coded": lambda: Response(
            TEXT, media_type="text/plain", headers={"Content-Encoding": "aes128gcm"}
        ),
        "stream": lambda: StreamingResponse(parts(), media_type="text/plain"),
        "vary": lambda: Response(TEXT, media_type="text/plain", headers={"Vary": "Origin"}),
        "problem": lambda: Response(TEXT, 404, media_type="application/problem+json"),
        "unchanged": lambda: Response(None, 304, headers=etag),
    }[name]()


def parts() -> Iterator[bytes]:
    yield from (TEXT, TEXT)


async def answer(request: Request) -> Response:
    return route(request.path_params["name"])


async def length(request: Request) -> Response:
    return JSONResponse(len(await read_body(request, LIMIT)))


ROUTES = Starlette(
    routes=[Route("/length", length, methods=["POST"]), Route("/{name}", answer)],
    exception_handlers=exception_handlers,
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await ROUTES(scope, receive, Compressing(scope["headers"], send))


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def get(name: str, accept: str = "gzip", **headers: str) -> tuple[httpx.Response, bytes]:
    """The answer and its body as it came over the wire."""
    given = {"Accept-Encoding": accept} | {k.replace("_", "-"): v for k, v in headers.items()}
    async with client() as http, http.stream("GET", f"/{name}", headers=given) as response:
        return response, b"".join([chunk async for chunk in response.aiter_raw()])


@pytest.mark.parametrize("name", ["json", "least", "large", "vary", "problem", "weak"])
@pytest.mark.parametrize("coding", CODINGS)
async def test_answers_that_are_compressed(name: str, coding: str) -> None:
    """The coding is named, the length is that of the wire, and the body unfolds to the plain one;
    a strong tag becomes weak."""
    response, wire = await get(name, coding)
    plain, body = await get(name, "identity")

    assert coding == response.headers["content-encoding"]
    assert len(wire) == int(response.headers["content-length"]) < len(body)
    assert body == unfold(wire, coding, 1 << 20)
    assert "content-encoding" not in plain.headers
    for both in (response, plain):
        assert "Accept-Encoding" in both.headers["vary"].split(", ")
    assert plain.headers.get("etag", "").removeprefix("W/") == response.headers.get(
        "etag", ""
    ).removeprefix("W/")
    assert response.headers.get("etag", "W/").startswith("W/")


async def test_vary_keeps_what_was_there() -> None:
    """The header of the application is extended."""
    response, _ = await get("vary")

    assert "Origin, Accept-Encoding" == response.headers["vary"]


@pytest.mark.parametrize("name", ["short", "image", "secret", "coded", "stream"])
async def test_answers_that_are_left_alone(name: str) -> None:
    """Short, not text, secret, coded already, or in parts: byte for byte as without us."""
    response, wire = await get(name)

    assert response.headers.get("content-encoding") in (None, "aes128gcm")
    assert "vary" not in response.headers
    assert wire == (TEXT + TEXT if name == "stream" else bytes(route(name).body))


async def test_an_answer_that_does_not_get_shorter() -> None:
    """Noise goes as it is."""
    response, wire = await get("noise")

    assert (None, 3000) == (response.headers.get("content-encoding"), len(wire))


@pytest.mark.parametrize(
    ("known", "tag"),
    [('"e-1"', '"e-1"'), ('W/"e-1"', 'W/"e-1"'), ('"x", W/"e-1"', 'W/"e-1"')],
)
async def test_a_304_names_the_tag_that_the_client_has(known: str, tag: str) -> None:
    """A cache finds the answer that it stored, plain or compressed (RFC 9111 section 4.3.4)."""
    response, wire = await get("unchanged", "gzip", If_None_Match=known)

    assert (304, tag, b"") == (response.status_code, response.headers["etag"], wire)
    assert "Accept-Encoding" == response.headers["vary"]


async def post(body: bytes, coding: str) -> httpx.Response:
    async with client() as http:
        return await http.post("/length", content=body, headers={"Content-Encoding": coding})


@pytest.mark.parametrize("coding", CODINGS)
async def test_bodies_of_requests(coding: str) -> None:
    """Within the bound: read; above: 413 with the bound; damaged: 400."""
    pack = COMPRESS[coding]
    good, above, bad = (
        await post(pack(bytes(LIMIT)), coding),
        await post(pack(bytes(LIMIT + 1)), coding),
        await post(pack(TEXT)[:-3], coding),
    )

    assert (200, LIMIT) == (good.status_code, good.json())
    assert (413, "too_large", LIMIT) == (
        above.status_code,
        above.json()["code"],
        above.json()["limit"],
    )
    assert (400, "invalid_encoding") == (bad.status_code, bad.json()["code"])


async def test_a_coded_body_is_bounded_on_the_wire() -> None:
    """Garbage far above the bound is 413 before anybody tries to decode it."""
    response = await post(bytes(wire_bound(LIMIT) + 1), "gzip")

    assert (413, LIMIT) == (response.status_code, response.json()["limit"])


async def test_an_unknown_coding_is_told_what_is_spoken() -> None:
    """415 with Accept-Encoding (RFC 9110 section 15.5.16)."""
    response = await post(b"x", "br")

    assert (415, "unsupported_encoding") == (response.status_code, response.json()["code"])
    assert "zstd, gzip, deflate" == response.headers["accept-encoding"]


async def test_an_identity_body_is_plain() -> None:
    """`identity` is no coding, and the bound is that of the body."""
    assert 3 == (await post(b"abc", "identity")).json()
    assert 413 == (await post(bytes(LIMIT + 1), "identity")).status_code


async def test_gzip_of_other_tools() -> None:
    """Headers with a name and a time are read."""
    assert 3 == (await post(gzip.compress(b"abc", mtime=1), "gzip")).json()
