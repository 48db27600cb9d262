"""Rates: of a user, of an address, of a REST caller; and what slow readers cost."""

import json
from itertools import pairwise
from typing import Any

import pytest
import trio

from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device, Refused
from syncbridge.identity import Role

STATE_UPDATE, ERROR = 5, 6
PROXY = {"trusted_proxies": ("127.0.0.0/8",)}


def through_proxy(address: str) -> list[tuple[bytes, bytes]]:
    """What a proxy on this machine says of its client."""
    return [(b"X-Forwarded-For", address.encode())]


async def refused(node: Node, address: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await Device.open(node.port, headers=through_proxy(address))
    return caught.value


async def test_messages_of_a_user_are_held_over_all_connections(redis_url: str) -> None:
    """Two devices of one user share a rate; another user, and a service, do not."""
    async with running_node(redis_url, user_messages_per_second=1, user_message_burst=20) as node:
        async with (
            await Device.open(node.port) as phone,
            await Device.open(node.port) as tablet,
            await Device.open(node.port) as other,
            await Device.open(node.port) as robot,
        ):
            for device, name in ((phone, "phone"), (tablet, "tablet")):
                await device.auth(mint("ann"), name)
            await other.auth(mint("bob"), "other")
            await robot.auth(mint("bot", Role.SERVICE), "robot")
            answers = [await d.request(1) for _ in range(12) for d in (phone, tablet)]
            others = [await d.request(1) for _ in range(24) for d in (other, robot)]

    limited = [a for a in answers if a["type"] == ERROR]
    assert 20 <= len(answers) - len(limited) < 24
    assert {"rate_limited"} == {a["payload"]["code"] for a in limited}
    assert all(0 < a["payload"]["retry_after_ms"] <= 1000 for a in limited)
    assert ERROR not in {a["type"] for a in others[1::2]}
    assert 20 <= sum(a["type"] != ERROR for a in others[::2]) < 24


async def test_handshakes_of_an_address_are_held(redis_url: str) -> None:
    """429 with Retry-After above the burst; another address, and this machine, are welcome."""
    async with running_node(redis_url, handshakes_per_second=1, handshake_burst=3, **PROXY) as node:
        for _ in range(3):
            async with await Device.open(node.port, headers=through_proxy("203.0.113.9")):
                pass
        answer = await refused(node, "203.0.113.9")
        forged = await refused(node, "198.51.100.1, 203.0.113.9")
        async with await Device.open(node.port, headers=through_proxy("203.0.113.10")) as other:
            await other.auth(mint("ann"), "phone")
            connection = next(iter(node.server.gateway.registry))
            for _ in range(5):
                async with await Device.open(node.port):
                    pass

    assert (429, "rate_limited") == (answer.status, json.loads(answer.body)["code"])
    assert 429 == forged.status
    assert "203.0.113.10" == connection.client


async def test_an_address_is_believed_only_from_a_trusted_proxy(redis_url: str) -> None:
    """Without trusted proxies X-Forwarded-For changes nothing."""
    async with running_node(redis_url, handshakes_per_second=1, handshake_burst=1) as node:
        for _ in range(5):
            async with await Device.open(node.port, headers=through_proxy("203.0.113.9")):
                pass
        async with await Device.open(node.port, headers=through_proxy("203.0.113.9")):
            clients = {c.client for c in node.server.gateway.registry}

    assert {"127.0.0.1"} == clients


async def test_connections_without_auth_of_an_address_are_bounded(redis_url: str) -> None:
    """Above its share under pressure the oldest of the address gives way; who has authenticated is
    not counted, and another address keeps its place."""
    tight = {"unauthenticated_per_address": 2, "max_connections": 5}
    async with running_node(redis_url, **tight, **PROXY) as node:
        mine, other = through_proxy("203.0.113.9"), through_proxy("203.0.113.10")
        async with (
            await Device.open(node.port, headers=other) as guest,
            await Device.open(node.port, headers=mine) as member,
            await Device.open(node.port, headers=mine) as old,
            await Device.open(node.port, headers=mine) as kept,
        ):
            await member.auth(mint("ann"), "phone")
            async with await Device.open(node.port, headers=mine) as newest:
                closed = await old.closed()
                for device, name in ((guest, "eve"), (kept, "bob"), (newest, "dan")):
                    await device.auth(mint(name), "phone")
                evicted = node.server.gateway.evicted
                left = dict(node.server.gateway.registry.waiting)

    assert (4013, 1, {}) == (closed.code, evicted, left)


async def test_requests_are_counted_by_user(redis_url: str) -> None:
    """A user above the rate gets 429 with a time; others behind the same address do not."""
    path = f"/session/{new_session()}"
    async with (
        running_node(redis_url, requests_per_second=1, request_burst=3) as node,
        node.http() as http,
    ):
        mine = [(await http.get(path, headers=bearer(mint("ann")))) for _ in range(4)]
        others = [(await http.get(path, headers=bearer(mint(f"u{n}")))) for n in range(4)]
        fakes = [(await http.get(path, headers=bearer(f"no.token.{n}"))) for n in range(4)]

    assert [404, 404, 404, 429] == [a.status_code for a in mine]
    assert [404] * 4 == [a.status_code for a in others]
    assert [401, 401, 401, 429] == [a.status_code for a in fakes]
    assert int(mine[-1].headers["retry-after"]) >= 1


async def test_rate_limits_can_be_turned_off(redis_url: str) -> None:
    """With SYNCBRIDGE_RATE_LIMIT_ENABLED=false nobody is held, and clients are told so."""
    tight = {
        "messages_per_second": 1,
        "message_burst": 1,
        "user_messages_per_second": 1,
        "user_message_burst": 1,
        "handshakes_per_second": 1,
        "handshake_burst": 1,
        "unauthenticated_per_address": 1,
        "requests_per_second": 1,
        "request_burst": 1,
    }
    headers = through_proxy("203.0.113.9")
    async with running_node(redis_url, rate_limit_enabled=False, **PROXY, **tight) as node:
        async with (
            await Device.open(node.port, headers=headers) as phone,
            await Device.open(node.port, headers=headers) as tablet,
            node.http() as http,
        ):
            told = (await phone.auth(mint("ann"), "phone"))["limits"]
            await tablet.auth(mint("ann"), "tablet")
            answers = [await phone.request(1) for _ in range(20)]
            statuses = {(await http.get("/session/x")).status_code for _ in range(20)}

    assert {2} == {a["type"] for a in answers}
    assert {401} == statuses
    assert dict.fromkeys(tight, 0) == {name: told[name] for name in tight}


async def test_clients_are_told_all_limits(redis_url: str) -> None:
    """AUTH_SUCCESS names every bound that a client can meet, with the numbers that are enforced."""
    async with running_node(redis_url, user_message_burst=321, max_connections=77) as node:
        async with await Device.open(node.port) as phone:
            told = (await phone.auth(mint("ann"), "phone"))["limits"]

    assert (321, 77) == (told["user_message_burst"], told["connections"])
    assert all(isinstance(value, int) and value > 0 for value in told.values())


async def apply_all(device: Device, until: int) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Read updates up to a version: the state they make, and each one's (previous, own)."""
    state: dict[str, Any] = {}
    steps = []
    while not steps or steps[-1][1] < until:
        payload = (await device.receive(STATE_UPDATE))["payload"]
        state |= payload["changes"]
        steps.append((payload["prev_version"], payload["version"]))
    return state, steps


@pytest.mark.slow
async def test_a_device_that_reads_nothing_while_10_000_updates_pass(redis_url: str) -> None:
    """The server keeps at most one outbox for it, others miss nothing, and it converges."""
    count, outbox, session = 10_000, 200_000, new_session()
    most = 0
    async with running_node(
        redis_url, rate_limit_enabled=False, conflate_bytes=50_000, outbox_bytes=outbox
    ) as node:
        statistics = node.server.hub.statistics
        async with (
            await Device.open(node.port) as writer,
            await Device.open(node.port) as reader,
            await Device.open(node.port) as slow,
        ):
            for device, name in ((slow, "slow"), (reader, "reader"), (writer, "writer")):
                await device.auth(mint("ann"), name, session_id=session)
            watched: list[Any] = []

            async def watch() -> None:
                watched.append(await apply_all(reader, count))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                for first in range(0, count, 200):
                    texts = [update(n) for n in range(first, first + 200)]
                    await writer.send_many(texts)
                    while writer.version < first + 200:
                        message = await writer.receive(STATE_UPDATE)
                        writer.version = message["payload"]["version"]
                    most = max(most, statistics().queued_bytes)
            late, steps = await apply_all(slow, count)
            final = (await slow.request(3))["payload"]
            after = statistics()

    state, every = watched[0]
    assert [(n, n + 1) for n in range(count)] == every
    assert most <= outbox
    assert after.state_dropped > 0
    assert (0, 0) == (after.slow_closed, after.queued_bytes)
    assert (count, state) == (final["version"], final["state_data"])
    assert state == late
    assert len(steps) < count
    assert all(prev <= old for (_, old), (prev, _) in pairwise(steps))


def update(n: int) -> str:
    """STATE_UPDATE number n, about 2 KB, of one of 50 keys."""
    payload = {"key": f"k{n % 50}", "value": {"n": n, "x": "y" * 2000}}
    return json.dumps({"type": STATE_UPDATE, "payload": payload})
