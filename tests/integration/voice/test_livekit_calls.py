"""Calls on a real LiveKit with real clients: who is shown is who is there, whatever happens.

The comparison comes more often than by default; what has to be 20 seconds apart is so here, too.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
import trio

from support.redis_servers import RedisServer
from support.voice.livekit_kit import Device, LiveKitSite, adapter, livekit_site
from support.voice.livekit_server import SECRET, recorder
from support.voice.voice_kit import WADDLE, voice_mint
from syncbridge.identity import Role
from syncbridge.voice.provider.records import CannotVerify, Permissions, SessionState, VerifyFailure
from syncbridge.voice.reporting import hand_over
from syncbridge.voice.timeline import TimelineEntry

SYNC_S = 3.0
APART_S = 20.0
TIMEOUT_S = 22.0
"""LiveKit takes a client that fell silent for gone after 19 to 22 seconds."""
PASSES_S = 65.0
"""A lost leave is found within this time by default; here in less."""
NEVER = 86_000.0


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis of its own: due channels are everybody's."""
    with RedisServer() as server:
        yield server.url


@asynccontextmanager
async def site_of(redis_url: str, **more: Any) -> AsyncIterator[LiveKitSite]:
    async with livekit_site(
        redis_url, **{"voice_sync": SYNC_S, "voice_sync_stale": 0.5, **more}
    ) as site:
        yield site


async def connections(site: LiveKitSite, channel: str, user: str) -> set[str]:
    call = (await site.channel(channel)).call
    return set(call.connections(user)) if call is not None else set()


async def evidence(site: LiveKitSite, channel: str) -> list[TimelineEntry]:
    """What was said of a channel, the earliest first."""
    found, _ = await site.voice.evidence.timeline(channel, 500)
    return [entry for _, entry in found[::-1]]


async def only(site: LiveKitSite, channel: str, *devices: Device) -> None:
    """Wait until the connections of a user are those of these devices, and no others."""
    wanted = {device.sid for device in devices}

    async def same() -> bool:
        return await connections(site, channel, devices[0].user) == wanted

    await site.until(same, "the connections", PASSES_S)


async def test_people_come_and_go(redis_url: str) -> None:
    """By webhooks alone: each is shown within a moment, by the id of the connection."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        ann = await site.come("ann", "lobby")
        bob = await site.come("bob", "lobby")
        channel = await site.until_users("lobby", "ann", "bob")
        assert channel.record.room is not None
        assert {"ann", "bob"} == await site.listed(ann.session)
        assert {ann.sid} == await connections(site, "lobby", "ann")
        await bob.leave()
        await site.until_users("lobby", "ann")
        await ann.leave()
        await site.until_users("lobby")

        assert ["bob", "ann"] == site.gone("lobby")
        assert [] == (await site.voice.inbox.dead(10))[0]
        told = [e for e in await evidence(site, "lobby") if e.what in ("joined", "left")]
        assert [
            ("joined", "ann", ann.sid),
            ("joined", "bob", bob.sid),
            ("left", "bob", bob.sid),
            ("left", "ann", ann.sid),
        ] == [(one.what, one.user_id, one.connection_id) for one in told]
        assert {"webhook"} == {one.source.value for one in told}
        assert 4 == len({one.ref for one in told} - {""})


async def test_a_user_has_two_devices(redis_url: str) -> None:
    """Both are in the call; whoever leaves with one is there with the other one."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        phone = await site.come("ann", "lobby", "phone")
        laptop = await site.come("ann", "lobby", "laptop")
        await only(site, "lobby", phone, laptop)
        await phone.leave()
        await only(site, "lobby", laptop)
        assert [] == site.gone("lobby")
        await laptop.leave()
        await site.until_users("lobby")

        assert ["ann"] == site.gone("lobby")


async def test_a_device_that_connects_again_does_not_flap(redis_url: str) -> None:
    """The second connection of the same device ends the first; nobody is told that ann has left."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        first = await site.come("ann", "lobby")
        second = await site.come("ann", "lobby")
        await first.until("dropped")
        await only(site, "lobby", second)

        assert (first.session, []) == (second.session, site.gone("lobby"))


async def test_whoever_asks_to_leave_is_out(redis_url: str) -> None:
    """All devices are removed from the media, and the user is shown as gone at once."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        phone = await site.come("ann", "lobby", "phone")
        laptop = await site.come("ann", "lobby", "laptop")
        ann = voice_mint("ann", waddle=WADDLE)
        answer = await site.ask("POST", "/voice/channels/lobby/leave", ann, {})
        assert answer.status_code == 200, answer.text
        for device in (phone, laptop):
            await device.until("dropped")

        await site.until_users("lobby")
        assert set() == await site.listed(phone.session)


