"""Nothing is refused in silence: each refusal moves a counter, and some of them write a line."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from support.server_kit import Node, bearer, mint, running_node
from support.ws_client import Device, Refused
from syncbridge_server.auth.refusals import Refusals
from syncbridge_server.listener.contract import Refusal


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


async def metrics(node: Node) -> dict[str, float]:
    """Samples of the two counters and of handshakes among HTTP requests, by name and labels."""
    async with node.http() as http:
        text = (await http.get("/metrics")).text
    found = re.findall(
        r"^(syncbridge_(?:refused|closes|http_requests)_total\S*) (\S+)$", text, re.M
    )
    return {name: float(value) for name, value in found}


def refused(door: str, code: str) -> str:
    return f'syncbridge_refused_total{{code="{code}",door="{door}"}}'


async def test_refused_handshakes_are_counted_and_told(node: Node) -> None:
    """Five refused origins: five in each counter, one line with who, what and the setting."""
    with capture_logs() as logs:
        for _ in range(5):
            with pytest.raises(Refused):
                await Device.open(node.port, headers=[(b"Origin", b"https://evil.example")])
    seen = await metrics(node)
    lines = [line for line in logs if line["event"] == "refused"]

    assert 5 == seen[refused("handshake", "origin_refused")]
    assert 5 == seen['syncbridge_http_requests_total{method="GET",route="/ws",status="403"}']
    assert 1 == len(lines)
    assert ("127.0.0.1", "origin_refused") == (lines[0]["client"], lines[0]["code"])
    assert "SYNCBRIDGE_ORIGINS" in lines[0]["settings"]


async def test_failed_auths_are_counted_and_told(node: Node) -> None:
    """By code, with the close code; the token is in no line."""
    with capture_logs() as logs:
        for _ in range(5):
            async with await Device.open(node.port) as device:
                await device.request(7, {"token": "eyJhbGciOiJub25lIn0.e30.", "device_id": "tv"})
                await device.closed()
        async with await Device.open(node.port) as device:
            await device.auth(mint("ann"), "tv")
            await device.request(5, {"key": "", "value": 1})
    seen = await metrics(node)
    lines = [line for line in logs if line["event"] == "refused"]

    assert 5 == seen[refused("auth", "token_invalid")]
    assert 5 == seen['syncbridge_closes_total{code="4002"}']
    assert 1 == seen[refused("message", "invalid_key")]
    assert ["auth", "message"] == [line["door"] for line in lines]
    assert ("ann", "tv") == (lines[1]["user"], lines[1]["device"])
    assert "eyJ" not in str(lines)


async def test_refused_requests_are_counted_and_told(node: Node) -> None:
    """A request without a token, with another user's session, to no route; each by its code."""
    with capture_logs() as logs:
        async with node.http() as http:
            await http.get("/sessions")
            await http.get("/sessions", headers=bearer(mint("ann")))
            await http.get("/nowhere")
            await http.put("/health")
    seen = await metrics(node)
    lines = [line for line in logs if line["event"] == "refused"]

    for code in ("auth_required", "insufficient_role", "not_found", "method_not_allowed"):
        assert 1 == seen[refused("http", code)], code
    assert ["", "ann"] == [line.get("user", "") for line in lines[:2]]
    assert ["auth_required", "insufficient_role", "method_not_allowed"] == [
        line["code"] for line in lines
    ]


async def test_what_is_above_the_rate_is_counted(redis_url: str) -> None:
    """429 is a refusal like any other."""
    async with (
        running_node(redis_url, requests_per_second=1, request_burst=1) as node,
        httpx.AsyncClient(base_url=node.url) as http,
    ):
        for _ in range(3):
            await http.get("/sessions", headers=bearer(mint("ann")))
        counted = {
            (sample.labels["door"], sample.labels["code"]): sample.value
            for family in node.server.refusals.collect()
            for sample in family.samples
            if "door" in sample.labels
        }

    assert counted[("http", "rate_limited")] >= 1


def test_lines_are_few() -> None:
    """One line in ten seconds for each door and code, with how many came since the last."""
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    with capture_logs() as logs:
        for _ in range(100):
            refusals.handshake(Refusal(403, "origin_refused", "no"), "10.0.0.1")
        now[0] = 10.0
        refusals.handshake(Refusal(403, "origin_refused", "no"), "10.0.0.2")

    assert [1, 100] == [line["refused"] for line in logs]
    assert {("handshake", "origin_refused"): 101} == {
        (sample.labels["door"], sample.labels["code"]): sample.value
        for family in refusals.collect()
        for sample in family.samples
    }


MALFORMED = b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n"
LONG_TARGET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 9_000)
LONG_HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"x" * 20_000)
LONG_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"


async def test_what_the_parser_refuses_is_counted_and_protected(node: Node) -> None:
    """400, 414, 431 and 413 never reach the application; they count, and have the same headers."""
    answers = []
    for data in (MALFORMED, LONG_TARGET, LONG_HEAD, LONG_BODY):
        async with await trio.open_tcp_stream("127.0.0.1", node.port) as stream:
            await stream.send_all(data)
            with trio.fail_after(5):
                text = b"".join([part async for part in stream]).decode()
            code = re.search(r'"code": "(\w+)"', text)
            assert code is not None
            answers.append((int(text.split()[1]), code[1], text.count("nosniff")))
    seen = await metrics(node)

    assert [400, 414, 431, 413] == [status for status, _, _ in answers]
    assert [1] * 4 == [protected for _, _, protected in answers]
    assert {1.0} == {seen[refused("http", code)] for _, code, _ in answers}


@pytest.mark.parametrize("path", ["/health", "/metrics", "/nowhere", "/openapi.json", "/ws"])
async def test_every_answer_is_protected(node: Node, path: str) -> None:
    """Once each: answers of routes, files, errors and refused handshakes."""
    async with node.http() as http:
        headers = (await http.get(path)).headers

    assert ["nosniff"] == headers.get_list("x-content-type-options")
    assert ["DENY"] == headers.get_list("x-frame-options")
    assert ["no-referrer"] == headers.get_list("referrer-policy")
