"""Call sessions over HTTP on a whole server: bodies, statuses and members of their document."""

import uuid
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio

from support.server_kit import Node, bearer, mint, running_node
from support.ws_client import Device
from syncbridge.identity import Role

ADMIN_UPDATE = 14
MEMBERS = ["id", "type", "state", "createdAt", "updatedAt"]
DETAILS = {"caller_id": "1001", "callee_id": "2002"}


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url, rate_limit_enabled=False) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.http() as client:
        client.headers.update(bearer(mint("sip-gateway", Role.SERVICE)))
        yield client


def new_call() -> str:
    return f"call-{uuid.uuid4().hex[:12]}"


async def create(http: httpx.AsyncClient, call_id: str = "", **members: Any) -> dict[str, Any]:
    body = {"id": call_id or new_call(), "type": "SIP", **members}
    answer = await http.post("/sessions", json=body)
    assert 201 == answer.status_code, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def put_state(http: httpx.AsyncClient, call_id: str, state: str) -> httpx.Response:
    return await http.put(f"/sessions/{call_id}/state", json={"state": state})


async def test_a_call_from_creation_to_deletion(http: httpx.AsyncClient) -> None:
    """Each answer is the call as it is then; after the deletion there is none."""
    made = await create(http, details=DETAILS)
    path = f"/sessions/{made['id']}"
    active = await put_state(http, made["id"], "active")
    merged = await http.put(f"{path}/details", json={"details": {"caller_id": "9", "x": "ü"}})
    ended = await put_state(http, made["id"], "terminated")
    read = await http.get(path)
    history = await http.get(f"{path}/history")
    deleted = await http.delete(path)
    gone = [
        await http.get(path),
        await http.delete(path),
        await put_state(http, made["id"], "active"),
    ]
    kept = (await http.get(f"{path}/history")).json()

    assert [*MEMBERS, "details"] == list(made)
    assert ("SIP", "pending", DETAILS) == (made["type"], made["state"], made["details"])
    assert made["createdAt"] == made["updatedAt"]
    assert [200, 200, 200, 200] == [r.status_code for r in (active, merged, ended, read)]
    assert {"caller_id": "9", "callee_id": "2002", "x": "ü"} == merged.json()["details"]
    assert ended.json() == read.json()
    assert made["createdAt"] == read.json()["createdAt"]
    assert made["updatedAt"] <= active.json()["updatedAt"] <= ended.json()["updatedAt"]
    changes = history.json()["history"]
    assert ["pending", "active", "terminated"] == [change["state"] for change in changes]
    assert {"sip-gateway"} == {change["by"] for change in changes}
    assert [made["createdAt"], active.json()["updatedAt"], ended.json()["updatedAt"]] == [
        change["at"] for change in changes
    ]
    assert (204, b"") == (deleted.status_code, deleted.content)
    assert [(404, "call_not_found")] * 3 == [(r.status_code, r.json()["code"]) for r in gone]
    assert changes == kept["history"]
    assert ended.json()["updatedAt"] <= kept["deletedAt"]
    members = {"id", "history", "events", "durations", "earlier"}
    assert ("sip-gateway", members) == (kept["deletedBy"], {*history.json()})


async def test_the_history_of_an_id_is_that_of_its_call(http: httpx.AsyncClient) -> None:
    """A new call under the id of a deleted one begins anew; those before it stay, latest first."""
    made = await create(http)
    path = f"/sessions/{made['id']}"
    await put_state(http, made["id"], "active")
    await http.delete(path)
    await create(http, made["id"])
    again = (await http.get(f"{path}/history")).json()
    await http.delete(path)
    kept = (await http.get(f"{path}/history")).json()

    assert ["pending"] == [change["state"] for change in again["history"]]
    assert "deletedAt" not in again
    assert again["history"] == kept["history"]
    assert kept["deletedAt"]
    assert again["earlier"] == kept["earlier"]
    (earlier,) = kept["earlier"]
    assert ["pending", "active"] == [change["state"] for change in earlier["history"]]
    assert earlier["deletedAt"] <= kept["deletedAt"]


async def test_without_details_the_member_is_left_out(http: httpx.AsyncClient) -> None:
    """Absent, null and empty details are the same."""
    variants: list[dict[str, Any]] = [{}, {"details": None}, {"details": {}}]
    for details in variants:
        assert MEMBERS == list(await create(http, type="WebRTC", **details))


