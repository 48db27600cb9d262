"""LiveKit's webhooks over HTTP: what is believed and answered, and what is kept of it.

No LiveKit is asked: the bodies are those that a real one sends, signed here.
"""

import base64
import gzip
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest

from support.redis_servers import RedisServer
from support.server_kit import Node, running_node
from support.voice.livekit_server import KEY, SECRET
from syncbridge.voice.channel import Channel
from syncbridge.voice.records import ChannelConfig

OLD = "an-old-secret-of-livekit-of-32-bytes"
PASSWORD = "XnHq-live-credential"
SETTINGS: dict[str, Any] = {
    "voice_provider": "livekit",
    "livekit_url": "http://127.0.0.1:9",
    "livekit_api_key": KEY,
    "livekit_api_secret": SECRET,
    "livekit_webhook_keys": f"old:{OLD}",
    "voice_sync": 86_000.0,
    "access_log": False,
}
SESSION = "waddle_lobby_1_1"


def event(kind: str, **more: Any) -> bytes:
    """A body as LiveKit writes it, with blanks where it likes."""
    room = {"sid": "RM_1", "name": SESSION, "turnPassword": PASSWORD}
    whole = {"event": kind, "room": room, "createdAt": str(int(time.time())), **more}
    return json.dumps(whole, separators=(", ", ":")).encode()


def joined(delivery: str = "EV_1", user: str = "ann") -> bytes:
    participant = {"sid": f"PA_{user}", "identity": f"{user}:phone", "state": "ACTIVE"}
    return event("participant_joined", participant=participant, id=delivery)


def signed(body: bytes, key: str = KEY, secret: str = SECRET, age: float = 0.0) -> dict[str, str]:
    """The headers of a delivery."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    at = int(time.time() - age)
    claims = {"iss": key, "nbf": at, "iat": at, "exp": at + 300, "sha256": digest}
    return {
        "authorization": jwt.encode(claims, secret, "HS256"),
        "content-type": "application/webhook+json",
    }


async def post(node: Node, body: bytes, headers: dict[str, str]) -> httpx.Response:
    async with node.http() as http:
        return await http.post("/rtk-webhook", content=body, headers=headers)


async def open_lobby(node: Node) -> None:
    """A live channel, as if LiveKit had opened its room."""
    voice = node.server.voice
    assert voice is not None

    def rule(channel: Channel, now: int) -> None:
        room = channel.opening(now, ChannelConfig(), "w")
        channel.opened(SESSION, now, room.key)

    await voice.channels.note_session(SESSION, "lobby")
    await voice.writer.change("lobby", rule)


async def users(node: Node) -> tuple[str, ...]:
    """Who is in the call when all that waits has taken effect."""
    voice = node.server.voice
    assert voice is not None
    await voice.worker.step()
    call = (await voice.writer.read("lobby")).call
    return call.users if call is not None else ()


@pytest.mark.parametrize(("key", "secret"), [(KEY, SECRET), ("old", OLD)])
async def test_what_a_key_of_ours_signed_takes_effect(
    redis_server: RedisServer, key: str, secret: str
) -> None:
    """Once, however often it comes; what says nothing to us is answered alike."""
    async with running_node(redis_server.url, **SETTINGS) as node:
        await open_lobby(node)
        bodies = [joined(), joined(), event("room_started", id="EV_0")]
        answers = [await post(node, body, signed(body, key, secret)) for body in bodies]

        assert [200] * 3 == [answer.status_code for answer in answers]
        assert ("ann",) == await users(node)


REFUSED: dict[str, tuple[Callable[[], dict[str, str]], str]] = {
    "not signed": (dict, "missing"),
    "another key": (lambda: signed(b"", "stranger"), "mismatch"),
    "another body": (lambda: signed(b"{}"), "mismatch"),
    "another secret": (lambda: signed(joined(), KEY, OLD), "mismatch"),
    "nonsense": (lambda: {"authorization": "Bearer x"}, "malformed"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_all_else_is_refused(redis_url: str, case: str) -> None:
    """With 401 and the reason; nobody is in the call by it."""
    headers, reason = REFUSED[case]
    async with running_node(redis_url, **SETTINGS) as node:
        answer = await post(node, joined(), headers())

        assert (401, reason) == (answer.status_code, answer.json()["reason"])


async def test_what_was_signed_long_ago_is_refused(redis_url: str) -> None:
    """Whoever has listened cannot send it again."""
    async with running_node(redis_url, **SETTINGS) as node:
        body = joined()
        answer = await post(node, body, signed(body, age=400.0))

        assert (401, "stale") == (answer.status_code, answer.json()["reason"])


async def test_a_credential_in_a_body_is_not_kept(redis_server: RedisServer) -> None:
    """Neither while it waits, nor in a dead letter for operators."""
    async with running_node(redis_server.url, **SETTINGS) as node:
        voice = node.server.voice
        assert voice is not None
        body = event("participant_joined", participant="nobody", id="EV_2")
        assert PASSWORD.encode() in body
        answer = await post(node, body, signed(body))
        await users(node)
        letters, _ = await voice.inbox.dead(10)
        with redis_server.client() as client:
            kept = b"".join(repr(client.dump(name)).encode() for name in client.keys("*"))

        assert (200, ["EV_2"]) == (answer.status_code, [one.delivery_id for one in letters])
        assert letters[0].reason.startswith("unreadable: participant")
        assert PASSWORD.encode() not in letters[0].body + kept


@pytest.mark.parametrize("coded_first", [True, False])
async def test_of_a_coded_body_no_password_is_kept_either(
    redis_server: RedisServer, coded_first: bool
) -> None:
    """Whether the coded bytes are signed or the plain ones; it is kept without its coding."""
    async with running_node(redis_server.url, **SETTINGS) as node:
        voice = node.server.voice
        assert voice is not None
        body = event("participant_joined", participant="nobody", id="EV_2")
        coded = gzip.compress(body)
        headers = signed(coded if coded_first else body) | {"content-encoding": "gzip"}
        answer = await post(node, coded, headers)
        await users(node)
        [letter], _ = await voice.inbox.dead(10)

        assert 200 == answer.status_code
        assert body.replace(PASSWORD.encode(), b"") == letter.body
