"""What the dashboard asks the server: links, sessions key by key, calls for viewers, settings."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from redis import Redis

from support.redis_servers import RedisServer
from support.server_kit import Node, bearer, mint, new_session, running_node, settings
from support.voice.voice_kit import VoiceRig, voice_server
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge_server.admin.inspection import Inspection
from syncbridge_server.admin.links import LIFE, new_code
from syncbridge_server.http.admin.access import HIDDEN, shown
from syncbridge_server.redis.durability import MEMORY
from syncbridge_server.start import admit

CODE = re.compile(r"/admin/#code=([\w-]{22})")


def admin() -> dict[str, str]:
    return bearer(mint("root", Role.ADMIN))


def viewer() -> dict[str, str]:
    return bearer(mint("eve", Role.VIEWER))


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.http() as client:
        yield client


async def new_link(http: httpx.AsyncClient, **body: str) -> str:
    """The code of a new link."""
    answer = await http.post("/admin/links", json=body, headers=admin())
    found = CODE.fullmatch(answer.raise_for_status().json()["path"])
    assert found
    return found[1]


async def sign_in(http: httpx.AsyncClient, code: str) -> httpx.Response:
    return await http.post("/admin/sign-in", json={"code": code})


# Links


async def test_a_code_is_taken_once_by_whoever_is_first(http: httpx.AsyncClient) -> None:
    """Of twenty who come with one code at once, one has tokens: those that the link is for."""
    code = await new_link(http, role="viewer", user_id="gil")
    statuses: list[int] = []
    tokens: list[str] = []

    async def take() -> None:
        answer = await sign_in(http, code)
        statuses.append(answer.status_code)
        if answer.is_success:
            tokens.append(answer.json()["access_token"])

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(take)

    assert sorted(statuses) == [200] + [401] * 19
    me = (await http.get("/admin/me", headers=bearer(tokens[0]))).json()
    assert ("gil", "viewer") == (me["user_id"], me["role"])
    refused = await http.post("/admin/broadcast", json={"message": "x"}, headers=bearer(tokens[0]))
    assert 403 == refused.status_code


async def test_the_link_of_a_development_server_is_there_before_its_workers(
    http: httpx.AsyncClient, redis_url: str
) -> None:
    """The process that starts them keeps it in Redis, so that whichever is asked knows it."""
    code = new_code()
    await admit(redis_url, MEMORY, code)

    assert [200, 401] == [(await sign_in(http, code)).status_code for _ in range(2)]


async def test_redis_has_no_code_and_forgets_its_digest(
    http: httpx.AsyncClient, redis_url: str
) -> None:
    """What is stored does not contain the code, lives ten minutes, and ends the code with it."""
    code = await new_link(http)
    with Redis.from_url(redis_url) as client:
        kept = {key: client.get(key) for key in client.keys("sb:link:*")}
        assert kept
        assert not any(code.encode() in key + (value or b"") for key, value in kept.items())
        assert all(LIFE - 30 < client.ttl(key) <= LIFE for key in kept)
        client.delete(*kept)

    assert 401 == (await sign_in(http, code)).status_code


@pytest.mark.parametrize("code", ["", "x", "a" * 22, "ä" * 22, "../" * 7])
async def test_no_other_text_is_a_code(http: httpx.AsyncClient, code: str) -> None:
    """What cannot be one, and what was never given out, is refused alike, and not repeated."""
    answer = await sign_in(http, code)

    assert (401, "token_invalid") == (answer.status_code, answer.json()["code"])
    assert code not in answer.text or len(code) < 2


async def test_the_tokens_of_a_link_can_be_renewed(http: httpx.AsyncClient) -> None:
    """A page that stays open goes on with the same role."""
    pair = (await sign_in(http, await new_link(http))).json()
    again = await http.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})

    me = await http.get("/admin/me", headers=bearer(again.json()["access_token"]))
    assert ("root", "admin") == (me.json()["user_id"], me.json()["role"])


# One session


async def test_a_session_is_shown_key_by_key(http: httpx.AsyncClient, node: Node) -> None:
    """Values as they were spelled, versions, the last writer, candidates, and the devices."""
    session = new_session()
    async with await Device.open(node.port) as phone, await Device.open(node.port) as tv:
        await phone.auth(mint("ann"), "phone", session_id=session, device_type="mobile")
        await tv.auth(mint("ann"), "tv", session_id=session)
        await phone.set("n", 1.50)
        await phone.set("text", "ä")
        await tv.set("n2", 12345678901234567890)
        await tv.close()
        await phone.receive(11)
        body = (await http.get(f"/admin/sessions/{session}", headers=viewer())).json()

    assert ("ann", 3, "tv") == (body["user_id"], body["version"], body["writer"])
    keys = {key["key"]: key for key in body["keys"]}
    assert {"n": "1.5", "n2": "12345678901234567890", "text": '"\\u00e4"'} == {
        name: key["value"] for name, key in keys.items()
    }
    assert [("n", 1, ""), ("n2", 3, "tv"), ("text", 2, "")] == [
        (key["key"], key["version"], key["writer"]) for key in body["keys"]
    ]
    assert ["phone"] == keys["n"]["candidates"] == keys["text"]["candidates"]
    devices = {device["device_id"]: device for device in body["devices"]}
    assert (True, node.server.gateway.node) == (
        devices["phone"]["online"],
        devices["phone"]["node"],
    )
    assert (False, "") == (devices["tv"]["online"], devices["tv"]["node"])


async def test_each_key_names_its_writer_where_that_is_kept(redis_url: str) -> None:
    """Over REST too: of what was written long ago, by socket and by request, on any node."""
    session = new_session()
    async with (
        running_node(redis_url, key_writers=True) as one,
        running_node(redis_url, key_writers=True) as two,
        one.http() as http,
        await Device.open(one.port) as phone,
        await Device.open(two.port) as tv,
    ):
        await phone.auth(mint("ann"), "phone", session_id=session)
        await tv.auth(mint("ann"), "tv", session_id=session)
        await phone.set("a", 1)
        await phone.set("b", 1)
        await tv.set("b", 2)
        body = {"session_id": session, "device_id": "laptop", "base_version": 3}
        edit = body | {"user_id": "ann", "changes": {"c": 1}, "deleted_keys": []}
        headers = bearer(mint("ann"))
        (await http.post("/session/incremental", json=edit, headers=headers)).raise_for_status()
        shown = (await http.get(f"/admin/sessions/{session}", headers=viewer())).json()

    assert [("a", 1, "phone"), ("b", 3, "tv"), ("c", 4, "laptop")] == [
        (key["key"], key["version"], key["writer"]) for key in shown["keys"]
    ]
    assert [[], [], []] == [key["candidates"] for key in shown["keys"]]


async def test_one_that_was_only_joined_and_one_that_is_not(
    http: httpx.AsyncClient, node: Node
) -> None:
    """The one has version 0, no times and its device; the other is 404."""
    session = new_session()
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=session)
        body = (await http.get(f"/admin/sessions/{session}", headers=admin())).json()
    missing = await http.get(f"/admin/sessions/{new_session()}", headers=admin())

    assert (0, [], None) == (body["version"], body["keys"], body["created_at"])
    assert ["phone"] == [device["device_id"] for device in body["devices"]]
    assert (404, "session_not_found") == (missing.status_code, missing.json()["code"])


async def test_a_session_ends_with_its_devices(http: httpx.AsyncClient, node: Node) -> None:
    """Its sockets are closed with 4010; what it was is gone, whatever it was written with."""
    session = new_session()
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=session)
        await phone.set("a", 1)
        answer = await http.delete(f"/admin/sessions/{session}", headers=admin())
        closed = await phone.closed()
    missing = await http.get(f"/session/{session}", headers=admin())

    assert (1, True, 0) == tuple(answer.json()[k] for k in ("signed_out", "expired", "online"))
    assert 4010 == closed.code
    assert 404 == missing.status_code
    again = await http.delete(f"/admin/sessions/{session}", headers=admin())
    assert 404 == again.status_code


async def test_a_session_with_a_device_online_is_not_erased(
    http: httpx.AsyncClient, node: Node
) -> None:
    """One that came back after it was signed out keeps the session as it is."""
    session = new_session()
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=session)
        await phone.set("a", 1)
        online = await Inspection(node.server.io, node.server.store).erase(session)
        body = (await http.get(f"/session/{session}", headers=admin())).json()

    assert (1, {"a": 1}) == (online, body["state_data"])


# Lists and sockets


async def test_lists_are_narrowed_and_a_socket_of_another_node_is_closed(redis_url: str) -> None:
    """By session and device; the row that is found is what closing wants to know."""
    session = new_session()
    async with (
        running_node(redis_url) as one,
        running_node(redis_url) as two,
        one.http() as http,
        await Device.open(two.port) as tv,
        await Device.open(one.port) as other,
    ):
        await tv.auth(mint("ann"), "tv-9", session_id=session)
        await other.auth(mint("ann"), "other", session_id=new_session())

        async def rows(path: str, member: str, **query: str) -> list[dict[str, Any]]:
            answer = await http.get(path, params=query, headers=viewer())
            found: list[dict[str, Any]] = answer.raise_for_status().json()[member]
            return found

        by_device = await rows("/admin/sessions", "sessions", device_id="tv-9")
        by_id = await rows("/admin/sessions", "sessions", session_id=session)
        [row] = await rows("/admin/connections", "connections", session_id=session)
        same = await rows("/admin/connections", "connections", device_id="tv-9")
        meant = {"node": row["node"], "connection_id": row["connection_id"]}
        closed = await http.post("/admin/connections/close", json=meant, headers=admin())
        code = (await tv.closed()).code
        again = await http.post("/admin/connections/close", json=meant, headers=admin())

    assert [session] == [r["session_id"] for r in by_device] == [r["session_id"] for r in by_id]
    assert [row] == same
    assert ({"closed": True}, 1001, {"closed": False}) == (closed.json(), code, again.json())


async def test_figures_say_how_long_writes_take_what_ends_and_how_redis_is(
    http: httpx.AsyncClient, node: Node
) -> None:
    """Buckets of times, what was told by code, and the link of each node."""
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=new_session())
        await phone.set("a", 1)
        await phone.send(5, {"key": "", "value": 1})
        await phone.receive(6)
    body = (await http.get("/admin/metrics/all", headers=viewer())).json()

    latency, trouble = body["latency"], body["trouble"]
    assert len(latency["bounds"]) + 1 == len(latency["commits"]) == len(latency["redis"])
    assert sum(latency["commits"]) >= 1
    assert 1 == trouble["auth"]["ok"]
    assert 1 == sum(trouble["errors"].values())
    [one] = [n for n in body["nodes"] if n["node"] == node.server.gateway.node]
    link = one["redis"]
    assert ("single", "primary", "memory", "") == (
        link["kind"],
        link["role"],
        link["durability"],
        link["reason"],
    )


# Access


async def test_revocations_are_listed_the_newest_first(http: httpx.AsyncClient) -> None:
    """With how many hold in all."""
    for name in ("rev-a", "rev-b"):
        await http.post("/auth/revoke", json={"user_id": name}, headers=admin())
    body = (await http.get("/admin/revocations?limit=2", headers=viewer())).json()

    assert [("user", "rev-b"), ("user", "rev-a")] == [
        (rule["kind"], rule["value"]) for rule in body["revocations"]
    ]
    assert body["total"] >= 2


def test_what_opens_something_is_hidden_in_the_configuration() -> None:
    """Secrets, and names and passwords in addresses; what is not set stays empty."""
    given = settings(
        "rediss://operator:pass-word@redis.internal:6380/0?password=pass-word",
        otlp_url="http://name:pass-word@collector:4318",
        redis_password="pass-word",
    )
    rows = {row.name: row for row in shown(given)}

    text = " ".join(row.value for row in rows.values())
    assert "pass-word" not in text
    assert "operator" not in text
    assert "an-access-secret" not in text
    assert HIDDEN == rows["JWT_SECRET"].value == rows["REDIS_PASSWORD"].value
    assert "" == rows["RTK_SECRET_KEY"].value
    assert f"http://{HIDDEN}@collector:4318" == rows["SYNCBRIDGE_OTLP_URL"].value
    assert rows["SYNCBRIDGE_DRAIN"].changed
    assert not rows["SYNCBRIDGE_WORKERS"].changed


async def test_what_an_admin_looks_into_is_audited(redis_url: str, tmp_path: Path) -> None:
    """Whichever door is used; of users and services it is not."""
    path, session = tmp_path / "audit.log", new_session()
    ann, bot = bearer(mint("ann")), bearer(mint("bot", Role.SERVICE))
    body = {"session_id": session, "user_id": "ann", "state_data": {"a": 1}}
    change = {"session_id": session, "base_version": 1, "changes": {"b": 2}, "deleted_keys": ["a"]}
    async with running_node(redis_url, audit_log=str(path)) as node, node.http() as http:
        for caller in (ann, bot):
            await http.post("/session/snapshot", json=body, headers=caller)
            await http.get(f"/session/{session}", headers=caller)
        await http.get(f"/session/{session}", headers=admin())
        await http.get(f"/session/{session}/devices", headers=admin())
        await http.post("/session/incremental", json=change, headers=admin())
        await http.get(f"/admin/sessions/{session}", headers=viewer())
        code = await new_link(http, role="viewer")
        await sign_in(http, code)

    written = path.read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert [
        ("state_read", "root", session),
        ("devices_read", "root", session),
        ("state_edited", "root", session),
        ("GET /admin/sessions/{session_id}", "eve", session),
        ("POST /admin/links", "root", ""),
        ("POST /admin/sign-in", "root", ""),
    ] == [(line["action"], line["user"], line.get("session_id", "")) for line in lines]
    assert ["b", "a"] == lines[2]["keys"]
    assert ("root", "viewer") == (lines[4]["subject"], lines[4]["role"])
    assert code not in written


# Calls


@pytest.fixture
async def rig(redis_server: RedisServer) -> AsyncIterator[VoiceRig]:
    async with voice_server(redis_server.url) as running:
        yield running


async def test_a_viewer_sees_calls_as_an_admin_does_and_may_not_act(rig: VoiceRig) -> None:
    """The same members, evidence too; a service has no way in there."""
    await rig.join("ann", "lob/by")
    eve, root = mint("eve", Role.VIEWER), mint("root", Role.ADMIN)
    place = "/voice/channels/lob%2Fby"
    pairs = [
        ("/admin/voice/channels", "/voice/channels"),
        (f"/admin{place}", place),
        (f"/admin{place}/timeline", f"{place}/timeline"),
        ("/admin/users/ann/calls", "/users/ann/calls"),
    ]
    for shown_to_viewer, shown_to_admin in pairs:
        one = await rig.ask("GET", shown_to_viewer, eve)
        other = await rig.ask("GET", shown_to_admin, root)
        assert 200 == one.status_code, one.text
        assert set(one.json()) == set(other.json())
    channel = (await rig.ask("GET", f"/admin{place}", eve)).json()
    refused = await rig.ask("POST", f"{place}/end", eve)

    assert "webhook" == channel["participants"][0]["evidence"]["source"]
    assert 403 == refused.status_code
    assert 403 == (await rig.ask("GET", f"/admin{place}", mint("bot", Role.SERVICE))).status_code


async def test_the_address_of_administration_has_what_the_dashboard_needs(redis_url: str) -> None:
    """Its routes, and those through which it acts; but no sockets."""
    config = settings(redis_url, admin_addr="127.0.0.1:0")
    async with running_node(redis_url, admin_addr=config.admin_addr) as node:
        transport = httpx.ASGITransport(app=node.server.admin_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as http:
            me = await http.get("/admin/me", headers=admin())
            revoked = await http.post("/auth/revoke", json={"user_id": "gone"}, headers=admin())
        async with node.http() as public:
            hidden = await public.get("/admin/me", headers=admin())

    assert (200, 200, 404) == (me.status_code, revoked.status_code, hidden.status_code)