async def test_whoever_was_sent_away_is_kept_out(redis_url: str) -> None:
    """The old token still opens the room, and who comes back by it is removed again."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        await site.come("bob", "lobby")
        ann = await site.come("ann", "lobby")
        service = voice_mint("operator", Role.SERVICE)
        path = "/voice/channels/lobby/leave"
        answer = await site.ask("POST", path, service, {"userId": "ann"})
        assert answer.status_code == 200, answer.text
        await ann.until("dropped")
        await site.until_users("lobby", "bob")
        line = {"do": "join", "url": site.livekit.url, "speak": False, "as": "again"}
        await site.clients.say(token=ann.token, **line)
        await site.clients.until("again", "joined")
        await site.clients.until("again", "dropped")
        await site.until_users("lobby", "bob")
        back = await site.come("ann", "lobby")

        assert {"ann", "bob"} == await site.listed(back.session)
        assert not (await site.channel("lobby")).has_tasks


async def test_other_rights_hold_at_once(redis_url: str) -> None:
    """A new token of somebody who speaks and may not any more: the microphone is off."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        ann = await site.come("ann", "lobby", speak=True)

        async def heard() -> bool:
            state = await site.voice.provider.fetch_state(ann.session)
            assert isinstance(state, SessionState)
            return state.participants[0].muted is False

        async def silent() -> bool:
            return not await heard()

        await site.until(heard, "ann")
        body = {"waddleId": WADDLE, "channelId": "lobby"}
        listener = voice_mint("ann", waddle=WADDLE, permissions=("listen",))
        answer = await site.ask("POST", "/api/voice/token", listener, body)
        assert answer.status_code == 200, answer.text
        await site.until(silent, "nobody")


@pytest.mark.slow
async def test_a_client_is_killed(redis_url: str) -> None:
    """LiveKit tells after 20 seconds; nobody else is touched, and there is no ghost afterwards."""
    async with site_of(redis_url) as site:
        await site.come("ann", "lobby")
        doomed = await site.more_clients()
        await site.come("bob", "lobby", clients=doomed)
        began = time.monotonic()
        doomed.kill()
        await site.until_users("lobby", "ann", seconds=TIMEOUT_S + 10)

        assert time.monotonic() - began > 5
        assert ["bob"] == site.gone("lobby")


@pytest.mark.slow
async def test_webhooks_are_lost(redis_url: str) -> None:
    """Comings and goings are found by looks: who came at once, who left by two that are apart."""
    async with site_of(redis_url) as site:
        ann = await site.come("ann", "lobby")
        bob = await site.come("bob", "lobby")
        carl = await site.come("carl", "alone")
        site.block()
        await site.join_at("dora", "lobby")
        await site.until_users("lobby", "ann", "bob", "dora")
        await bob.leave()
        await carl.leave()
        began = time.monotonic()
        await site.until_users("lobby", "ann", "dora", seconds=PASSES_S)
        await site.until_users("alone", seconds=PASSES_S)

        assert time.monotonic() - began > APART_S - 1
        assert (["bob"], ["carl"]) == (site.gone("lobby"), site.gone("alone"))
        doubted, left = [e for e in await evidence(site, "lobby") if e.user_id == "bob"][-2:]
        assert (("list", "doubted"), ("list", "left", "verified")) == (
            (doubted.source, doubted.what),
            (left.source, left.what, left.reason),
        )
        assert APART_S * 1000 <= left.wrong_ms <= PASSES_S * 1000
        room = (await site.channel("lobby")).record.room
        assert room is not None
        assert ann.session == room.session_id


@pytest.mark.slow
async def test_a_room_is_deleted_behind_our_back(redis_url: str) -> None:
    """With and without the webhooks about it; the next token leads into a room of the same name."""
    async with site_of(redis_url) as site:
        ann = await site.come("ann", "lobby")
        bob = await site.come("bob", "silent")
        await site.voice.provider.end_session(ann.session)
        await site.until_users("lobby")
        site.block()
        await site.voice.provider.end_session(bob.session)
        await bob.until("dropped")
        await site.until_users("silent", seconds=PASSES_S)
        site.block(False)
        again = [
            await site.come(user, channel)
            for user, channel in (("ann", "lobby"), ("bob", "silent"))
        ]

        assert [ann.session, bob.session] == [one.session for one in again]


