"""Attacks on the bounds of a server with two workers: whoever is honest is served meanwhile."""

import http.client
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from integration.commands.test_metrics_of_workers import free_port, total, until_up
from support.server_kit import bearer, mint, new_session, server_process

ATTACKER, HONEST, LOCAL = "127.0.0.2", "127.0.0.3", "127.0.0.1"
HALF = b"GET /w"
IDLE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
FORWARDED = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
SLOW = (
    b"POST /webhooks/rtk HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)
BOUND = 64
BOUNDS = {
    "SYNCBRIDGE_HTTP_HANDSHAKES": str(BOUND),
    "SYNCBRIDGE_HTTP_CONNECTIONS": str(BOUND),
    "SYNCBRIDGE_HTTP_REQUESTS": str(BOUND),
}


@contextmanager
def attack(port: int, count: int, data: bytes) -> Iterator[None]:
    """So many connections of one address that say so much and no more."""
    with ExitStack() as stack:
        for _ in range(count):
            sock = socket.create_connection((LOCAL, port), 10, source_address=(ATTACKER, 0))
            stack.enter_context(sock)
            if data:
                sock.sendall(data)
        yield


def connect(port: int, address: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(LOCAL, port, timeout=10, source_address=(address, 0))


def ask(connection: http.client.HTTPConnection) -> int:
    """A request of a user for a session that is not there."""
    connection.request("GET", f"/session/{new_session()}", headers=bearer(mint("ann")))
    answer = connection.getresponse()
    answer.read()
    return answer.status


@pytest.mark.parametrize(
    ("data", "bound"),
    [
        (b"", "handshakes"),
        (HALF, "handshakes"),
        (IDLE, "connections"),
        (FORWARDED, "connections"),
        (SLOW, "connections"),
    ],
    ids=["silent", "half a head", "idle", "forwarding", "slow body"],
)
def test_one_address_keeps_nobody_out(
    tmp_path: Path, redis_url: str, data: bytes, bound: str
) -> None:
    """400 connections, three times what both workers hold: of 60 new and 60 old requests of each
    of two other addresses none is refused, and no old connection is lost."""
    port, admin = free_port(), free_port()
    addresses = {"SERVER_ADDR": f"{LOCAL}:{port}", "SYNCBRIDGE_ADMIN_ADDR": f"{LOCAL}:{admin}"}
    answers: Counter[tuple[str, int]] = Counter()
    with server_process(tmp_path, redis_url, "serve", "--workers", "2", **addresses, **BOUNDS):
        until_up(f"http://{LOCAL}:{admin}/metrics")
        old = {address: connect(port, address) for address in (HONEST, LOCAL)}
        for connection in old.values():
            assert 404 == ask(connection)
        with attack(port, 400, data):
            for _ in range(60):
                for address, connection in old.items():
                    answers[f"old {address}", ask(connection)] += 1
                    newcomer = connect(port, address)
                    answers[f"new {address}", ask(newcomer)] += 1
                    newcomer.close()
            text = httpx.get(f"http://{LOCAL}:{admin}/metrics", timeout=5).text
        for connection in old.values():
            connection.close()
    ways = ("evicted", "refused")
    gone = sum(total(text, f"syncbridge_listener_{bound}_{way}_total")[0] for way in ways)

    assert {
        (f"{age} {address}", 404): 60 for age in ("old", "new") for address in (HONEST, LOCAL)
    } == dict(answers)
    assert gone >= 400 - 2 * BOUND
