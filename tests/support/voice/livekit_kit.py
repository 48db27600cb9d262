"""Servers of ours with a real LiveKit behind them, and real clients in it.

async with livekit_site(redis_server.url) as site:
    phone = await site.join("ann", "lobby", "phone")
    await site.until_users("lobby", "ann")
    await phone.leave()
"""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from support.history.faults import Proxy
from support.server_kit import Node, bearer, running_node
from support.voice.livekit_server import KEY, SECRET, LiveKitServer
from support.voice.voice_kit import EVERYTHING, WADDLE, VoiceRig, voice_mint
from syncbridge.voice.channel import Channel
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.records import CannotVerify
from syncbridge.voice.stored import ChannelNews
from syncbridge_server.voice.provider.calling import ProviderCalls, new_client
from syncbridge_server.voice.provider.livekit import LiveKitProvider
from syncbridge_server.voice.provider.livekit_api import LiveKitApi

CLIENT = Path(__file__).with_name("livekit_client.py")
JOIN_S = 30.0
HOOK = "/voice/webhook"


class Clients:
    """A process with real clients in it. `hear` gets each line that they tell, at once.

    Attributes:
        dead: set when the process has ended.
    """

    def __init__(
        self, hear: Callable[[dict[str, Any]], None] | None = None, program: Path | None = None
    ) -> None:
        self._program = program or CLIENT
        self.dead = trio.Event()
        self._process: trio.Process | None = None
        self._rest = b""
        self._turn = trio.Lock()
        self._tell = hear
        self.told: dict[str, list[dict[str, Any]]] = {}
        self._news = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Start the process, and hear what it says until it ends."""
        self._process = await trio.lowlevel.open_process(
            [sys.executable, str(self._program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        task_status.started()
        try:
            assert self._process.stdout is not None
            async for data in self._process.stdout:
                self._hear(data)
        finally:
            self.kill()
            self.dead.set()
            with trio.CancelScope(shield=True):
                await self._process.wait()

    def kill(self) -> None:
        """SIGKILL: nobody says goodbye."""
        assert self._process is not None
        self._process.kill()

    async def say(self, **line: Any) -> None:
        """Lead the clients."""
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._turn:
            await self._process.stdin.send_all(json.dumps(line).encode() + b"\n")

    async def until(self, name: str, *events: str, seconds: float = JOIN_S) -> dict[str, Any]:
        """Wait until a client has told one of these; it is not told again."""
        with trio.fail_after(seconds):
            while True:
                told = self.told.get(name, [])
                for one in told:
                    if one["event"] in events:
                        told.remove(one)
                        return one
                await self._news.wait()

    def _hear(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            one = json.loads(line)
            self.told.setdefault(one["as"], []).append(one)
            if self._tell is not None:
                self._tell(one)
        self._news.set()
        self._news = trio.Event()


@dataclass
class Device:
    """A device in a call. `session`: its room; `sid`: its connection; `token`: its way in."""

    clients: Clients
    name: str
    user: str
    session: str
    sid: str
    token: str = ""

    async def leave(self) -> None:
        """Say goodbye."""
        await self.clients.say(do="leave", **{"as": self.name})
        await self.clients.until(self.name, "left")

    async def until(self, *events: str, seconds: float = JOIN_S) -> dict[str, Any]:
        """Wait until it has told one of these."""
        return await self.clients.until(self.name, *events, seconds=seconds)


@dataclass
class LiveKitSite(VoiceRig):
    """Servers on one Redis, a LiveKit, and processes with clients.

    Attributes:
        gate: what webhooks pass. `blocked`: it lets none pass.
        news: (channel, user, state) of all that sockets were told.
    """

    livekit: LiveKitServer = field(kw_only=True)
    gate: Proxy = field(kw_only=True)
    clients: Clients = field(kw_only=True)
    nursery: trio.Nursery = field(kw_only=True)
    blocked: bool = False
    joined: int = 0
    news: list[tuple[str, str, str]] = field(default_factory=list)

    def hear(self, told: ChannelNews) -> None:
        """Record messages of sockets."""
        for event in told.events:
            self.news.append((told.channel_id, event.get("userId", ""), event.get("state", "")))

    def gone(self, channel: str) -> list[str]:
        """Users reported as having left a channel, in order."""
        return [u for c, u, state in self.news if (c, state) == (channel, "disconnected")]

    def block(self, blocked: bool = True) -> None:
        """Let no webhook pass, those under way included."""
        self.blocked = blocked
        self.gate.cut_all()

    async def more_clients(self, program: Path | None = None) -> Clients:
        """Another process, of `livekit_client` or another such program."""
        clients = Clients(program=program)
        await self.nursery.start(clients.run)
        return clients

    async def let_in(self, user: str, channel: str, device: str, node: int = 0) -> dict[str, Any]:
        """A token for a device, from our server."""
        body = {"waddleId": WADDLE, "channelId": channel}
        token = voice_mint(user, permissions=EVERYTHING)
        headers = {**bearer(token), "x-device-id": device}
        url = self.nodes[node].url + "/api/voice/token"
        answer = await self.http.post(url, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def join_at(
        self,
        user: str,
        channel: str,
        device: str = "phone",
        *,
        clients: Clients | None = None,
        speak: bool = False,
    ) -> Device:
        """Get a token and be in the media, whatever our server has heard of it."""
        let_in = await self.let_in(user, channel, device)
        self.joined += 1
        name, clients = f"{user}/{device}/{self.joined}", clients or self.clients
        await clients.say(
            do="join",
            url=self.livekit.url.replace("http", "ws"),
            token=let_in["token"],
            speak=speak,
            **{"as": name},
        )
        told = await clients.until(name, "joined", "failed")
        assert told["event"] == "joined", told
        return Device(clients, name, user, let_in["sessionId"], told["sid"], let_in["token"])

    async def come(self, user: str, channel: str, device: str = "phone", **more: Any) -> Device:
        """Be in the call, also as our server sees it."""
        came = await self.join_at(user, channel, device, **more)
        await self.until_channel(channel, lambda c: c.call is not None and user in c.call.users)
        return came

    async def until_users(self, channel: str, *users: str, seconds: float = 30.0) -> Channel:
        """Wait until these, and nobody else, are in the call."""

        async def look() -> Channel | None:
            found = await self.channel(channel)
            return found if set(users) == set(found.call.users if found.call else ()) else None

        found: Channel = await self.until(look, f"{users} in {channel}", seconds)
        return found

    async def listed(self, session: str) -> set[str]:
        """Who is in a room, as LiveKit lists it."""
        state = await self.voice.provider.fetch_state(session)
        return set() if isinstance(state, CannotVerify) else {p.user_id for p in state.participants}


@asynccontextmanager
async def livekit_site(
    redis_url: str, *, nodes: int = 1, server: dict[str, Any] | None = None, **values: Any
) -> AsyncIterator[LiveKitSite]:
    """Everything started. `server`: arguments of `LiveKitServer`; `values`: our settings."""
    running: list[Node] = []
    site: list[LiveKitSite] = []

    async def dial() -> trio.SocketStream:
        if site and site[0].blocked:
            raise OSError("blocked")
        return await trio.open_tcp_stream("127.0.0.1", running[0].port)

    gate, clients = Proxy(dial), Clients()
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        await nursery.start(gate.run)
        hook = f"http://127.0.0.1:{gate.port}{HOOK}"
        livekit = LiveKitServer(hook, **(server or {}))
        await trio.to_thread.run_sync(livekit.start)
        stack.callback(livekit.__exit__)
        await nursery.start(clients.run)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=30.0))
        for _ in range(nodes):
            common = {**livekit_settings(livekit), **values}
            running.append(await stack.enter_async_context(running_node(redis_url, **common)))
        site.append(
            LiveKitSite(
                running,
                None,  # type: ignore[arg-type]
                http,
                livekit=livekit,
                gate=gate,
                clients=clients,
                nursery=nursery,
            )
        )
        site[0].voice.channels.on_news(site[0].hear)
        yield site[0]


def livekit_settings(livekit: LiveKitServer) -> dict[str, Any]:
    """Settings of a server with this provider."""
    return {
        "voice_provider": "livekit",
        "livekit_url": livekit.url,
        "livekit_api_key": KEY,
        "livekit_api_secret": SECRET,
        "voice_requests_per_minute": 60_000,
        "voice_request_burst": 10_000,
        "rate_limit_enabled": False,
    }


@asynccontextmanager
async def adapter(
    livekit: LiveKitServer, *, key: str = KEY, url: str = "", **more: Any
) -> AsyncIterator[LiveKitProvider]:
    """The adapter alone. `more`: arguments of `LiveKitProvider`."""
    async with new_client() as client:
        calls = ProviderCalls(client, url or livekit.url, "", RequestBudget(1000, 1000))
        api = LiveKitApi(calls, key, SECRET, time.time)
        yield LiveKitProvider(api, {KEY: SECRET}, **more)
