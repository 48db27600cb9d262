"""How sessions are opened: what the documents of the provider name is asked for, or refused."""

import time
from typing import Any

import pytest

from support.redis_servers import RedisServer
from support.server_kit import bearer, settings
from support.voice.voice_kit import WADDLE, VoiceRig, voice_mint, voice_server
from syncbridge.identity import Role, VoiceGrant
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.tokens import Grant

CONFIG = "/voice/channels/lobby/config"
PREWARM = "/voice/channels/lobby/prewarm"
ASKED = {
    "maxParticipants": 7,
    "recordingEnabled": True,
    "transcriptionEnabled": True,
    "features": {"aiVoice": True, "noiseSupression": False},
}


def service() -> str:
    return voice_mint("back end", Role.SERVICE)


async def put(rig: VoiceRig, path: str, body: Any, method: str = "PUT") -> dict[str, Any]:
    answer = await rig.ask(method, path, service(), body)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def room_of(rig: VoiceRig, session: str) -> dict[str, Any]:
    room: dict[str, Any] = (await rig.rooms())[session]
    return room


def is_as_asked(room: dict[str, Any]) -> bool:
    on = {"recording", "transcription", "aiVoice", "echoCancellation", "automaticGainControl"}
    features = {name for name, value in room["features"].items() if value}
    return (room["max_participants"], features) == (7, on)


async def test_prewarm_asks_for_what_the_specification_names(redis_server: RedisServer) -> None:
    """`recordingEnabled`, `transcriptionEnabled`, `features`: the session is opened with them."""
    async with voice_server(redis_server.url) as rig:
        warm = await put(rig, PREWARM, {"waddleId": WADDLE, "config": ASKED}, "POST")

        assert is_as_asked(await room_of(rig, warm["sessionId"]))
        assert warm["config"] == {
            **ASKED,
            "features": {
                "recording": True,
                "transcription": True,
                "aiVoice": True,
                "noiseSupression": False,
            },
        }


async def test_a_configuration_holds_for_sessions_that_a_token_opens(
    redis_server: RedisServer,
) -> None:
    """Of each call from then on, on every node, until it is taken away."""
    async with voice_server(redis_server.url, nodes=2) as rig:
        shown = await put(rig, CONFIG, ASKED)
        assert (True, None) == (shown["standing"], shown["inUse"])
        for node in (0, 1):
            session = (await rig.token("ann", "lobby", node))["sessionId"]
            assert is_as_asked(await room_of(rig, session))
            shown = (await rig.ask("GET", CONFIG, service(), node=node)).json()
            assert shown["inUse"] == shown["config"]
            await put(rig, "/voice/channels/lobby/end", {}, "POST")
        shown = await put(rig, CONFIG, {})
        assert (False, 100) == (shown["standing"], shown["config"]["maxParticipants"])
        session = (await rig.token("ann", "lobby"))["sessionId"]

        assert not is_as_asked(await room_of(rig, session))


async def test_a_call_under_way_stays_as_it_is(redis_server: RedisServer) -> None:
    """Nobody is sent away by a configuration; the next call has it."""
    async with voice_server(redis_server.url) as rig:
        session = await rig.join("ann", "lobby")
        shown = await put(rig, CONFIG, ASKED)
        assert (7, 100) == tuple(shown[k]["maxParticipants"] for k in ("config", "inUse"))
        assert session == (await rig.token("bob", "lobby"))["sessionId"]
        await put(rig, "/voice/channels/lobby/end", {}, "POST")
        after = (await rig.token("ann", "lobby"))["sessionId"]

        assert is_as_asked(await room_of(rig, after))


async def test_a_session_for_which_nobody_has_come_is_replaced(redis_server: RedisServer) -> None:
    """By a configuration, and by the config of another prewarm."""
    async with voice_server(redis_server.url) as rig:
        first = await put(rig, PREWARM, {"waddleId": WADDLE}, "POST")
        second = await put(rig, PREWARM, {"waddleId": WADDLE, "config": ASKED}, "POST")
        again = await put(rig, PREWARM, {"waddleId": WADDLE}, "POST")

        assert first["sessionId"] != second["sessionId"] == again["sessionId"]
        assert is_as_asked(await room_of(rig, second["sessionId"]))

        async def ended() -> bool:
            return bool((await room_of(rig, first["sessionId"]))["ended"])

        await rig.until(ended, "the first session is ended")


