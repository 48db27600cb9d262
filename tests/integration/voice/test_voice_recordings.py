"""What RealTimeKit has beside calls: recordings, where they go, whose token is worth nothing."""

import json
import time
from functools import partial
from typing import Any

import pytest

from support.redis_servers import RedisServer
from support.server_kit import bearer, settings
from support.voice.voice_kit import VoiceRig, voice_mint, voice_server
from syncbridge.identity import Role
from syncbridge.voice.provider.errors import InvalidRequest
from syncbridge.voice.recordings import Recorded
from syncbridge_server.http.recordings import still_there
from syncbridge_server.settings import ConfigError
from syncbridge_server.voice.provider.kinds import check_provider
from syncbridge_tools.rtk_sim.cloudflare_dialect import KEY_PATH
from syncbridge_tools.rtk_sim.world import Happening

STORAGE = {"type": "aws", "bucket": "calls", "region": "eu-central-1", "secret": "s3cret"}


def news_of(rig: VoiceRig) -> list[dict[str, Any]]:
    """What sockets are told from now on."""
    told: list[dict[str, Any]] = []
    rig.voice.channels.on_news(lambda news: told.extend(news.events))
    return told


def counted(rig: VoiceRig, outcome: str) -> float:
    name = "syncbridge_voice_recordings_total"
    return rig.node.server.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


async def is_counted(rig: VoiceRig, outcome: str, least: int = 1) -> bool:
    return counted(rig, outcome) >= least


