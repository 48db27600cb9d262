"""What operators see of a request is the same under both HTTP engines."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from support.server_kit import bearer, mint, new_session, running_node
from syncbridge_server.log import configure_logging

ANSWERED, SCRAPE = "Request answered", "/metrics"
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


async def observe(engine: str, redis_url: str, lines: io.StringIO) -> Seen:
    """Access lines, counters and answers of the same few requests."""
    session = new_session()
    headers = bearer(mint("u")) | {"X-Request-ID": "mine"}
    lines.seek(0)
    lines.truncate()
    async with running_node(redis_url, http_engine=engine, access_log=True) as node:
        async with node.http() as http:
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


async def test_both_engines_are_seen_alike(redis_url: str, lines: io.StringIO) -> None:
    """Access lines, metrics and the headers of answers do not tell which one served."""
    fast = await observe("fast", redis_url, lines)
    other = await observe("hypercorn", redis_url, lines)

    assert fast[0] == other[0]
    assert fast[1] == other[1]
    assert fast[2] == other[2]
    assert len(fast[0]) == 7
    assert len(fast[1]) >= 5
