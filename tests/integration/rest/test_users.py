"""A user's sessions and whether they are online, over nodes and sessions."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from support.redis_servers import until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role


@pytest.fixture
async def nodes(redis_url: str) -> AsyncIterator[tuple[Node, Node]]:
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        yield one, two


@pytest.fixture
def user() -> str:
    """A user that no other test knows."""
    return f"user-{new_session()}"


@pytest.fixture
async def http(nodes: tuple[Node, Node], user: str) -> AsyncIterator[httpx.AsyncClient]:
    async with nodes[0].http() as client:
        client.headers.update(bearer(mint(user)))
        yield client


async def join(node: Node, user: str, session: str, device_id: str) -> Device:
    device = await Device.open(node.port)
    await device.auth(mint(user), device_id, session_id=session)
    return device


async def create(http: httpx.AsyncClient, user: str, session: str) -> dict[str, Any]:
    body = {"session_id": session, "user_id": user, "state_data": {"a": 1}}
    answer = await http.post("/session/snapshot", json=body)
    assert answer.status_code == 201
    written: dict[str, Any] = answer.json()
    return written


async def test_a_user_is_online_on_any_device(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, user: str
) -> None:
    """Counted over sessions and nodes; a device in two sessions is one; offline at the end."""
    first, second = new_session(), new_session()
    path = f"/users/{user}/status"
    before = (await http.get(path)).json()
    async with (
        await join(nodes[0], user, first, "phone"),
        await join(nodes[1], user, second, "phone"),
        await join(nodes[1], user, second, "tablet") as tablet,
    ):
        during = (await http.get(path)).json()
        await tablet.close()
    await until(lambda: all(not node.server.gateway.registry.connections for node in nodes))
    after = (await http.get(path)).json()

    offline = {"user_id": user, "status": "offline", "devices_online": 0, "sessions_online": 0}
    online = {"user_id": user, "status": "online", "devices_online": 2, "sessions_online": 2}
    assert [offline, online, offline] == [before, during, after]


async def test_sessions_of_a_user(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, user: str
) -> None:
    """Written over REST, written by a device, and only joined; newest activity first."""
    rest, written, joined = new_session(), new_session(), new_session()
    created = await create(http, user, rest)
    async with (
        await join(nodes[1], user, written, "phone") as phone,
        await join(nodes[0], user, joined, "tablet"),
    ):
        await phone.set("a", 1)
        await phone.set("a", 2)
        body = (await http.get(f"/users/{user}/sessions")).json()

    assert (user, "") == (body["user_id"], body["next_cursor"])
    shown = {s["session_id"]: (s["version"], s["devices_online"]) for s in body["sessions"]}
    assert {rest: (1, 0), written: (2, 1), joined: (0, 1)} == shown
    by_id = {s["session_id"]: s for s in body["sessions"]}
    assert created["updated_at"] == by_id[rest]["updated_at"]
    assert created["epoch"] == by_id[rest]["epoch"]
    assert by_id[joined]["updated_at"] is None
    activity = [s["last_activity"] for s in body["sessions"]]
    assert sorted(activity, reverse=True) == activity


async def test_sessions_come_in_pages(http: httpx.AsyncClient, user: str) -> None:
    """Every session once, over the pages."""
    sessions = {new_session() for _ in range(7)}
    for session in sessions:
        await create(http, user, session)
    seen: list[str] = []
    sizes, cursor = [], ""
    while True:
        query = {"limit": 3, "cursor": cursor}
        body = (await http.get(f"/users/{user}/sessions", params=query)).json()
        seen += [s["session_id"] for s in body["sessions"]]
        sizes.append(len(body["sessions"]))
        cursor = body["next_cursor"]
        if not cursor:
            break

    assert [3, 3, 1] == sizes
    assert 7 == len(seen)
    assert sessions == set(seen)


async def test_what_is_gone_leaves_the_index(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, user: str
) -> None:
    """An expired session, and one that belongs to somebody else now."""
    gone, taken, stays = new_session(), new_session(), new_session()
    for session in (gone, taken, stays):
        await create(http, user, session)
    io = nodes[0].server.io
    await io.execute("DEL", f"s:{{{gone}}}:m")
    await io.execute("HSET", f"s:{{{taken}}}:m", "u", "bob")
    body = (await http.get(f"/users/{user}/sessions")).json()
    left = await io.execute("ZRANGE", f"u:{user}", 0, -1)

    assert [stays] == [s["session_id"] for s in body["sessions"]]
    assert [stays.encode()] == left


async def test_who_may_ask(http: httpx.AsyncClient, user: str) -> None:
    """The user and services; 403 for another user, 422 for a bad page, 401 for nobody."""
    paths = (f"/users/{user}/sessions", f"/users/{user}/status")
    service = [await http.get(p, headers=bearer(mint("s", Role.SERVICE))) for p in paths]
    foreign = [await http.get(p, headers=bearer(mint("bob"))) for p in paths]
    nobody = [await http.get(p, headers={"Authorization": ""}) for p in paths]
    bad = [
        await http.get(paths[0], params=query)
        for query in ({"cursor": "x"}, {"cursor": "1-x"}, {"limit": 0}, {"limit": "many"})
    ]

    assert [[200] * 2, [403] * 2, [401] * 2, [422] * 4] == [
        [answer.status_code for answer in answers] for answers in (service, foreign, nobody, bad)
    ]


async def test_the_index_is_written_rarely(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, user: str
) -> None:
    """A hundred writes and joins of a session on one node are one entry, written once."""
    session = new_session()
    async with await join(nodes[0], user, session, "phone") as phone:
        first = await nodes[0].server.io.execute("ZSCORE", f"u:{user}", session)
        for number in range(5):
            await phone.set("n", number)
        async with await join(nodes[0], user, session, "tablet"):
            last = await nodes[0].server.io.execute("ZSCORE", f"u:{user}", session)

    assert first == last is not None
