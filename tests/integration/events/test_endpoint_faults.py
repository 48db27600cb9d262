"""Endpoints that nobody can post to, and those that are used wrongly: the others do not notice."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

from support.events.receiver import Receiver
from support.redis_servers import RedisServer
from support.server_kit import create_session, settings
from syncbridge.events.endpoints import Endpoint
from syncbridge_server.events import process
from syncbridge_server.events.guard import Guard, NotAllowed
from syncbridge_server.events.process import Deliveries
from syncbridge_server.events.sender import Answer, Sender
from syncbridge_server.http import endpoints as routes
from syncbridge_server.http.endpoints import new_secret
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.endpoints import RedisEndpoints

LOCAL = ("127.0.0.0/8",)
Json = dict[str, Any]


async def endpoint(http: httpx.AsyncClient, url: str) -> str:
    answer = await http.post("/admin/webhooks", json={"url": url})
    assert 201 == answer.status_code, answer.text
    made: str = answer.json()["id"]
    return made


@pytest.mark.parametrize(
    "url", ["https://1.2.3.999/", "https://[v1.abc]/", "https://xn--/", "https://xn--a.com/"]
)
async def test_a_url_that_cannot_be_used_is_refused(http: httpx.AsyncClient, url: str) -> None:
    """By the request, which says which member it is."""
    answer = await http.post("/admin/webhooks", json={"url": url})

    assert (422, "url") == (answer.status_code, answer.json()["field"])


@asynccontextmanager
async def delivering(redis_url: str) -> AsyncIterator[RedisEndpoints]:
    """`syncbridge deliver`, in this process, and what it stores."""
    async with RedisIO(redis_url).running() as io:
        bus = RedisBus(io, "deliver-test")
        config = settings(redis_url, webhook_networks=LOCAL)
        async with bus.running(), trio.open_nursery() as nursery:
            nursery.start_soon(Deliveries(config, io, bus).run)
            yield RedisEndpoints(io)
            nursery.cancel_scope.cancel()


async def failed(store: RedisEndpoints, name: str) -> str:
    """Wait for the first failure; what it was."""
    with trio.fail_after(20):
        while not (status := await store.status(name)).failed:  # noqa: ASYNC110 - it says nothing
            await trio.sleep(0.05)
    return status.last_error


async def test_one_that_is_stored_all_the_same_stops_no_other(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """An older version has taken it: its attempts fail, and the others are served."""
    await endpoint(http, receiver.url())
    with redis_server.client() as raw:
        bad = Endpoint("bad", "https://1.2.3.999/", [new_secret()])
        raw.hset("ev:{events}:endpoints", "bad", msgspec.json.encode(bad))
    async with delivering(redis_server.url) as store:
        sid = await create_session(http, a=1)
        (got,) = await receiver.until(1)
        why = await failed(store, "bad")

    assert (sid, "InvalidURL") == (got.event["session_id"], why)


async def test_nothing_is_left_of_one_that_is_removed_while_it_is_served(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """What its worker notes at its end goes as well."""
    made = await endpoint(http, receiver.url())
    async with delivering(redis_server.url) as store:
        await create_session(http, a=1)
        await receiver.until(1)
        with redis_server.client() as raw, trio.fail_after(20):
            while not (await store.status(made)).delivered:  # noqa: ASYNC110 - it says nothing
                await trio.sleep(0.02)
            await create_session(http, a=1)
            await receiver.until(2)
            assert 204 == (await http.delete(f"/admin/webhooks/{made}")).status_code
            await trio.sleep(process.LOOK_SECONDS)
            left = f"ev:{{events}}:?:{made}"
            while list(raw.scan_iter(left)):  # noqa: ASYNC110 - it says nothing
                await trio.sleep(0.05)


async def test_what_waits_for_one_is_bounded(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody delivers: what is sent again, or as a test, is refused at the bound."""
    path = f"/admin/webhooks/{await endpoint(http, 'https://example.com/')}"
    await create_session(http, a=1)
    monkeypatch.setattr(routes, "HELD_MOST", 2)
    tested = [(await http.post(path + "/test")).status_code for _ in range(3)]
    replayed = await http.post(path + "/replay", json={"since": 0})

    assert [202, 202, 503] == tested
    assert (503, "overloaded") == (replayed.status_code, replayed.json()["code"])


async def test_a_time_that_is_none_is_refused(http: httpx.AsyncClient) -> None:
    """Redis is not asked for it."""
    path = f"/admin/webhooks/{await endpoint(http, 'https://example.com/')}/replay"
    answers = [
        (await http.post(path, json={"since": since})).status_code
        for since in (10**30, 2**62, -1, 2**53)
    ]

    assert [422, 422, 422, 200] == answers


async def test_one_that_is_damaged_is_none(
    redis_server: RedisServer, http: httpx.AsyncClient
) -> None:
    """404, and the others are listed."""
    made = await endpoint(http, "https://example.com/")
    with redis_server.client() as raw:
        raw.hset("ev:{events}:endpoints", "bad", "{}")
    answer = await http.get("/admin/webhooks/bad")
    listed = (await http.get("/admin/webhooks")).json()["endpoints"]

    assert (404, [made]) == (answer.status_code, [one["id"] for one in listed])


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b:1::10.0.0.1",
        "64:ff9b::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "::ffff:10.0.0.1",
        "2002:a00:1::",
        "2001:0:1::",
        "100.64.0.1",
        "0.0.0.0",
        "::",
        "fe80::1%lo",
        "fd00::1",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.169.254",
    ],
)
def test_every_form_of_a_private_address_is_refused(address: str) -> None:
    """Whatever of IPv6 leads to one."""
    with pytest.raises(NotAllowed, match="not a public address"):
        Guard().judge(address, "https")


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "017700000001", "127.1", "localhost"])
async def test_every_spelling_of_a_private_address_is_refused(
    receiver: Receiver, host: str
) -> None:
    """When it is used: only the resolver knows them all."""
    sender = Sender(f"https://{host}:{receiver.port}/", Guard())
    answer = await sender.post({}, b"")
    await sender.aclose()

    assert "is not a public address (SYNCBRIDGE_WEBHOOK_NETWORKS)" in answer.error
    assert [] == receiver.got


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name server that never answers for one name."""
    released, real = threading.Event(), socket.getaddrinfo

    def ask(host: Any, *args: Any, **more: Any) -> Any:
        if host == "hangs.example":
            released.wait()
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setattr("syncbridge_server.events.guard.RESOLVE_SECONDS", 2.0)
    yield
    released.set()


@pytest.mark.usefixtures("hanging")
async def test_a_name_server_that_hangs_keeps_no_other_endpoint_back(receiver: Receiver) -> None:
    """However many attempts wait for it: each endpoint has threads of its own."""
    dead = Sender("http://hangs.example/", Guard(LOCAL))
    live = Sender(receiver.url().replace("127.0.0.1", "localhost"), Guard(LOCAL))
    answers: list[Answer] = []

    async def attempt() -> None:
        answers.append(await dead.post({}, b""))

    async with trio.open_nursery() as nursery:
        for _ in range(64):
            nursery.start_soon(attempt)
        await trio.testing.wait_all_tasks_blocked(0.05)
        answer = await live.post({}, b"")
        nursery.cancel_scope.cancel()
    await live.aclose()
    await dead.aclose()

    assert (204, []) == (answer.status, answers)
