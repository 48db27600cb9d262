"""Voice tokens over real HTTP: whole servers, a real Redis, the stand-in provider."""

import time
from datetime import datetime
from typing import Any

import jwt
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import bearer, running_node
from support.voice.sim_kit import KINDS
from support.voice.voice_kit import EVERYTHING, WADDLE, VoiceRig, voice_mint, voice_server
from syncbridge.identity import Role
from syncbridge.ids import default_session

JOINS = 100
TTL = 600
WORDS: dict[tuple[str, ...], list[bool]] = {
    ("listen",): [False, False, False, False],
    ("speak",): [True, False, False, False],
    ("stream", "record"): [False, True, False, True],
    ("speak", "video"): [True, False, True, False],
}
"""Words of a grant -> whether who has them may speak, share a screen, use video, record."""


async def ask(rig: VoiceRig, token: str, channel: str, waddle: str = WADDLE) -> tuple[int, str]:
    body = {"waddleId": waddle, "channelId": channel}
    answer = await rig.ask("POST", "/api/voice/token", token, body)
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_token_opens_the_session(redis_server: RedisServer, kind: str) -> None:
    """One session for the channel, known before anybody is let in; the next get the same."""
    async with voice_server(redis_server.url, kind=kind) as rig:
        first = await rig.token("ann", "lobby")
        second = await rig.token("bob", "lobby")
        truth = await rig.sim.truth()

        assert {"token", "sessionId", "iceServers", "expiresAt"} == set(first)
        assert first["sessionId"] == second["sessionId"]
        assert first["token"] != second["token"]
        assert [] == first["iceServers"]
        assert (1, [first["sessionId"]]) == (truth["created"], list(truth["rooms"]))
        assert "lobby" == await rig.voice.channels.channel_of(first["sessionId"])