async def test_steps_that_do_not_follow(http: httpx.AsyncClient) -> None:
    """409 with the state; repeating a state is 200 and changes nothing, times included."""
    call_id = (await create(http))["id"]
    same = await put_state(http, call_id, "pending")
    active = await put_state(http, call_id, "active")
    again = await put_state(http, call_id, "active")
    back = await put_state(http, call_id, "pending")
    await put_state(http, call_id, "terminated")
    dead = [await put_state(http, call_id, state) for state in ("active", "pending")]
    ended = await put_state(http, call_id, "terminated")

    assert (200, "pending") == (same.status_code, same.json()["state"])
    assert active.json() == again.json()
    assert (409, "call_transition", "active", ["terminated"]) == (
        back.status_code,
        *(back.json()[name] for name in ("code", "state", "allowed")),
    )
    assert [(409, "call_terminated")] * 2 == [(r.status_code, r.json()["code"]) for r in dead]
    assert (200, "terminated") == (ended.status_code, ended.json()["state"])


async def test_an_id_is_taken_once(http: httpx.AsyncClient) -> None:
    """409, unless the same caller repeats the same request under the same Idempotency-Key."""
    body: dict[str, Any] = {"id": new_call(), "type": "SIP", "details": DETAILS}
    key = {"Idempotency-Key": "a-key"}
    first = await http.post("/sessions", json=body, headers=key)
    await put_state(http, body["id"], "active")
    again = await http.post("/sessions", json=body, headers=key)
    others = [
        await http.post("/sessions", json=body),
        await http.post("/sessions", json=body, headers={"Idempotency-Key": "another"}),
        await http.post("/sessions", json=body | {"type": "WebRTC"}, headers=key),
        await http.post("/sessions", json=body | {"details": {}}, headers=key),
        await http.post("/sessions", json=body, headers=key | bearer(mint("b", Role.SERVICE))),
    ]
    long = await http.post("/sessions", json=body, headers={"Idempotency-Key": "k" * 256})

    assert (201, 201) == (first.status_code, again.status_code)
    assert ("active", first.json()["createdAt"]) == (
        again.json()["state"],
        again.json()["createdAt"],
    )
    assert [(409, "call_exists")] * 5 == [(r.status_code, r.json()["code"]) for r in others]
    assert (400, "invalid_call") == (long.status_code, long.json()["code"])


