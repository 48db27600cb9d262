"""The whole server when its bounds are reached: sockets, slow requests, probes, metrics."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from integration.test_capacity import attack, hang_up
from support.hub_kit import descriptors
from support.listener.http_site import get
from support.listener.listener_site import certificate
from support.listener.ws_raw import Answer, open_http2, open_tls
from support.server_kit import Node, bearer, mint, new_session, running_node, settings
from support.ws_client import Device, Refused
from syncbridge_server.configuration.parts import PROBES, listener_config
from syncbridge_server.listener.capacity import Capacity, Occupant

WEBHOOK = get("/rtk-webhook", "Content-Length: 100", method="POST") + b"{"


def snapshot() -> bytes:
    """A request whose body does not come, with a token that holds."""
    return get(
        "/session/snapshot",
        "Content-Length: 100",
        "Content-Type: application/json",
        f"Authorization: Bearer {mint('mallory')}",
        method="POST",
    )


async def test_sockets_without_auth_give_way(redis_url: str) -> None:
    """The oldest of them is closed with 4013; whoever has authenticated stays."""
    async with running_node(redis_url, max_connections=3) as node:
        async with (
            await Device.open(node.port) as phone,
            await Device.open(node.port) as silent,
            await Device.open(node.port) as later,
        ):
            await phone.auth(mint("ann"), "phone")
            async with await Device.open(node.port) as newcomer:
                closed = await silent.closed()
                await newcomer.auth(mint("bob"), "phone")
                await later.auth(mint("cem"), "phone")
                with pytest.raises(Refused) as caught:
                    await Device.open(node.port)
                answers = [(await one.request(1))["type"] for one in (phone, newcomer, later)]
            figures = await metrics(node)

    assert 4013 == closed.code
    assert (503, "overloaded") == (caught.value.status, json.loads(caught.value.body)["code"])
    assert [2, 2, 2] == answers
    assert 1 == figures["syncbridge_listener_sockets_evicted_total"]


@pytest.mark.parametrize("opener", [open_tls, open_http2])
async def test_over_tls_too(
    redis_url: str, tmp_path: Path, opener: Callable[[int], Awaitable[Answer]]
) -> None:
    """A socket without AUTH gives its connection's place to whoever comes; one with AUTH stays."""
    cert, key = certificate(tmp_path)
    async with running_node(redis_url, tls_cert=cert, tls_key=key, http_connections=2) as node:
        known, silent = await opener(node.port), await opener(node.port)
        await authenticate(known, "ann")
        newcomer = await opener(node.port)
        over = await silent.open.ended()
        await authenticate(newcomer, "bob")
        refused = await open_tls(node.port)
        for one in (known, newcomer):
            await one.open.text('{"type": 1, "payload": {}}')
        beats = [json.loads(await one.open.message())["type"] for one in (known, newcomer)]
        for one in (known, silent, newcomer, refused):
            await one.link.abort()

    assert over
    assert (503, [2, 2]) == (refused.status, beats)


async def authenticate(socket: Answer, user: str) -> None:
    """AUTH, until it is answered."""
    hello = {"type": 7, "payload": {"token": mint(user), "device_id": "phone"}}
    await socket.open.text(json.dumps(hello))
    assert 8 == json.loads(await socket.open.message())["type"]


async def test_a_refused_auth_keeps_no_place(redis_url: str) -> None:
    """Whoever sends AUTH that cannot be taken is not authenticated, and gives way."""
    async with running_node(redis_url, max_connections=1) as node:
        async with await Device.open(node.port) as first:
            refused = await first.request(7, {"token": mint("ann"), "device_id": "x" * 1_000})
            async with await Device.open(node.port) as second:
                await second.auth(mint("ann"), "phone")

    assert 9 == refused["type"]


async def test_many_newcomers_do_not_pass_the_bound(redis_url: str) -> None:
    """A hundred handshakes at once: each is answered, and there are never more than three."""
    async with running_node(redis_url, max_connections=3) as node:
        gateway, done = node.server.gateway, trio.Event()

        async def come(task_status: trio.TaskStatus[None]) -> None:
            async with await Device.open(node.port):
                assert len(gateway.registry.connections) <= 3
                task_status.started()
                await done.wait()

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as openers:
                for _ in range(100):
                    openers.start_soon(nursery.start, come)
            counts = gateway.evicted, len(gateway.registry.unauthenticated)
            done.set()

    assert (97, 3) == counts


@pytest.mark.slow
@pytest.mark.parametrize("slow", [lambda: WEBHOOK, snapshot], ids=["webhook", "snapshot"])
async def test_slow_bodies_take_nothing_down(redis_url: str, slow: Callable[[], bytes]) -> None:
    """With the real bounds: 1,100 bodies that never come, and all of REST is there."""
    with descriptors(6_000):
        async with (
            running_node(redis_url, rate_limit_enabled=False) as node,
            node.http() as http,
        ):
            streams = await attack(node.port, 1_100, slow())
            statuses = [(await http.get(path)).status_code for path in PROBES]
            path = f"/session/{new_session()}"
            for _ in range(10):
                found = await http.get(path, headers=bearer(mint("ann")))
                honest = await http.post("/rtk-webhook", json={})
                statuses += [found.status_code, honest.status_code]
            figures = await metrics(node)
            await hang_up(streams)

    assert [200] * 4 + [404, 401] * 10 == statuses
    assert figures["syncbridge_listener_requests_open"] <= 1_024
    assert figures["syncbridge_listener_requests_evicted_total"] >= 1_100 - 1_024


async def metrics(node: Node) -> dict[str, float]:
    """The samples without labels."""
    async with node.http() as http:
        text = (await http.get("/metrics")).text
    found = re.findall(r"^(\w+) ([0-9.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def occupy(capacity: Capacity) -> None:
    """Take all places, so that nobody gives way."""
    while capacity.held < capacity.limit:
        assert Occupant(holder=f"192.0.2.{capacity.held}").take(capacity)


@pytest.mark.parametrize("full", [("connections",), ("requests",), ("connections", "requests")])
async def test_health_and_metrics_when_all_is_full(redis_url: str, full: tuple[str, ...]) -> None:
    """They are answered as ever, while everything else is told to come back."""
    async with running_node(redis_url) as node:
        for name in full:
            occupy(getattr(node.server.bounds, name))
        answers: list[Any] = []
        for _ in range(3):
            for path in (*PROBES, "/openapi.json", "/healthy"):
                async with node.http() as http:
                    answers.append(await http.get(path))
        figures = await metrics(node)

    assert [200, 200, 200, 200, 503, 503] * 3 == [one.status_code for one in answers]
    assert "alive" == answers[1].json()["status"]
    assert figures[f"syncbridge_listener_{full[0]}_refused_total"] >= 6


def test_probes_behind_a_proxy_that_adds_a_path() -> None:
    """With a root path both spellings are probes, for some proxies strip it."""
    config = listener_config(settings("unix:///nowhere", http_root_path="/sync/"))

    assert {*PROBES, *("/sync" + path for path in PROBES)} == config.probe_paths
