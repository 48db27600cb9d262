"""Calls compared with the provider: the truth after lost webhooks, and nobody removed by mistake.

Whole servers, a real Redis, and the stand-in provider over HTTP. Passes are made by the test.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from support.redis_servers import RedisServer
from support.voice.voice_kit import VoiceRig, voice_mint, voice_server
from syncbridge.errors import StoreError
from syncbridge.voice.call_records import Phase
from syncbridge.voice.channel import Channel
from syncbridge.voice.records import Final
from syncbridge_server.voice.checks.sync_pass import PassReport
from syncbridge_server.voice.provider.calling import ProviderCalls

MANUALLY = {"voice_sync": 86_400.0, "voice_monitor": 86_400.0, "voice_deadline": 1.0}


@asynccontextmanager
async def servers(redis: RedisServer, **more: Any) -> AsyncIterator[VoiceRig]:
    """Servers whose passes are made by hand."""
    async with voice_server(redis.url, **{**MANUALLY, **more}) as rig:
        yield rig


async def calls(rig: VoiceRig, **channels: tuple[str, ...]) -> dict[str, str]:
    """A call in each channel, with users who are known to be there; sessions by channel."""
    sessions = {}
    for channel_id, users in channels.items():
        room = await rig.voice.opening.room(channel_id, "waddle")
        sessions[channel_id] = room.session_id
        for user in users:
            await rig.sim.move(room.session_id, user)
        await rig.until_channel(channel_id, partial(has, set(users)))
    return sessions


async def unheard(rig: VoiceRig, session_id: str, *moves: tuple[str, str]) -> None:
    """Users join or leave, and every webhook about it is lost."""
    await rig.sim.faults(webhooks=["lost"])
    for user, action in moves:
        await rig.sim.move(session_id, user, action)


async def make_pass(rig: VoiceRig, node: int = 0) -> PassReport:
    """One comparison, which must come to an end."""
    voice = rig.nodes[node].server.voice
    assert voice is not None
    report = await voice.synchronizer.make_pass()
    assert report is not None
    return report


def has(wanted: set[str], channel: Channel) -> bool:
    return set(users_of(channel)) == wanted


def users_of(channel: Channel) -> tuple[str, ...]:
    return channel.call.users if channel.call is not None else ()


async def users(rig: VoiceRig, channel_id: str) -> list[str]:
    return sorted(users_of(await rig.channel(channel_id)))


def counted(rig: VoiceRig, name: str, node: int = 0, **labels: str) -> float:
    """A metric of a server; 0 when it was not counted."""
    registry = rig.nodes[node].server.registry
    return registry.get_sample_value(f"syncbridge_voice_{name}", labels) or 0.0


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_one_pass_brings_the_truth(redis_server: RedisServer, kind: str) -> None:
    """One left, one came, and no webhook arrived: after one pass both are known."""
    async with servers(redis_server, kind=kind) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"), other=("zoe",))
        await unheard(rig, sessions["lobby"], ("bob", "leave"), ("cid", "join"))
        report = await make_pass(rig)

        assert ["ann", "cid"] == await users(rig, "lobby")
        assert ("verified", 0, 0) == (report.result, report.unverified, report.waiting)
        kinds = ("missing_remote_participant", "missing_local_participant")
        assert all(counted(rig, "drift_total", type=kind) for kind in kinds)


async def test_no_list_names_whom_a_webhook_may_not(redis_server: RedisServer) -> None:
    """Somebody else's participants, with ids that are too long or no text to show, are nobody."""
    async with servers(redis_server) as rig:
        sessions = await calls(rig, lobby=("ann",))
        odd = [("x" * 65, "join"), ("a\nb", "join")]
        await unheard(rig, sessions["lobby"], *odd, ("bob", "join"))
        await make_pass(rig)

        assert ["ann", "bob"] == await users(rig, "lobby")
        assert 1 == counted(rig, "drift_total", type="missing_local_participant")


async def test_a_list_without_users_is_an_empty_one(redis_server: RedisServer) -> None:
    """Somebody else's participant, who stays behind, keeps nobody in the call who has left."""
    async with servers(redis_server) as rig:
        sessions = await calls(rig, lobby=("ann",))
        await unheard(rig, sessions["lobby"], ("x" * 65, "join"), ("ann", "leave"))
        await make_pass(rig)
        call = (await rig.channel("lobby")).call

        assert call is not None
        assert {"ann"} == call.doubted