def may(kind: str, told: dict[str, Any]) -> list[bool]:
    """The rights of a token or preset, as the provider or we have written them."""
    if kind == "cloudflare":
        media = [told["media"][m]["can_produce"] for m in ("audio", "screenshare", "video")]
        return [*(one == "ALLOWED" for one in media), told["can_record"]]
    video = told["maxVideoBitrate"] > 0
    return [told["canPublish"], told["canScreenShare"], video, told["canRecord"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_is_good_for_what_was_granted_and_for_so_long(
    redis_server: RedisServer, kind: str
) -> None:
    """Each word of a grant reaches the provider; nothing says a token lives longer than it may."""
    async with voice_server(redis_server.url, kind=kind, voice_token_ttl=TTL) as rig:
        for number, (words, wanted) in enumerate(WORDS.items()):
            user, before = f"user-{number}", int(time.time())
            body = {"waddleId": WADDLE, "channelId": "lobby"}
            token = voice_mint(user, permissions=words)
            answer = (await rig.ask("POST", "/api/voice/token", token, body)).json()
            truth = await rig.sim.truth()
            asked = truth["rooms"][answer["sessionId"]]["tokens"].get(user, {})
            if kind == "cloudflare":
                told = truth["presets"][asked["preset"]]
            else:
                claims = jwt.decode(answer["token"], options={"verify_signature": False})
                assert before + TTL <= claims["exp"] <= time.time() + TTL
                told = claims["permissions"]
            if kind == "rtk":
                assert (TTL, told) == (asked["expiresIn"], asked["permissions"])
            expires_at = datetime.fromisoformat(answer["expiresAt"]).timestamp()

            assert wanted == may(kind, told)
            assert before + TTL <= expires_at <= time.time() + TTL


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_a_room_is_opened_as_it_is_configured(redis_server: RedisServer, kind: str) -> None:
    """`config` of prewarm for this room, the settings for another one."""
    wanted = {"recording": True, "transcription": True, "maxParticipants": 7}
    async with voice_server(redis_server.url, kind=kind) as rig:
        admin, body = voice_mint("root", Role.ADMIN), {"waddleId": WADDLE, "config": wanted}
        answer = await rig.ask("POST", "/voice/channels/lobby/prewarm", admin, body)
        await rig.until_channel("lobby", lambda c: c.record.room and c.record.room.session_id)
        special = (await rig.token("ann", "lobby"))["sessionId"]
        usual = (await rig.token("ann", "attic"))["sessionId"]
        rooms = await rig.rooms()
        told = [rooms[session]["features"] for session in (special, usual)]

        assert answer.status_code < 300, answer.text
        if kind == "cloudflare":
            assert [False, False] == [features["record_on_start"] for features in told]
            assert [True, False] == [features["transcribe_on_end"] for features in told]
        else:
            assert [True, False] == [features["recording"] for features in told]
            assert [True, False] == [features["transcription"] for features in told]
            assert [7, 100] == [rooms[session]["max_participants"] for session in (special, usual)]
            assert "lobby" == rooms[special]["metadata"]["channelId"]


async def test_100_first_joins_at_once_on_two_servers(redis_server: RedisServer) -> None:
    """Exactly one provider session, whoever asks first and wherever."""
    sessions: list[str] = []
    async with voice_server(redis_server.url, nodes=2) as rig:

        async def join(number: int) -> None:
            answer = await rig.token(f"user-{number}", "lobby", node=number % 2)
            sessions.append(answer["sessionId"])

        async with trio.open_nursery() as nursery:
            for number in range(JOINS):
                nursery.start_soon(join, number)
        truth = await rig.sim.truth()
        channel = await rig.channel("lobby")

    assert (1, JOINS, 1) == (truth["created"], len(sessions), len(set(sessions)))
    assert JOINS == len(channel.record.participants)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_create_whose_answer_is_lost_makes_no_second_session(
    redis_server: RedisServer, kind: str
) -> None:
    """The provider made it and did not answer: it is asked again under the same key."""
    async with voice_server(redis_server.url, kind=kind, voice_deadline=0.5) as rig:
        # RealTimeKit is asked for a meeting of that name before it is asked to make one.
        await rig.sim.faults(create_lost=True, count=2 if kind == "cloudflare" else 1)
        answer = await rig.token("ann", "lobby")
        truth = await rig.sim.truth()

        assert (1, [answer["sessionId"]]) == (truth["created"], list(truth["rooms"]))


async def test_a_seat_is_kept_until_the_channel_is_full(redis_server: RedisServer) -> None:
    """409 with a time to come back when all seats are given; a second token takes no second one."""
    async with voice_server(redis_server.url, voice_max_participants=2) as rig:
        await rig.token("ann", "lobby")
        await rig.token("ann", "lobby")
        await rig.token("bob", "lobby")
        refused = await rig.ask_token("cid", "lobby")
        again = await rig.ask_token("ann", "lobby")

        assert (409, "session_full") == (refused.status_code, refused.json()["code"])
        assert int(refused.headers["retry-after"]) > 0
        assert 200 == again.status_code


async def test_a_refused_token_gives_its_seat_back(redis_server: RedisServer) -> None:
    """503 while the provider is in trouble; the one seat is there for the next user."""
    async with voice_server(redis_server.url, voice_max_participants=1) as rig:
        await rig.token("ann", "other")
        first = await rig.token("ann", "lobby")
        await rig.ask("POST", "/voice/channels/lobby/leave", voice_mint("ann"), {})
        await rig.sim.faults(rate_limit=7)
        limited = await rig.ask_token("bob", "lobby")
        participants = set((await rig.channel("lobby")).record.participants)

        assert first["sessionId"]
        assert (503, "provider_unavailable") == (limited.status_code, limited.json()["code"])
        assert 1 <= int(limited.headers["retry-after"]) <= 7
        assert set() == participants


async def test_a_provider_in_trouble_is_503_with_a_time(redis_server: RedisServer) -> None:
    """5xx while a room is opened; once the provider is back, the same room is asked for."""
    async with voice_server(redis_server.url) as rig:
        await rig.sim.faults(status=503)
        away = await rig.ask_token("ann", "lobby")
        noted = (await rig.channel("lobby")).record
        await rig.sim.faults()

        async def back() -> bool:
            return (await rig.ask_token("ann", "lobby")).status_code == 200

        await rig.until(back, "a token")
        room = (await rig.channel("lobby")).record.room

        assert (503, "provider_unavailable") == (away.status_code, away.json()["code"])
        assert int(away.headers["retry-after"]) > 0
        assert "SERVICE_UNAVAILABLE" == noted.last_error
        assert noted.room is not None
        assert room is not None
        assert noted.room.key == room.key


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_a_lost_room_is_replaced_once(redis_server: RedisServer, kind: str) -> None:
    """SESSION_NOT_FOUND: 20 at once get tokens for one new session, and are told to rejoin."""
    async with voice_server(redis_server.url, kind=kind, nodes=2) as rig:
        lost = (await rig.token("ann", "lobby"))["sessionId"]
        rig.sim.sim.world.rooms[lost].ended = True
        sessions: set[str] = set()

        async def join(number: int) -> None:
            sessions.add((await rig.token(f"u{number}", "lobby", node=number % 2))["sessionId"])

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(join, number)
        channel = await rig.channel("lobby")

        assert 1 == len(sessions)
        assert lost not in sessions
        assert (2, 1) == ((await rig.sim.truth())["created"], channel.record.migrations)


async def test_grants_decide(redis_server: RedisServer) -> None:
    """403 without a grant for the channel; service needs none; each waddle has its own."""
    async with voice_server(redis_server.url) as rig:
        own = voice_mint("ann", waddle=WADDLE, channel="lobby")
        elsewhere = voice_mint("bob", waddle="other", channel="*")
        service = voice_mint("bot", Role.SERVICE, waddle="none", channel="none")

        assert (200, "") == await ask(rig, own, "lobby")
        assert (403, "forbidden") == await ask(rig, own, "attic")
        assert (403, "forbidden") == await ask(rig, elsewhere, "lobby")
        assert (200, "") == await ask(rig, elsewhere, "lobby", "other")
        assert (200, "") == await ask(rig, service, "lobby")
        assert 2 == (await rig.sim.truth())["created"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"channelId": "lobby"}, 422, ""),
        ({"waddleId": "w", "channelId": ""}, 422, "channelId"),
        ({"waddleId": "", "channelId": "c"}, 422, "waddleId"),
        ({"waddleId": "w", "channelId": "c" * 257}, 422, "channelId"),
        ({"waddleId": "w", "channelId": "a\nb"}, 422, "channelId"),
        ({"waddleId": 1, "channelId": "c"}, 422, "waddleId"),
        ([], 422, ""),
    ],
)
async def test_bad_bodies(redis_server: RedisServer, body: Any, status: int, field: str) -> None:
    """4xx that says which member, and nothing is opened."""
    async with voice_server(redis_server.url) as rig:
        token = voice_mint("ann", permissions=EVERYTHING)
        answer = await rig.ask("POST", "/api/voice/token", token, body)

        assert (status, field) == (answer.status_code, answer.json().get("field"))
        assert 0 == (await rig.sim.truth())["created"]


