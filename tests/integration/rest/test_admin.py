"""Administration: what operators see is what is really there, over all nodes."""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import Node, bearer, mint, new_session, running_node, server_process
from support.ws_client import Device
from syncbridge.identity import Role

ADMIN_UPDATE, BROADCAST = 14, 13
PATHS = (
    "/admin/metrics/sessions",
    "/admin/metrics/connections",
    "/admin/metrics/snapshots",
    "/admin/metrics/all",
    "/admin/sessions",
    "/admin/connections",
)


@pytest.fixture
def empty_redis() -> Iterator[str]:
    """A Redis in which nobody else's sessions are counted."""
    with RedisServer() as server:
        yield server.url


def admin() -> dict[str, str]:
    return bearer(mint("root", Role.ADMIN))


@asynccontextmanager
async def two_nodes(redis_url: str, **values: Any) -> AsyncIterator[tuple[Node, Node]]:
    async with running_node(redis_url, **values) as one, running_node(redis_url, **values) as two:
        yield one, two


@asynccontextmanager
async def opened(ports: list[int], sessions: list[str]) -> AsyncIterator[list[Device]]:
    """One device for each (port, session), of user `u<n % 3>`."""
    async with AsyncExitStack() as stack:
        devices = []
        for n, (port, session) in enumerate(zip(ports, sessions, strict=True)):
            device = await stack.enter_async_context(await Device.open(port))
            token = mint("owner", Role.SERVICE)
            await device.auth(token, f"d{n}", session_id=session, device_type="bench")
            devices.append(device)
        yield devices


async def everything(http: httpx.AsyncClient, path: str, member: str, **query: Any) -> list[Any]:
    """All rows of a list, page by page."""
    rows: list[Any] = []
    cursor = ""
    while True:
        params = {"cursor": cursor, **query}
        page = (await http.get(path, params=params, headers=admin())).raise_for_status().json()
        rows += page[member]
        cursor = page["next_cursor"]
        if not cursor:
            return rows


@pytest.mark.parametrize("path", PATHS)
async def test_only_admins(redis_url: str, path: str) -> None:
    """403 for users and services, 401 without a token."""
    async with running_node(redis_url) as node, node.http() as http:
        statuses = [
            (await http.get(path, headers=headers)).status_code
            for headers in ({}, bearer(mint("ann")), bearer(mint("bot", Role.SERVICE)), admin())
        ]

    assert [401, 403, 403, 200] == statuses


async def test_figures_are_what_was_opened_on_two_nodes(empty_redis: str) -> None:
    """60 connections in 20 sessions over two nodes, 5 not yet authenticated: every sum is exact."""
    sessions = [new_session() for _ in range(20)]
    async with two_nodes(empty_redis) as (one, two), AsyncExitStack() as stack:
        ports = [one.port, two.port] * 30
        devices = await stack.enter_async_context(opened(ports, sessions * 3))
        for _ in range(5):
            await stack.enter_async_context(await Device.open(two.port))
        for device in devices[:20]:
            await device.set("mood", "calm")
        http = await stack.enter_async_context(one.http())
        got = (await http.get("/admin/metrics/all", headers=admin())).json()
        parts = {
            name: (await http.get(f"/admin/metrics/{name}", headers=admin())).json()
            for name in ("sessions", "connections", "snapshots")
        }

    assert got["complete"] is True
    assert {
        "active": 20,
        "exact": True,
        "devices": 60,
        "created_total": 20,
        "writes_total": 20,
        "conflicts_total": 0,
    } == got["sessions"]
    connections = got["connections"]
    assert (65, 60, 5, 1) == tuple(
        connections[k] for k in ("open", "authenticated", "unauthenticated", "users")
    )
    assert ({"service": 60}, {"json": 65}) == (connections["by_role"], connections["by_encoding"])
    size = len("mood") + len('"calm"')
    assert (20, 20 * size, size, True) == tuple(
        got["snapshots"][k] for k in ("stored", "bytes", "average_bytes", "exact")
    )
    assert [30, 35] == sorted(n["open_connections"] for n in got["nodes"])
    assert all(n["fresh"] for n in got["nodes"])
    for name, member in (("sessions", "active"), ("connections", "open"), ("snapshots", "stored")):
        assert got[name][member] == parts[name][member]
        assert set(got[name]) < set(parts[name])


