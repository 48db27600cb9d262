"""Every kind of record in Redis, damaged in every way, at every route and chore that reads it.

Nobody is told of a fault of the server: a damaged record is answered with `state_damaged` at most,
a list that it would stand in is served without it, and the records beside it are served as ever.
One whole server with voice, a real Redis, the stand-in provider.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import redis
import structlog
import trio

from support.damage import Record
from support.redis_servers import RedisServer
from support.server_kit import bearer, new_session
from support.voice.voice_kit import VoiceRig, voice_mint, voice_server
from support.ws_client import Closed, Device
from syncbridge.errors import StoreError
from syncbridge.identity import Role
from syncbridge.voice.recordings import Recorded
from syncbridge.voice.verification import Unverified
from syncbridge_server.redis.sessions_aside import cold_index
from syncbridge_server.redis.stores.keys import held_key
from syncbridge_server.redis.stores.recordings import RedisRecordings

WAYS = int(os.environ.get("SYNCBRIDGE_DAMAGE_WAYS", "120"))
"""How many ways of damaging a kind of record are tried, at most, spread over all there are."""
BAD, GOOD = "11111111-1111-4111-8111-111111111111", new_session()
BAD_USER, GOOD_USER = "baduser", "gooduser"
BAD_NAME, GOOD_NAME = "badname", "goodname"
FAULTS = ("crashed", "failed")
"""How log lines end that tell of a fault of the server."""
EXPECTED = ("chore_failed", "voice_bucket_failed", "leave_failed", "touch_failed")
"""Lines that end so, and tell of a record."""
QUIET = {"voice_sync": 3600.0, "voice_monitor": 3600.0, "presence_timeout": 7200.0}


@dataclass
class Case:
    """One kind of record.

    Args:
        text: is in the names of the keys that are damaged. skip: begins of names of others' keys.
        own: requests about the record itself: may be answered `state_damaged`.
        lists: paths, and a text that each answer must have whatever is damaged.
        others: requests about records beside it: answered as ever.
    """

    text: str
    own: list[tuple[str, str, Any]]
    lists: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    skip: tuple[str, ...] = ()
    socket: bool = False


SESSION = f"/session/{BAD}"
PATCH = {"session_id": BAD, "base_version": 1, "changes": {"c": 3}, "deleted_keys": []}
RESOLVE = {
    "session_id": BAD,
    "device_id": "d",
    "client_version": 1,
    "client_state": {"c": 1},
    "resolution_strategy": "merge",
}
SNAPSHOT = {"session_id": BAD, "user_id": BAD_USER, "device_id": "d", "state_data": {"z": 1}}
CHANNELS = "/voice/channels/"
CASES = {
    "session": Case(
        BAD,
        [
            ("GET", SESSION, None),
            ("GET", SESSION + "/devices", None),
            ("POST", "/session/incremental", PATCH),
            ("POST", "/session/conflict/resolve", RESOLVE),
            ("POST", "/session/snapshot", SNAPSHOT),
            ("POST", SESSION + "/handoff", {"source_device": "d", "target_device": "e"}),
            ("DELETE", SESSION + "/device/d", None),
        ],
        {
            "/admin/sessions?limit=500": GOOD,
            f"/admin/sessions?limit=500&user_id={GOOD_USER}": GOOD,
            f"/users/{BAD_USER}/sessions": "sessions",
            f"/users/{GOOD_USER}/sessions": GOOD,
            f"/users/{BAD_USER}/status": "status",
            "/admin/metrics/snapshots": "stored",
            "/admin/metrics/all": "snapshots",
        },
        [f"/session/{GOOD}", f"/session/{GOOD}/devices"],
        socket=True,
    ),
    "index of a user": Case(
        f"u:{BAD_USER}",
        [("GET", f"/users/{BAD_USER}/sessions", None), ("GET", f"/users/{BAD_USER}/status", None)],
        {f"/users/{GOOD_USER}/sessions": GOOD, "/admin/sessions?limit=500": GOOD},
        [f"/session/{BAD}"],
    ),
    "call session": Case(
        BAD_NAME,
        [
            ("GET", f"/sessions/{BAD_NAME}", None),
            ("GET", f"/sessions/{BAD_NAME}/history", None),
            ("PUT", f"/sessions/{BAD_NAME}/details", {"details": {"a": "b"}}),
            ("PUT", f"/sessions/{BAD_NAME}/state", {"state": "active"}),
            ("POST", f"/sessions/{BAD_NAME}/events", {"kind": "ring"}),
            ("POST", f"/sessions/{BAD_NAME}/heartbeat", {}),
            ("POST", "/sessions", {"id": BAD_NAME, "type": "SIP"}),
            ("DELETE", f"/sessions/{BAD_NAME}", None),
        ],
        {"/sessions": GOOD_NAME, "/sessions?state=pending&type=SIP": GOOD_NAME},
        [f"/sessions/{GOOD_NAME}"],
        skip=("voice:", "inbox:"),
    ),
    "voice channel": Case(
        BAD_NAME,
        [
            ("GET", CHANNELS + BAD_NAME, None),
            ("GET", CHANNELS + BAD_NAME + "/history", None),
            ("GET", CHANNELS + BAD_NAME + "/timeline", None),
            ("GET", CHANNELS + BAD_NAME + "/recordings", None),
            ("POST", CHANNELS + BAD_NAME + "/leave", {}),
            ("POST", CHANNELS + BAD_NAME + "/prewarm", {"waddleId": "w"}),
            ("POST", "/api/voice/token", {"waddleId": "w", "channelId": BAD_NAME}),
        ],
        {
            "/admin/metrics/voice": "participants",
            "/voice/channels": GOOD_NAME,
            "/users/ann/calls": GOOD_NAME,
        },
        [CHANNELS + GOOD_NAME, CHANNELS + GOOD_NAME + "/recordings"],
        skip=("call:", "past:", "inbox:"),
    ),
    "record of a node": Case(
        "node:elsewhere",
        [],
        {
            "/admin/metrics/all": "connections",
            "/admin/metrics/sessions": "active",
            "/admin/connections": "connections",
        },
    ),
    "list of nodes": Case("nodes", [], {"/admin/metrics/all": "connections"}),
    "dead letters": Case("inbox:{inbox}:dead", [("GET", "/admin/voice/dead-letters", None)]),
    "revocations": Case(
        "sb:revoked", [("GET", f"/session/{GOOD}", None), ("GET", "/admin/revocations", None)]
    ),
    "index of calls": Case("calls:{", [], {"/sessions": "sessions"}, [f"/sessions/{GOOD_NAME}"]),
    "index of channels": Case(
        "}:live",
        [],
        {"/admin/metrics/voice": "participants", "/voice/channels": "channels"},
        [CHANNELS + GOOD_NAME],
    ),
    "calls of a user": Case("voice:u:ann", [], {"/users/ann/calls": "calls"}),
    "unverified calls": Case(
        "voice:unverified", [], {"/voice/channels": GOOD_NAME}, [CHANNELS + GOOD_NAME]
    ),
    "due channels": Case("}:due", [], {"/admin/metrics/voice": "channels"}, skip=("calls:",)),
    "ledger of calls": Case("ledger:{", [], {"/sessions": "sessions"}),
    "sessions of a node": Case("ns:{", [], {"/admin/sessions?limit=500": GOOD}),
    "index of cold sessions": Case("fz:{", [], {"/admin/sessions?limit=500": GOOD}),
}


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """What is logged."""
    with structlog.testing.capture_logs() as captured:
        yield captured


@asynccontextmanager
async def furnished(url: str, kind: str) -> AsyncIterator[VoiceRig]:
    """A server with a good and a bad record of each kind. Another node, which does not answer, is
    there only for what is about it: it is waited for."""
    async with voice_server(url, **QUIET) as rig:
        for session, user in ((BAD, BAD_USER), (GOOD, GOOD_USER)):
            async with await Device.open(rig.node.port) as device:
                await device.auth(voice_mint(user), "d", session_id=session)
                await device.set("a", {"b": "text"})
                await device.set("n", 1)
                await device.request(5, {"key": "a", "operation": "DELETE"})
        for name in (BAD_NAME, GOOD_NAME):
            body = {"id": name, "type": "SIP", "details": {"from": "x"}, "parent": "p"}
            await rig.http.post(rig.url + "/sessions", json=body, headers=admin())
            await rig.http.delete(f"{rig.url}/sessions/{name}", headers=admin())
            answer = await rig.http.post(rig.url + "/sessions", json=body, headers=admin())
            assert 201 == answer.status_code, answer.text
            await rig.join("ann", name)
            recordings = RedisRecordings(rig.node.server.io, 3600.0)
            await recordings.add(name, Recorded("r", "s", 1, "https://r.example/1", 1.0))
        await rig.voice.user_calls.write()
        await rig.voice.evidence.note_unverified({GOOD_NAME: Unverified(3, 1, "empty")})
        assert rig.voice.inbox is not None
        await rig.voice.inbox.keep("channel", "c", "due: a test", b"{}")
        raw = redis.Redis.from_url(url)
        rig.node.server.administration._asking._deadline = 0.02
        if "node" in kind:
            report = rig.node.server.administration._reporter.brief()
            raw.set("node:elsewhere", json.dumps({**vars_of(report), "node": "elsewhere"}))
            raw.zadd("nodes", {"elsewhere": 1})
            raw.sadd(held_key(BAD, "dead"), BAD)
        await rig.node.server.auth.revocations.revoke("jti", "nobody's")
        yield rig


def vars_of(report: Any) -> dict[str, Any]:
    return {name: getattr(report, name) for name in report.__struct_fields__}


async def chores(rig: VoiceRig) -> None:
    """What goes through records by itself: none of it may raise."""
    server = rig.node.server
    await server.gateway.membership.renew()
    with suppress(StoreError):
        await server.gateway.membership.sweep()
    await server.freezer.sweep()
    server.auth.revocations._ask_reload()
    await rig.voice.monitor.make_pass()
    await server.ledger.sweep()


async def refused_well(answer: httpx.Response) -> str:
    """What is wrong with an answer about a damaged record; empty: nothing."""
    if answer.status_code == 204:
        return ""
    body = json.loads(answer.content)
    known = answer.status_code == 500 and body["code"] == "state_damaged"
    return "" if answer.status_code < 500 or known else f"{answer.status_code} {answer.text}"


async def joined_well(rig: VoiceRig) -> str:
    """What is wrong with a socket into the damaged session; empty: nothing."""
    async with await Device.open(rig.node.port) as device:
        payload = {
            "token": voice_mint("bot", Role.SERVICE),
            "device_id": "bot",
            "session_id": BAD,
        }
        answer = await device.request(7, payload)
        if answer["type"] == 9:
            code = answer["payload"]["code"]
            return "" if code in ("state_damaged", "too_many_devices") else str(answer)
        try:
            for kind, more in (
                (3, {}),
                (12, {}),
                (5, {"key": "n", "value": 1, "operation": "INCR"}),
            ):
                told = await device.request(kind, more)
                code = told["payload"].get("code", "")
                if told["type"] == 6 and code in ("internal_error", "store_unavailable"):
                    return str(told)
        except Closed as closed:
            return "" if closed.code == 1011 else f"closed with {closed.code}"
    return ""


def admin() -> dict[str, str]:
    """The header of an operator's request."""
    return bearer(voice_mint("root", Role.ADMIN))


