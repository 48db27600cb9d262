"""What operators see of a request is the same over plain TCP, TLS and HTTP/2."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from support.listener.listener_site import certificate
from support.server_kit import bearer, mint, new_session, running_node
from syncbridge_server.log import configure_logging

ANSWERED, SCRAPE = "request_answered", "/metrics"
Seen = tuple[list[dict[str, Any]], list[str], list[dict[str, str]]]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as JSON lines."""
    stream = io.StringIO()
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("json", "info", stream)
    yield stream
    structlog.configure(**before)
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


async def observe(redis_url: str, lines: io.StringIO, http2: bool = False, **settings: str) -> Seen:
    """Access lines, counters and answers of the same few requests."""
    session = new_session()
    headers = bearer(mint("u")) | {"X-Request-ID": "mine"}
    lines.seek(0)
    lines.truncate()
    async with running_node(redis_url, access_log=True, **settings) as node:
        url = f"{'https' if settings else 'http'}://127.0.0.1:{node.port}"
        async with httpx.AsyncClient(base_url=url, verify=False, http2=http2) as http:
            body = {"session_id": session, "user_id": "u", "state_data": {"a": 1}}
            answers = [
                await http.get("/health/live", headers={"X-Request-ID": "mine"}),
                await http.get("/nowhere", headers={"X-Request-ID": "mine"}),
                await http.post("/session/snapshot", json=body, headers=headers),
                await http.get(f"/session/{session}", headers=headers),
                await http.head("/health/live", headers={"X-Request-ID": "no good id"}),
                await http.post("/session/snapshot", content=b"{", headers=headers),
                await http.delete("/health", headers={"X-Request-ID": "mine"}),
            ]
            metrics = (await http.get("/metrics")).text
    return (
        [
            access(line)
            for line in lines.getvalue().replace(session, "ID").splitlines()
            if ANSWERED in line and SCRAPE not in line
        ],
        [line for line in metrics.splitlines() if "http_requests_total{" in line],
        [shown(answer.headers) for answer in answers],
    )


def access(line: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(line)
    members["request_id"] = "made" if len(members["request_id"]) == 32 else members["request_id"]
    return {name: value for name, value in members.items() if name not in ("timestamp", "ms")}


def shown(headers: Any) -> dict[str, str]:
    """Headers of an answer; what differs from one moment to the next only by name."""
    varying = ("date", "etag", "x-request-id")
    return {
        name: "there" if name in varying else value
        for name, value in sorted(headers.items())
        if name != "connection"
    }


@pytest.mark.parametrize("http2", [False, True])
async def test_all_ways_are_seen_alike(
    redis_url: str, lines: io.StringIO, tmp_path: Path, http2: bool
) -> None:
    """Access lines, metrics and the headers of answers do not tell how the request came."""
    certfile, keyfile = certificate(tmp_path)
    plain = await observe(redis_url, lines)
    other = await observe(redis_url, lines, http2, tls_cert=certfile, tls_key=keyfile)

    assert plain[0] == other[0]
    assert plain[1] == other[1]
    assert plain[2] == other[2]
    assert len(plain[0]) == 7
    assert len(plain[1]) >= 5
