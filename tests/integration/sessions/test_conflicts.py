"""Incremental updates and resolution over HTTP: the spec's calls, bad input, devices, races."""

import re
import shlex
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge.records.sessions import Review
from syncbridge_server.http import conflicts

# httpx leaves the generator of a request body to the collector when the answer comes first.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object ByteStream:"
    "pytest.PytestUnraisableExceptionWarning"
)

STATE_UPDATE = 5
INCREMENTAL, RESOLVE = "/session/incremental", "/session/conflict/resolve"


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url, rate_limit_enabled=False) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.http() as client:
        client.headers.update(bearer(mint("ann")))
        yield client


async def created(http: httpx.AsyncClient, state: dict[str, Any]) -> str:
    session = new_session()
    body = {"session_id": session, "user_id": "ann", "state_data": state}
    assert 201 == (await http.post("/session/snapshot", json=body)).status_code
    return session


async def change(http: httpx.AsyncClient, session: str, base: int, **more: Any) -> httpx.Response:
    return await http.post(INCREMENTAL, json={"session_id": session, "base_version": base, **more})


async def resolve(
    http: httpx.AsyncClient, session: str, version: int, state: Any, strategy: str, **more: Any
) -> httpx.Response:
    body = {
        "session_id": session,
        "client_version": version,
        "client_state": state,
        "resolution_strategy": strategy,
    }
    return await http.post(RESOLVE, json=body | more)


# ### The calls as the session state document prints them ###

SNAPSHOT = """curl -X POST http://localhost:8080/session/snapshot \\
  -H "Content-Type: application/json" \\
  -d '{
    "session_id": "550e8400-e29b-41d4-a716-446655440000",
    "user_id": "user-123",
    "state_data": {"meditation_progress": 75},
    "device_id": "device-456",
    "version": 1
  }'"""

INCREMENTAL_CALL = """curl -X POST http://localhost:8080/session/incremental \\
  -H "Content-Type: application/json" \\
  -d '{
    "session_id": "550e8400-e29b-41d4-a716-446655440000",
    "user_id": "user-123",
    "device_id": "device-789",
    "base_version": 1,
    "changes": {
      "meditation_progress": 80
    },
    "deleted_keys": []
  }'"""

RESOLVE_CALL = """curl -X POST http://localhost:8080/session/conflict/resolve \\
  -H "Content-Type: application/json" \\
  -d '{
    "session_id": "550e8400-e29b-41d4-a716-446655440000",
    "client_version": 2,
    "client_state": {
      "meditation_progress": 85
    },
    "resolution_strategy": "server_wins"
  }'"""


async def test_printed_calls_work_in_development(redis_url: str) -> None:
    """Pasted one after another, without a token: 80 at version 2, and the server's 80 wins."""
    session = new_session()
    async with running_node(redis_url, dev=True) as node, node.http() as http:
        answers = []
        for call in (SNAPSHOT, INCREMENTAL_CALL, RESOLVE_CALL):
            words = shlex.split(call.replace("\\\n", ""))
            path = re.sub(r"http://localhost:8080", "", words[3])
            body = words[-1].replace("550e8400-e29b-41d4-a716-446655440000", session)
            header = dict([words[5].split(": ")])
            answers.append(await http.post(path, content=body, headers=header))

    created, changed, resolved = answers
    assert [201, 200, 200] == [a.status_code for a in answers]
    epoch = created.json()["epoch"]
    assert {
        "session_id": session,
        "version": 2,
        "epoch": epoch,
        "lineage": resolved.json()["lineage"],
        "applied": ["meditation_progress"],
        "conflicts": [],
    } == changed.json()
    assert {
        "session_id": session,
        "version": 2,
        "epoch": epoch,
        "lineage": changed.json()["lineage"],
        "state_data": {"meditation_progress": 80},
        "resolution_strategy": "server_wins",
        "conflicts": [{"key": "meditation_progress", "winner": "server", "value": 80}],
        "base": "journal",
    } == resolved.json()


# ### Incremental ###


async def test_conflict_says_what_to_do(http: httpx.AsyncClient) -> None:
    """409 as a problem document; trying again with current_version succeeds."""
    session = await created(http, {"a": 1, "b": 1})
    await change(http, session, 1, changes={"a": 2})
    refused = await change(http, session, 1, changes={"a": 3, "b": 3})
    problem = refused.json()
    again = await change(http, session, problem["current_version"], changes={"a": 3, "b": 3})

    assert (409, "application/problem+json", "version_conflict") == (
        refused.status_code,
        refused.headers["content-type"],
        problem["code"],
    )
    assert ([{"key": "a", "server_value": 2}], 2) == (
        problem["conflicts"],
        problem["current_version"],
    )
    assert (200, 3, again.json()["epoch"]) == (
        again.status_code,
        again.json()["version"],
        problem["epoch"],
    )
    assert f'"{problem["epoch"]}.3.{again.json()["lineage"]}"' == again.headers["etag"]