async def test_connections_are_listed_once_over_pages_and_nodes(empty_redis: str) -> None:
    """25 connections on two nodes in pages of 7: each one once, with who and where it is."""
    sessions = [new_session() for _ in range(25)]
    async with two_nodes(empty_redis) as (one, two):
        ports = [one.port, two.port, two.port, one.port, two.port] * 5
        async with opened(ports, sessions), two.http() as http:
            rows = await everything(http, "/admin/connections", "connections", limit=7)
            mine = await everything(
                http, "/admin/connections", "connections", limit=7, user_id="owner"
            )
            others = await everything(http, "/admin/connections", "connections", user_id="bob")

    assert {(f"d{n}", s) for n, s in enumerate(sessions)} == {
        (row["device_id"], row["session_id"]) for row in rows
    }
    assert 25 == len(rows) == len(mine)
    assert [] == others
    assert {10, 15} == set(Counter(row["node"] for row in rows).values())
    assert {("owner", "service", "ready", "json", "127.0.0.1")} == {
        tuple(row[k] for k in ("user_id", "role", "state", "encoding", "client")) for row in rows
    }


async def test_sessions_are_listed_once_over_pages(empty_redis: str) -> None:
    """Stored and merely joined sessions, with owner, version, size, and devices online."""
    written = [new_session() for _ in range(30)]
    joined = new_session()
    async with running_node(empty_redis) as node, node.http() as http:
        for n, session in enumerate(written):
            body = {"session_id": session, "user_id": f"u{n % 3}", "state_data": {"n": n}}
            await http.post("/session/snapshot", json=body, headers=admin())
        async with await Device.open(node.port) as phone, await Device.open(node.port) as tablet:
            await phone.auth(mint("u0"), "phone", session_id=written[0])
            await phone.set("n", "x" * 100)
            await tablet.auth(mint("ann"), "tablet", session_id=joined)
            rows = await everything(http, "/admin/sessions", "sessions", limit=4)
            active = await everything(http, "/admin/sessions", "sessions", active=True)
            of_one = await everything(http, "/admin/sessions", "sessions", user_id="u1", limit=3)

    by_id = {row["session_id"]: row for row in rows}
    assert 31 == len(rows) == len(by_id)
    first = by_id[written[0]]
    assert ("u0", 2, 1 + 102, 1, 1) == tuple(
        first[k] for k in ("user_id", "version", "bytes", "devices", "devices_online")
    )
    assert first["updated_at"] >= first["created_at"]
    assert ("ann", 0, 0, None, 1) == tuple(
        by_id[joined][k] for k in ("user_id", "version", "bytes", "updated_at", "devices_online")
    )
    assert {written[0], joined} == {row["session_id"] for row in active}
    assert {"u1"} == {row["user_id"] for row in of_one}
    assert set(written[1::3]) == {row["session_id"] for row in of_one}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "cursor=%7B", "cursor=1", "cursor=nine:zz:zz%20"],
)
@pytest.mark.parametrize("path", ["/admin/sessions", "/admin/connections"])
async def test_bad_page(redis_url: str, path: str, query: str) -> None:
    """422 that names the parameter."""
    async with running_node(redis_url) as node, node.http() as http:
        answer = await http.get(f"{path}?{query}", headers=admin())

    assert (422, "invalid_field") == (answer.status_code, answer.json()["code"])
    assert query.partition("=")[0] == answer.json()["field"]


async def test_broadcast_counts_the_devices_of_all_nodes(empty_redis: str) -> None:
    """`delivered` is how many devices got it, wherever they are; each gets it once."""
    message = {"message": "System maintenance scheduled", "type": "notification"}
    async with two_nodes(empty_redis) as (one, two):
        ports = [one.port, two.port, two.port]
        async with opened(ports, [new_session() for _ in ports]) as devices, one.http() as http:
            asked = message | {"audience": "all"}
            answer = await http.post("/admin/broadcast", json=asked, headers=admin())
            seen = [(await device.receive(BROADCAST))["payload"] for device in devices]
            again = [await device.request(1) for device in devices]

    assert {"delivered": 3, "complete": True, "nodes": 2} == answer.json()
    assert [message] * 3 == seen
    assert {2} == {message["type"] for message in again}