def updates(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those about participants."""
    return [event for event in told if event["type"] == "voice_state_update"]


async def test_a_count_that_differs_is_looked_at_and_told(redis_server: RedisServer) -> None:
    """The sockets of the channel hear who came and who went, as if webhooks had said it."""
    async with servers(redis_server) as rig:
        told: list[dict[str, Any]] = []
        rig.voice.channels.on_news(lambda news: told.extend(news.events))
        sessions = await calls(rig, lobby=("ann", "bob"))
        told.clear()
        await unheard(rig, sessions["lobby"], ("bob", "leave"))
        await make_pass(rig)
        await rig.until_channel("lobby", lambda c: users_of(c) == ("ann",))

        with trio.fail_after(10):
            while not (states := updates(told)):  # noqa: ASYNC110 - news come beside the write
                await trio.sleep(0.01)
        assert [("bob", "disconnected")] == [(e["userId"], e["state"]) for e in states]
        assert 1.0 == counted(rig, "drift_total", type="participant_count")


FAULTS: dict[str, dict[str, Any]] = {
    "empty list": {"lists": "empty"},
    "partial page": {"lists": "partial"},
    "5xx": {"status": 503},
    "timeout": {"hang": True},
    "too many requests": {"rate_limit": 3},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_what_is_not_whole_removes_nobody(
    redis_server: RedisServer, kind: str, fault: str
) -> None:
    """Bob has left and we missed it, but the provider makes no sense: everybody stays."""
    async with servers(redis_server, kind=kind, voice_deadline=0.3) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"), other=("zoe",))
        await unheard(rig, sessions["lobby"], ("bob", "leave"))
        await rig.sim.faults(webhooks=["lost"], **FAULTS[fault])
        reports = [await make_pass(rig) for _ in range(3)]

        assert ["ann", "bob"] == await users(rig, "lobby")
        assert ["zoe"] == await users(rig, "other")
        assert all(report.result != "verified" for report in reports)
        doubted = (await rig.channel("lobby")).call
        assert counted(rig, "unverified") > 0 or (doubted is not None and doubted.doubtful)
        await rig.sim.faults()
        await rig.until(lambda: _seen(rig, "lobby", ["ann"]), "the truth, when it is told again")


async def _seen(rig: VoiceRig, channel_id: str, wanted: list[str]) -> bool:
    if await rig.voice.synchronizer.make_pass() is None:
        return False
    return await users(rig, channel_id) == wanted


async def test_a_time_that_is_no_time_removes_nobody(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is whole but its times cannot be read: who is named is there."""
    async with servers(redis_server, kind="cloudflare") as rig:
        await calls(rig, lobby=("ann", "bob"), other=("zoe",))
        monkeypatch.setattr(
            "syncbridge_tools.rtk_sim.cloudflare_dialect.iso", lambda at: "yesterday at noon"
        )
        for _ in range(3):
            await make_pass(rig)

        assert (["ann", "bob"], ["zoe"]) == (await users(rig, "lobby"), await users(rig, "other"))


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_everybody_left_and_nothing_arrived(redis_server: RedisServer, kind: str) -> None:
    """A list that is empty takes two, and what the record says who has left takes one."""
    async with servers(redis_server, kind=kind) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"), other=("zoe",))
        await unheard(rig, sessions["lobby"], ("ann", "leave"), ("bob", "leave"))
        before = rig.voice.writer.now()
        await make_pass(rig)
        after_one = await rig.channel("lobby")
        assert after_one.call is not None
        if kind == "rtk":
            assert ("ann", "bob") == users_of(after_one)
            assert after_one.call.doubtful
            return
        assert Phase.EMPTY is after_one.call.phase
        total = after_one.call.statistics(rig.voice.writer.now()).total_ms
        assert 0 < total <= 2 * (before - after_one.record.created_at)


async def test_who_comes_back_between_two_looks_stays(redis_server: RedisServer) -> None:
    """The call was vacant at the first look; ann joins again, heard of or not: she is there."""
    async with servers(redis_server) as rig:
        sessions = await calls(rig, lobby=("ann",), other=("zoe",))
        await unheard(rig, sessions["lobby"], ("ann", "leave"))
        await make_pass(rig)
        await rig.sim.move(sessions["lobby"], "ann")
        await make_pass(rig)
        await make_pass(rig)

        assert ["ann"] == await users(rig, "lobby")


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_an_empty_provider_is_not_believed_at_once(
    redis_server: RedisServer, kind: str
) -> None:
    """The only call of all, and its lists are empty: for some seconds that may be an outage."""
    async with servers(redis_server, kind=kind) as rig:
        await calls(rig, lobby=("ann", "bob"))
        await rig.sim.faults(lists="empty")
        reports = [await make_pass(rig) for _ in range(4)]

        assert ["ann", "bob"] == await users(rig, "lobby")
        assert ["list_empty"] * 4 == [r.result for r in reports]
        assert [int(kind == "cloudflare")] * 4 == [r.unverified for r in reports]
        await rig.sim.faults()
        await make_pass(rig)
        call = (await rig.channel("lobby")).call
        assert call is not None
        assert not call.doubtful


async def test_a_broken_list_does_not_blind_the_looks(redis_server: RedisServer) -> None:
    """The list is empty for ever, but the calls themselves answer: each is looked at by itself."""
    async with servers(redis_server) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"))
        await unheard(rig, sessions["lobby"], ("bob", "leave"))
        rig.sim.sim.world.occupied = list  # type: ignore[method-assign]
        report = await make_pass(rig)

        assert ("list_empty", ["ann"]) == (report.result, await users(rig, "lobby"))


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_a_room_that_the_provider_lost(redis_server: RedisServer, kind: str) -> None:
    """Twice not found: another room is opened, and participants are asked to rejoin."""
    async with servers(redis_server, kind=kind) as rig:
        told: list[dict[str, Any]] = []
        rig.voice.channels.on_news(lambda news: told.extend(news.events))
        sessions = await calls(rig, lobby=("ann",))
        world = rig.sim.sim.world
        await rig.sim.faults(webhooks=["lost"])
        world.end(world.rooms[sessions["lobby"]], 0.0)
        await make_pass(rig)
        once = (await rig.channel("lobby")).record
        await make_pass(rig)
        channel = await rig.channel("lobby")
        record = channel.record

        assert (1, sessions["lobby"]) == (once.lost, once.room.session_id if once.room else "")
        assert record.room is not None
        assert record.room.session_id not in ("", sessions["lobby"])
        assert record.move is not None
        assert ("lost", "moving", ("ann",)) == (
            record.move.reason,
            record.move.result,
            users_of(channel),
        )
        assert 1.0 == counted(rig, "recreated_total", result="recreated")

        async def heard() -> bool:
            return any(e.get("action") == "rejoin_required" for e in told)

        await rig.until(heard, "participants are asked to rejoin")


async def test_a_room_that_is_listed_is_not_lost(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state says "no such session", the list names it with people: a contradiction."""
    async with servers(redis_server) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"))
        await unheard(rig, sessions["lobby"], ("bob", "leave"))
        find = rig.sim.sim.world.find
        monkeypatch.setattr(rig.sim.sim.world, "find", lambda name: find("not there"))
        for _ in range(3):
            await make_pass(rig)
        record = (await rig.channel("lobby")).record

        assert (0, None) == (record.lost, record.move)
        assert ["ann", "bob"] == await users(rig, "lobby")


async def test_a_node_without_participants_keeps_the_room(redis_server: RedisServer) -> None:
    """Everything was heard by one node; the other one, which knows nobody, makes the passes."""
    async with servers(redis_server, nodes=2) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"))
        for _ in range(3):
            await make_pass(rig, node=1)

        assert ["ann", "bob"] == await users(rig, "lobby")
        assert not (await rig.rooms())[sessions["lobby"]]["ended"]


async def test_what_the_share_does_not_reach_comes_first(redis_server: RedisServer) -> None:
    """Twenty calls are wrong and a pass looks at a few: each is looked at once, in turn."""
    budget = {"voice_requests_per_minute": 60, "voice_sync_share": 0.3, "voice_sync": 30.0}
    async with servers(redis_server, **budget) as rig:
        names = [f"c{n}" for n in range(20)]
        sessions = await calls(rig, **dict.fromkeys(names, ("ann",)))
        for name in names:
            await unheard(rig, sessions[name], ("cid", "join"))
        reports = []
        while not reports or reports[-1].waiting:
            reports.append(await make_pass(rig))

        assert all([await users(rig, name) == ["ann", "cid"] for name in names])
        assert 20 == sum(report.looks for report in reports)
        assert [9, 9] == [report.calls for report in reports[:2]]
        assert len(reports) == 3


async def test_a_share_counts_requests_and_not_looks(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a look takes two requests, a pass makes half as many, and says what it sent."""
    exchange, sent = ProviderCalls._exchange, [0]

    async def counting(self: ProviderCalls, *args: Any) -> Any:
        sent[0] += 1
        return await exchange(self, *args)

    budget = {"voice_requests_per_minute": 60, "voice_sync_share": 0.3, "voice_sync": 30.0}
    async with servers(redis_server, kind="cloudflare", **budget) as rig:
        names = [f"c{n}" for n in range(6)]
        sessions = await calls(rig, **dict.fromkeys(names, ("ann",)))
        for name in names:
            await unheard(rig, sessions[name], ("cid", "join"))
        monkeypatch.setattr(ProviderCalls, "_exchange", counting)
        report = await make_pass(rig)

        assert (9, 9, 4, 2) == (sent[0], report.calls, report.looks, report.waiting)


async def test_without_redis_there_is_no_pass(redis_server: RedisServer) -> None:
    """The store does not answer: the provider is not asked, and nothing is changed."""
    async with servers(redis_server, store_deadline=0.3) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"), other=("zoe",))
        await unheard(rig, sessions["lobby"], ("bob", "leave"))
        asked = counted(rig, "provider_requests_total", call="list_active", outcome="ok")
        redis_server.pause()
        try:
            report = await rig.voice.synchronizer.make_pass()
        finally:
            redis_server.resume()
        await rig.until(lambda: _back(rig), "the store answers again")
        later = counted(rig, "provider_requests_total", call="list_active", outcome="ok")
        await rig.until(lambda: _seen(rig, "lobby", ["ann"]), "the truth, once the store is back")

        assert (None, asked) == (report, later)
        assert counted(rig, "sync_passes_total", result="store") > 0


async def _back(rig: VoiceRig) -> bool:
    try:
        return bool(await rig.voice.channels.live_count())
    except StoreError:
        return False


async def test_a_room_of_ours_that_nobody_holds_is_ended(redis_server: RedisServer) -> None:
    """Seen in two passes in a row. A session of somebody else is left alone, whatever its name."""
    async with servers(redis_server) as rig:
        sessions = await calls(rig, lobby=("ann",), other=("zoe",))
        theirs = "waddle_lobby_1_1"
        rig.sim.sim.world.create(theirs, theirs, 0.0, 10)
        await rig.sim.move(theirs, "eve")
        stored = await rig.voice.channels.read("lobby")
        assert await rig.voice.channels.delete(stored)
        await make_pass(rig)
        after_one = (await rig.rooms())[sessions["lobby"]]["ended"]
        await make_pass(rig)

        async def ended() -> bool:
            return bool((await rig.rooms())[sessions["lobby"]]["ended"])

        await rig.until(ended, "the room is ended at the provider")
        rooms = await rig.rooms()
        assert not after_one
        assert [False, False] == [rooms[name]["ended"] for name in (theirs, sessions["other"])]


async def test_a_look_that_is_asked_for(redis_server: RedisServer) -> None:
    """A contradiction is looked into at once, twice for a doubt, without a pass."""
    async with servers(redis_server) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"))
        await unheard(rig, sessions["lobby"], ("bob", "leave"))
        for _ in range(5):
            rig.voice.synchronizer.request_check("lobby")
        await rig.until_channel("lobby", lambda c: users_of(c) == ("ann",))

        assert 0 == rig.voice.synchronizer.passes
        assert 2.0 == counted(rig, "sync_looks_total", reason="asked")


async def burst(rig: VoiceRig, name: str) -> list[tuple[int, str, str]]:
    """Ten users ask for tokens of ten channels at once: status, code, Retry-After."""
    answers: list[tuple[int, str, str]] = []

    async def come(number: int) -> None:
        answer = await rig.ask_token(f"{name}{number}", f"{name}{number}")
        retry = answer.headers.get("retry-after", "")
        answers.append((answer.status_code, answer.json().get("code", ""), retry))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(come, number)
    return answers


def sent_to_create(rig: VoiceRig) -> float:
    """Requests for rooms that the provider got."""
    outcomes = ("ok", "service_unavailable")
    return sum(
        counted(rig, "provider_requests_total", call="create_session", outcome=outcome)
        for outcome in outcomes
    )


async def test_an_open_breaker_leaves_calls_alone(redis_server: RedisServer) -> None:
    """A burst of joins meets a provider in trouble: few are sent, all are told when to come back;
    who talks goes on talking; after a while one probe is sent, and then everybody is let in.
    """
    more = {"voice_breaker_failures": 3, "voice_breaker_open": 3.0, "voice_breaker_longest": 3.0}
    async with servers(redis_server, **more) as rig:
        sessions = await calls(rig, lobby=("ann",))
        await rig.sim.faults(status=503)
        first = await burst(rig, "first")
        sent = sent_to_create(rig)
        second = await burst(rig, "second")
        await make_pass(rig)

        assert {(503, "provider_unavailable")} == {answer[:2] for answer in first + second}
        assert all(int(retry) >= 1 for _, _, retry in first + second)
        assert sent == sent_to_create(rig)
        assert ["ann"] == await users(rig, "lobby")
        assert not (await rig.rooms())[sessions["lobby"]]["ended"]

        await rig.sim.faults()

        async def let_in() -> bool:
            return (await rig.ask_token("late", "room99")).status_code == 200

        await rig.until(let_in, "the breaker closes after a good probe")
        assert 0.0 == counted(rig, "breaker_open")


async def test_monitoring_counts_and_measures(redis_server: RedisServer) -> None:
    """Gauges of a pass, and figures of the provider in the documents; finals are counted once."""
    async with servers(redis_server) as rig:
        await calls(rig, lobby=("ann", "bob"), other=("zoe",))
        totals = await rig.voice.monitor.make_pass()
        document = await rig.voice.monitor.collect(await rig.channel("lobby"))
        finals: list[Final] = []
        rig.voice.writer.on_written(lambda channel: finals.extend(channel.finals))
        await rig.voice.writer.change("lobby", lambda channel, now: channel.end(now, "ended"))

        assert (2, 3, 2) == (totals.live, totals.participants, totals.asked)
        assert 2.0 == counted(rig, "health", status="healthy")
        assert {"packetsLost": 0.0, "jitter": 2.5, "latency": 40.0, "bandwidth": 128_000.0} == (
            document["rtk"]
        )
        assert ("lobby", 2, "active", 1.0) == (
            document["channelId"],
            document["participants"],
            document["state"],
            document["health"]["score"],
        )
        assert 1.0 == counted(rig, "finals_total", reason="ended") == len(finals)


@pytest.mark.parametrize("request_kind", ["token", "look", "metrics"])
async def test_errors_of_the_provider_are_errors_of_every_call(
    redis_server: RedisServer, request_kind: str
) -> None:
    """Whatever it was asked; the next good answer of that kind makes the call healthy again."""

    async def ask(rig: VoiceRig) -> None:
        if request_kind == "token":
            await rig.ask_token("bob", "lobby")
        elif request_kind == "look":
            await make_pass(rig)
        else:
            await rig.voice.monitor.make_pass()

    async def seen(rig: VoiceRig) -> tuple[bool, bool]:
        await ask(rig)
        answer = await rig.ask("GET", "/voice/channels/lobby", voice_mint("ann"))
        document = await rig.voice.monitor.collect(await rig.channel("lobby"))
        shown: bool = answer.json()["health"]["checks"]["noErrors"]
        return shown, document["health"]["checks"]["noErrors"]

    async with servers(redis_server) as rig:
        await calls(rig, lobby=("ann",))
        before = await seen(rig)
        await rig.sim.faults(status=503)
        during = await seen(rig)
        await rig.sim.faults()

        async def healthy() -> bool:
            return await seen(rig) == (True, True)

        assert ((True, True), (False, False)) == (before, during)
        await rig.until(healthy, "good answers")


async def test_passes_come_by_themselves(redis_server: RedisServer) -> None:
    """Two nodes take turns; what webhooks did not say is known without anybody asking."""
    async with servers(redis_server, nodes=2, voice_sync=0.3, voice_monitor=0.3) as rig:
        sessions = await calls(rig, lobby=("ann", "bob"), other=("zoe",))
        await unheard(rig, sessions["lobby"], ("bob", "leave"))
        await rig.until_channel("lobby", partial(has, {"ann"}))

        async def measured() -> bool:
            return any(counted(rig, "live_channels", node=node) == 2.0 for node in (0, 1))

        async def passed() -> bool:
            verified = [
                counted(rig, "sync_passes_total", node=n, result="verified") for n in (0, 1)
            ]
            return sum(verified) > 0

        await rig.until(measured, "the calls are measured")
        await rig.until(passed, "a pass has verified all calls")
