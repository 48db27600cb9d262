"""The life of a voice session: idle ends, figures, pooling, prewarming, recording, dead nodes."""

from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import bearer, server_process
from support.voice import sim_kit
from support.voice.voice_kit import DEADLINE, WADDLE, VoiceRig, voice_mint, voice_server
from syncbridge.identity import Role
from syncbridge.voice.call_records import Phase
from syncbridge.voice.channel import Channel

BRIEF = {"voice_idle_unjoined": 0.3, "voice_idle_left": 0.3, "voice_seat": 0.2}


def service() -> str:
    """A token of a service, new: tests run longer than a token is good for."""
    return voice_mint("bot", Role.SERVICE)


async def steer(rig: VoiceRig, deed: str, body: Any = None, channel: str = "lobby") -> Any:
    """A request of a service that must succeed."""
    answer = await rig.ask("POST", f"/voice/channels/{channel}/{deed}", service(), body)
    assert 200 == answer.status_code, answer.text
    return answer.json()


async def until_ended(rig: VoiceRig, session: str) -> None:
    """The provider has ended a session."""

    async def ended() -> bool:
        return bool((await rig.rooms())[session]["ended"])

    await rig.until(ended, "the provider's session is ended")


def over(channel: Channel) -> bool:
    """Whether there is no call, and nothing to be done at the provider."""
    return channel.call is None and channel.record.room is None and not channel.has_tasks


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_a_session_that_nobody_joined_ends(redis_server: RedisServer, kind: str) -> None:
    """Also at the provider, and its figures are kept."""
    async with voice_server(redis_server.url, kind=kind, **BRIEF) as rig:
        session = (await rig.token("ann", "lobby"))["sessionId"]
        await until_ended(rig, session)
        await rig.until_channel("lobby", over)
        [final] = await rig.finals("lobby")

    assert (session, "idle", 0, 0) == (
        final.session_id,
        final.reason,
        final.peak_participants,
        final.total_participant_ms,
    )


async def test_a_session_that_all_left_ends_with_its_figures(redis_server: RedisServer) -> None:
    """Peak and the time of all participants; another call of the channel gets another session."""
    async with voice_server(redis_server.url, **BRIEF) as rig:
        session = await rig.join("ann", "lobby")
        await rig.join("bob", "lobby")
        shown = await rig.ask("GET", "/voice/channels/lobby", service())
        for user in ("ann", "bob"):
            await rig.sim.move(session, user, "leave")
        await rig.until_channel("lobby", over)
        [final] = await rig.finals("lobby")
        another = (await rig.token("ann", "lobby"))["sessionId"]
        history = await rig.ask("GET", "/voice/channels/lobby/history", service())

    assert (2, 2) == (final.peak_participants, shown.json()["metrics"]["peakParticipants"])
    assert ["ann", "bob"] == [p["userId"] for p in shown.json()["participants"]]
    assert "active" == shown.json()["session"]["state"]
    assert shown.json()["health"]["status"] == "healthy"
    assert final.total_participant_ms > 0
    assert another != session
    assert [session] == [call["sessionId"] for call in history.json()["calls"]]


async def test_somebody_who_comes_back_keeps_the_call(redis_server: RedisServer) -> None:
    """Empty is not ended: within the time a join makes the same call active again."""
    async with voice_server(redis_server.url) as rig:
        session = await rig.join("ann", "lobby")
        await rig.sim.move(session, "ann", "leave")
        await rig.until_channel("lobby", lambda c: c.call is not None and not c.call.users)
        empty = await rig.channel("lobby")
        again = await rig.join("ann", "lobby")

        assert empty.call is not None
        assert (Phase.EMPTY, session) == (empty.call.phase, again)


async def test_a_frequent_channel_keeps_its_session(redis_server: RedisServer) -> None:
    """Pooling: after its second call of the day the room waits for the third; then it is ended."""
    pooled = {**BRIEF, "voice_pool_uses": 2, "voice_pool_ttl": 2.0}
    async with voice_server(redis_server.url, **pooled) as rig:
        first = (await rig.token("ann", "lobby"))["sessionId"]
        await rig.until_channel("lobby", over)
        second = (await rig.token("ann", "lobby"))["sessionId"]
        await rig.until_channel("lobby", lambda c: c.call is None)
        third = (await rig.token("ann", "lobby"))["sessionId"]
        await until_ended(rig, third)
        truth = await rig.sim.truth()

    assert first != second
    assert (second, 2) == (third, truth["created"])