async def until_told(rig: VoiceRig, told: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        return next((one for one in told if one["type"] == kind), None)

    message: dict[str, Any] = await rig.until(found, kind)
    return message


async def test_a_recording_that_fails(redis_server: RedisServer) -> None:
    """RealTimeKit reports it: an event, a log line, and a number that is not that of success."""
    async with voice_server(redis_server.url, kind="cloudflare", voice_recording=True) as rig:
        told = news_of(rig)
        session = await rig.join("ann", "lobby")
        await rig.until_channel("lobby", lambda c: c.record.recording == "started")
        room = rig.sim.sim.world.rooms[session]
        rig.sim.sim.reports.tell(rig.sim.sim.world.stop_recording(room, time.time(), failed=True))
        message = await until_told(rig, told, "recording_failed")
        channel = await rig.until_channel("lobby", lambda c: c.record.recording == "failed")

        assert ("lobby", True) == (message["channelId"], bool(message["recordingId"]))
        assert (1.0, 1.0, 0.0) == tuple(counted(rig, o) for o in ("started", "failed", "ready"))
        assert ("ann",) == channel.call.users if channel.call else None


async def test_a_recording_that_is_refused(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not even begun, and has no id."""
    async with voice_server(redis_server.url, voice_recording=True) as rig:
        told = news_of(rig)

        async def refuse(session_id: str) -> None:
            raise InvalidRequest("recordings are not in this plan")

        monkeypatch.setattr(rig.voice.provider, "start_recording", refuse)
        await rig.join("ann", "lobby")

        assert "" == (await until_told(rig, told, "recording_failed"))["recordingId"]
        assert 1.0 == counted(rig, "refused")


async def test_recordings_go_to_our_own_storage(redis_server: RedisServer) -> None:
    """So they outlive the seven days that Cloudflare keeps them."""
    values = {"voice_recording": True, "cloudflare_storage": json.dumps(STORAGE)}
    async with voice_server(redis_server.url, kind="cloudflare", **values) as rig:
        session = await rig.join("ann", "lobby")
        await rig.until_channel("lobby", lambda c: c.record.recording == "started")

        assert STORAGE == (await rig.rooms())[session]["storage"]


@pytest.mark.parametrize("text", ["s3cret", "[]", '{"type": "floppy", "secret": "s3cret"}', "{"])
def test_a_storage_that_is_none(text: str) -> None:
    """One line, without what was given."""
    values = {
        "voice_provider": "cloudflare",
        "cloudflare_account_id": "a",
        "rtk_app_id": "b",
        "rtk_api_key": "k",
        "cloudflare_storage": text,
    }
    with pytest.raises(ConfigError) as refused:
        check_provider(settings("unix:///nowhere", **values))

    assert "SYNCBRIDGE_CLOUDFLARE_STORAGE" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("setting", ["voice_transcription", "voice_ai_voice"])
def test_what_no_call_can_have_is_refused_at_the_start(setting: str) -> None:
    """LiveKit neither transcribes nor knows `aiVoice`."""
    values = {
        "voice_provider": "livekit",
        "livekit_url": "http://127.0.0.1:7880",
        "livekit_api_key": "key",
        "livekit_api_secret": "s" * 32,
    }
    check_provider(settings("unix:///nowhere", **values))
    with pytest.raises(ConfigError, match="livekit does not offer"):
        check_provider(settings("unix:///nowhere", **values, **{setting: True}))


def test_what_can_be_fetched_no_more_is_not_shown() -> None:
    """A recording goes when its URL ends; a text is kept here, so only its URL goes."""
    found = [
        Recorded(name, "s", 1, f"https://x/{name}", kind=kind, expires_at=ends)
        for name, kind, ends in (
            ("lasts", "recording", 0),
            ("over", "recording", 1_000),
            ("fresh", "recording", 1_001),
            ("said", "transcript", 999),
        )
    ]
    shown = {one.recording_id: one.url for one in still_there(found, 1_000)}

    assert {"lasts": "https://x/lasts", "fresh": "https://x/fresh", "said": ""} == shown


async def test_whoever_is_sent_away_has_a_worthless_token(redis_server: RedisServer) -> None:
    """At RealTimeKit the enrolment goes; a new token enrols again, others stay as they are."""
    async with voice_server(redis_server.url, kind="cloudflare") as rig:
        session = await rig.join("ann", "lobby")
        await rig.join("bob", "lobby")
        service = voice_mint("back end", Role.SERVICE)
        path = "/voice/channels/lobby/leave"
        answer = await rig.ask("POST", path, service, {"userId": "ann"})
        after = (await rig.rooms())[session]
        await rig.token("ann", "lobby")
        again = (await rig.rooms())[session]

        assert (200, True) == (answer.status_code, answer.json()["left"])
        assert (["bob"], ["bob"]) == (after["participants"], after["enrolled"])
        assert ["ann", "bob"] == again["enrolled"]


async def test_presets_of_calls_that_are_transcribed(redis_server: RedisServer) -> None:
    """What their holders say may be written down; of other calls not."""
    async with voice_server(redis_server.url, kind="cloudflare") as rig:
        service = voice_mint("back end", Role.SERVICE)
        await rig.ask("PUT", "/voice/channels/noted/config", service, {"transcription": True})
        for channel in ("lobby", "noted"):
            await rig.token("ann", channel)
        presets = (await rig.sim.truth())["presets"]
        written = {name: rights["transcription_enabled"] for name, rights in presets.items()}

        assert {"voice_p1s1v1r1": False, "voice_p1s1v1r1t1": True} == written


async def test_a_provider_that_mutes_nobody(redis_server: RedisServer) -> None:
    """422, for services alone."""
    async with voice_server(redis_server.url) as rig:
        await rig.join("ann", "lobby")
        path, body = "/voice/channels/lobby/mute", {"userId": "ann"}
        service = voice_mint("back end", Role.SERVICE)
        asked = [
            await rig.http.post(rig.url + path, json=body, headers=bearer(token))
            for token in (service, voice_mint("ann"))
        ]

        assert [(422, "unsupported"), (403, "insufficient_role")] == [
            (answer.status_code, answer.json()["code"]) for answer in asked
        ]


def text_of(rig: VoiceRig, session: str, kind: str, url: str) -> None:
    """The provider has written down what was said."""
    room = rig.sim.sim.world.rooms[session]
    told = Happening(kind, room, room.occupancy, time.time(), text_url=url)
    rig.sim.sim.reports.tell([told])


async def test_what_was_said_is_fetched_and_kept(redis_server: RedisServer) -> None:
    """A transcript and a summary: told, listed, and read after the provider has forgotten them."""
    async with voice_server(redis_server.url, kind="cloudflare") as rig:
        told = news_of(rig)
        session = await rig.join("ann", "lobby")
        source = rig.sim.url + KEY_PATH
        for kind in ("transcript", "summary"):
            text_of(rig, session, kind, source)
            await until_told(rig, told, f"{kind}_ready")
        await rig.until(partial(is_counted, rig, "fetched", 2), "both are fetched")
        service = voice_mint("back end", Role.SERVICE)
        path = "/voice/channels/lobby/recordings"
        listed = (await rig.ask("GET", path, service)).json()["recordings"]
        texts = [
            await rig.ask("GET", f"{path}/{one['recordingId']}/text", service) for one in listed
        ]
        nothing = await rig.ask("GET", f"{path}/transcript-x/text", service)
        content = (await rig.http.get(source)).content

        assert {"transcript", "summary"} == {one["kind"] for one in listed}
        assert all(one["expiresAt"] for one in listed)
        assert [content] * 2 == [one.content for one in texts]
        assert {"text/plain; charset=utf-8"} == {one.headers["content-type"] for one in texts}
        assert 404 == nothing.status_code
        assert (1.0, 1.0, 2.0) == tuple(
            counted(rig, outcome) for outcome in ("transcript", "summary", "fetched")
        )
        assert "" == (await rig.channel("lobby")).record.recording


@pytest.mark.parametrize(("port", "path"), [(0, "/nowhere"), (9, "/")])
async def test_a_text_that_cannot_be_fetched(
    redis_server: RedisServer, port: int, path: str
) -> None:
    """What is not there is given up, with a line in the log; what does not answer is tried again,
    and the call's other chores do not wait for it.
    """
    async with voice_server(redis_server.url, kind="cloudflare", voice_retry=60.0) as rig:
        session = await rig.join("ann", "lobby")
        base = f"http://127.0.0.1:{port}" if port else rig.sim.url
        text_of(rig, session, "transcript", base + path)
        if not port:
            await rig.until(partial(is_counted, rig, "lost"), "it is given up")
            return
        channel = await rig.until_channel("lobby", lambda c: c.record.texts_failed > 0)

        assert 1 == len(channel.record.texts)
        assert channel.record.texts_at > rig.voice.writer.now() + 30_000
        assert 0 == channel.record.retry_at