async def test_repetition_is_answered_with_the_first_version(http: httpx.AsyncClient) -> None:
    """The same correlation id of the same device does nothing; of another device it does."""
    session = await created(http, {"a": 1})
    more = {"changes": {"a": 2}, "correlation_id": "c1", "device_id": "phone"}
    first = await change(http, session, 1, **more)
    await change(http, session, 2, changes={"a": 3})
    again = await change(http, session, 1, **more)
    other = await change(http, session, 3, **(more | {"device_id": "tablet"}))

    assert (2, None) == (first.json()["version"], first.json().get("duplicate"))
    assert (200, 2, True, []) == (
        again.status_code,
        again.json()["version"],
        again.json()["duplicate"],
        again.json()["applied"],
    )
    assert (200, 4) == (other.status_code, other.json()["version"])


async def test_nothing_asked_and_nothing_new(http: httpx.AsyncClient) -> None:
    """An empty change set, unknown deletions and equal values make no version."""
    session = await created(http, {"a": 1})
    empty = await change(http, session, 1)
    ghost = await change(http, session, 1, deleted_keys=["ghost", "ghost"])
    equal = await change(http, session, 1, changes={"a": 1})

    assert [(200, 1)] * 3 == [(a.status_code, a.json()["version"]) for a in (empty, ghost, equal)]
    assert [[], ["ghost"], ["a"]] == [a.json()["applied"] for a in (empty, ghost, equal)]


async def test_who_may_write(node: Node, http: httpx.AsyncClient) -> None:
    """403 in or for another's name, 404 for no session, 401 without a token; the service may."""
    session, missing = await created(http, {"a": 1}), new_session()
    async with node.http() as any_one:
        stranger, service = bearer(mint("bob")), bearer(mint("bot", Role.SERVICE))
        own = {"client_version": 1, "client_state": {}, "resolution_strategy": "merge"}
        statuses = {}
        for path, body in ((INCREMENTAL, {"base_version": 1}), (RESOLVE, own)):
            for name, sid, headers, more in (
                ("stranger", session, stranger, {}),
                ("another's name", session, bearer(mint("ann")), {"user_id": "bob"}),
                ("missing", missing, stranger, {}),
                ("service", session, service, {"user_id": "ann"}),
                ("nobody", session, {}, {}),
            ):
                answer = await any_one.post(
                    path, json=body | {"session_id": sid} | more, headers=headers
                )
                statuses[path, name] = answer.status_code

    expected = {"stranger": 403, "another's name": 403, "missing": 404, "service": 200,
                "nobody": 401}  # fmt: skip
    assert {(p, n): s for p in (INCREMENTAL, RESOLVE) for n, s in expected.items()} == statuses


BAD: list[tuple[str, dict[str, Any], int, str]] = [
    (INCREMENTAL, {"base_version": -1}, 422, "invalid_field"),
    (INCREMENTAL, {"base_version": 1.5}, 422, "invalid_field"),
    (INCREMENTAL, {"base_version": True}, 422, "invalid_field"),
    (INCREMENTAL, {"base_version": "1"}, 422, "invalid_field"),
    (INCREMENTAL, {"base_version": 2**53}, 422, "invalid_field"),
    (INCREMENTAL, {"base_version": None}, 422, "invalid_field"),
    (INCREMENTAL, {"base_version": 7}, 409, "base_version_ahead"),
    (INCREMENTAL, {"session_id": "}{"}, 422, "invalid_field"),
    (INCREMENTAL, {"session_id": 5}, 422, "invalid_field"),
    (INCREMENTAL, {"changes": [1]}, 422, "invalid_field"),
    (INCREMENTAL, {"changes": None}, 422, "invalid_field"),
    (INCREMENTAL, {"changes": {"": 1}}, 422, "invalid_key"),
    (INCREMENTAL, {"changes": {"__proto__": 1}}, 422, "reserved_key"),
    (INCREMENTAL, {"changes": {"b": 1}, "deleted_keys": ["b"]}, 422, "key_overlap"),
    (INCREMENTAL, {"deleted_keys": "a"}, 422, "invalid_field"),
    (INCREMENTAL, {"deleted_keys": [1]}, 422, "invalid_field"),
    (INCREMENTAL, {"deleted_keys": [""]}, 422, "invalid_key"),
    (INCREMENTAL, {"changes": {f"k{n}": n for n in range(257)}}, 413, "too_many_changes"),
    (INCREMENTAL, {"changes": {"b": "x" * 262_200}}, 413, "too_large"),
    (INCREMENTAL, {"changes": {"b": "x" * 1_100_000}}, 413, "too_large"),
    (INCREMENTAL, {"correlation_id": "x" * 65}, 422, "invalid_field"),
    (INCREMENTAL, {"device_id": "\n"}, 422, "invalid_field"),
    (INCREMENTAL, {"resolution_strategy": "coin"}, 422, "invalid_field"),
    (RESOLVE, {"client_version": -1}, 422, "invalid_field"),
    (RESOLVE, {"client_version": "x"}, 422, "invalid_field"),
    (RESOLVE, {"client_state": []}, 422, "invalid_field"),
    (RESOLVE, {"client_state": None}, 422, "invalid_field"),
    (RESOLVE, {"client_state": {"__proto__": 1}}, 422, "reserved_key"),
    (RESOLVE, {"resolution_strategy": "SERVER_WINS"}, 422, "invalid_field"),
    (RESOLVE, {"resolution_strategy": None}, 422, "invalid_field"),
    (RESOLVE, {"changed_keys": ["ghost"]}, 422, "invalid_field"),
    (RESOLVE, {"changed_keys": [""]}, 422, "invalid_key"),
    (RESOLVE, {"complete": 1}, 422, "invalid_field"),
    (RESOLVE, {"device_id": "x" * 65}, 422, "invalid_field"),
    (RESOLVE, {"client_state": {f"k{n}": 1 for n in range(2001)}}, 413, "too_many_keys"),
    (RESOLVE, {"client_state": {"b": "x" * 1_100_000}}, 413, "too_large"),
]


