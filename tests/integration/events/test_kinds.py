"""Each kind of event comes when what it tells of happens, and is what its schema says."""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from jsonschema_rs import validator_for

from support.redis_servers import RedisServer
from support.server_kit import Node, bare_environment, bearer, mint, new_session, running_node
from support.source_tree import text
from support.voice import calls_kit
from support.ws_client import Device
from syncbridge.events.kinds import KINDS
from syncbridge.identity import Role
from syncbridge.records.sessions import Place
from syncbridge.slots import TAGS, bucket_of
from syncbridge_server.events.schemas import event_schemas
from syncbridge_server.redis.stores.events import outbox

DOCUMENT, PAGE = Path("docs/events.schema.json"), Path("docs/events.md")
Json = dict[str, Any]


@pytest.fixture
async def node(redis_server: RedisServer) -> AsyncIterator[Node]:
    values: Json = {"rate_limit_enabled": False, **calls_kit.NOWHERE}
    async with running_node(redis_server.url, **values) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    headers = bearer(mint("root", Role.ADMIN))
    async with httpx.AsyncClient(base_url=node.url, timeout=30.0, headers=headers) as client:
        await client.get("/events")
        yield client


async def until(http: httpx.AsyncClient, *kinds: str, count: int = 1) -> list[Json]:
    """The events of some kinds, once there are so many."""
    found: list[Json] = []
    after = ""
    with trio.fail_after(20):
        while len(found) < count:
            query = {"after": after, "kind": ",".join(kinds), "wait": "10"}
            answer = await http.get("/events", params=query)
            if answer.status_code == 503:
                await trio.sleep(0.1)
                continue
            page = answer.json()
            found += page["events"]
            after = page["cursor"]
    validator = validator_for(event_schemas())
    for event in found:
        validator.validate(event)
    return found


def said(events: list[Json]) -> list[tuple[str, Json]]:
    return [(event["type"], event["data"]) for event in events]


def test_the_documents_are_current() -> None:
    """`python -m syncbridge_server.events.schemas > docs/events.schema.json` was run; the page
    names every kind."""
    assert event_schemas() == json.loads(text(DOCUMENT))
    assert [] == [kind for kind in KINDS if f"`{kind}`" not in text(PAGE)]


async def test_a_voice_call_is_told(node: Node, http: httpx.AsyncClient) -> None:
    """It starts with its first participant, and ends."""
    channel = uuid.uuid4().hex
    await calls_kit.open_call(node, channel)
    await calls_kit.hear(node, channel, calls_kit.came("ann", "c1"))
    await calls_kit.hear(node, channel, calls_kit.came("bob", "c2"))
    await http.post(f"/voice/channels/{channel}/end")
    found = await until(http, "call.*", "participant.*", count=6)

    kinds = [kind for kind, _ in said(found)]
    assert ["call.started", *["participant.joined"] * 2] == kinds[:3]
    assert {"participant.left": 2, "call.ended": 1} == {
        kind: kinds[3:].count(kind) for kind in kinds[3:]
    }
    assert {channel} == {event["channel_id"] for event in found}
    assert ["ann", "bob"] == [event["user_id"] for event in found[1:3]]
    assert {"provider_session_id": "s1", "generation": 1} == found[0]["data"]


async def test_a_call_session_is_told(http: httpx.AsyncClient) -> None:
    """Made, each state, deleted."""
    call_id = uuid.uuid4().hex
    path = f"/sessions/{call_id}"
    await http.post("/sessions", json={"id": call_id, "type": "SIP"})
    await http.put(f"{path}/state", json={"state": "active"})
    await http.put(f"{path}/state", json={"state": "active"})
    await http.put(f"{path}/state", json={"state": "terminated", "cause": "busy"})
    await http.delete(path)
    found = said(await until(http, "call_session.*", count=4))

    root: Json = {"call_id": call_id, "by": "root"}
    assert [
        ("call_session.created", root | {"type": "SIP"}),
        ("call_session.changed", root | {"state": "active", "previous": "pending", "cause": ""}),
        (
            "call_session.changed",
            root | {"state": "terminated", "previous": "active", "cause": "busy"},
        ),
        ("call_session.deleted", root),
    ] == found


async def test_what_nodes_notice_is_told_once(
    redis_server: RedisServer, node: Node, http: httpx.AsyncClient
) -> None:
    """Revoked tokens, and a session that went back, however many nodes know it."""
    sid = new_session()
    async with running_node(redis_server.url, rate_limit_enabled=False) as other:
        await http.post("/auth/revoke", json={"user_id": "eve"})
        with trio.fail_after(10):
            while not len(other.server.auth.revocations):  # noqa: ASYNC110 - it says nothing
                await trio.sleep(0.02)
        place = Place("e" * 12, 3, "f" * 12)
        for one in (node, other):
            one.server.gateway.fanout.rollbacks.session(sid, "ann", place, "epoch")
        found = await until(http, "tokens.*", "session.rolled_back", count=2)
        again = await http.get(
            "/events", params={"kind": "tokens.*,session.rolled_back", "wait": 1}
        )

    revoked, back = sorted(found, key=lambda event: event["type"], reverse=True)
    assert ({"kind": "user", "value": "eve", "user_id": ""}, "eve") == (
        revoked["data"],
        revoked["user_id"],
    )
    assert (sid, "ann", 3, "epoch") == (
        back["session_id"],
        back["user_id"],
        back["data"]["version"],
        back["data"]["reason"],
    )
    assert 2 == len(again.json()["events"])