async def test_prewarmed_for_now(redis_server: RedisServer) -> None:
    """The session is open before anybody asks; the first token is for it, with its bounds."""
    async with voice_server(redis_server.url) as rig:
        body = {"waddleId": WADDLE, "config": {"maxParticipants": 1}}
        warm = await steer(rig, "prewarm", body)
        token = await rig.token("ann", "lobby")
        full = await rig.ask_token("bob", "lobby")
        truth = await rig.sim.truth()

    assert (warm["sessionId"], 1) == (token["sessionId"], truth["created"])
    assert 409 == full.status_code


async def test_prewarmed_for_an_event(redis_server: RedisServer) -> None:
    """Opened by itself some time before it begins, and ended when nobody came."""
    patient = {**BRIEF, "voice_idle_unjoined": 3.0}
    async with voice_server(redis_server.url, voice_prewarm=60.0, **patient) as rig:
        soon = datetime.now(UTC) + timedelta(seconds=61)
        warm = await steer(rig, "prewarm", {"waddleId": WADDLE, "startsAt": soon.isoformat()})
        before = await rig.rooms()
        opened = await rig.until_channel("lobby", lambda c: c.live, "the room is open")
        assert opened.record.room is not None
        await until_ended(rig, opened.record.room.session_id)
        await rig.until_channel("lobby", over)
        truth = await rig.sim.truth()

    assert (None, {}, 1) == (warm["sessionId"], before, truth["created"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"waddleId": "w", "startsAt": "tomorrow"}, "startsAt"),
        ({"waddleId": "w", "startsAt": "2030-01-01T00:00:00"}, "startsAt"),
        ({"waddleId": "w", "startsAt": "9999-12-31T23:59:59Z"}, "startsAt"),
        ({"waddleId": "w", "config": {"maxParticipants": 0}}, "config.maxParticipants"),
        ({"waddleId": "w", "config": {"maxParticipants": 101}}, "config.maxParticipants"),
        ({"waddleId": "w", "config": {"recording": 1}}, "config.recording"),
        ({"waddleId": ""}, "waddleId"),
    ],
)
async def test_what_prewarm_refuses(redis_server: RedisServer, body: Any, field: str) -> None:
    """422 that names the member; nothing is noted."""
    async with voice_server(redis_server.url) as rig:
        answer = await rig.ask("POST", "/voice/channels/lobby/prewarm", service(), body)
        noted = await rig.voice.channels.read("lobby")

    assert (422, field) == (answer.status_code, answer.json()["field"])
    assert 0 == noted.revision


async def test_who_is_in_charge_prewarms_the_channel_of_a_waddle(
    redis_server: RedisServer,
) -> None:
    """Another waddle's channel of that id is not touched, in a call or not."""
    async with voice_server(redis_server.url) as rig:
        await rig.token("ann", "lobby")
        path, body = "/voice/channels/lobby/prewarm", {"waddleId": "other"}
        during = await rig.ask("POST", path, service(), body)
        await steer(rig, f"end?waddle={WADDLE}")
        after = await rig.ask("POST", path, service(), body)
        tokens = [
            (await rig.ask_token("ann", "lobby", waddle=waddle)).status_code
            for waddle in (WADDLE, "other")
        ]

    assert [200, 200] == [during.status_code, after.status_code]
    assert [200, 200] == tokens


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_recording_starts_with_the_first_participant(
    redis_server: RedisServer, kind: str
) -> None:
    """Once for a room, and only when somebody is there."""
    async with voice_server(redis_server.url, kind=kind, voice_recording=True) as rig:
        session = (await rig.token("ann", "lobby"))["sessionId"]
        empty = (await rig.channel("lobby")).record.recording
        await rig.join("ann", "lobby")
        await rig.join("bob", "lobby")
        await rig.until_channel("lobby", lambda c: c.record.recording == "started")
        recordings = rig.sim.sim.world.rooms[session].recordings

    assert ("wanted", 1) == (empty, recordings)


async def test_a_user_leaves_over_rest(redis_server: RedisServer) -> None:
    """Out of the call here and at the provider; others only by who is in charge."""
    async with voice_server(redis_server.url) as rig:
        session = await rig.join("ann", "lobby")
        await rig.join("bob", "lobby")
        path = "/voice/channels/lobby/leave"
        own = await rig.ask("POST", path, voice_mint("ann"))
        other = await rig.ask("POST", path, voice_mint("ann"), {"userId": "bob"})
        between = await rig.channel("lobby")
        removed = await steer(rig, "leave", {"userId": "bob"})
        again = await steer(rig, "leave", {"userId": "bob"})
        after = await rig.channel("lobby")
        rooms = await rig.rooms()

    assert (200, True) == (own.status_code, own.json()["left"])
    assert 403 == other.status_code
    assert between.call is not None
    assert after.call is not None
    assert (("bob",), ()) == (between.call.users, after.call.users)
    assert (True, False) == (removed["left"], again["left"])
    assert [] == rooms[session]["participants"]