async def examine(rig: VoiceRig, case: Case) -> list[str]:
    """What is wrong while the record is damaged."""
    wrong = []

    async def asked(method: str, path: str, body: Any = None) -> httpx.Response:
        return await rig.http.request(method, rig.url + path, json=body, headers=admin())

    for path, wanted in case.lists.items():
        answer = await asked("GET", path)
        if answer.status_code != 200 or wanted not in json.dumps(answer.json()):
            wrong.append(f"GET {path}: {answer.status_code} {answer.text[:300]}")
    for path in case.others:
        answer = await asked("GET", path)
        if answer.status_code != 200:
            wrong.append(f"GET {path}: {answer.status_code} {answer.text[:300]}")
    if case.socket:
        trouble = await joined_well(rig)
        wrong += [f"socket: {trouble}"] if trouble else []
    try:
        await chores(rig)
    except Exception as error:
        wrong.append(f"chores: {error!r}")
    for method, path, body in case.own:
        trouble = await refused_well(await asked(method, path, body))
        wrong += [f"{method} {path}: {trouble[:300]}"] if trouble else []
    return wrong


@pytest.mark.parametrize("kind", CASES)
async def test_a_damaged_record_is_nobody_elses_trouble(
    redis_server: RedisServer, kind: str, lines: list[Any]
) -> None:
    """See the text of this file."""
    case, raw = CASES[kind], redis.Redis.from_url(redis_server.url)
    wrong: dict[str, list[str]] = {}
    async with furnished(redis_server.url, kind) as rig:
        record = Record(raw, glob(case.text), case.skip)
        assert record.kept
        ways = list(record.ways())
        ways = ways[:: -(-len(ways) // WAYS)]
        for way, damage in ways:
            damage()
            if case.socket:
                raw.zadd(cold_index(BAD), {BAD: 1})
                raw.sadd(held_key(BAD, "dead"), BAD)
            if case.socket or case.text.startswith("ns:"):
                raw.hset("dead:{nodes}", "dead", 1)
            del lines[:]
            with trio.fail_after(20.0):
                found = await examine(rig, case)
            found += [str(line)[:600] for line in lines if is_fault(line)]
            if found:
                wrong[way] = found
            record.restore()
        assert rig.node.server.gateway.registry.sessions == {}
    assert {} == wrong, f"{len(wrong)} of {len(ways)}"


def glob(text: str) -> str:
    """A text as a pattern of Redis that stands for itself."""
    return text.replace("[", "\\[")


def is_fault(line: Any) -> bool:
    event = line["event"]
    return event not in EXPECTED and (event.endswith(FAULTS) or "exc_info" in line)
