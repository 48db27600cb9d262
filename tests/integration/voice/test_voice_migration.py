"""Calls that move to another session at the provider: all come over, some do not, nodes die."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from starlette.responses import Response
from structlog.testing import capture_logs

from support.redis_servers import RedisServer
from support.voice import sim_kit
from support.voice.voice_kit import WADDLE, VoiceRig, voice_mint, voice_server
from syncbridge.identity import Role
from syncbridge.voice.call_records import Phase
from syncbridge.voice.channel import Channel
from syncbridge.voice.provider.errors import ProviderError
from syncbridge_tools.rtk_sim import spec_dialect
from syncbridge_tools.rtk_sim.handling import SimRequest
from syncbridge_tools.rtk_sim.world import WorldError

DAY = 86_400


@asynccontextmanager
async def servers(redis: RedisServer, **more: Any) -> AsyncIterator[VoiceRig]:
    """Servers that do not compare with the provider meanwhile."""
    async with voice_server(redis.url, **{"voice_sync": float(DAY), **more}) as rig:
        yield rig


async def call_with(rig: VoiceRig, *users: str) -> str:
    """The call of the lobby with these users in it; its session."""
    session = ""
    for user in users:
        session = await rig.join(user, "lobby")
    return session


def now_at(channel: Channel) -> str:
    """The session in which the call of a channel is."""
    return channel.record.room.session_id if channel.record.room is not None else ""


def result_of(channel: Channel) -> str:
    """How the latest migration ended, or how far it is."""
    return channel.record.move.result if channel.record.move is not None else ""


def counted(rig: VoiceRig, name: str, **labels: str) -> float:
    registry = rig.node.server.registry
    return registry.get_sample_value(f"syncbridge_voice_{name}", labels) or 0.0


async def shown(rig: VoiceRig, result: str, migrated: int) -> bool:
    """Whether `GET /voice/channels/lobby` says so of the latest migration."""
    answer = await rig.ask("GET", "/voice/channels/lobby", voice_mint("ann"))
    migration = answer.json()["migration"]
    return (result, migrated) == (migration["result"], migration["migratedCount"])


async def ended(rig: VoiceRig, session: str) -> bool:
    return bool((await rig.rooms())[session]["ended"])


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_all_come_over_early(redis_server: RedisServer, kind: str) -> None:
    """Each joins the new session and leaves the old one, which is ended when all are over."""
    async with servers(redis_server, kind=kind) as rig:
        told: list[dict[str, Any]] = []
        rig.voice.channels.on_news(lambda news: told.extend(news.events))
        old = await call_with(rig, "ann", "bob")
        begun = await rig.voice.migration.begin("lobby", "operator")
        new = now_at(await rig.channel("lobby"))
        await rig.until(lambda: shown(rig, "moving", 0), "the migration is shown")
        for user in ("ann", "bob"):
            assert str((await rig.token(user, "lobby"))["sessionId"]) == new
            await rig.sim.move(new, user)
            await rig.sim.move(old, user, "leave")
        channel = await rig.until_channel("lobby", lambda c: result_of(c) == "moved")
        await rig.until(lambda: ended(rig, old), "the old session is ended")

        assert begun
        assert await shown(rig, "moved", 2)
        assert channel.record.move is not None
        assert (2, 2, 0) == (
            channel.record.move.participants,
            channel.record.move.migrated,
            channel.record.move.stranded,
        )
        notice = next(event for event in told if event["type"] == "session_migration")
        assert ("rejoin_required", old, new, "operator") == (
            notice["action"],
            notice["oldSessionId"],
            notice["newSessionId"],
            notice["cause"],
        )
        assert [] == [e for e in told if e.get("state") == "disconnected"]
        assert (1.0, 2.0) == (
            counted(rig, "migrations_total", result="moved"),
            counted(rig, "migrated_total"),
        )


async def test_who_does_not_come_over_is_gone(redis_server: RedisServer) -> None:
    """At the deadline the call goes on with those who came; the others are said to have left."""
    async with servers(redis_server, voice_migration=1.0) as rig:
        old = await call_with(rig, "ann", "bob", "cid")
        await rig.voice.migration.begin("lobby", "operator")
        new = now_at(await rig.channel("lobby"))
        await rig.sim.move(new, "ann")
        channel = await rig.until_channel("lobby", lambda c: result_of(c) == "moved")
        await rig.until(lambda: ended(rig, old), "the old session is ended")

        assert channel.call is not None
        assert (("ann",), new) == (channel.call.users, now_at(channel))
        assert (1.0, 2.0) == (counted(rig, "migrated_total"), counted(rig, "stranded_total"))


async def test_who_came_over_unheard_is_found_before_the_end(redis_server: RedisServer) -> None:
    """The webhooks are lost, and no pass is made meanwhile: a last look finds everybody."""
    async with servers(redis_server, voice_migration=4.0) as rig:
        await call_with(rig, "ann", "bob")
        await rig.voice.migration.begin("lobby", "operator")
        new = now_at(await rig.channel("lobby"))
        await rig.sim.faults(webhooks=["lost"])
        for user in ("ann", "bob"):
            await rig.token(user, "lobby")
            await rig.sim.move(new, user)
        channel = await rig.until_channel("lobby", lambda c: result_of(c) != "moving")

        assert channel.call is not None
        assert ("moved", {"ann", "bob"}) == (result_of(channel), set(channel.call.users))
        assert (2.0, 0.0) == (counted(rig, "migrated_total"), counted(rig, "stranded_total"))


async def test_nobody_comes_over(redis_server: RedisServer) -> None:
    """The call is empty then; it is not ended while somebody may still come."""
    async with servers(redis_server, voice_migration=0.5) as rig:
        await call_with(rig, "ann")
        await rig.voice.migration.begin("lobby", "operator")
        channel = await rig.until_channel("lobby", lambda c: result_of(c) == "stranded")

        assert channel.call is not None
        assert (Phase.EMPTY, True) == (channel.call.phase, channel.live)


@pytest.mark.parametrize("fault", [{"status": 503}, {"hang": True}, {"rate_limit": 2}])
async def test_a_migration_without_a_room(redis_server: RedisServer, fault: dict[str, Any]) -> None:
    """The provider opens no other room: nobody is told anything, and the call goes on."""
    async with servers(redis_server, voice_deadline=0.3) as rig:
        told: list[dict[str, Any]] = []
        old = await call_with(rig, "ann")
        rig.voice.channels.on_news(lambda news: told.extend(news.events))
        await rig.sim.faults(**fault)
        with pytest.raises(ProviderError):
            await rig.voice.migration.begin("lobby", "operator")
        channel = await rig.channel("lobby")
        await rig.sim.faults()

        assert (old, "failed", None) == (
            now_at(channel),
            result_of(channel),
            channel.record.coming,
        )
        assert [] == [e for e in told if e["type"] in ("session_migration", "session_ended")]
        assert 1.0 == counted(rig, "migrations_total", result="failed")
        assert not await ended(rig, old)


async def test_the_new_session_says_what_it_replaces(redis_server: RedisServer) -> None:
    """Its metadata name the old one, the reason and the time; those of a first one do not."""
    async with servers(redis_server) as rig:
        old = await call_with(rig, "ann")
        await rig.voice.migration.begin("lobby", "requested")
        room = (await rig.channel("lobby")).record.room
        assert room is not None
        first, second = (rig.sim.sim.world.rooms[one].metadata for one in (old, room.session_id))
        whose = {"channelId": "lobby", "waddleId": WADDLE}

        assert first == {**whose, "createdAt": first["createdAt"]}
        assert second == {
            **whose,
            "createdAt": room.asked_at,
            "migratedFrom": old,
            "migrationReason": "requested",
            "migratedAt": room.asked_at,
        }


async def test_why_there_is_no_room_is_told(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for a migration hears the provider's code and its time; the operator hears, too."""
    create, refused = spec_dialect.create, [False]

    def answer(call: SimRequest) -> Response:
        if refused[0]:
            raise WorldError(403, "PERMISSION_DENIED", "in the provider's own words")
        return create(call)

    monkeypatch.setattr(spec_dialect, "create", answer)
    async with servers(redis_server) as rig:
        old, heard = await call_with(rig, "ann"), []
        for fault in (True, False):
            refused[0] = fault
            await rig.sim.faults(**({} if fault else {"rate_limit": 120}))
            with capture_logs() as lines:
                path = "/voice/channels/lobby/migrate"
                told = await rig.ask("POST", path, voice_mint("op", Role.SERVICE))
            levels = [one["log_level"] for one in lines if one["event"] == "voice_provider_failed"]
            document = told.json()
            heard.append((told.status_code, document["providerCode"], told.headers["retry-after"]))
            assert ["error" if fault else "warning"] == levels
            assert "own words" not in told.text

        channel = await rig.channel("lobby")

        assert [(503, "PERMISSION_DENIED", "60"), (503, "RATE_LIMITED", "120")] == heard
        assert (old, "failed") == (now_at(channel), result_of(channel))