BAD_CREATIONS = [
    (b"", 400, "invalid_json"),
    (b"{", 400, "invalid_json"),
    (b"\xff", 400, "invalid_json"),
    (b"[]", 400, "invalid_call"),
    (b"{}", 400, "invalid_call"),
    (b'{"id":"a"}', 400, "invalid_call"),
    (b'{"type":"SIP"}', 400, "invalid_call"),
    (b'{"id":"","type":"SIP"}', 400, "invalid_call"),
    (b'{"id":"a","type":""}', 400, "invalid_call"),
    (b'{"id":"a","type":"sip"}', 400, "invalid_call"),
    (b'{"id":1,"type":"SIP"}', 400, "invalid_call"),
    (b'{"id":null,"type":"SIP"}', 400, "invalid_call"),
    (b'{"id":"a\\nb","type":"SIP"}', 400, "invalid_call"),
    (b'{"id":"a/history","type":"SIP"}', 400, "invalid_call"),
    (b'{"id":"' + b"a" * 257 + b'","type":"SIP"}', 400, "invalid_call"),
    (b'{"id":"a","type":"SIP","state":"active"}', 400, "invalid_call"),
    (b'{"id":"a","type":"SIP","details":[]}', 400, "invalid_call"),
    (b'{"id":"a","type":"SIP","details":"x"}', 400, "invalid_call"),
    (b'{"id":"a","type":"SIP","details":{"a":1}}', 400, "invalid_call"),
    (b'{"id":"a","type":"SIP","details":{"a":null}}', 400, "invalid_call"),
    (b'{"id":"a","type":"SIP","details":{"a":"1","a":"2"}}', 400, "invalid_call"),
    (b'{"id":"a","type":"SIP","details":{"a":"\\ud800"}}', 400, "invalid_json"),
    (b'{"id":"a","type":"SIP","details":{"' + b"k" * 257 + b'":"1"}}', None, None),
    (b'{"id":"a","type":"SIP","details":{"a":"' + b"x" * 65_600 + b'"}}', 413, "too_large"),
    (b'{"id":"a","type":"SIP","details":{"a":"' + b"x" * 90_000 + b'"}}', 413, "too_large"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD_CREATIONS)
async def test_bad_creations(
    http: httpx.AsyncClient, body: bytes, status: int | None, code: str | None
) -> None:
    """400 for what the document says; a name that is too long may be either; nothing is made."""
    answer = await http.post(
        "/sessions", content=body, headers={"Content-Type": "application/json"}
    )
    assert "application/problem+json" == answer.headers["content-type"]
    if status is None:
        assert answer.status_code in (400, 413)
    else:
        assert (status, code) == (answer.status_code, answer.json()["code"])
    assert 404 == (await http.get("/sessions/a")).status_code


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("state", "{}"),
        ("state", '{"state":null}'),
        ("state", '{"state":""}'),
        ("state", '{"state":"ACTIVE"}'),
        ("state", '{"state":"ringing"}'),
        ("state", '{"state":"active","reason":"answered"}'),
        ("state", "nonsense"),
        ("details", "{}"),
        ("details", '{"details":null}'),
        ("details", '{"details":[]}'),
        ("details", '{"details":{"a":{}}}'),
        ("details", '{"details":{"a":"1"},"remove":["b"]}'),
        ("details", "nonsense"),
    ],
)
async def test_bad_updates(http: httpx.AsyncClient, path: str, body: str) -> None:
    """400, and the call is as it was."""
    made = await create(http)
    answer = await http.put(
        f"/sessions/{made['id']}/{path}",
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert 400 == answer.status_code
    assert made == (await http.get(f"/sessions/{made['id']}")).json()


async def test_updates_of_calls_that_do_not_exist(http: httpx.AsyncClient) -> None:
    """404, for ids that no call can have too."""
    for call_id in (new_call(), "x" * 300, "%00", "%0a", "a%2Fb", "%ff", ""):
        answers = [
            await put_state(http, call_id, "active"),
            await http.put(f"/sessions/{call_id}/details", json={"details": {"a": "1"}}),
            await http.get(f"/sessions/{call_id}/history"),
            await http.delete(f"/sessions/{call_id}"),
        ]
        assert [404] * 4 == [answer.status_code for answer in answers], call_id


async def test_ids_may_hold_anything_printable(http: httpx.AsyncClient) -> None:
    """A Call-ID with slashes, braces, percent signs and other letters is found again."""
    mark = uuid.uuid4().hex[:8]
    for name in (f"{mark}/a/state@[::1]:5060", f"}}{mark}{{", f"{mark} %2F?#", f"ü☎{mark}"):
        made = await create(http, name)
        path = f"/sessions/{quote(name, safe='')}"
        answers = [
            await http.get(path),
            await http.put(f"{path}/state", json={"state": "active"}),
            await http.put(f"{path}/details", json={"details": {"a": "1"}}),
            await http.get(f"{path}/history"),
            await http.delete(path),
        ]
        assert [200, 200, 200, 200, 204] == [answer.status_code for answer in answers]
        assert made == answers[0].json()


async def test_details_are_bounded_in_all(http: httpx.AsyncClient) -> None:
    """64 KB as JSON, also over several updates; the one too much changes nothing."""
    call_id = (await create(http, details={"a": "x" * 60_000}))["id"]
    path = f"/sessions/{call_id}"
    refused = await http.put(f"{path}/details", json={"details": {"b": "y" * 6_000, "c": "1"}})
    read = await http.get(path)
    smaller = await http.put(f"{path}/details", json={"details": {"a": "", "b": "y" * 60_000}})

    assert (413, "too_large", 65_536) == (
        refused.status_code,
        refused.json()["code"],
        refused.json()["limit"],
    )
    assert {"a"} == set(read.json()["details"])
    assert (200, {"a": "", "b": "y" * 60_000}) == (smaller.status_code, smaller.json()["details"])


async def test_roles(node: Node) -> None:
    """Calls have no owner: 403 for users, 401 without a token, whatever is asked."""
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/sessions", {"id": "a", "type": "SIP"}),
        ("GET", "/sessions", None),
        ("GET", "/sessions/a", None),
        ("GET", "/sessions/a/history", None),
        ("PUT", "/sessions/a/state", {"state": "active"}),
        ("PUT", "/sessions/a/details", {"details": {}}),
        ("DELETE", "/sessions/a", None),
    ]
    async with node.http() as http:
        for headers, status in (({}, 401), (bearer(mint("ann")), 403)):
            for method, path, body in requests:
                answer = await http.request(method, path, json=body, headers=headers)
                assert status == answer.status_code, (method, path)
        admin = await http.get("/sessions", headers=bearer(mint("root", Role.ADMIN)))
    assert 200 == admin.status_code


async def test_wrong_methods_and_media(http: httpx.AsyncClient) -> None:
    """405 with Allow, 415."""
    wrong = [
        await http.put("/sessions"),
        await http.post("/sessions/a"),
        await http.patch("/sessions/a"),
        await http.get("/sessions/a/b/../state/state"),
    ]
    form = await http.post("/sessions", data={"id": "a"})
    assert [405, 405, 405, 404] == [answer.status_code for answer in wrong]
    assert all("allow" in answer.headers for answer in wrong[:3])
    assert 415 == form.status_code


async def walk(http: httpx.AsyncClient, limit: int, **query: str) -> list[dict[str, Any]]:
    """All calls of a list, page by page."""
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        params = {"limit": str(limit), "cursor": cursor, **query}
        page = (await http.get("/sessions", params=params)).raise_for_status().json()
        assert len(page["sessions"]) <= limit
        rows += page["sessions"]
        cursor = page["next_cursor"]
        if not cursor:
            return rows