@pytest.mark.slow
@pytest.mark.parametrize("auto_create", [True, False])
async def test_the_server_is_killed_and_comes_back(redis_url: str, auto_create: bool) -> None:
    """Nobody is told that anybody has left while the clients come back by themselves.

    It answers "nobody" at first, to looks that come every half a second. No webhook ever tells that
    the old connections are over: looks do. Where tokens make no rooms, ours are made again by the
    next one who asks for a token.
    """
    server = {"auto_create": auto_create}
    async with site_of(redis_url, voice_sync=0.5, server=server) as site:
        people = [await site.come(f"user-{n}", "lobby") for n in range(5)]
        site.livekit.kill()
        await trio.sleep(1.0)
        await trio.to_thread.run_sync(site.livekit.start)
        if not auto_create:
            people.append(await site.come("newcomer", "lobby"))
        names = [one.user for one in people]

        async def all_back() -> bool:
            return await site.listed(people[0].session) == set(names)

        await site.until(all_back, "everybody", 60.0)
        passes = site.voice.synchronizer.passes
        with trio.fail_after(90):
            for one in people:
                while len(await connections(site, "lobby", one.user)) != 1:  # noqa: ASYNC110
                    await trio.sleep(0.1)

        assert [] == site.gone("lobby")
        assert site.voice.synchronizer.passes > passes
        await site.until_users("lobby", *names)


@pytest.mark.slow
async def test_a_server_that_restarts_all_the_time_proves_nothing(redis_url: str) -> None:
    """Looks 20 seconds apart, each into another life of a server that has forgotten all."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        doomed = await site.more_clients()
        ann = await site.come("ann", "lobby", clients=doomed)
        doomed.kill()
        answers = []
        for _ in range(3):
            site.livekit.kill()
            await trio.to_thread.run_sync(site.livekit.start)
            answers.append(await site.voice.provider.fetch_state(ann.session))
            await site.voice.synchronizer.make_pass()
            await trio.sleep(APART_S / 2 + 1)
        lives = {one.life for one in answers if isinstance(one, CannotVerify)}

        assert ([VerifyFailure.EMPTY] * 3, 3) == (
            [getattr(one, "doubt", None) for one in answers],
            len(lives),
        )
        assert [] == site.gone("lobby")
        await site.voice.synchronizer.make_pass()
        await trio.sleep(APART_S / 2)
        await site.voice.synchronizer.make_pass()
        await site.until_users("lobby")


async def test_a_call_is_handed_over(redis_url: str) -> None:
    """The other device comes in beside the first, holds the call then, and nobody is told to go."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        phone = await site.come("ann", "lobby", "phone")
        await site.voice.writer.change(
            "lobby", lambda channel, now: hand_over(channel, "ann", "laptop", "s", now)
        )
        laptop = await site.come("ann", "lobby", "laptop")
        await only(site, "lobby", phone, laptop)
        participant = (await site.channel("lobby")).record.participants["ann"]
        assert ("laptop", "") == (participant.device_id, participant.moving_to)
        await phone.leave()
        await only(site, "lobby", laptop)

        assert [] == site.gone("lobby")


async def test_a_call_moves_to_another_room(redis_url: str) -> None:
    """Each joins the new room before leaving the old one, which is closed when all have."""
    async with site_of(redis_url, voice_sync=NEVER, voice_migration=30.0) as site:
        before = [await site.come(f"user-{n}", "lobby") for n in range(3)]
        admin = voice_mint("operator", Role.ADMIN)
        answer = await site.ask("POST", "/voice/channels/lobby/migrate", admin, {})
        assert answer.status_code == 200, answer.text
        for old in before:
            new = await site.join_at(old.user, "lobby")
            assert new.session != old.session
            await old.leave()

        async def moved() -> bool:
            record = (await site.channel("lobby")).record
            done = record.move is not None and record.move.result == "moved"
            return done and not record.retired

        await site.until(moved, "the migration")
        await site.until_users("lobby", *[one.user for one in before])
        assert [] == site.gone("lobby")
        assert set() == await site.listed(before[0].session)


async def test_rights_change_in_the_middle_of_a_call(redis_url: str) -> None:
    """Who may not speak any more is not heard; who is muted may speak again. Others go on."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        ann = await site.come("ann", "lobby", speak=True)
        await site.come("bob", "lobby", speak=True)
        provider = site.voice.provider

        async def heard(*users: str) -> bool:
            state = await provider.fetch_state(ann.session)
            assert isinstance(state, SessionState)
            return {one.user_id for one in state.participants if one.muted is False} == set(users)

        await site.until(lambda: heard("ann", "bob"), "both")
        assert await provider.mute(ann.session, "bob")
        await site.until(lambda: heard("ann"), "ann alone")
        assert await provider.set_permissions(ann.session, "ann", Permissions(can_speak=False))
        await site.until(heard, "nobody")


async def test_a_token_says_who_and_with_what(redis_url: str) -> None:
    """The user and the device, one room, and no right to record: that would be for all rooms."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        let_in = await site.let_in("ann", "lobby", "phone")
        claims = jwt.decode(let_in["token"], SECRET, algorithms=["HS256"])
        video = claims["video"]

        assert ("ann:phone", let_in["sessionId"]) == (claims["sub"], video["room"])
        assert ["microphone", "camera", "screen_share", "screen_share_audio"] == video[
            "canPublishSources"
        ]
        assert "roomRecord" not in video


