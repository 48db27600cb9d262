"""What gateways tell of their calls besides states, and the export for billing, over HTTP."""

import csv
import io
import json
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import Node, bearer, mint, running_node
from syncbridge.identity import Role
from syncbridge_client import SessionManagerClient
from syncbridge_server.redis.stores.call_codec import bucket_of, ledger_key


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url, rate_limit_enabled=False, call_lease=0.5) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.http() as client:
        client.headers.update(bearer(mint("sip-gateway", Role.SERVICE)))
        yield client


def new_id() -> str:
    return f"call-{uuid.uuid4().hex[:12]}"


async def made(http: httpx.AsyncClient, state: str = "pending", **members: Any) -> str:
    body = {"id": new_id(), "type": "SIP", **members}
    answer = await http.post("/sessions", json=body)
    assert 201 == answer.status_code, answer.text
    if state != "pending":
        await http.put(f"/sessions/{body['id']}/state", json={"state": state})
    call_id: str = body["id"]
    return call_id


async def tell(http: httpx.AsyncClient, call_id: str, kind: str, **members: str) -> httpx.Response:
    return await http.post(f"/sessions/{call_id}/events", json={"kind": kind, **members})


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def exported(http: httpx.AsyncClient, form: str = "ndjson") -> list[str]:
    """Every page of the export."""
    headers = bearer(mint("biller", Role.VIEWER))
    pages, cursor = [], ""
    while True:
        query = {"format": form, "cursor": cursor}
        answer = await http.get("/admin/calls/export", params=query, headers=headers)
        assert 200 == answer.status_code, answer.text
        more = answer.headers["x-next-cursor"] != cursor
        cursor = answer.headers["x-next-cursor"]
        if not answer.text or not more:
            return pages
        pages.append(answer.text)