async def test_there_is_nothing_to_migrate(redis_server: RedisServer) -> None:
    """No call, or one that is moving already: False, and nothing is written."""
    async with servers(redis_server) as rig:
        nowhere = await rig.voice.migration.begin("nowhere", "operator")
        await call_with(rig, "ann")
        twice = [await rig.voice.migration.begin("lobby", "operator") for _ in "12"]

        assert (False, [True, False]) == (nowhere, twice)
        assert 0 == (await rig.voice.channels.read("nowhere")).revision


async def test_a_node_dies_between_noting_and_opening(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coming room was noted, and nobody opened it: another node does, and all are told."""
    async with servers(redis_server, nodes=2) as rig:
        old = await call_with(rig, "ann")
        other = rig.nodes[1].server.voice
        assert other is not None
        noted = await rig.voice.writer.change(
            "lobby", lambda channel, now: channel.migrate(now, "operator")
        )
        late = rig.voice.writer.limits.opening_ms / 1000
        for voice in (rig.voice, other):
            monkeypatch.setattr(voice.writer, "_clock", lambda: time.time() + late)
        channel = await rig.until_channel("lobby", lambda c: result_of(c) == "moving")

        assert noted is not None
        assert (1, noted.key) == (
            list(await rig.rooms()).count(noted.key),
            channel.record.room.key if channel.record.room else "",
        )
        assert channel.record.previous is not None
        assert old == channel.record.previous.session_id


async def test_a_call_of_a_day_is_migrated(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its session is a day old the call moves, without anybody asking for it; once."""
    async with servers(redis_server) as rig:
        old = await call_with(rig, "ann")
        clock = [0.0]
        monkeypatch.setattr(rig.voice.writer, "_clock", lambda: time.time() + clock[0])
        clock[0] = DAY - 100.0
        await rig.voice.timers.look_after("lobby")
        before = result_of(await rig.channel("lobby"))
        clock[0] = DAY + 1.0
        channel = await rig.until_channel("lobby", lambda c: result_of(c) == "moving")
        new = now_at(channel)
        await rig.sim.move(new, "ann")
        channel = await rig.until_channel("lobby", lambda c: result_of(c) == "moved")
        await rig.voice.timers.look_after("lobby")
        channel = await rig.channel("lobby")

        assert "" == before
        assert old != new == now_at(channel)
        assert channel.record.move is not None
        assert ("age", 1) == (channel.record.move.reason, channel.record.migrations)


async def test_a_token_opens_one_session(redis_server: RedisServer) -> None:
    """One for the old session does not name the new one."""
    async with servers(redis_server, kind="rtk-minted") as rig:
        old = await call_with(rig, "ann")
        before = (await rig.token("bob", "lobby"))["token"]
        await rig.voice.migration.begin("lobby", "operator")
        after = (await rig.token("bob", "lobby"))["token"]
        rooms = [
            jwt.decode(token, sim_kit.SECRET, algorithms=["HS256"])["room"]
            for token in (before, after)
        ]

        assert [old, now_at(await rig.channel("lobby"))] == rooms
        assert rooms[0] != rooms[1]


async def test_leaving_the_old_session_is_not_leaving_the_call(redis_server: RedisServer) -> None:
    """Its webhooks arrive and are taken in; who has not come over yet is still waited for."""
    async with servers(redis_server) as rig:
        old = await call_with(rig, "ann", "bob")
        await rig.voice.migration.begin("lobby", "operator")
        await rig.sim.move(old, "ann", "leave")

        async def taken() -> bool:
            told = any(one["body"]["type"] == "participant.left" for one in rig.sim.sim.reports.log)
            return told and not await rig.voice.inbox.waiting()

        await rig.until(taken, "the webhook took effect")
        channel = await rig.channel("lobby")

        assert channel.call is not None
        assert ("ann", "bob") == channel.call.users