OTHERS = (
    ("sip", "sip_+493012345"),
    ("sip", "sip:+493067890@host"),
    ("egress", "EG_1"),
    ("ingress", "IN_1"),
    ("agent", "AJ_1"),
)


async def test_telephones_recorders_and_the_like(redis_url: str) -> None:
    """All are participants at LiveKit. A telephone is somebody, whatever its identity looks like;
    a recorder, an ingress and an agent are nobody."""
    async with site_of(redis_url, voice_sync=NEVER) as site:
        ann = await site.come("ann", "lobby")
        async with adapter(site.livekit) as provider:
            grant = {"roomJoin": True, "room": ann.session}
            for kind, name in OTHERS:
                token = provider._api.sign({"sub": name, "video": grant, "kind": kind}, 60)
                await site.clients.say(
                    do="join", url=site.livekit.url, token=token, speak=False, **{"as": name}
                )
                assert "joined" == (await site.clients.until(name, "joined", "failed"))["event"]
            telephones = [name for kind, name in OTHERS if kind == "sip"]
            await site.until_users("lobby", "ann", *telephones)
            state = await provider.fetch_state(ann.session)
            await ann.leave()
            removed = [await provider.kick(ann.session, name) for name in (*telephones, "sip")]
            await site.until_users("lobby")

        assert isinstance(state, SessionState)
        assert {"ann": False, **dict.fromkeys(telephones, True)} == {
            one.user_id: one.sip for one in state.participants
        }
        assert [True, True, False] == removed
        assert [] == (await site.voice.inbox.dead(10))[0]


async def test_a_call_is_recorded(redis_url: str) -> None:
    """One recording, however often it is asked for; it is told of when it is stopped."""
    with RedisServer(tcp=True) as shared, recorder(f"127.0.0.1:{shared.port}"):
        server = {"redis": f"127.0.0.1:{shared.port}", "live": True}
        async with site_of(
            redis_url, voice_sync=NEVER, voice_recording=True, server=server
        ) as site:
            ann = await site.come("ann", "lobby")
            await site.until_channel("lobby", lambda c: c.record.recording == "started")
            provider = site.voice.provider
            begun = [await provider.start_recording(ann.session) for _ in "12"]
            stopped = [await provider.stop_recording(ann.session) for _ in "12"]
            await site.until_channel("lobby", lambda c: c.record.recording == "ready")
            (kept,) = await site.voice.recordings.of_channel("lobby")

            assert (begun[0].id, [True, False]) == (begun[1].id, stopped)
            assert f"https://recordings.example/{begun[0].id}.ogg" == kept.url
            assert kept.duration is not None
            assert kept.duration > 0


async def test_a_recording_that_fails(redis_url: str) -> None:
    """The recorder says so: the channel knows, and nobody asks again."""
    with RedisServer(tcp=True) as shared, recorder(f"127.0.0.1:{shared.port}"):
        server = {"redis": f"127.0.0.1:{shared.port}", "live": True}
        async with site_of(
            redis_url, voice_sync=NEVER, voice_recording=True, server=server
        ) as site:
            await site.come("ann", "fail")
            await site.until_channel("fail", lambda c: c.record.recording == "failed")

            assert [] == await site.voice.recordings.of_channel("fail")


async def test_a_recording_without_a_recorder(redis_url: str) -> None:
    """LiveKit without a Redis records nothing: that is noted once, and not asked for again."""
    async with site_of(redis_url, voice_sync=NEVER, voice_recording=True) as site:
        await site.come("ann", "lobby")
        channel = await site.until_channel("lobby", lambda c: c.record.recording == "failed")

        assert ("", 0) == (channel.record.last_error, channel.record.failures)


@pytest.mark.parametrize("live", [False, True])
async def test_lists_of_a_livekit_with_a_redis(redis_url: str, live: bool) -> None:
    """They may name people of a node that has died, unless the nodes are asked."""
    with RedisServer(tcp=True) as shared:
        server = {"redis": f"127.0.0.1:{shared.port}", "live": live}
        async with site_of(redis_url, voice_sync=NEVER, server=server) as site:
            ann = await site.come("ann", "lobby")
            state = await site.voice.provider.fetch_state(ann.session)

            if live:
                assert isinstance(state, SessionState)
                assert ["ann"] == [one.user_id for one in state.participants]
            else:
                assert isinstance(state, CannotVerify)
                assert VerifyFailure.UNSUPPORTED is state.doubt