async def test_prewarm_of_a_call_that_was_opened_in_another_way(redis_server: RedisServer) -> None:
    """409, and it goes on; without a config there is nothing to refuse."""
    async with voice_server(redis_server.url) as rig:
        session = await rig.join("ann", "lobby")
        body = {"waddleId": WADDLE, "config": {"maxParticipants": 3}}
        refused = await rig.ask("POST", PREWARM, service(), body)
        plain = await put(rig, PREWARM, {"waddleId": WADDLE}, "POST")

        assert (409, "call_active") == (refused.status_code, refused.json()["code"])
        assert session == plain["sessionId"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"recordEnabled": True}, ""),
        ({"maxParticipants": 101}, "config.maxParticipants"),
        ({"features": {"telepathy": True}}, "config.features.telepathy"),
        ({"features": {"aiVoice": "yes"}}, "features"),
        ({"recordingEnabled": True, "recording": False}, "config.features.recording"),
        ({"recording": True, "features": {"recording": False}}, "config.features.recording"),
    ],
)
async def test_what_is_not_known_is_refused(
    redis_server: RedisServer, body: dict[str, Any], field: str
) -> None:
    """422 that names the member; nothing is noted."""
    async with voice_server(redis_server.url) as rig:
        answer = await rig.ask("PUT", CONFIG, service(), body)
        assert 422 == answer.status_code
        assert answer.json().get("field", "").startswith(field)
        assert 0 == (await rig.voice.channels.read("lobby")).revision


async def test_what_the_provider_does_not_offer_is_refused(redis_server: RedisServer) -> None:
    """RealTimeKit transcribes, and has no `aiVoice`; not to have it is no wish either."""
    async with voice_server(redis_server.url, kind="cloudflare") as rig:
        refused = await rig.ask("PUT", CONFIG, service(), {"features": {"aiVoice": True}})
        await put(rig, CONFIG, {"transcriptionEnabled": True})
        session = (await rig.token("ann", "lobby"))["sessionId"]

        assert (422, "config.features.aiVoice") == (refused.status_code, refused.json()["field"])
        assert (await room_of(rig, session))["features"]["transcribe_on_end"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/voice/token", {"waddleId": "w", "channelId": "lobby", "x": 1}),
        ("POST", "/voice/channels/lobby/leave", {"user": "ann"}),
        ("POST", "/voice/channels/lobby/prewarm", {"waddleId": "w", "starts": 1}),
        ("GET", "/voice/channels?state=active", None),
        ("GET", "/voice/channels/lobby/history?since=1", None),
        ("GET", "/voice/channels/lobby/timeline?user=ann", None),
        ("GET", "/users/ann/calls?state=left", None),
    ],
)
async def test_fields_and_filters_that_are_not_there(
    redis_server: RedisServer, method: str, path: str, body: Any
) -> None:
    """Are refused, never ignored."""
    async with voice_server(redis_server.url) as rig:
        await rig.token("ann", "lobby")
        answer = await rig.ask(method, path, service(), body)

        assert 422 == answer.status_code, answer.text


async def test_the_provider_is_told_the_name_of_a_user(redis_server: RedisServer) -> None:
    """`metadata.username` is the `name` in the access token, and the user id without one."""
    async with voice_server(redis_server.url) as rig:
        tokens, _ = build_tokens(settings("unix:///nowhere"))
        voice = (VoiceGrant("*", "*", ("speak",)),)
        body = {"waddleId": WADDLE, "channelId": "lobby"}
        told = {}
        for user, name in (("ann", "Ann Lee"), ("bob", "")):
            grant = Grant(user, voice=voice, name=name)
            token = tokens.mint_access(grant, time.time(), 900.0)[0]
            answer = await rig.http.post(
                rig.url + "/api/voice/token", json=body, headers=bearer(token)
            )
            room = await room_of(rig, answer.json()["sessionId"])
            told[user] = room["tokens"][user]["metadata"]["username"]

        assert {"ann": "Ann Lee", "bob": "bob"} == told