async def test_what_a_node_notices_while_redis_is_away_is_told() -> None:
    """When it is back; what cannot be written at all keeps nothing back."""
    headers = bearer(mint("root", Role.ADMIN))
    with RedisServer(aof=True) as server:
        async with (
            running_node(server.url, rate_limit_enabled=False, store_deadline=1.0) as node,
            httpx.AsyncClient(base_url=node.url, timeout=30.0, headers=headers) as http,
        ):
            await http.get("/events")
            damaged, sid = new_session(), new_session()
            with server.client() as raw:
                raw.set(outbox(TAGS[bucket_of(damaged)]), "damaged")
            events = node.server.events
            server.kill()
            events.rolled_back(damaged, "ann", Place("e" * 12, 3, "f" * 12), "epoch")
            events.rolled_back(sid, "ann", Place("e" * 12, 3, "f" * 12), "epoch")
            await trio.sleep(2.5)
            server.start()
            (found,) = await until(http, "session.rolled_back")

    assert sid == found["session_id"]


async def test_a_node_that_starts_does_not_tell_again_what_was_revoked_long_ago(
    redis_server: RedisServer, http: httpx.AsyncClient
) -> None:
    """It learns of it, when it is not known any more that it was told."""
    await http.post("/auth/revoke", json={"user_id": "old"})
    await until(http, "tokens.*")
    with redis_server.client() as raw:
        (rules,) = raw.scan_iter("*revoked")
        (rule,) = raw.zrange(rules, 0, -1)
        raw.zadd(rules, {rule: time.time() - 7_200})
        for told in list(raw.scan_iter("eo:*")):
            raw.unlink(told)
    async with running_node(redis_server.url, rate_limit_enabled=False) as other:
        with trio.fail_after(20):
            while not len(other.server.auth.revocations):  # noqa: ASYNC110 - it says nothing
                await trio.sleep(0.02)
        await http.post("/auth/revoke", json={"user_id": "new"})
        found = await until(http, "tokens.*", count=2)

    assert ["old", "new"] == [event["user_id"] for event in found]


async def test_a_dead_letter_is_told(node: Node, http: httpx.AsyncClient) -> None:
    """With what it is about."""
    await node.server.letters.keep("freeze", "some-session", "damaged")
    ((_, data),) = said(await until(http, "dead_letter.*"))

    assert {"kind": "freeze", "record": "some-session", "reason": "damaged"} == data


async def test_a_handoff_is_told(node: Node, http: httpx.AsyncClient) -> None:
    """Over REST, with the devices."""
    sid = new_session()
    body = {"session_id": sid, "user_id": "ann", "device_id": "phone", "state_data": {"a": 1}}
    await http.post("/session/snapshot", json=body)
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann", session=sid), "phone")
        devices = {"source_device": "phone", "target_device": "tablet"}
        made = (await http.post(f"/session/{sid}/handoff", json=devices)).json()
        await http.get(f"/session/{sid}/handoff/{made['token']}")
        found = await until(http, "handoff.*", "device.*", count=4)

    kinds = ["device.joined", "handoff.created", "handoff.redeemed", "device.left"]
    assert kinds == [event["type"] for event in found]
    assert made["expires_at"] == found[1]["data"]["expires_at"]


async def test_the_command_shows_events(node: Node, http: httpx.AsyncClient) -> None:
    """One line each, or as they come; filtered; refusals are one line, too."""
    sid = new_session()
    body = {"session_id": sid, "user_id": "ann", "device_id": "phone", "state_data": {"a": 1}}
    await http.post("/session/snapshot", json=body)
    await until(http, "session.created")
    admin = mint("root", Role.ADMIN)

    async def run(*arguments: str, token: str = admin) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "syncbridge_server", "events", "--url", node.url]
        environment = {**bare_environment(), "SYNCBRIDGE_TOKEN": token}
        with trio.fail_after(30):
            return await trio.run_process(
                [*command, *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=environment,
            )

    plain = await run("--no-follow", "--kind", "session.*")
    counted = await run("--count", "1", "--json", "--session", sid)
    refused = await run("--no-follow", token=mint("ann"))

    (line,) = plain.stdout.decode().splitlines()
    assert ["session.created", f"{sid} ann"] == line.split("\t")[2:4]
    assert sid == json.loads(counted.stdout)["session_id"]
    assert (1, 1) == (refused.returncode, len(refused.stderr.splitlines()))
    assert b"403" in refused.stderr