async def test_lists_and_filters(http: httpx.AsyncClient) -> None:
    """Newest first, each once, whatever the page size; filters show those and no others."""
    made = [await create(http, type=("SIP", "WebRTC")[n % 2]) for n in range(12)]
    mine = {call["id"] for call in made}
    for call in made[:6]:
        await put_state(http, call["id"], "active")
    await put_state(http, made[0]["id"], "terminated")
    await http.delete(f"/sessions/{made[11]['id']}")
    listed = [row for row in await walk(http, 5) if row["id"] in mine]
    whole = [row for row in await walk(http, 200) if row["id"] in mine]
    active = await walk(http, 3, state="active")
    active_sip = await walk(http, 2, state="active", type="SIP")

    assert {call["id"] for call in made[:11]} == {row["id"] for row in listed}
    assert (11, listed) == (len(listed), whole)
    assert all(a["createdAt"] >= b["createdAt"] for a, b in pairwise(listed))
    assert {c["id"] for c in made[1:6]} == {r["id"] for r in active} & mine
    assert {made[2]["id"], made[4]["id"]} == {r["id"] for r in active_sip} & mine
    assert {"active"} == {row["state"] for row in active}
    assert {("active", "SIP")} == {(row["state"], row["type"]) for row in active_sip}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "state=ringing", "type=sip", "cursor=x", "cursor=1-"],
)
async def test_bad_queries(http: httpx.AsyncClient, query: str) -> None:
    """422 naming the parameter."""
    answer = await http.get(f"/sessions?{query}")
    assert (422, query.partition("=")[0]) == (answer.status_code, answer.json()["field"])


async def test_admin_sockets_hear_of_every_change(redis_url: str) -> None:
    """On the node of the write and on the other one; repetitions and refusals are no news."""
    async with (
        running_node(redis_url, admin_update=3600.0) as one,
        running_node(redis_url, admin_update=3600.0) as two,
        await Device.open(one.port) as near,
        await Device.open(two.port) as far,
        one.http() as http,
    ):
        http.headers.update(bearer(mint("gw", Role.SERVICE)))
        for name, device in (("near", near), ("far", far)):
            await device.auth(mint("root", Role.ADMIN), name)
        call_id = (await create(http, details={"caller_id": "secret-number"}))["id"]
        for state in ("active", "active", "pending", "terminated"):
            await put_state(http, call_id, state)
        await http.put(f"/sessions/{call_id}/details", json={"details": {"a": "1"}})
        await http.delete(f"/sessions/{call_id}")
        heard = [await notices(device, call_id) for device in (near, far)]

    assert [
        ("call_created", "pending", None),
        ("call_state", "active", "pending"),
        ("call_state", "terminated", "active"),
        ("call_details", "terminated", None),
        ("call_deleted", "terminated", None),
    ] == heard[0]
    assert heard[0] == heard[1]
    assert not any("secret-number" in text for text in near.raw + far.raw)


async def notices(device: Device, call_id: str) -> list[tuple[str, str, str | None]]:
    """What was said of a call, up to its deletion."""
    heard: list[tuple[str, str, str | None]] = []
    while not heard or heard[-1][0] != "call_deleted":
        payload = (await device.receive(ADMIN_UPDATE))["payload"]
        data = payload.get("data") or {}
        if data.get("id") == call_id:
            heard.append((payload["notice"], data["state"], data.get("previous")))
    return heard


async def test_two_writers_of_a_state(http: httpx.AsyncClient) -> None:
    """Of active and terminated at once, terminated always wins in the end; active is 200 or 409."""
    for _ in range(20):
        call_id = (await create(http))["id"]
        statuses: dict[str, int] = {}

        async def write(state: str, call_id: str, statuses: dict[str, int]) -> None:
            statuses[state] = (await put_state(http, call_id, state)).status_code

        async with trio.open_nursery() as nursery:
            for state in ("active", "terminated"):
                nursery.start_soon(write, state, call_id, statuses)
        history = (await http.get(f"/sessions/{call_id}/history")).json()["history"]
        states = [change["state"] for change in history]

        assert 200 == statuses["terminated"]
        assert statuses["active"] in (200, 409)
        expected = ["active"] if statuses["active"] == 200 else []
        assert ["pending", *expected, "terminated"] == states


async def test_many_creations_of_one_id(http: httpx.AsyncClient) -> None:
    """One 201 and nine 409."""
    body = {"id": new_call(), "type": "SIP"}
    statuses: list[int] = []

    async def post() -> None:
        statuses.append((await http.post("/sessions", json=body)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(post)
    assert [201] + [409] * 9 == sorted(statuses)
