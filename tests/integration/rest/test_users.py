"""A user's sessions and whether they are online, over nodes and sessions."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from support.redis_places import client_of
from support.redis_servers import until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge.slots import session_key


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
    await io.execute("DEL", session_key(gone, "m"))
    await io.execute("HSET", session_key(taken, "m"), "u", "bob")
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


async def test_a_damaged_session_is_left_out_and_counted(
    nodes: tuple[Node, Node], user: str, http: httpx.AsyncClient, redis_url: str
) -> None:
    """Of a user's sessions, and of all; it stays in the index, and is shown once it is mended."""
    raw = client_of(redis_url)
    bad, good = new_session(), new_session()
    for session in (good, bad):
        await create(http, user, session)
    raw.hset(session_key(bad, "m"), "v", "-5")
    try:
        page = (await http.get(f"/users/{user}/sessions")).json()
        status = await http.get(f"/users/{user}/status")
        all_of = f"/admin/sessions?limit=500&user_id={user}"
        listed = (await http.get(all_of, headers=bearer(mint("root", Role.ADMIN)))).json()
    finally:
        raw.hset(session_key(bad, "m"), "v", "1")
    again = (await http.get(f"/users/{user}/sessions")).json()

    assert ([good], 1) == ([s["session_id"] for s in page["sessions"]], page["damaged"])
    assert 200 == status.status_code
    assert ([good], 1) == ([s["session_id"] for s in listed["sessions"]], listed["damaged"])
    assert ({good, bad}, 0) == ({s["session_id"] for s in again["sessions"]}, again["damaged"])


async def test_what_is_no_session_leaves_the_index(
    user: str, http: httpx.AsyncClient, redis_url: str
) -> None:
    """However many there are, the pages go on behind them."""
    raw = client_of(redis_url)
    sessions = [new_session() for _ in range(3)]
    for session in sessions:
        await create(http, user, session)
    strange = [b"\xff\xfe", b"", b"not a session", b"{", *(b"%d" % n for n in range(20))]
    raw.zadd(f"u:{user}", dict.fromkeys(strange, 1e14))
    found: list[str] = []
    cursor = ""
    while True:
        path = f"/users/{user}/sessions?limit=1&cursor={cursor}"
        page = (await http.get(path)).json()
        found += [session["session_id"] for session in page["sessions"]]
        cursor = page["next_cursor"]
        if not cursor:
            break

    assert sorted(sessions) == sorted(found)
    assert 3 == raw.zcard(f"u:{user}")


async def test_writes_of_sockets_are_activity(
    nodes: tuple[Node, Node],
    http: httpx.AsyncClient,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The session in which was written last comes first, though both are connected all the time.

    The minute in which the index is written once is made shorter.
    """
    monkeypatch.setattr("syncbridge_server.gateway.users.PERIOD", 0.0)
    sessions = [new_session(), new_session()]
    orders = []
    async with (
        await join(nodes[0], user, sessions[0], "phone") as first,
        await join(nodes[1], user, sessions[1], "phone") as second,
    ):
        for device in (first, second, first):
            before = len(orders)
            await device.set("a", before)
            with trio.fail_after(30.0):
                while len(orders) == before:
                    await trio.sleep(0.05)
                    answer = (await http.get(f"/users/{user}/sessions")).json()
                    listed = [each["session_id"] for each in answer["sessions"]]
                    if listed[0] == sessions[device is second]:
                        orders.append(listed)

    assert [sessions, sessions[::-1], sessions] == orders