@pytest.mark.parametrize(("path", "wrong", "status", "code"), BAD)
async def test_bad_body(
    http: httpx.AsyncClient, path: str, wrong: dict[str, Any], status: int, code: str
) -> None:
    """A problem document with its code, and nothing is written."""
    session = await created(http, {"a": 1})
    body: dict[str, Any] = {"session_id": session, "base_version": 1, "changes": {"b": 1}}
    if path == RESOLVE:
        body |= {"client_version": 1, "client_state": {"a": 2}, "resolution_strategy": "merge"}
    answer = await http.post(path, json=body | wrong)
    after = (await http.get(f"/session/{session}")).json()

    assert (status, code) == (answer.status_code, answer.json()["code"]), answer.text
    assert answer.json()["detail"]
    assert ({"a": 1}, 1) == (after["state_data"], after["version"])


@pytest.mark.parametrize("path", [INCREMENTAL, RESOLVE])
@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 422), (b"{}", 422), (b'{"x":"\xff"}', 400), (b"null", 422),
     (b"[" * 100_000, 400)],
)  # fmt: skip
async def test_not_even_a_body(
    http: httpx.AsyncClient, path: str, content: bytes, status: int
) -> None:
    """What is no JSON is 400, what is no such object 422."""
    headers = {"Content-Type": "application/json"}
    answer = await http.post(path, content=content, headers=headers)
    wrong = await http.get(path + "/x")

    assert status == answer.status_code
    assert {"type", "title", "status", "detail", "code"} <= set(answer.json())
    assert wrong.status_code in (404, 405)


async def test_number_text_survives(http: httpx.AsyncClient) -> None:
    """What the server stores and answers is digit by digit what was sent."""
    session = await created(http, {})
    numbers = '{"a":12345678901234567890123,"b":1.10,"c":1e2}'
    await http.post(
        INCREMENTAL,
        content=f'{{"session_id":"{session}","base_version":1,"changes":{numbers}}}',
    )
    answer = await resolve(http, session, 2, {"a": 1}, "server_wins")

    assert f'"state_data":{numbers}' in answer.text
    assert '"value":12345678901234567890123}' in answer.text


# ### What devices see ###


async def test_devices_see_only_what_changed(node: Node, http: httpx.AsyncClient) -> None:
    """One STATE_UPDATE for each call that changed something, with nothing but the difference."""
    session = await created(http, {f"k{n}": n for n in range(50)})
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann"), "phone", session_id=session)
        await change(http, session, 1, changes={"k1": "x", "k2": 2}, deleted_keys=["k3", "no"])
        client = {f"k{n}": n for n in range(50)} | {"k4": "y"}
        await resolve(http, session, 1, client, "server_wins")
        await resolve(http, session, 1, client, "merge", device_id="tablet")
        await resolve(http, session, 3, client, "client_wins")
        seen = [(await phone.receive(STATE_UPDATE))["payload"] for _ in range(3)]

    assert [
        (2, {"k1": "x"}, ["k3"]),
        (3, {"k4": "y"}, []),
        (4, {"k1": 1, "k3": 3}, []),
    ] == [(p["version"], p["changes"], p["deleted_keys"]) for p in seen]
    assert "tablet" == seen[1]["device_id"]