async def test_the_life_of_a_call(http: httpx.AsyncClient) -> None:
    """Each event with its time, what it is about and who told it; durations are those of times."""
    call_id = await made(http, parent="call-parent")
    await tell(http, call_id, "ring")
    await http.put(f"/sessions/{call_id}/state", json={"state": "active"})
    held = (await tell(http, call_id, "hold")).json()
    resumed = (await tell(http, call_id, "resume")).json()
    linked = (await tell(http, call_id, "link", channel="lobby/ü")).json()
    await tell(http, call_id, "transfer", to="sip:bob@host")
    await tell(http, call_id, "leg", leg="call-leg")
    ended = (await tell(http, call_id, "hangup", cause="busy")).json()
    again = (await tell(http, call_id, "hangup", cause="other")).json()
    found = (await http.get(f"/sessions/{call_id}/history")).json()

    assert (True, "held" in resumed) == (held["held"], False)
    assert ("call-parent", "lobby/ü") == (linked["parent"], linked["channel"])
    assert ended == again
    assert ("terminated", "busy") == (ended["state"], ended["cause"])
    told = [(event["kind"], event.get("value", "")) for event in found["events"]]
    assert [
        ("ring", ""), ("hold", ""), ("resume", ""), ("link", "lobby/ü"),
        ("transfer", "sip:bob@host"), ("leg", "call-leg"),
    ] == told  # fmt: skip
    at = {event["kind"]: ms(event["at"]) for event in found["events"]}
    at |= {change["state"]: ms(change["at"]) for change in found["history"]}
    lasted = found["durations"]
    assert at["active"] - at["ring"] == lasted["ringMs"]
    assert at["terminated"] - at["active"] == lasted["activeMs"]
    assert at["resume"] - at["hold"] == lasted["heldMs"]
    assert -(-lasted["activeMs"] // 1000) == lasted["seconds"]
    assert "busy" == found["cause"]


async def test_what_is_refused_of_events(http: httpx.AsyncClient) -> None:
    """Wrong bodies are 400 with the field, wrong moments 409; nothing is noted."""
    call_id = await made(http, "active")
    bodies: list[tuple[dict[str, str], str]] = [
        ({"kind": "sneeze"}, "kind"),
        ({"kind": "ring", "to": "x"}, "to"),
        ({"kind": "transfer"}, "to"),
        ({"kind": "leg", "leg": ""}, "leg"),
        ({"kind": "link", "channel": "\n"}, "channel"),
        ({"kind": "hangup", "cause": "x" * 257}, "cause"),
        ({"kind": "hold", "at": "now"}, ""),
    ]
    for body, field in bodies:
        answer = await http.post(f"/sessions/{call_id}/events", json=body)
        assert (400, "invalid_call") == (answer.status_code, answer.json()["code"]), body
        assert not field or field == answer.json()["field"]
    early = await tell(http, call_id, "resume")
    late = await tell(http, call_id, "ring")
    cause = {"state": "active", "cause": "busy"}
    odd = await http.put(f"/sessions/{call_id}/state", json=cause)
    missing = await tell(http, new_id(), "ring")
    ids = [await http.post("/sessions", json={"id": f"x{end}", "type": "SIP"})
           for end in ("/events", "/heartbeat", "/history")]  # fmt: skip

    assert [(409, "call_transition")] * 2 == [
        (r.status_code, r.json()["code"]) for r in (early, late)
    ]
    assert (400, 404) == (odd.status_code, missing.status_code)
    assert [400] * 3 == [answer.status_code for answer in ids]
    assert [] == (await http.get(f"/sessions/{call_id}/history")).json()["events"]


async def test_a_write_for_another_state_of_the_call_is_412(http: httpx.AsyncClient) -> None:
    """With the tag of now it is done; the problem names the tag of now."""
    call_id = await made(http)
    path = f"/sessions/{call_id}"
    old = {"If-Match": (await http.get(path)).headers["etag"]}
    new = (await http.put(f"{path}/details", json={"details": {"a": "1"}}, headers=old)).headers
    refused = [
        await http.put(f"{path}/state", json={"state": "active"}, headers=old),
        await http.put(f"{path}/details", json={"details": {"a": None}}, headers=old),
        await http.post(f"{path}/events", json={"kind": "ring"}, headers=old),
        await http.delete(path, headers=old),
    ]
    removed = await http.put(
        f"{path}/details", json={"details": {"a": None}}, headers={"If-Match": new["etag"]}
    )
    wrong = await http.delete(path, headers={"If-Match": "x"})

    assert [(412, "call_changed")] * 4 == [(r.status_code, r.json()["code"]) for r in refused]
    assert [new["etag"]] * 4 == [r.json()["etag"] for r in refused]
    assert (200, False) == (removed.status_code, "details" in removed.json())
    assert 400 == wrong.status_code


async def test_filters_filter(http: httpx.AsyncClient) -> None:
    """Each of them alone; a wrong one is 422."""
    parent, mark = new_id(), uuid.uuid4().hex
    leg = await made(http, parent=parent, channel=mark)
    other = await made(http, details={"tel": f"+49 {mark}"})
    made_at = (await http.get(f"/sessions/{leg}")).json()["createdAt"]

    async def ids(**query: str) -> list[str]:
        answer = await http.get("/sessions", params={"limit": "200", **query})
        return [call["id"] for call in answer.json()["sessions"]]

    assert [leg] == await ids(parent=parent) == await ids(channel=mark)
    assert [other] == await ids(q=f"49 {mark.upper()}")
    assert leg in await ids(since=made_at)
    assert leg not in await ids(until=made_at)
    for name, wrong in (("since", "today"), ("until", "1"), ("state", "x"), ("colour", "red")):
        answer = await http.get("/sessions", params={name: wrong})
        assert (422, name) == (answer.status_code, answer.json()["field"])
    twice = await http.get("/sessions?state=active&state=pending")
    assert (422, "state") == (twice.status_code, twice.json()["field"])


async def test_a_dead_gateways_call_ends(node: Node, http: httpx.AsyncClient) -> None:
    """At its last heartbeat, which the export says; a late one is told that it is too late."""
    silent, beating = await made(http, "active"), await made(http, "active")
    beat = (await http.post(f"/sessions/{beating}/heartbeat")).json()
    with trio.fail_after(20):
        call = beat
        while call["state"] == "active":
            await trio.sleep(0.05)
            call = (await http.get(f"/sessions/{beating}")).json()
    late = await http.post(f"/sessions/{beating}/heartbeat")
    metrics = (await http.get("/metrics")).text

    assert 500 == ms(beat["leaseUntil"]) - ms(call["updatedAt"])
    assert ("lease_expired", False) == (call["cause"], "leaseUntil" in call)
    assert (409, "call_terminated") == (late.status_code, late.json()["code"])
    assert "active" == (await http.get(f"/sessions/{silent}")).json()["state"]
    assert 'syncbridge_calls_ended_unasked_total{cause="lease_expired"}' in metrics


async def test_the_export_has_each_ended_call(http: httpx.AsyncClient) -> None:
    """As NDJSON and as CSV the same; calls that go on are not in it; one made anew is another."""
    call_id, running = await made(http, "active", parent="=p"), await made(http, "active")
    await tell(http, call_id, "hangup", cause='busy, "they" said')
    await http.delete(f"/sessions/{call_id}")
    await http.post("/sessions", json={"id": call_id, "type": "WebRTC"})
    await http.delete(f"/sessions/{call_id}")
    lines = [json.loads(line) for page in await exported(http) for line in page.splitlines()]
    table = list(csv.DictReader(io.StringIO("".join(await exported(http, "csv")))))
    first, second = (line for line in lines if line["id"] == call_id)

    assert running not in {line["id"] for line in lines}
    assert len(lines) == len({line["record"] for line in lines})
    assert ("=p", 'busy, "they" said', "sip-gateway") == (
        first["parent"], first["cause"], first["endedBy"]
    )  # fmt: skip
    assert ms(first["endedAt"]) - ms(first["activeAt"]) == first["activeMs"]
    assert ("deleted", 0, "WebRTC") == (second["cause"], second["seconds"], second["type"])
    known = {line["record"]: line for line in lines}
    rows = [row for row in table if row["id"] == call_id]
    assert 2 == len(rows)
    for row in rows:
        line = known[row["record"]]
        assert {name: str(value) for name, value in line.items()} == {
            name: value for name, value in row.items() if name in line
        }


async def test_a_redis_that_went_back_is_told(redis_server: RedisServer) -> None:
    """Its last record is gone, and another one has the number: the reader would miss it."""
    call_id = new_id()
    key = ledger_key(bucket_of(call_id))
    async with running_node(redis_server.url) as node, node.http() as http:
        http.headers.update(bearer(mint("root", Role.ADMIN)))
        await http.post("/sessions", json={"id": call_id, "type": "SIP"})
        await http.delete(f"/sessions/{call_id}")
        read = await http.get("/admin/calls/export")
        query = {"cursor": read.headers["x-next-cursor"]}
        more = await http.get("/admin/calls/export", params=query)
        with redis_server.client() as client:
            ((name, fields),) = client.xrange(key)
            client.delete(key)
            client.xadd(key, fields | {b"id": b"another"}, id=name)
        gap = await http.get("/admin/calls/export", params=query)

    assert call_id in read.text
    assert ("", query["cursor"]) == (more.text, more.headers["x-next-cursor"])
    assert (410, "export_gap") == (gap.status_code, gap.json()["code"])


async def test_what_is_refused_of_exports(http: httpx.AsyncClient) -> None:
    """Other roles, cursors that are none, and a ledger that is behind the reader's cursor."""
    viewer = bearer(mint("biller", Role.VIEWER))
    service = await http.get("/admin/calls/export")
    wrong = [
        await http.get("/admin/calls/export", params=query, headers=viewer)
        for query in ({"cursor": "x"}, {"limit": "1"}, {"format": "xml"}, {"from": "1"})
    ]
    ahead = {"cursor": ".".join(["999999999999999"] * 16)}
    gone = await http.get("/admin/calls/export", params=ahead, headers=viewer)
    assert 403 == service.status_code
    assert [422] * 4 == [answer.status_code for answer in wrong]
    assert (410, "export_gap") == (gone.status_code, gone.json()["code"])


async def test_the_client_knows_it_all(node: Node) -> None:
    """Events, heartbeats, causes and removals."""
    call_id = new_id()
    async with SessionManagerClient(node.url, mint("gw", Role.SERVICE)) as calls:
        await calls.create(call_id, "SIP", {"a": "1"})
        linked = await calls.add_event(call_id, "link", "lobby")
        removed = await calls.set_details(call_id, {"a": None})
        beat = await calls.heartbeat(call_id)
        ended = await calls.set_state(call_id, "terminated", "busy")
    assert ("lobby", {}, "busy", "") == (
        linked.channel, removed.details, ended.cause, ended.lease_until
    )  # fmt: skip
    assert beat.lease_until
