"""Voice as others' outages have seen it: rows 17 to 26 of the list of faults, and their tests.

`COVERED` says which test is about which row; what no other suite has is below.
"""

import ast
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import bearer, running_node
from support.voice import calls_kit
from support.voice.voice_kit import voice_mint, voice_server
from support.voice_random.place import Deployed, Place, place
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge_server.voice.sockets.live_calls import LiveCalls

TESTS = Path(__file__).parents[1]
SOCKETS = "integration/voice/test_voice_sockets.py"
SYNC = "integration/voice/test_voice_sync.py"
ARRIVALS = "fault/test_webhook_faults.py"
HOOKS = "integration/voice/test_webhooks.py"
TOKENS = "integration/voice/test_voice_tokens.py"
HERE = "fault/test_voice_faults.py"

COVERED: dict[int, dict[str, tuple[str, str]]] = {
    17: {
        "a socket that breaks removes nobody": (
            SOCKETS,
            "test_a_blip_of_the_socket_keeps_the_call",
        ),
        "a socket that lives keeps nobody": (
            SOCKETS,
            "test_a_live_socket_keeps_nobody_in_the_call",
        ),
        "the media are gone, which only the provider knows": (
            HERE,
            "test_the_media_are_gone_and_the_socket_lives",
        ),
    },
    18: {
        "two redeem at once, with a call": (
            "integration/voice/test_voice_handoff.py",
            "test_a_race_for_the_session_is_one_for_the_call",
        ),
        "a hundred redeem at once": (
            "integration/sessions/test_handoff.py",
            "test_a_hundred_devices_race_for_one_token",
        ),
        "too late": (
            "integration/sessions/test_handoff.py",
            "test_expired_and_unknown_are_told_apart",
        ),
        "the source is released, and writes": (
            "integration/sessions/test_handoff.py",
            "test_the_source_is_told_and_released",
        ),
    },
    19: {
        "swapped": (ARRIVALS, "test_joined_and_left_swapped"),
        "left without joined": (ARRIVALS, "test_left_without_joined"),
        "within 300 ms": (ARRIVALS, "test_leaving_within_300_ms"),
        "twice": (ARRIVALS, "test_a_delivery_that_comes_again_after_the_participant_left"),
        "delayed left": (ARRIVALS, "test_a_delayed_left_after_rejoining"),
        "delayed left, and the second joined lost": (
            "unit/calls/test_call.py",
            "test_left_of_a_connection_whose_user_was_there_later",
        ),
    },
    20: {
        "empty, partial, 5xx, timeout, 429": (SYNC, "test_what_is_not_whole_removes_nobody"),
        "a time that cannot be read": (SYNC, "test_a_time_that_is_no_time_removes_nobody"),
        "an empty list for ever": (SYNC, "test_an_empty_provider_is_not_believed_at_once"),
    },
    21: {
        "the answer is lost": (
            TOKENS,
            "test_a_create_whose_answer_is_lost_makes_no_second_session",
        ),
        "while two processes ask": (HERE, "test_a_lost_answer_while_two_processes_ask"),
    },
    22: {
        "a node that heard nothing": (SYNC, "test_a_node_without_participants_keeps_the_room"),
        "the node that heard everything is killed": (
            HERE,
            "test_the_node_that_heard_everything_is_killed",
        ),
    },
    23: {
        "moved when it is a day old": (
            "integration/voice/test_voice_migration.py",
            "test_a_call_of_a_day_is_migrated",
        ),
        "its figures": (HERE, "test_the_figures_of_a_call_of_a_day"),
    },
    24: {
        "a burst of joins, then one probe": (SYNC, "test_an_open_breaker_leaves_calls_alone"),
        "one probe at a time": (
            "unit/voice/test_voice_breaker.py",
            "test_it_never_stays_shut_and_never_probes_twice",
        ),
        "the budget ends in the middle of a pass": (
            SYNC,
            "test_what_the_share_does_not_reach_comes_first",
        ),
    },
    25: {
        "wrong, missing and stale signatures, another body, written anew": (
            HOOKS,
            "test_what_is_not_signed_well_is_refused",
        ),
        "replayed": (HOOKS, "test_a_webhook_is_kept_once"),
        "keys are rotated": (HOOKS, "test_secrets_can_be_rotated"),
        "our store is down": (HOOKS, "test_while_the_store_is_down_it_is_sent_again"),
    },
    26: {"muted": ("integration/voice/test_voice_speaking.py", "test_muted_is_not_speaking")},
}
SILENT: dict[str, Any] = {"worker_url": "", "voice_sync": 600.0}
"""No webhooks, and no comparison but those that a test makes."""
DAY_MS = 86_400_000


