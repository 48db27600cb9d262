"""Whole servers with voice: real HTTP, a real Redis of their own, the real stand-in provider.

    async with voice_server(redis_server.url) as rig:
        answer = await rig.token("ann", "lobby")
        await rig.sim.move(answer["sessionId"], "ann")
        await rig.until_channel("lobby", lambda channel: channel.call.users == ("ann",))

The due channels of one Redis are everybody's: give each test a Redis of its own (`redis_server`).
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import trio

from support.redis_servers import free_port
from support.server_kit import Node, bearer, running_node, settings
from support.voice import sim_kit
from syncbridge.identity import Role, VoiceGrant
from syncbridge.voice.channel import Channel
from syncbridge.voice.records import Final
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.voice.assembly import Voice
from syncbridge_tools.rtk_sim.cloudflare_dialect import KEY_PATH

DEADLINE = 60.0
REGISTERED_S = 5.0
WADDLE = "waddle"
EVERYTHING = ("speak", "stream", "video", "record")


def voice_mint(
    user: str,
    role: Role = Role.USER,
    *,
    waddle: str = "*",
    channel: str = "*",
    permissions: tuple[str, ...] = ("speak",),
    session: str = "",
    device: str = "",
) -> str:
    """An access token with a voice grant."""
    tokens, _ = build_tokens(settings("unix:///nowhere"))
    voice = (VoiceGrant(waddle, channel, permissions),)
    return tokens.mint_access(Grant(user, role, session, device, voice), time.time(), 900.0)[0]


def voice_settings(sim_url: str, kind: str = "rtk", worker_url: str = "") -> dict[str, Any]:
    """Settings of a server with a stand-in provider.

    `kind`: one of `sim_kit.KINDS`; `rtk` asks for tokens, `rtk-minted` signs them.
    """
    common: dict[str, Any] = {
        "rtk_api_key": sim_kit.KEY,
        "worker_url": worker_url,
        "voice_deadline": 2.0,
        "voice_requests_per_minute": 60_000,
        "voice_request_burst": 10_000,
        "rate_limit_enabled": False,
    }
    if kind == "cloudflare":
        return common | {
            "voice_provider": "cloudflare",
            "cloudflare_account_id": "account",
            "rtk_app_id": "app",
            "rtk_api_url": f"{sim_url}/client/v4",
            "cloudflare_keys_url": sim_url + KEY_PATH,
        }
    secret = "rtk_secret_key" if kind == "rtk-minted" else "voice_webhook_secrets"
    return common | {"rtk_api_url": sim_url, secret: sim_kit.SECRET}


@dataclass
class VoiceRig:
    """Servers on one Redis, and their provider."""

    nodes: list[Node]
    sim: sim_kit.Rig
    http: httpx.AsyncClient

    @property
    def node(self) -> Node:
        """The first server."""
        return self.nodes[0]

    @property
    def url(self) -> str:
        """Base URL of the first server; the provider's webhooks go there."""
        return self.node.url

    @property
    def voice(self) -> Voice:
        """Voice of the first server."""
        assert self.node.server.voice is not None
        return self.node.server.voice

    async def ask(
        self, method: str, path: str, token: str, body: Any = None, node: int = 0
    ) -> httpx.Response:
        """A request to a server."""
        url = self.nodes[node].url + path
        return await self.http.request(method, url, json=body, headers=bearer(token))

    async def ask_token(
        self, user: str, channel: str, waddle: str = WADDLE, node: int = 0
    ) -> httpx.Response:
        """`POST /api/voice/token` for a user with all permissions."""
        body = {"waddleId": waddle, "channelId": channel}
        token = voice_mint(user, permissions=EVERYTHING)
        return await self.ask("POST", "/api/voice/token", token, body, node)

    async def token(self, user: str, channel: str, node: int = 0) -> dict[str, Any]:
        """A voice token that must be given out."""
        answer = await self.ask_token(user, channel, node=node)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def join(self, user: str, channel: str, node: int = 0) -> str:
        """Get a token, connect at the provider, and be in the call here; the session.

        Again when the session had ended because nobody came: where that takes a second only, a busy
        machine may bring the news of the user too late.
        """
        while True:
            session = str((await self.token(user, channel, node))["sessionId"])
            await self.sim.move(session, user)

            def seen_or_ended(found: Channel, session: str = session) -> bool:
                return not found.holds(session) or (
                    found.call is not None and user in found.call.users
                )

            if (await self.until_channel(channel, seen_or_ended)).holds(session):
                return session

    async def channel(self, channel_id: str) -> Channel:
        """A stored channel."""
        return await self.voice.writer.read(channel_id)

    async def finals(self, channel_id: str) -> list[Final]:
        """Calls of a channel that have ended, the latest first."""
        return await self.voice.channels.finals(channel_id, 10)

    async def until(
        self, condition: Callable[[], Awaitable[Any]], what: str, seconds: float = DEADLINE
    ) -> Any:
        """The first true answer of a condition; AssertionError when there is none in time."""
        with trio.move_on_after(seconds):
            while True:
                if found := await condition():
                    return found
                await trio.sleep(0.02)
        raise AssertionError(f"not in {seconds} s: {what}")

    async def until_channel(
        self, channel_id: str, condition: Callable[[Channel], bool], what: str = "the channel"
    ) -> Channel:
        """The channel, as soon as a condition holds for what is stored of it."""

        async def look() -> Channel | None:
            channel = await self.channel(channel_id)
            return channel if condition(channel) else None

        found: Channel = await self.until(look, what)
        return found

    async def told_of_us(self) -> bool:
        """Whether the provider knows where webhooks go; before that it sends none."""
        registration = self.voice.registration
        return registration is None or await registration.done()

    async def rooms(self) -> dict[str, Any]:
        """Every room that the provider has, by id."""
        rooms: dict[str, Any] = (await self.sim.truth())["rooms"]
        return rooms


@asynccontextmanager
async def voice_server(
    redis_url: str, *, nodes: int = 1, kind: str = "rtk", **values: Any
) -> AsyncIterator[VoiceRig]:
    """`nodes` servers on one Redis, all with the same provider. `values`: settings."""
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(sim_kit.rig())
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=30.0))
        # The provider has to know our addresses before we listen.
        ports = [free_port() for _ in range(nodes)]
        common = voice_settings(sim.url, kind, f"http://127.0.0.1:{ports[0]}") | values
        running = [
            await stack.enter_async_context(
                running_node(redis_url, server_addr=f"127.0.0.1:{port}", **common)
            )
            for port in ports
        ]
        rig = VoiceRig(running, sim, http)
        with trio.move_on_after(REGISTERED_S):
            await rig.until(rig.told_of_us, "the registration")
        yield rig
