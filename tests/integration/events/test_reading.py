"""`GET /events`: what happened, read behind a cursor, while somebody reads."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import Node, bearer, create_session, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge.slots import TAGS, bucket_of
from syncbridge_server.events import carrier

Json = dict[str, Any]


def service() -> dict[str, str]:
    """The headers of a back end."""
    return bearer(mint("back-end", Role.SERVICE))


@pytest.fixture
async def node(redis_server: RedisServer) -> AsyncIterator[Node]:
    """A node on a Redis of its own, where nobody has read yet."""
    async with running_node(redis_server.url, rate_limit_enabled=False) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=node.url, timeout=30.0, headers=service()) as client:
        yield client


async def read(http: httpx.AsyncClient, after: str = "", **query: Any) -> Json:
    answer = await http.get("/events", params={"after": after, **query})
    assert 200 == answer.status_code, answer.text
    page: Json = answer.json()
    return page


async def until(
    http: httpx.AsyncClient, after: str, kind: str, count: int = 1, **query: Any
) -> list[Json]:
    """Events behind a cursor, up to the first `count` of a kind."""
    found: list[Json] = []
    with trio.fail_after(20):
        while sum(event["type"] == kind for event in found) < count:
            page = await read(http, after, wait=10, **query)
            found += page["events"]
            after = page["cursor"]
    return found


async def change(http: httpx.AsyncClient, sid: str, base: int, **changes: Any) -> int:
    body = {"session_id": sid, "device_id": "phone", "changes": changes, "base_version": base}
    answer = await http.post("/session/incremental", json=body)
    assert 200 == answer.status_code, answer.text
    version: int = answer.json()["version"]
    return version


def kinds(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


async def test_a_session_is_told_with_its_devices(node: Node, http: httpx.AsyncClient) -> None:
    """Created, joined, left, updated: in order, each with what its kind says."""
    cursor = (await read(http))["cursor"]
    sid = await create_session(http, a=1)
    async with await Device.open(node.port) as phone:
        await phone.auth(mint("ann", session=sid), "phone")
        await phone.close()
    await until(http, cursor, "device.left")
    await change(http, sid, 1, b=[1], a=2)
    found = await until(http, cursor, "session.updated")

    expected = ["session.created", "device.joined", "device.left", "session.updated"]
    assert expected == kinds(found)
    assert {(sid, "ann")} == {(event["session_id"], event["user_id"]) for event in found}
    assert 4 == len({event["id"] for event in found})
    assert (1, "phone") == (found[0]["data"]["version"], found[0]["data"]["device_id"])
    assert ("phone", "ann", 1, False) == tuple(found[1]["data"].values())
    assert ("phone", 0) == (found[2]["data"]["device_id"], found[2]["data"]["devices_online"])
    updated = found[3]["data"]
    assert (1, 2, True) == (
        updated["from_version"],
        updated["to_version"],
        updated["keys_complete"],
    )
    assert ["a", "b"] == sorted(updated["keys"])
    assert "values" not in updated


async def test_many_changes_are_few_events(http: httpx.AsyncClient) -> None:
    """They say of all versions between, without a hole, once a second at most."""
    cursor = (await read(http))["cursor"]
    sid, version = await create_session(http, a=0), 1
    for turn in range(40):
        version = await change(http, sid, version, a=turn + 1)
        await trio.lowlevel.checkpoint()
    told: list[Json] = []
    while not told or told[-1]["to_version"] < version:
        told = [
            event["data"]
            for event in await until(http, cursor, "session.updated", len(told) + 1)
            if event["type"] == "session.updated"
        ]

    ends = [(one["from_version"], one["to_version"]) for one in told]
    assert [1, *(end for _, end in ends[:-1])] == [start for start, _ in ends]
    assert len(told) < 20


async def test_values_come_to_who_asks(http: httpx.AsyncClient) -> None:
    """As they were at that version; null for a deleted key; not for others."""
    cursor = (await read(http, values=True))["cursor"]
    sid = await create_session(http, a=0, gone=1)
    body = {"session_id": sid, "device_id": "phone", "changes": {"a": {"b": [1.50]}}}
    body |= {"deleted_keys": ["gone"], "base_version": 1}
    await http.post("/session/incremental", json=body)
    with_values = await until(http, cursor, "session.updated", values=True)
    without = await until(http, cursor, "session.updated")

    assert {"a": {"b": [1.5]}, "gone": None} == with_values[-1]["data"]["values"]
    assert "values" not in without[-1]["data"]
    assert with_values[-1]["id"] == without[-1]["id"]


async def test_filters(http: httpx.AsyncClient) -> None:
    """By kind, family, session and user; the cursor also passes what is left out."""
    cursor = (await read(http))["cursor"]
    ann, bob = await create_session(http, "ann", a=1), await create_session(http, "bob", a=1)
    await change(http, ann, 1, a=2)
    last = (await until(http, cursor, "session.updated"))[-1]["cursor"]
    by_kind = await read(http, cursor, kind="session.updated,device.joined")
    by_family = await read(http, cursor, kind="session.*", session=ann)
    by_user = await read(http, cursor, user="bob")
    none = await read(http, cursor, channel="lobby")

    assert ["session.updated"] == kinds(by_kind["events"])
    assert ["session.created", "session.updated"] == kinds(by_family["events"])
    assert [bob] == [event["session_id"] for event in by_user["events"]]
    assert ([], last) == (none["events"], none["cursor"])


async def test_pages_meet(http: httpx.AsyncClient) -> None:
    """A limit ends a page; the next one begins behind it."""
    cursor = first = (await read(http))["cursor"]
    made = [await create_session(http, a=1) for _ in range(5)]
    await until(http, cursor, "session.created", 5)
    seen: list[str] = []
    more = True
    while more:
        page = await read(http, cursor, limit=2)
        seen += [event["session_id"] for event in page["events"]]
        cursor, more = page["cursor"], page["more"]
    whole = await read(http, first)

    assert sorted(made) == sorted(seen)
    assert whole["cursor"] == cursor


async def test_who_waits_is_woken(http: httpx.AsyncClient) -> None:
    """A reader that waits has the event at once; one that has waited long enough has none."""
    cursor = (await read(http, "latest"))["cursor"]
    pages: list[Json] = []

    async def wait() -> None:
        pages.append(await read(http, cursor, wait=20))

    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            sid = await create_session(http, a=1)
    empty = await read(http, pages[0]["cursor"], wait=0.2)

    assert [sid] == [event["session_id"] for event in pages[0]["events"]]
    assert ([], False) == (empty["events"], empty["more"])


async def test_who_may_read(http: httpx.AsyncClient) -> None:
    """Services and admins, with good parameters only."""
    user = await http.get("/events", headers=bearer(mint("ann")))
    admin = await http.get("/events", headers=bearer(mint("root", Role.ADMIN)))
    bad = [{"after": "yesterday"}, {"kind": "no.such"}, {"limit": "0"}, {"wait": "61"}, {"x": "1"}]
    refused = [(await http.get("/events", params=query)).status_code for query in bad]

    assert (403, 200) == (user.status_code, admin.status_code)
    assert [422] * 5 == refused


async def test_what_the_bound_dropped_is_told(redis_server: RedisServer) -> None:
    """410 with how many are missing, and the cursor from which reading goes on."""
    async with (
        running_node(redis_server.url, rate_limit_enabled=False, events_kept=4) as node,
        httpx.AsyncClient(base_url=node.url, timeout=30.0, headers=service()) as http,
    ):
        cursor = (await read(http))["cursor"]
        await create_session(http, a=1)
        cursor = (await until(http, cursor, "session.created"))[-1]["cursor"]
        made = [await create_session(http, a=1) for _ in range(7)]
        latest = cursor
        with trio.fail_after(20):
            answer = await http.get("/events", params={"after": latest})
            while 410 != answer.status_code:
                answer = await http.get("/events", params={"after": latest, "wait": 1})
        while (problem := answer.json())["missing"] < 3:
            answer = await http.get("/events", params={"after": latest})
        left = await read(http, problem["oldest"])
        from_start = await read(http)

    assert ("events_gap", 3) == (problem["code"], problem["missing"])
    there = {event["session_id"] for event in left["events"]}
    assert (4, set()) == (len(there), there - {*made})
    assert left["events"] == from_start["events"]


async def test_a_cursor_of_another_log_is_told_so(http: httpx.AsyncClient) -> None:
    """One from the future would wait for ever; one a little ahead, after a rollback, does not."""
    cursor = (await read(http))["cursor"]
    await create_session(http, a=1)
    await until(http, cursor, "session.created")
    now = time.time_ns() // 1_000_000
    answer = await http.get("/events", params={"after": f"{now + 86_400_000}-7", "wait": 20})
    ahead = await read(http, f"{now + 5_000}-7")
    from_start = await read(http, answer.json()["oldest"])

    assert (410, "events_gap", 0) == (
        answer.status_code,
        answer.json()["code"],
        answer.json()["missing"],
    )
    assert [] == ahead["events"]
    assert ["session.created"] == kinds(from_start["events"])


async def test_who_began_before_the_first_event_is_told_what_was_dropped(
    redis_server: RedisServer,
) -> None:
    """The cursor of an empty log is a place like another one; only without one all is well."""
    async with (
        running_node(redis_server.url, rate_limit_enabled=False, events_kept=2) as node,
        httpx.AsyncClient(base_url=node.url, timeout=30.0, headers=service()) as http,
    ):
        cursor = (await read(http))["cursor"]
        latest = (await read(http, "latest"))["cursor"]
        for _ in range(3):
            await create_session(http, a=1)
            latest = (await until(http, latest, "session.created"))[-1]["cursor"]
        dropped = await http.get("/events", params={"after": cursor})
        left = await read(http, dropped.json()["oldest"])
        whole = await read(http)

    assert ("0-0", 410, 1) == (cursor, dropped.status_code, dropped.json()["missing"])
    assert 2 == len(left["events"])
    assert left["events"] == whole["events"]


async def test_what_was_dropped_after_a_rollback_is_told(redis_server: RedisServer) -> None:
    """The number of the cursor is greater than any there is: what is left of the log counts."""
    async with (
        running_node(redis_server.url, rate_limit_enabled=False, events_kept=3) as node,
        httpx.AsyncClient(base_url=node.url, timeout=30.0, headers=service()) as http,
    ):
        cursor = (await read(http))["cursor"]
        await create_session(http, a=1)
        (first,) = await until(http, cursor, "session.created")
        ms, _, _ = first["cursor"].partition("-")
        before = f"{int(ms) - 1}-9000"
        whole = await read(http, before)
        for _ in range(3):
            await create_session(http, a=1)
        await until(http, first["cursor"], "session.created", 3)
        dropped = await http.get("/events", params={"after": before})
        left = await read(http, dropped.json()["oldest"])

    assert [first["id"]] == [event["id"] for event in whole["events"]]
    assert (410, "events_gap", 1) == (
        dropped.status_code,
        dropped.json()["code"],
        dropped.json()["missing"],
    )
    assert 3 == len(left["events"])


async def test_nothing_is_written_while_nobody_reads(
    redis_server: RedisServer, node: Node, http: httpx.AsyncClient
) -> None:
    """The scripts are those without events; the first reading changes that on every node."""
    with redis_server.client() as raw:
        await create_session(http, a=1)
        before = list(raw.scan_iter("e*:{*}*"))
        off = node.server.io.scripts.digests["apply"]
        async with running_node(redis_server.url, rate_limit_enabled=False) as other:
            cursor = (await read(http))["cursor"]
            on = other.server.io.scripts.digests["apply"]
            async with httpx.AsyncClient(base_url=other.url, headers=service()) as elsewhere:
                sid = await create_session(elsewhere, a=1)
            found = await until(http, cursor, "session.created")

    assert [] == before
    assert off != on == node.server.io.scripts.digests["apply"]
    assert sid == found[-1]["session_id"]


async def test_nobody_reads_any_more(redis_server: RedisServer) -> None:
    """Some time after the last reading, all nodes stop; the next reader has what comes then."""
    async with (
        running_node(redis_server.url, rate_limit_enabled=False, events_after_reader=0.5) as node,
        httpx.AsyncClient(base_url=node.url, timeout=30.0, headers=service()) as http,
    ):
        events = node.server.events
        await read(http)
        assert events.switch.on
        await trio.sleep(0.6)
        assert await events.switch.cease()
        assert not events.switch.on
        await create_session(http, a=1)
        cursor = (await read(http))["cursor"]
        sid = await create_session(http, a=1)
        found = await until(http, cursor, "session.created")

    assert [sid] == [event["session_id"] for event in found]


async def test_a_node_that_is_silent_keeps_the_first_reader_waiting(
    redis_server: RedisServer, node: Node, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and the reader is asked to come again: what it writes would be missed."""
    monkeypatch.setattr("syncbridge_server.events.switch.KNOW_SECONDS", 0.3)
    with redis_server.client() as raw:
        raw.hset("nodes:{nodes}", "silent", "1 2 0")
        refused = await http.get("/events")
        raw.hdel("nodes:{nodes}", "silent")
        answer = await http.get("/events")

    assert (503, "events_starting") == (refused.status_code, refused.json()["code"])
    assert "silent" in refused.json()["detail"]
    assert "retry-after" in refused.headers
    assert 200 == answer.status_code


