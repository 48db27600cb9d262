"""Endpoints: events are posted, signed, in order, again after failures, and only where they may."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.events.receiver import Got, Receiver, receiving
from support.redis_servers import RedisServer
from support.server_kit import Node, create_session, new_session, settings
from syncbridge.events import delivery, retries
from syncbridge.voice.provider.records import WebhookRefused
from syncbridge.voice.provider.signatures import secret_bytes, verify
from syncbridge_server.events import process
from syncbridge_server.events.configured import load_endpoints
from syncbridge_server.events.guard import Guard
from syncbridge_server.events.process import Deliveries
from syncbridge_server.http.endpoints import new_secret
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.settings import ConfigError

LOCAL = ("127.0.0.0/8",)
Json = dict[str, Any]


@asynccontextmanager
async def delivering(redis_url: str, **values: Any) -> AsyncIterator[Deliveries]:
    """`syncbridge deliver`, in this process."""
    more = [values.pop("configured", ()), values.pop("beat", lambda: None)]
    config = settings(redis_url, **({"webhook_networks": LOCAL} | values))
    async with RedisIO(redis_url).running() as io:
        bus = RedisBus(io, "deliver-test")
        async with bus.running(), trio.open_nursery() as nursery:
            deliveries = Deliveries(config, io, bus, *more)
            nursery.start_soon(deliveries.run)
            yield deliveries
            nursery.cancel_scope.cancel()


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are tried again at once."""
    monkeypatch.setattr(retries, "STEPS", (0.05, 0.1))


async def endpoint(http: httpx.AsyncClient, url: str, **members: Any) -> Json:
    answer = await http.post("/admin/webhooks", json={"url": url, **members})
    assert 201 == answer.status_code, answer.text
    made: Json = answer.json()
    return made


async def state_of(http: httpx.AsyncClient, made: Json) -> Json:
    found: Json = (await http.get(f"/admin/webhooks/{made['id']}")).json()
    return found


async def until(http: httpx.AsyncClient, made: Json, condition: Callable[[Json], object]) -> Json:
    with trio.fail_after(20):
        while True:
            state = await state_of(http, made)
            if condition(state):
                return state
            await trio.sleep(0.05)


def signed_by(got: Got, secret: str) -> bool:
    verdict = verify(got.headers, got.body, time.time(), [secret_bytes(secret)])
    return not isinstance(verdict, WebhookRefused)


def renewed(deliveries: Deliveries, secret: str) -> bool:
    """Whether a worker has learned of a secret."""
    workers = [worker for _, worker, _ in deliveries.workers.values()]
    return [secret] == [worker.endpoint.secrets[0] for worker in workers]