async def test_without_a_provider(redis_server: RedisServer) -> None:
    """503 that says why; the figures are there, and say that there is no voice."""
    async with running_node(redis_server.url) as node, node.http() as http:
        headers = {"Authorization": f"Bearer {voice_mint('root', Role.ADMIN)}"}
        body = {"waddleId": "w", "channelId": "c"}
        token = await http.post("/api/voice/token", json=body, headers=headers)
        shown = await http.get("/voice/channels/c", headers=headers)
        figures = await http.get("/admin/metrics/voice", headers=headers)

    assert [(503, "provider_unavailable")] * 2 == [
        (a.status_code, a.json()["code"]) for a in (token, shown)
    ]
    assert "RTK_API_URL" in token.json()["detail"]
    assert (False, 0) == (figures.json()["enabled"], figures.json()["channels"])


async def test_a_user_is_held_to_a_rate(redis_server: RedisServer) -> None:
    """429 with a time for a user who asks for tokens all the time; others are not held up."""
    limits = {"rate_limit_enabled": True, "voice_token_burst": 2, "voice_tokens_per_minute": 1}
    async with voice_server(redis_server.url, **limits) as rig:
        answers = [(await rig.ask_token("ann", "lobby")).status_code for _ in range(3)]
        other = await rig.ask_token("bob", "lobby")

        assert ([200, 200, 429], 200) == (answers, other.status_code)


async def test_the_device_that_asks_is_taken_to_hold_the_call(redis_server: RedisServer) -> None:
    """By the token's device, else by X-Device-ID; in the token's session, else the user's own."""
    session = "6f1f3a52-5d0e-5c0b-9b1e-7d6f0a6f5a11"
    async with voice_server(redis_server.url) as rig:
        body = {"waddleId": WADDLE, "channelId": "lobby"}
        named = voice_mint("ann", session=session, device="phone")
        await rig.ask("POST", "/api/voice/token", named, body)
        headers = bearer(voice_mint("bob")) | {"X-Device-ID": "tablet"}
        url = f"{rig.url}/api/voice/token"
        told = await rig.http.post(url, json=body, headers=headers)
        refused = await rig.http.post(url, json=body, headers=headers | {"X-Device-ID": "d" * 65})
        participants = (await rig.channel("lobby")).record.participants

    assert (200, 422) == (told.status_code, refused.status_code)
    assert ("phone", session) == (participants["ann"].device_id, participants["ann"].sid)
    assert ("tablet", default_session("bob")) == (
        participants["bob"].device_id,
        participants["bob"].sid,
    )