async def test_a_call_is_ended_over_rest(redis_server: RedisServer) -> None:
    """With everybody in it, at the provider too; a second time there is nothing to end."""
    async with voice_server(redis_server.url) as rig:
        session = await rig.join("ann", "lobby")
        first, second = await steer(rig, "end"), await steer(rig, "end")
        await until_ended(rig, session)
        [final] = await rig.finals("lobby")
        shown = (await rig.ask("GET", "/voice/channels/lobby", service())).json()
        nobody = await rig.ask("POST", "/voice/channels/lobby/leave", voice_mint("ann"), {})

    assert (True, False, "ended", 1) == (
        first["ended"],
        second["ended"],
        final.reason,
        final.peak_participants,
    )
    assert (None, None, []) == (shown["session"], shown["metrics"], shown["participants"])
    assert (409, "no_call") == (nobody.status_code, nobody.json()["code"])


async def test_a_call_is_migrated_over_rest(redis_server: RedisServer) -> None:
    """Tokens are for the new session; the old one is ended when all have come over."""
    async with voice_server(redis_server.url) as rig:
        old = await rig.join("ann", "lobby")
        path = "/voice/channels/lobby/migrate"
        moved = await steer(rig, "migrate")
        busy = await rig.ask("POST", path, service())
        new = (await rig.token("ann", "lobby"))["sessionId"]
        await rig.sim.move(new, "ann")
        await until_ended(rig, old)
        channel = await rig.until_channel("lobby", lambda c: not c.record.retired)
        unknown = await rig.ask("POST", "/voice/channels/attic/migrate", service())

        assert moved["sessionId"] == new != old
        assert (409, "call_moving") == (busy.status_code, busy.json()["code"])
        assert channel.call is not None
        assert (Phase.ACTIVE, ("ann",)) == (channel.call.phase, channel.call.users)
        assert (404, "channel_not_found") == (unknown.status_code, unknown.json()["code"])


async def test_a_call_that_is_too_old_is_migrated(redis_server: RedisServer) -> None:
    """By itself, when it is due."""
    async with voice_server(redis_server.url, voice_max_age=0.5) as rig:
        old = await rig.join("ann", "lobby")
        moved = await rig.until_channel("lobby", lambda c: c.record.migrations > 0, "moved")

        assert moved.record.move is not None
        assert moved.record.room is not None
        assert "age" == moved.record.move.reason
        assert old != moved.record.room.session_id


@pytest.mark.parametrize("deed", ["prewarm", "migrate", "end"])
async def test_users_are_not_in_charge(redis_server: RedisServer, deed: str) -> None:
    """403 for role user, whatever its grants."""
    async with voice_server(redis_server.url) as rig:
        body = {"waddleId": WADDLE}
        answer = await rig.ask("POST", f"/voice/channels/lobby/{deed}", voice_mint("ann"), body)

    assert (403, "insufficient_role") == (answer.status_code, answer.json()["code"])


async def test_who_may_look(redis_server: RedisServer) -> None:
    """Grants that fit; others are not told whether there is such a channel."""
    async with voice_server(redis_server.url) as rig:
        await rig.token("ann", "lobby")
        fits = voice_mint("bob", waddle=WADDLE, channel="lobby")
        misfits = voice_mint("cid", waddle=WADDLE, channel="attic")
        answers = [
            (await rig.ask("GET", f"/voice/channels/{channel}{part}", token)).status_code
            for token, channel in ((fits, "lobby"), (misfits, "lobby"), (misfits, "attic"))
            for part in ("", "/history")
        ]

    assert [200, 200, 403, 403, 404, 404] == answers


async def test_figures_of_all_calls(redis_server: RedisServer) -> None:
    """Live channels and who is in them, over all nodes, for admins."""
    async with voice_server(redis_server.url, nodes=2) as rig:
        await rig.join("ann", "lobby")
        await rig.join("bob", "lobby", node=1)
        await rig.token("cid", "attic", node=1)
        path = "/admin/metrics/voice"
        figures = (await rig.ask("GET", path, voice_mint("root", Role.ADMIN))).json()
        refused = await rig.ask("GET", path, service())

    assert 403 == refused.status_code
    assert {"active": 1, "waiting": 1} == figures["phases"]
    assert (2, 2, 2, True) == (
        figures["channels"],
        figures["participants"],
        figures["peakParticipants"],
        figures["complete"],
    )


# Trouble