def defined(path: str) -> set[str]:
    """Names of the tests in a file."""
    tree = ast.parse((TESTS / path).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_every_row_has_tests() -> None:
    """All rows are there, and every test that is named is in the file that is named."""
    named = {place for row in COVERED.values() for place in row.values()}
    missing = [place for place in named if place[1] not in defined(place[0])]

    assert set(range(17, 27)) == set(COVERED)
    assert [] == missing


async def test_the_media_are_gone_and_the_socket_lives(redis_server: RedisServer) -> None:
    """Nobody tells that Ann's media ended; her socket answers. One comparison finds out."""
    async with voice_server(redis_server.url, **SILENT) as rig:
        session = str((await rig.token("ann", "lobby"))["sessionId"])
        await rig.token("bob", "lobby")
        for user in ("ann", "bob"):
            await rig.sim.move(session, user)
        await rig.voice.synchronizer.make_pass()
        async with await Device.open(rig.node.port) as ann:
            await ann.auth(voice_mint("ann"), "phone")
            joined = await ann.request("voice_join", {"channelId": "lobby"})
            await rig.sim.move(session, "ann", "leave")
            await rig.voice.synchronizer.make_pass()
            told = await calls_kit.states(ann, "disconnected")
            alive = await ann.request(1)
        channel = await rig.channel("lobby")

    assert {"ann", "bob"} == calls_kit.people(joined)
    assert [("ann", "verified")] == [(t["userId"], t["reason"]) for t in told]
    assert 2 == alive["type"]
    assert channel.call is not None
    assert ("bob",) == channel.call.users


@pytest.fixture
async def somewhere(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Deployed]:
    """Two server processes, and a provider."""
    async with place(redis_server, tmp_path) as found:
        yield found


async def test_a_lost_answer_while_two_processes_ask(somewhere: Deployed) -> None:
    """A hundred first joins, and the provider opens the room without an answer: one room."""
    await somewhere.rig.faults(create_lost=True, count=1)
    found: list[str | None] = []

    async def ask(number: int) -> None:
        session = None
        while session is None:
            session = await somewhere.token(f"user-{number}", "lobby")
            await trio.sleep(0 if session else 1)
        found.append(session)

    with trio.fail_after(180):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
    truth = await somewhere.rig.truth()

    assert (1, 100, 1) == (truth["created"], len(found), len(set(found)))
    assert [found[0]] == list(truth["rooms"])


async def test_the_node_that_heard_everything_is_killed(somewhere: Deployed) -> None:
    """The other one, which knows nobody by itself, keeps the room and everybody in it."""
    deployment, heard = somewhere.deployment, 1
    session = await somewhere.token("ann", "lobby")
    assert session is not None
    assert all(somewhere.join(session, user) for user in ("ann", "bob"))
    await until_right(somewhere, "lobby", node=heard)
    await deployment.kill_node(heard)
    passes = await somewhere.passes()
    with trio.fail_after(30):
        while await somewhere.passes() < passes + 2:  # noqa: ASYNC110 - of other processes
            await trio.sleep(0.05)

    assert [None, None] == [await somewhere.wrong("lobby", node) for node in (0, 1)]
    assert ["ann", "bob"] == (await somewhere.rig.truth())["rooms"][session]["participants"]
    assert [] == somewhere.truth.evicted


async def until_right(where: Place, channel: str, node: int) -> None:
    """Wait until a node shows who is there."""
    with trio.fail_after(20):
        while await where.wrong(channel, node):  # noqa: ASYNC110 - of another process
            await trio.sleep(0.05)


async def test_the_figures_of_a_call_of_a_day(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann talks for a day, the call moves, she talks for an hour: all of it is counted once."""
    async with voice_server(redis_server.url, voice_sync=600.0) as rig:
        await rig.join("ann", "lobby")
        ahead = [0]
        monkeypatch.setattr(rig.voice.writer, "_clock", lambda: time.time() + ahead[0])
        ahead[0] = 86_401
        channel = await rig.until_channel("lobby", lambda c: c.record.previous is not None)
        assert channel.record.room is not None
        await rig.sim.move(channel.record.room.session_id, "ann")
        await rig.until_channel("lobby", lambda c: c.record.previous is None)
        ahead[0] += 3_600
        admin = voice_mint("root", Role.ADMIN)
        body = (await rig.ask("GET", "/voice/channels/lobby", admin)).json()
        ended = await rig.ask("POST", "/voice/channels/lobby/end", admin, {})
        history = (await rig.ask("GET", "/voice/channels/lobby/history", admin)).json()
        calls = history["calls"]

    total = DAY_MS + 3_600_000
    assert 200 == ended.status_code
    assert 1 == body["metrics"]["migrations"]
    assert total < body["metrics"]["totalParticipantTime"] < total + 60_000
    assert [(1, 1)] == [(call["peakParticipants"], call["migrations"]) for call in calls]
    assert total < calls[0]["totalParticipantTime"] < total + 60_000


async def test_a_node_says_nothing_of_calls_that_it_does_not_know(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started while the store was away: "no call" would be untrue, and so is not said."""
    async with voice_server(redis_server.url) as rig:
        await rig.join("ann", "lobby")
        may_load, load = trio.Event(), LiveCalls._load

        async def later(live_calls: LiveCalls) -> None:
            await may_load.wait()
            await load(live_calls)

        monkeypatch.setattr(LiveCalls, "_load", later)
        monkeypatch.setattr("syncbridge_server.app.CALLS_SECONDS", 0.0)
        config = rig.node.server.settings.model_dump()
        async with running_node(redis_server.url, **(config | {"server_addr": "127.0.0.1:0"})) as b:
            async with await Device.open(b.port) as ann:
                welcome = await ann.auth(voice_mint("ann"), "phone")
                refused = await ann.request("voice_watch", {"channelId": "lobby"})
                may_load.set()
                state = await ann.receive("voice_state")
            async with b.http() as http:
                path = "/voice/channels/lobby"
                over_rest = await http.get(path, headers=bearer(voice_mint("ann")))

    assert "voice" not in welcome
    assert ("store_unavailable", True) == tuple(
        refused["payload"][name] for name in ("code", "retryable")
    )
    assert {"ann"} == calls_kit.people(state)
    assert ["ann"] == [one["userId"] for one in over_rest.json()["participants"]]