# ### What is known of the base ###


async def test_long_old_values_are_remembered(http: httpx.AsyncClient) -> None:
    """By their imprint, as short ones: the client's old copy of the key is not a change."""
    session = await created(http, {"long": "x" * 3000, "hashed": "x" * 2000})
    await change(http, session, 1, changes={"long": "new", "hashed": "new"})
    hashed = await resolve(http, session, 1, {"hashed": "x" * 2000}, "merge")
    long = await resolve(http, session, 1, {"long": "x" * 3000}, "merge")

    assert ("journal", [], "new") == (
        hashed.json()["base"],
        hashed.json()["conflicts"],
        hashed.json()["state_data"]["hashed"],
    )
    assert ("journal", []) == (
        long.json()["base"],
        [conflict["key"] for conflict in long.json()["conflicts"]],
    )


async def test_journal_does_not_reach_back_for_ever(http: httpx.AsyncClient) -> None:
    """After many changes the base is unknown, for keys that the server changed; not for others."""
    session = await created(http, {"a": 0, "b": 0, "old": 0})
    for version in range(1, 300):
        await change(http, session, version, changes={"a": version})
    stale = await resolve(http, session, 1, {"a": 0, "b": 1}, "server_wins")
    untouched = await resolve(http, session, 1, {"b": 1, "old": 0}, "server_wins")
    recent = await resolve(http, session, 150, {"a": 149, "b": 1}, "merge")

    assert ("unknown", ["a", "b"]) == (
        stale.json()["base"],
        [conflict["key"] for conflict in stale.json()["conflicts"]],
    )
    assert ("journal", ["b"]) == (
        untouched.json()["base"],
        [conflict["key"] for conflict in untouched.json()["conflicts"]],
    )
    assert ("journal", [], {"a": 299, "b": 1, "old": 0}) == tuple(
        recent.json()[name] for name in ("base", "conflicts", "state_data")
    )


async def test_forgotten_deletions(http: httpx.AsyncClient) -> None:
    """Nobody knows whether a key was deleted that long ago, or what it was: it counts as the
    client's. The journal does not tell of changes of so many keys."""
    session = await created(http, {f"k{n}": n for n in range(300)})
    for start in range(0, 300, 150):
        names = [f"k{n}" for n in range(start, start + 150)]
        await change(http, session, 1, deleted_keys=names)
    answer = await resolve(http, session, 1, {"k0": 0}, "merge")

    assert ("unknown", {"k0": 0}) == (answer.json()["base"], answer.json()["state_data"])
    assert ["k0"] == [conflict["key"] for conflict in answer.json()["conflicts"]]


# ### Races ###


async def test_nothing_is_lost_while_others_write(node: Node, http: httpx.AsyncClient) -> None:
    """Ten merges of different keys and a writer at the same time: everything is there."""
    session = await created(http, {"base": 1})
    failures: list[httpx.Response] = []

    async def merge(number: int) -> None:
        while True:
            answer = await resolve(http, session, 1, {"base": 1, f"m{number}": number}, "merge")
            if answer.status_code == 200:
                return
            failures.append(answer)

    async def write() -> None:
        async with await Device.open(node.port) as phone:
            await phone.auth(mint("ann"), "phone", session_id=session)
            for n in range(50):
                await phone.set(f"w{n}", n)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for number in range(10):
            nursery.start_soon(merge, number)

    state = (await http.get(f"/session/{session}")).json()["state_data"]
    expected = {"base": 1} | {f"m{n}": n for n in range(10)} | {f"w{n}": n for n in range(50)}
    assert expected == state
    assert {(503, "overloaded")} >= {(f.status_code, f.json()["code"]) for f in failures}


async def test_gives_up_when_the_session_never_holds_still(
    node: Node, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes between each read and commit: 503 with Retry-After after eight attempts."""
    session = await created(http, {"a": 1})
    store, call = node.server.store, node.server.store.call
    reads = 0

    async def meddling(request: Any) -> Any:
        nonlocal reads
        answer = await call(request)
        if isinstance(request, Review):
            reads += 1
            await change(http, session, reads, changes={"other": reads})
        return answer

    monkeypatch.setattr(store, "call", meddling)
    answer = await resolve(http, session, 1, {"a": 2}, "client_wins")
    state = (await http.get(f"/session/{session}")).json()

    assert (503, "overloaded") == (answer.status_code, answer.json()["code"])
    assert int(answer.headers["retry-after"]) >= 1
    assert conflicts.ATTEMPTS == reads
    assert {"a": 1, "other": reads} == state["state_data"]
