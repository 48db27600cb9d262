"""Session state over HTTP, and what devices see of it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role

# httpx leaves the generator of a request body to the collector when the answer comes first.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object ByteStream:"
    "pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url, requests_per_second=10_000, request_burst=10_000) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.http() as client:
        client.headers.update(bearer(mint("user-123")))
        yield client


def body(session: str, state: Any, **changes: Any) -> dict[str, Any]:
    base = {
        "session_id": session,
        "user_id": "user-123",
        "state_data": state,
        "device_id": "device-456",
        "app_version": "2.1.0",
        "version": 1,
    }
    return base | changes


async def test_snapshot_is_created_then_read(http: httpx.AsyncClient) -> None:
    """The spec's own example: 201, then the same state back."""
    session = new_session()
    state = {"meditation_progress": 75, "current_mood": "calm", "streak_days": 12}

    created = await http.post("/session/snapshot", json=body(session, state))
    read = await http.get(f"/session/{session}")

    assert 201 == created.status_code
    answer = created.json()
    assert [
        "session_id",
        "version",
        "epoch",
        "lineage",
        "created_at",
        "updated_at",
        "expires_at",
    ] == list(answer)
    assert (session, 1) == (answer["session_id"], answer["version"])
    assert 200 == read.status_code
    assert {
        "session_id": session,
        "user_id": "user-123",
        "device_id": "device-456",
        "app_version": "2.1.0",
        "version": 1,
        "epoch": answer["epoch"],
        "lineage": answer["lineage"],
        "state_data": state,
    } == {k: v for k, v in read.json().items() if not k.endswith("_at")}
    assert "X-Request-ID" in read.headers


async def test_same_snapshot_again_changes_nothing(http: httpx.AsyncClient) -> None:
    """Pasting the example twice: 200, and still version 1."""
    session = new_session()
    await http.post("/session/snapshot", json=body(session, {"a": 1}))

    again = await http.post("/session/snapshot", json=body(session, {"a": 1}))

    assert (200, 1) == (again.status_code, again.json()["version"])


@pytest.mark.parametrize("version", [0, 1])
async def test_stale_snapshot_is_a_conflict(http: httpx.AsyncClient, version: int) -> None:
    """Something newer exists: 409 with the version to look at, and nothing is written."""
    session = new_session()
    await http.post("/session/snapshot", json=body(session, {"a": 1}))
    await http.post("/session/snapshot", json=body(session, {"a": 2}))

    stale = await http.post("/session/snapshot", json=body(session, {"a": 3}, version=version))

    assert (409, "version_conflict", 2) == (
        stale.status_code,
        stale.json()["code"],
        stale.json()["current_version"],
    )
    assert "application/problem+json" == stale.headers["content-type"]
    assert {"a": 2} == (await http.get(f"/session/{session}")).json()["state_data"]


async def test_devices_receive_only_what_a_snapshot_changed(
    node: Node, http: httpx.AsyncClient
) -> None:
    """Unchanged keys are not sent; keys that are gone are deletions."""
    session = new_session()
    state = {f"k{n}": n for n in range(50)}
    await http.post("/session/snapshot", json=body(session, state))
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("user-123"), "phone", session_id=session)
        del state["k0"]
        await http.post("/session/snapshot", json=body(session, state | {"k1": "new"}))
        update = (await phone.receive(5))["payload"]

    assert ({"k1": "new"}, ["k0"], 2, 1) == tuple(
        update[k] for k in ("changes", "deleted_keys", "version", "prev_version")
    )


async def test_etag(http: httpx.AsyncClient) -> None:
    """If-None-Match with the current tag is 304; after a change it is 200 with another."""
    session = new_session()
    await http.post("/session/snapshot", json=body(session, {"a": 1}))
    tag = (await http.get(f"/session/{session}")).headers["etag"]

    same = await http.get(f"/session/{session}", headers={"If-None-Match": tag})
    await http.post("/session/snapshot", json=body(session, {"a": 2}))
    other = await http.get(f"/session/{session}", headers={"If-None-Match": f'"x", {tag}'})

    assert (304, b"") == (same.status_code, same.content)
    assert 200 == other.status_code
    assert tag != other.headers["etag"]


async def test_ownership(node: Node, http: httpx.AsyncClient) -> None:
    """403 for another user's, 404 for none, all for the service; 401 without a token."""
    session, missing = new_session(), new_session()
    await http.post("/session/snapshot", json=body(session, {"a": 1}))
    async with node.http() as anybody:
        answers = {
            "stranger reads": await anybody.get(f"/session/{session}", headers=bearer(mint("bob"))),
            "stranger writes": await anybody.post(
                "/session/snapshot",
                json=body(session, {}, user_id="bob"),
                headers=bearer(mint("bob")),
            ),
            "in another's name": await anybody.post(
                "/session/snapshot", json=body(new_session(), {}), headers=bearer(mint("bob"))
            ),
            "missing": await anybody.get(f"/session/{missing}", headers=bearer(mint("bob"))),
            "service": await anybody.get(
                f"/session/{session}", headers=bearer(mint("bot", Role.SERVICE))
            ),
            "nobody": await anybody.get(f"/session/{session}"),
        }

    assert {
        "stranger reads": 403,
        "stranger writes": 403,
        "in another's name": 403,
        "missing": 404,
        "service": 200,
        "nobody": 401,
    } == {name: answer.status_code for name, answer in answers.items()}


HEAD = b'{"session_id":"%b","user_id":"user-123",'

BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "not JSON": (b"{", 400),
    "array": (b"[]", 422),
    "deep": (b'{"state_data":' + b"[" * 200_000, 400),
    "no session": (b'{"user_id":"user-123","state_data":{}}', 422),
    "session not a UUID": (b'{"session_id":"}{","user_id":"user-123","state_data":{}}', 422),
    "version a float": (HEAD + b'"state_data":{},"version":1.5}', 422),
    "version negative": (HEAD + b'"state_data":{},"version":-1}', 422),
    "state an array": (HEAD + b'"state_data":[]}', 422),
    "state null": (HEAD + b'"state_data":null}', 422),
    "reserved key": (HEAD + b'"state_data":{"__proto__":1}}', 422),
    "duplicate key": (HEAD + b'"state_data":{"a":1,"\\u0061":2}}', 422),
    "number range": (HEAD + b'"state_data":{"a":1e999}}', 422),
    "surrogate": (HEAD + b'"state_data":{"a":"\\ud800"}}', 400),
    "raw bytes": (HEAD + b'"state_data":{"a":"\xff"}}', 400),
    "nul in key": (HEAD + b'"state_data":{"a\\u0000":1}}', 422),
    "too many keys": (
        HEAD + b'"state_data":{'
        + b",".join(b'"k%d":1' % n for n in range(2001))
        + b"}}",
        413,
    ),
    "too large": (b'{"x":"' + b"y" * 1_100_000 + b'"}', 413),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bad_body(http: httpx.AsyncClient, name: str) -> None:
    """A problem document with a code and a sentence, never a 500, and nothing is written."""
    template, status = BAD_BODIES[name]
    session = new_session().encode()
    content = template.replace(b"%b", session, 1)

    answer = await http.post(
        "/session/snapshot", content=content, headers={"Content-Type": "application/json"}
    )
    after = await http.get(f"/session/{session.decode()}")

    assert status == answer.status_code
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert status == problem["status"]
    assert 404 == after.status_code


async def test_wrong_method_and_path(http: httpx.AsyncClient) -> None:
    """405 says what is allowed; a path that is no UUID is 404."""
    wrong = await http.delete("/session/snapshot")
    foreign = await http.request("PROPFIND", "/session/snapshot")
    nowhere = await http.get("/nowhere")
    odd = await http.get("/session/not-a-uuid")

    answers = (wrong, foreign, nowhere, odd)
    assert [405, 405, 404, 404] == [answer.status_code for answer in answers]
    assert "POST" in wrong.headers["allow"]
    assert "POST" in foreign.headers["allow"]
    assert all("code" in answer.json() for answer in answers)


async def test_state_of_a_megabyte_reaches_devices(node: Node, http: httpx.AsyncClient) -> None:
    """The largest state arrives whole: live, and when joining."""
    session = new_session()
    state = {f"k{n}": "x" * 250_000 for n in range(4)}
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("user-123"), "phone", session_id=session)
        created = await http.post("/session/snapshot", json=body(session, state))
        update = await phone.receive(5, 4)
        async with await Device.open(node.port) as tablet:
            welcome = await tablet.auth(mint("user-123"), "tablet", session_id=session)

    assert 201 == created.status_code
    assert state == update["payload"].get("changes", update["payload"].get("state_data"))
    assert state == welcome["state_data"]


async def test_requests_above_the_rate_are_told_when_to_come_back(redis_url: str) -> None:
    """429 with Retry-After; probes are exempt."""
    async with (
        running_node(redis_url, requests_per_second=1, request_burst=3) as node,
        node.http() as http,
    ):
        statuses = [(await http.get(f"/session/{new_session()}")).status_code for _ in range(4)]
        last = await http.get(f"/session/{new_session()}")
        probe = await http.get("/health/live")

    assert [401, 401, 401, 429] == statuses
    assert "rate_limited" == last.json()["code"]
    assert int(last.headers["retry-after"]) >= 1
    assert 200 == probe.status_code


async def test_health_ready_and_metrics(node: Node, http: httpx.AsyncClient) -> None:
    """Health has the spec's members; metrics count the hub's connections."""
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("user-123"), "phone")
        health = (await http.get("/health")).json()
        ready = await http.get("/health/ready")
        metrics = (await http.get("/metrics")).text

    assert "healthy" == health["status"]
    assert {"status", "timestamp", "version", "uptime", "active_connections", "metrics"} <= set(
        health
    )
    assert 1 == health["active_connections"]
    assert 200 == ready.status_code
    assert "syncbridge_hub_open_connections 1.0" in metrics


async def test_broadcast_reaches_every_socket_of_every_node(redis_url: str) -> None:
    """Role admin only; each device gets one BROADCAST."""
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with await Device.open(one.port) as phone, await Device.open(two.port) as tablet:
            await phone.auth(mint("ann"), "phone")
            await tablet.auth(mint("bob"), "tablet")
            async with one.http() as http:
                message = {"message": "System maintenance scheduled", "type": "notification"}
                refused = await http.post(
                    "/admin/broadcast", json=message, headers=bearer(mint("ann"))
                )
                sent = await http.post(
                    "/admin/broadcast",
                    json=message | {"audience": "all"},
                    headers=bearer(mint("root", Role.ADMIN)),
                )
            seen = [await device.receive(13) for device in (phone, tablet)]

    assert (403, 200) == (refused.status_code, sent.status_code)
    assert [message, message] == [m["payload"] for m in seen]