async def test_a_broadcast_is_for_an_audience(empty_redis: str) -> None:
    """The admin channel, unless it says one session or all; on whichever node they are."""
    sid = new_session()
    async with two_nodes(empty_redis) as (one, two), one.http() as http:
        console, phone, other = [await Device.open(n.port) for n in (two, two, one)]
        async with console, phone, other:
            await console.auth(mint("root", Role.ADMIN), "console", session_id=new_session())
            await phone.auth(mint("ann"), "phone", session_id=sid)
            await other.auth(mint("bob"), "other", session_id=new_session())
            for n, more in enumerate(({}, {"audience": "session", "session_id": sid})):
                body = {"message": str(n), **more}
                answer = await http.post("/admin/broadcast", json=body, headers=admin())
                assert {"delivered": 1, "complete": True, "nodes": 2} == answer.json()
            last = {"message": "last", "audience": "all"}
            await http.post("/admin/broadcast", json=last, headers=admin())
            heard = [await until_last(device) for device in (console, phone, other)]

    assert [["0", "last"], ["1", "last"], ["last"]] == heard


async def until_last(device: Device) -> list[str]:
    """What a device is told, to the last of it."""
    heard: list[str] = []
    while heard[-1:] != ["last"]:
        heard.append((await device.receive(BROADCAST))["payload"]["message"])
    return heard


@pytest.mark.parametrize(
    "more",
    [
        {"audience": "session"},
        {"session_id": str(uuid.uuid4())},
        {"audience": "session", "session_id": "x"},
        {"audience": "everybody"},
        {"to": "all"},
    ],
)
async def test_a_broadcast_to_nobody_in_particular(empty_redis: str, more: dict[str, str]) -> None:
    """An audience that is not one, a session without its audience or the reverse are refused."""
    async with running_node(empty_redis) as node, node.http() as http:
        body = {"message": "hi", **more}
        answer = await http.post("/admin/broadcast", json=body, headers=admin())

    assert 422 == answer.status_code


@pytest.mark.slow
async def test_figures_of_workers_add_up(empty_redis: str, tmp_path: Path) -> None:
    """Two worker processes behind one port are two nodes, whichever is asked."""
    with server_process(tmp_path, empty_redis, "serve", "--workers", "2") as process:
        sessions = [new_session() for _ in range(12)]
        async with (
            opened([process.port] * 60, sessions * 5),
            httpx.AsyncClient(base_url=process.url, headers=admin()) as http,
        ):
            metrics = (await http.get("/admin/metrics/all")).json()
            rows = await everything(http, "/admin/connections", "connections", limit=50)
            delivery = (
                await http.post("/admin/broadcast", json={"message": "hi", "audience": "all"})
            ).json()

    assert (True, 60, 12, 2) == (
        metrics["complete"],
        metrics["connections"]["open"],
        metrics["sessions"]["active"],
        len(metrics["nodes"]),
    )
    assert 2 == len({node["pid"] for node in metrics["nodes"]})
    assert {f"d{n}" for n in range(60)} == {row["device_id"] for row in rows}
    assert {"delivered": 60, "complete": True, "nodes": 2} == delivery


async def test_a_node_that_does_not_answer_makes_the_answer_incomplete(
    empty_redis: str, tmp_path: Path
) -> None:
    """A killed node counts with its last record, marked, and lists go on without it."""
    with server_process(tmp_path, empty_redis) as doomed:
        async with running_node(empty_redis) as node, node.http() as http:
            async with opened([node.port], [new_session()]):
                before = (await http.get("/admin/metrics/all", headers=admin())).json()
                doomed.kill()
                after = (await http.get("/admin/metrics/all", headers=admin())).json()
                page = (await http.get("/admin/connections", headers=admin())).json()

    assert (True, 2) == (before["complete"], len(before["nodes"]))
    assert False is after["complete"]
    assert [False, True] == sorted(n["fresh"] for n in after["nodes"])
    assert (1, 1) == (after["connections"]["open"], len(page["connections"]))
    assert False is page["complete"]