async def test_who_carries_sleeps_while_nothing_happens(
    redis_server: RedisServer, node: Node, http: httpx.AsyncClient
) -> None:
    """And is woken by what happens on another node; sessions from before will be told of."""
    sid = await create_session(http, a=1)
    cursor = (await read(http))["cursor"]
    tag = TAGS[bucket_of(sid)]
    with redis_server.client() as raw, trio.fail_after(60):
        while not raw.zscore(f"ex:{{{tag}}}", f"{sid} ann"):  # noqa: ASYNC110 - it says nothing
            await trio.sleep(0.1)
        async with running_node(redis_server.url, rate_limit_enabled=False) as other:
            await trio.sleep(1.0)
            raw.config_resetstat()
            await trio.sleep(4.0)
            asked = {
                name.removeprefix("cmdstat_"): found["calls"]
                for name, found in raw.info("commandstats").items()
            }
            async with httpx.AsyncClient(base_url=other.url, headers=service()) as elsewhere:
                made = await create_session(elsewhere, a=1)
            found = await until(http, cursor, "session.created")

    assert node.server.events.switch.carrying
    assert asked.get("spop", 0) <= 12
    assert made == found[-1]["session_id"]


async def test_what_a_silent_node_did_not_note_is_found(
    redis_server: RedisServer, node: Node, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed before it could: all outboxes are looked at before it counts as dead."""
    monkeypatch.setattr(carrier, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(carrier, "SILENT_SECONDS", 4.0)
    monkeypatch.setattr("syncbridge_server.events.switch.KNOW_SECONDS", 0.3)
    sid = new_session()
    fields = ["k", "handoff.created", "s", sid, "u", "ann", "x", "0"]
    with redis_server.client() as raw, trio.fail_after(60):
        raw.hset("nodes:{nodes}", "killed", "1 2 0")
        assert 503 == (await http.get("/events")).status_code
        raw.hset("ev:{events}:known", "killed", raw.hget("ev:{events}:state", "since"))
        cursor = (await read(http))["cursor"]
        while node.server.events._carrier._whole_at < trio.current_time() + 60:  # noqa: ASYNC110
            await trio.sleep(0.05)
        raw.xadd(f"e:{{{TAGS[bucket_of(sid)]}}}", dict(zip(fields[::2], fields[1::2], strict=True)))
        raw.hset("nodes:{nodes}", "killed", "2 2 0")
        told = await until(http, cursor, "handoff.created")
        listed = raw.hget("nodes:{nodes}", "killed")

    assert [sid] == [event["session_id"] for event in told]
    assert b"2 2 0" == listed
