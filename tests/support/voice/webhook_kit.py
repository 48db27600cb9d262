"""Whole servers that get webhooks from the stand-in provider, or from a test that can sign them."""

import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import trio

from support.redis_servers import RedisServer
from support.server_kit import Node, running_node
from support.voice import sim_kit
from support.voice.sim_kit import KEY, SECRET, Rig
from syncbridge.voice.channel import Channel
from syncbridge.voice.provider import signatures
from syncbridge.voice.provider.records import SessionRequest
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.voice.assembly import Voice
from syncbridge_tools.rtk_sim.cloudflare_dialect import KEY_PATH
from syncbridge_tools.rtk_sim.reports import iso

KINDS = ("rtk", "cloudflare")
HOOK = "/rtk-webhook"
SECONDS = 20.0


def voice_settings(rig: Rig, kind: str) -> dict[str, Any]:
    """Settings of a server with the stand-in provider."""
    common = {"rtk_api_key": KEY, "access_log": False, "voice_webhook_secrets": SECRET}
    if kind == "rtk":
        return {**common, "rtk_api_url": rig.url}
    return {
        **common,
        "voice_provider": "cloudflare",
        "cloudflare_account_id": "account",
        "rtk_app_id": "app",
        "rtk_api_url": rig.url + "/client/v4",
        "cloudflare_keys_url": rig.url + KEY_PATH,
    }


def standard(
    body: bytes, secret: str = SECRET, delivery_id: str = "", at: float | None = None
) -> dict[str, str]:
    """Headers of Standard Webhooks."""
    delivery_id, stamp = delivery_id or uuid.uuid4().hex, int(time.time() if at is None else at)
    key = signatures.secret_bytes(secret)
    return {
        signatures.ID_HEADER: delivery_id,
        signatures.TIMESTAMP_HEADER: str(stamp),
        signatures.SIGNATURE_HEADER: signatures.sign(key, delivery_id, stamp, body),
    }


def signed(kind: str, body: bytes) -> dict[str, str]:
    """Headers that make a server of this kind believe a body."""
    return standard(body) if kind == "rtk" else {"rtk-signature": sim_kit.signer().sign(body)}


def event(
    kind: str, name: str, session: str, user: str = "", peer: str = "", at: float = 0.0
) -> bytes:
    """A body of either dialect: `joined`, `left`, `ended` or `started`, at Unix seconds."""
    at = at or time.time()
    if kind == "rtk":
        what = "session" if name in ("ended", "started") else "participant"
        body: dict[str, Any] = {
            "type": f"{what}.{name}",
            "sessionId": session,
            "timestamp": at * 1000,
        }
        return json.dumps(body | ({"participantId": user, "peerId": peer} if user else {})).encode()
    names = {"joined": "participantJoined", "left": "participantLeft"}
    meeting = {"id": session, "sessionId": "occupancy", "endedAt": iso(at), "startedAt": iso(at)}
    body = {"event": f"meeting.{names.get(name, name)}", "meeting": meeting}
    if user:
        when = "joinedAt" if name == "joined" else "leftAt"
        body["participant"] = {"peerId": peer, "customParticipantId": user, when: iso(at)}
    return json.dumps(body).encode()


def comings_and_goings(
    rng: random.Random, kind: str, sessions: list[str], users: int, times: Iterable[float]
) -> tuple[list[bytes], dict[str, dict[str, list[str]]]]:
    """Bodies of webhooks in the order in which people come, go and come again, one at each time;
    and who is left: session -> user -> connections, those without any included."""
    bodies: list[bytes] = []
    present: dict[str, dict[str, list[str]]] = {session: {} for session in sessions}
    for number, at in enumerate(times):
        session, user = rng.choice(sessions), f"u{rng.randrange(users)}"
        peers = present[session].setdefault(user, [])
        if peers and rng.random() < 0.6:
            name, peer = "left", peers.pop(rng.randrange(len(peers)))
        else:
            name, peer = "joined", f"p{number}"
            peers.append(peer)
        bodies.append(event(kind, name, session, user, peer, at))
    return bodies, present


@dataclass
class Site:
    """A provider, a Redis, and servers that share it."""

    kind: str
    rig: Rig
    redis: RedisServer
    nodes: list[Node]

    @property
    def voice(self) -> Voice:
        """That of the first node."""
        voice = self.nodes[0].server.voice
        assert voice is not None
        return voice

    async def open(self, channel_id: str, session: str = "") -> str:
        """A channel with a session; at the provider, too, unless its id is given."""
        voice = self.voice
        room = await voice.writer.change(
            channel_id, lambda c, now: c.opening(now, ChannelConfig(), "w")
        )
        if not session:
            made = await voice.provider.create_session(SessionRequest(channel_id), room.key)
            session = made.id
        await voice.channels.note_session(session, channel_id)
        await voice.writer.change(channel_id, lambda c, now: c.opened(session, now))
        return session

    async def report_to(self, node: Node) -> None:
        """Have the provider report to a node."""
        await self.rig.provider(self.kind).register_webhook(node.url + HOOK)

    async def look(self, channel_id: str) -> Channel:
        """A stored channel."""
        return await self.voice.writer.read(channel_id)

    async def users(self, channel_id: str) -> set[str]:
        """Who is in the call."""
        call = (await self.look(channel_id)).call
        return set(call.users) if call is not None else set()

    async def until_users(self, channel_id: str, *users: str) -> None:
        """Wait until these, and nobody else, are in the call."""
        await eventually(lambda: self._are(channel_id, set(users)))

    async def _are(self, channel_id: str, users: set[str]) -> bool:
        return await self.users(channel_id) == users

    async def until_worked_off(self) -> None:
        """Wait until no webhook waits."""
        await eventually(self._nothing_waits)

    async def _nothing_waits(self) -> bool:
        return await self.voice.inbox.waiting() == 0

    async def post(
        self, body: bytes, headers: dict[str, str] | None = None, path: str = HOOK, node: int = 0
    ) -> httpx.Response:
        """A webhook of the test's own; signed well unless `headers` are given."""
        headers = signed(self.kind, body) if headers is None else headers
        url = self.nodes[node].url + path
        return await self.rig.client.post(url, content=body, headers=headers)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait until an asynchronous condition is true; trio.TooSlowError when it stays false."""
    with trio.fail_after(SECONDS):
        while not await check():  # noqa: ASYNC110 - the condition is outside of Trio
            await trio.sleep(0.01)


@asynccontextmanager
async def site(kind: str = "rtk", nodes: int = 1, **values: Any) -> AsyncIterator[Site]:
    """A provider of one kind, and servers on a Redis of their own."""
    async with sim_kit.rig() as rig, AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer(aof=True))
        config = voice_settings(rig, kind) | values
        running = [
            await stack.enter_async_context(running_node(redis.url, **config)) for _ in range(nodes)
        ]
        yield Site(kind, rig, redis, running)