async def test_admin_sockets_receive_metrics_and_notices(empty_redis: str) -> None:
    """Every period the figures of all nodes; a notice when somebody broadcasts. Users: nothing."""
    async with two_nodes(empty_redis, admin_update=0.2) as (one, two), one.http() as http:
        async with await Device.open(two.port) as console, await Device.open(one.port) as phone:
            await phone.auth(mint("ann"), "phone")
            await console.auth(mint("root", Role.ADMIN), "console")
            metrics = (await console.receive(ADMIN_UPDATE))["payload"]
            hello = {"message": "hello", "audience": "all"}
            await http.post("/admin/broadcast", json=hello, headers=admin())
            while (notice := (await console.receive(ADMIN_UPDATE))["payload"])["kind"] != "notice":
                pass
            await phone.receive(BROADCAST)
            answer = await phone.request(1)
            seen = {message["type"] for message in map(_json, phone.raw)}

    assert ("metrics", 2, 2) == (
        metrics["kind"],
        metrics["metrics"]["connections"]["open"],
        len(metrics["metrics"]["nodes"]),
    )
    assert ("broadcast", 2, "hello") == (
        notice["notice"],
        notice["data"]["delivered"],
        notice["data"]["message"],
    )
    assert 2 == answer["type"]
    assert ADMIN_UPDATE not in seen


def _json(text: str) -> dict[str, Any]:
    return httpx.Response(200, text=text).json()


async def test_without_admins_nothing_is_computed(
    empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No figures are gathered while no admin is connected; a token with less takes one out."""
    gathered = 0
    async with running_node(empty_redis, admin_update=0.02) as node:
        administration = node.server.administration
        whole = administration.metrics

        async def counting() -> Any:
            nonlocal gathered
            gathered += 1
            return await whole()

        monkeypatch.setattr(administration, "metrics", counting)
        async with await Device.open(node.port) as device:
            await device.auth(mint("ann"), "phone")
            await trio.sleep(0.2)
            idle = gathered
            await device.auth(mint("ann", Role.ADMIN), "phone")
            await device.receive(ADMIN_UPDATE)
            await device.auth(mint("ann"), "phone")
            admins = node.server.gateway.admins

    assert 0 == idle
    assert gathered > 0
    assert 0 == admins


async def test_outage_of_redis_leaves_what_this_node_knows(redis_server: RedisServer) -> None:
    """Connections are told, marked incomplete; what is stored is 503 with a time."""
    async with running_node(redis_server.url) as node, node.http() as http:
        async with await Device.open(node.port) as phone:
            await phone.auth(mint("ann"), "phone")
            redis_server.kill()
            while node.server.store_connected:  # noqa: ASYNC110
                await trio.sleep(0.01)
            connections = await http.get("/admin/metrics/connections", headers=admin())
            stored = await http.get("/admin/metrics/snapshots", headers=admin())

    assert (200, 1, False) == (
        connections.status_code,
        connections.json()["open"],
        connections.json()["complete"],
    )
    assert 503 == stored.status_code
    assert int(stored.headers["retry-after"]) >= 1


async def test_admins_that_speak_protobuf_are_told_too(empty_redis: str) -> None:
    """BROADCAST and ADMIN_UPDATE reach a binary socket, and it is counted as one."""
    async with running_node(empty_redis, admin_update=0.05) as node, node.http() as http:
        async with await Device.open(node.port, protobuf=True) as console:
            await console.auth(mint("root", Role.ADMIN), "console")
            metrics = (await console.receive(ADMIN_UPDATE))["payload"]
            said = {"message": "hi", "audience": "all"}
            answer = await http.post("/admin/broadcast", json=said, headers=admin())
            seen = (await console.receive(BROADCAST))["payload"]

    assert ("metrics", {"protobuf": 1}) == (
        metrics["kind"],
        metrics["metrics"]["connections"]["by_encoding"],
    )
    assert (1, "hi") == (answer.json()["delivered"], seen["message"])