async def test_an_event_is_posted_and_signed(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """What is wanted, with the event's id, as it stands in the log."""
    made = await endpoint(http, receiver.url("/a?b=c"), kinds=["session.*"], user_id="ann")
    async with delivering(redis_server.url):
        await create_session(http, "bob", a=1)
        sid = await create_session(http, a=1)
        (got,) = await receiver.until(1)
        state = await until(http, made, lambda state: state["delivered"])

    assert ("session.created", sid) == (got.event["type"], got.event["session_id"])
    assert got.event["id"] == got.headers["webhook-id"]
    assert ("/a?b=c", "application/json") == (got.path, got.headers["content-type"])
    assert f"127.0.0.1:{receiver.port}" == got.headers["host"]
    assert signed_by(got, made["secret"])
    assert not signed_by(got._replace(body=got.body + b" "), made["secret"])
    assert (1, 0, "") == (state["delivered"], state["failed"], state["last_error"])
    assert "secret" not in state


async def test_two_secrets_sign_while_they_are_rotated(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """Each attempt has both signatures; the one before the last does not sign any more."""
    made = await endpoint(http, receiver.url())
    path = f"/admin/webhooks/{made['id']}/rotate"
    second = (await http.post(path)).json()["secret"]
    async with delivering(redis_server.url) as deliveries:
        await create_session(http, a=1)
        (first_got,) = await receiver.until(1)
        third = (await http.post(path)).json()["secret"]
        await until(http, made, lambda state: state["delivered"])
        with trio.fail_after(20):
            while not renewed(deliveries, third):  # noqa: ASYNC110 - it says nothing
                await trio.sleep(0.05)
        await create_session(http, a=1)
        second_got = (await receiver.until(2))[1]

    signed = [[signed_by(got, s) for s in (made["secret"], second, third)] for got in receiver.got]
    assert [[True, True, False], [False, True, True]] == signed
    assert first_got.headers["webhook-id"] != second_got.headers["webhook-id"]


@pytest.mark.usefixtures("_soon")
async def test_failures_are_repeated_in_order(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """A session's events keep their order, and others do not wait; the id stays."""
    made = await endpoint(http, receiver.url())
    bad: set[str] = set()
    refusals = {"left": 3}

    def answer(got: Got) -> int:
        if got.event["session_id"] in bad and refusals["left"]:
            refusals["left"] -= 1
            return 500
        return 200

    receiver.answer = answer
    async with delivering(redis_server.url):
        sid = new_session()
        bad.add(sid)
        body = {"session_id": sid, "user_id": "ann", "device_id": "d", "state_data": {"a": 1}}
        await http.post("/session/snapshot", json=body)
        change = {"session_id": sid, "device_id": "d", "changes": {"a": 2}, "base_version": 1}
        await http.post("/session/incremental", json=change)
        await create_session(http, a=1)
        state = await until(http, made, lambda s: s["delivered"] == 3 and not s["held"])

    of_bad = [(got.event["type"], got.headers["webhook-id"]) for got in receiver.got]
    mine = [
        one for one, got in zip(of_bad, receiver.got, strict=True) if got.event["session_id"] == sid
    ]
    assert ["session.created"] * 4 + ["session.updated"] == [kind for kind, _ in mine]
    assert 2 == len({event_id for _, event_id in mine})
    assert (3, "status 500", 0) == (state["failed"], state["last_error"], state["dead"])


@pytest.mark.usefixtures("_soon")
async def test_deliveries_go_on_where_they_stopped(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """What was held, and what came while nobody delivered, is delivered by the next process."""
    made = await endpoint(http, receiver.url())
    receiver.answer = lambda got: 503
    async with delivering(redis_server.url):
        first = await create_session(http, a=1)
        await until(http, made, lambda state: state["held"])
    second = await create_session(http, a=1)
    receiver.answer = lambda got: 200
    receiver.got.clear()
    async with delivering(redis_server.url):
        await until(http, made, lambda state: state["delivered"] == 2 and not state["held"])

    assert {first, second} == {got.event["session_id"] for got in receiver.got}


@pytest.mark.usefixtures("_soon")
async def test_what_is_given_up_can_be_replayed(
    redis_server: RedisServer,
    http: httpx.AsyncClient,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a dead letter, and by time or id from the log; what is not there is named."""
    monkeypatch.setattr(delivery, "is_enough", lambda first, now: now - first > 0.3)
    monkeypatch.setattr(delivery, "DOWN_AFTER", 1_000)
    made = await endpoint(http, receiver.url())
    path = f"/admin/webhooks/{made['id']}"
    receiver.answer = lambda got: 400
    async with delivering(redis_server.url):
        sid = await create_session(http, a=1)
        await until(http, made, lambda state: state["dead"])
        letters = (await http.get(path + "/dead-letters")).json()["dead_letters"]
        receiver.answer = lambda got: 200
        receiver.got.clear()
        entries = [letter["entry"] for letter in letters]
        replayed = await http.post(path + "/replay", json={"entries": entries})
        (again,) = await receiver.until(1)
        left = (await http.get(path + "/dead-letters")).json()["dead_letters"]
        by_time = await http.post(path + "/replay", json={"since": 0})
        (_, third) = await receiver.until(2)
        told = third.headers["webhook-id"]
        by_id = await http.post(path + "/replay", json={"ids": [told, "0-1-1", "other"]})
        (*_, fourth) = await receiver.until(3)
        both = await http.post(path + "/replay", json={"ids": [told], "since": 0})

    assert [(sid, "status 400")] == [(one["event"]["session_id"], one["reason"]) for one in letters]
    assert ({"replayed": 1, "more": False}, []) == (replayed.json(), left)
    assert 1 == by_time.json()["replayed"]
    assert letters[0]["event_id"] == again.headers["webhook-id"] == told
    assert (again.headers["webhook-id"], third.body) == (fourth.headers["webhook-id"], fourth.body)
    assert {"replayed": 1, "more": False, "missing": ["0-1-1", "other"]} == by_id.json()
    assert 422 == both.status_code


@pytest.mark.usefixtures("_soon")
async def test_an_endpoint_that_is_gone_is_disabled(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """410 says so; that is an event; enabled again, it has what came meanwhile."""
    made = await endpoint(http, receiver.url())
    receiver.answer = lambda got: 410
    async with delivering(redis_server.url):
        first = await create_session(http, a=1)
        state = await until(http, made, lambda state: not state["enabled"])
        second = await create_session(http, a=1)
        page = (await http.get("/events", params={"kind": "endpoint.*", "wait": 10})).json()
        receiver.answer = lambda got: 200
        receiver.got.clear()
        await http.put(f"/admin/webhooks/{made['id']}", json={"url": receiver.url()})
        await until(http, made, lambda state: state["delivered"] >= 2 and not state["held"])

    assert "status 410" == state["disabled_reason"]
    assert [made["id"]] == [event["data"]["endpoint_id"] for event in page["events"]]
    found = {got.event.get("session_id") for got in receiver.got}
    assert {first, second} <= found


async def test_a_dead_endpoint_does_not_concern_the_others(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """Neither one that refuses connections nor one that never answers."""
    async with receiving() as silent:
        silent.answer = lambda got: 0
        await endpoint(http, "http://127.0.0.1:9/")
        await endpoint(http, silent.url())
        made = await endpoint(http, receiver.url())
        async with delivering(redis_server.url):
            for _ in range(30):
                await create_session(http, a=1)
            await receiver.until(30)
            state = await until(http, made, lambda state: state["delivered"] == 30)

    assert 0 == state["failed"]


async def test_private_addresses_are_refused(
    redis_server: RedisServer, node: Node, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """By the request, where the URL says it; by the attempt, where the name leads to one."""
    refused = [
        (await http.post("/admin/webhooks", json={"url": url})).status_code
        for url in (
            "http://10.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::10.0.0.1]/",
            "https://[::10.0.0.1]/",
            "https://[fec0::1]/",
            "https://169.254.169.254/",
            "http://8.8.8.8/",
            "ftp://example.com/",
            "https://user:word@example.com/",
            "https://example.com:0/",
            "/hook",
        )
    ]
    made = await endpoint(http, receiver.url().replace("127.0.0.1", "localhost"))
    async with delivering(redis_server.url, webhook_networks=()):
        await create_session(http, a=1)
        state = await until(http, made, lambda state: state["failed"])

    assert [422] * 12 == refused
    assert "not a public address" in state["last_error"]
    assert [] == receiver.got


async def test_redirects_are_not_followed(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """They are failures."""
    made = await endpoint(http, receiver.url())
    receiver.headers = [("location", "/elsewhere")]
    receiver.answer = lambda got: 307
    async with delivering(redis_server.url):
        await create_session(http, a=1)
        state = await until(http, made, lambda state: state["failed"])

    assert "status 307" == state["last_error"]
    assert {"/hook"} == {got.path for got in receiver.got}


async def test_endpoints_are_administered(http: httpx.AsyncClient) -> None:
    """Made, listed, changed, removed; what is wrong is said; an unknown one is 404."""
    made = await endpoint(http, "https://example.com/a", kinds=["device.*"], waddle_id="team")
    path = f"/admin/webhooks/{made['id']}"
    listed = (await http.get("/admin/webhooks")).json()["endpoints"]
    changed = await http.put(path, json={"url": "https://example.com/b", "enabled": False})
    bad = [
        {"url": "https://example.com", "kinds": ["no.such"]},
        {"url": "https://example.com", "secret": "short"},
        {"url": "https://example.com", "other": 1},
        {},
    ]
    refused = [(await http.post("/admin/webhooks", json=body)).status_code for body in bad]
    with_secret = await http.put(path, json={"url": "https://example.com", "secret": None})
    gone = await http.delete(path)
    unknown = await http.get(path)

    assert [made["id"]] == [one["id"] for one in listed]
    assert made["secret"].startswith("whsec_")
    assert ("team", "") == (listed[0]["waddle_id"], changed.json()["waddle_id"])
    assert "secret" not in listed[0]
    assert ("https://example.com/b", False, []) == (
        changed.json()["url"],
        changed.json()["enabled"],
        changed.json()["kinds"],
    )
    assert [422, 422, 422, 422] == refused
    assert (200, 204, 404) == (with_secret.status_code, gone.status_code, unknown.status_code)


async def test_one_process_delivers_at_a_time(
    redis_server: RedisServer,
    http: httpx.AsyncClient,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one takes over when it ends."""
    monkeypatch.setattr(process, "SEEK_SECONDS", 0.1)
    await endpoint(http, receiver.url())
    async with delivering(redis_server.url) as second:
        async with delivering(redis_server.url) as first:
            await create_session(http, a=1)
            await receiver.until(1)
            both = [bool(first.workers), bool(second.workers)]
        await create_session(http, a=1)
        await receiver.until(2)

    assert [False, True] == sorted(both)
    assert 2 == len(receiver.got)


@pytest.mark.usefixtures("_soon")
async def test_events_come_together_where_that_is_wanted(
    redis_server: RedisServer, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    """One message, signed as a whole, sent again as a whole with its id; sessions keep order."""
    made = await endpoint(http, receiver.url(), batch_events=4, batch_ms=300)
    refusals = [500, 500]
    receiver.answer = lambda got: refusals.pop() if refusals else 204
    async with delivering(redis_server.url):
        sids = [await create_session(http, a=1) for _ in range(6)]
        change = {"session_id": sids[0], "device_id": "d", "changes": {"a": 2}, "base_version": 1}
        await http.post("/session/incremental", json=change)
        arrived: list[Json] = []
        with trio.fail_after(30):
            while len(arrived) < 7:
                await receiver.until(len(receiver.got) + 1)
                arrived = [
                    event for got in receiver.got[2:] for event in got.event["data"]["events"]
                ]
        replayed = (
            await http.post(f"/admin/webhooks/{made['id']}/replay", json={"since": 0})
        ).json()
        before = len(receiver.got)
        again = (await receiver.until(before + 2))[before:]

    first, second, third = receiver.got[:3]
    assert 1 == len({(got.headers["webhook-id"], got.body) for got in (first, second, third)})
    assert all(signed_by(got, made["secret"]) for got in receiver.got)
    assert all("events.batch" == got.event["type"] for got in receiver.got)
    assert all(got.headers["webhook-id"] == got.event["id"] for got in receiver.got)
    assert max(len(got.event["data"]["events"]) for got in receiver.got) == 4
    assert set(sids) == {event["session_id"] for event in arrived}
    mine = [event["type"] for event in arrived if event["session_id"] == sids[0]]
    assert ["session.created", "session.updated"] == mine
    assert 7 == len({event["id"] for event in arrived}) == replayed["replayed"]
    assert [4, 3] == [len(got.event["data"]["events"]) for got in again]


@pytest.mark.usefixtures("_soon")
async def test_an_endpoint_is_tried_and_its_dead_letters_are_discarded(
    redis_server: RedisServer,
    http: httpx.AsyncClient,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The event of a test goes to that endpoint, whatever it selects; a letter goes once."""
    monkeypatch.setattr(delivery, "is_enough", lambda first, now: now - first > 0.2)
    monkeypatch.setattr(delivery, "DOWN_AFTER", 1_000)
    made = await endpoint(http, receiver.url(), kinds=["call.*"])
    path = f"/admin/webhooks/{made['id']}"
    receiver.answer = lambda got: 400
    async with delivering(redis_server.url):
        tried = await http.post(path + "/test")
        await until(http, made, lambda state: state["dead"])
        (letter,) = (await http.get(path + "/dead-letters")).json()["dead_letters"]
    letter_path = f"{path}/dead-letters/{letter['entry']}"
    answers = [(await http.delete(letter_path)).status_code for _ in range(2)]
    wrong = await http.delete(path + "/dead-letters/x")
    log = (await http.get("/events", params={"kind": "endpoint.test"})).json()["events"]

    assert (202, 404, []) == (tried.status_code, wrong.status_code, log)
    assert "endpoint.test" == receiver.got[0].event["type"]
    assert tried.json()["event_id"] == letter["event_id"]
    assert [204, 404] == answers


async def test_endpoints_of_a_file_are_served_and_not_changed(
    redis_server: RedisServer,
    http: httpx.AsyncClient,
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are shown as such, without secrets, also in Redis; gone from the file, they are gone."""
    monkeypatch.setenv("BILLING_SECRETS", f"{new_secret()} {(older := new_secret())}")
    path = tmp_path / "endpoints.toml"
    path.write_text(
        f'[[endpoint]]\nname = "billing"\nurl = "{receiver.url()}"\nkinds = ["session.*"]\n'
        'secret_env = "BILLING_SECRETS"\n'
    )
    configured = load_endpoints(str(path), Guard(LOCAL))
    beats: list[int] = []
    beat = partial(beats.append, 1)
    async with delivering(redis_server.url, configured=configured, beat=beat):
        made = {"id": "file-billing"}
        await until(http, made, lambda state: state.get("configured"))
        await http.get("/events")
        sid = await create_session(http, a=1)
        (got,) = await receiver.until(1)
        one = "/admin/webhooks/file-billing"
        refused = [
            await http.put(one, json={"url": receiver.url()}),
            await http.delete(one),
            await http.post(one + "/rotate"),
        ]
    with redis_server.client() as raw:
        stored = str(raw.hget("ev:{events}:endpoints", "file-billing"))
    async with delivering(redis_server.url):
        with trio.fail_after(20):
            while (await http.get(one)).status_code != 404:  # noqa: ASYNC110 - it says nothing
                await trio.sleep(0.1)

    assert sid == got.event["session_id"]
    assert signed_by(got, older)
    assert {(409, "endpoint_configured")} == {(r.status_code, r.json()["code"]) for r in refused}
    assert "file-billing" in stored
    assert "whsec" not in stored
    assert beats


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "endpoint"),
        ('[[endpoint]]\nname = "a"\nurl = "http://8.8.8.8/"\nsecret_env = "S"', "http is allowed"),
        ('[[endpoint]]\nname = "a"\nurl = "https://a.b/"', "either secret_file or secret_env"),
        ('[[endpoint]]\nname = "a"\nurl = "https://a.b/"\nsecret_env = "T"', "whsec_"),
        ('[[endpoint]]\nname = "a"\nurl = "https://a.b/"\nsecret_env = "NO"', "one secret"),
        ('[[endpoint]]\nname = "a"\nurl = "https://a.b/"\nsecret_file = "/no/s"', "No such file"),
        (
            '[[endpoint]]\nname = "a"\nurl = "https://a.b/"\nkinds = ["x"]\nsecret_env = "S"',
            "kinds",
        ),
        ('[[endpoint]]\nname = "a"\nurl = "https://a.b/"\nsecret = "x"', "unknown field"),
        (2 * '[[endpoint]]\nname = "a"\nurl = "https://a.b/"\nsecret_env = "S"\n', "two endpoints"),
    ],
)
def test_a_file_that_cannot_work_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    """With one line that says why, and no secret in it."""
    monkeypatch.setenv("S", new_secret())
    monkeypatch.setenv("T", "short-secret")
    path = tmp_path / "endpoints.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_endpoints(str(path), Guard())

    assert why in str(caught.value)
    assert str(path) in str(caught.value)
    assert not any(word in str(caught.value) for word in ("\n", "short-secret", "whsec_" + "A"))