async def test_a_room_is_ended_when_the_provider_is_back(redis_server: RedisServer) -> None:
    """The end fails for a while; nothing is forgotten, and it is not asked in a loop."""
    async with voice_server(redis_server.url, voice_retry=0.3) as rig:
        session = await rig.join("ann", "lobby")
        await rig.sim.faults(status=503)
        await steer(rig, "end")
        waiting = await rig.until_channel("lobby", lambda c: c.record.failures > 0)
        await rig.sim.faults()
        await until_ended(rig, session)

    assert [session] == [room.session_id for room in waiting.record.retired]
    assert waiting.record.retry_at > 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["create_lost", "hang"])
async def test_a_node_that_dies_while_it_opens(
    redis_server: RedisServer, tmp_path: Path, fault: str
) -> None:
    """Another node finishes what it has noted: one session, with the key of the first attempt."""
    async with sim_kit.rig() as sim, httpx.AsyncClient(timeout=5.0) as http:
        with ExitStack() as stack:
            variables = process_variables(sim.url)
            first, second = (
                stack.enter_context(server_process(tmp_path, redis_server.url, **variables))
                for _ in range(2)
            )
            await sim.faults(**{fault: True})
            body = {"waddleId": WADDLE, "channelId": "lobby"}
            headers = bearer(voice_mint("ann"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refused_or_cut, http, first.url, body, headers)
                await until_asked(http, second.url, sim, fault)
                first.kill()
            await sim.faults()
            session = await until_session(http, second.url)
            truth = await sim.truth()

    assert (1, [session]) == (truth["created"], list(truth["rooms"]))


@pytest.mark.slow
async def test_the_deadline_of_a_node_that_died(redis_server: RedisServer, tmp_path: Path) -> None:
    """Another node ends the session, here and at the provider."""
    brief = {"SYNCBRIDGE_VOICE_IDLE_UNJOINED": "1", "SYNCBRIDGE_VOICE_SEAT": "1"}
    async with sim_kit.rig() as sim, httpx.AsyncClient(timeout=5.0) as http:
        with ExitStack() as stack:
            variables = process_variables(sim.url) | brief
            first, second = (
                stack.enter_context(server_process(tmp_path, redis_server.url, **variables))
                for _ in range(2)
            )
            body = {"waddleId": WADDLE, "channelId": "lobby"}
            token = await http.post(
                f"{first.url}/api/voice/token", json=body, headers=bearer(voice_mint("ann"))
            )
            first.kill()
            session = token.json()["sessionId"]
            await until_sim_ended(sim, session)
            path = f"{second.url}/voice/channels/lobby/history"
            history = await http.get(path, headers=bearer(service()))

    assert [(session, "idle")] == [(c["sessionId"], c["reason"]) for c in history.json()["calls"]]


def process_variables(sim_url: str) -> dict[str, str]:
    """The environment of a server whose provider is a stand-in, with short deadlines."""
    return {
        "RTK_API_URL": sim_url,
        "RTK_API_KEY": sim_kit.KEY,
        "RTK_SECRET_KEY": sim_kit.SECRET,
        "SYNCBRIDGE_VOICE_DEADLINE": "1",
        "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
    }


async def refused_or_cut(
    http: httpx.AsyncClient, url: str, body: Any, headers: dict[str, str]
) -> None:
    """A request that the death of its server cuts off."""
    with suppress(httpx.HTTPError):
        await http.post(f"{url}/api/voice/token", json=body, headers=headers)


async def until_sim_ended(sim: sim_kit.Rig, session: str) -> None:
    """The provider has ended a session."""
    with trio.fail_after(2 * DEADLINE):
        while True:
            if (await sim.truth())["rooms"][session]["ended"]:
                return
            await trio.sleep(0.05)


async def until_asked(http: httpx.AsyncClient, url: str, sim: sim_kit.Rig, fault: str) -> None:
    """The channel is noted, and with `create_lost` the provider has made its session."""
    with trio.fail_after(DEADLINE):
        while True:
            shown = await http.get(f"{url}/voice/channels/lobby", headers=bearer(service()))
            made = bool((await sim.truth())["rooms"])
            if shown.status_code == 200 and made == (fault == "create_lost"):
                return
            await trio.sleep(0.02)


async def until_session(http: httpx.AsyncClient, url: str) -> str:
    """The session of the channel, once there is one."""
    with trio.fail_after(2 * DEADLINE):
        while True:
            shown = await http.get(f"{url}/voice/channels/lobby", headers=bearer(service()))
            if session := shown.json()["session"]:
                return str(session["sessionId"])
            await trio.sleep(0.05)
