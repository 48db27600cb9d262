"""The stand-in voice provider in the test's own Trio loop, adapters to it, and a webhook inbox."""

import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import httpx
import trio
from prometheus_client import CollectorRegistry

from syncbridge.voice.provider.breaker import Breaker, BreakerLimits
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.figures.metrics import voice_metrics
from syncbridge_server.voice.provider.calling import ProviderCalls, new_client
from syncbridge_server.voice.provider.cloudflare import CloudflareProvider, base_url
from syncbridge_server.voice.provider.guarded import GuardedProvider
from syncbridge_server.voice.provider.rsa_signatures import RsaSignatures
from syncbridge_server.voice.provider.rtk import RtkProvider
from syncbridge_tools.rtk_sim.app import new_sim, running
from syncbridge_tools.rtk_sim.cloudflare_dialect import KEY_PATH
from syncbridge_tools.rtk_sim.handling import Sim
from syncbridge_tools.rtk_sim.reports import RsaSigner

KEY = "sim-key"
SECRET = "sim-secret-that-is-longer-than-32-bytes"
KINDS = ("rtk", "rtk-minted", "cloudflare")
GUARDED = "guarded"
"""The first kind with a circuit breaker around it."""
signer = cache(RsaSigner)


@dataclass
class Rig:
    """A running stand-in, an HTTP client, and the truth."""

    sim: Sim
    url: str
    client: httpx.AsyncClient

    def provider(
        self, kind: str, key: str = KEY, budget: RequestBudget | None = None, deadline: float = 2.0
    ) -> VoiceProvider:
        """An adapter of one kind."""
        if kind == GUARDED:
            return self.guarded(self.provider("rtk", key, budget, deadline))
        make = partial(ProviderCalls, self.client, deadline=deadline)
        budget = budget or RequestBudget(1000, 1000)
        if kind == "cloudflare":
            base = base_url("account", "app", f"{self.url}/client/v4")
            keys = RsaSignatures(self.client, self.url + KEY_PATH)
            return CloudflareProvider(make(base_url=base, key=key, budget=budget), keys)
        calls = make(base_url=self.url, key=key, budget=budget)
        return RtkProvider(calls, SECRET if kind == "rtk-minted" else "", [SECRET])

    def guarded(
        self, provider: VoiceProvider, limits: BreakerLimits | None = None, **more: Any
    ) -> GuardedProvider:
        """Breakers of its own around a provider."""
        changes, reads = (Breaker(limits or BreakerLimits(), random.random) for _ in "12")
        metrics = voice_metrics(CollectorRegistry()).provider
        return GuardedProvider(provider, changes, reads, metrics, **more)

    async def post(self, path: str, body: Any) -> httpx.Response:
        """A request to `/sim/*` that must succeed."""
        response = await self.client.post(self.url + path, json=body)
        assert response.status_code == 200, response.text
        return response

    async def faults(self, **faults: Any) -> None:
        """Switch faults on."""
        await self.post("/sim/faults", faults)

    async def move(self, session: str, user: str, action: str = "join") -> None:
        """A user joins or leaves."""
        await self.post("/sim/participants", {"session": session, "user": user, "action": action})

    async def truth(self) -> Any:
        """What `/sim/state` says."""
        return (await self.client.get(self.url + "/sim/state")).json()


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """A stand-in provider of its own for a test."""
    sim = new_sim(KEY, SECRET, signer=signer())
    async with running(sim) as url, new_client() as client:
        yield Rig(sim, url, client)


@dataclass
class Inbox:
    """A web server that takes webhooks. `answers`: statuses to give first; then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    _send: Any = None
    _receive: Any = None

    async def next(self) -> tuple[Mapping[str, str], bytes]:
        """The headers and the body of the next webhook."""
        with trio.fail_after(5):
            return await self._receive.receive()  # type: ignore[no-any-return]


@asynccontextmanager
async def inbox() -> AsyncIterator[Inbox]:
    """An inbox on loopback, which reads one request per connection."""
    box = Inbox()
    box._send, box._receive = trio.open_memory_channel[Any](1000)

    async def take(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(65_536)
            head, _, body = data.partition(b"\r\n\r\n")
            lines = [line.partition(":") for line in head.decode().split("\r\n")[1:]]
            headers = {name.lower(): value.strip() for name, _, value in lines}
            while len(body) < int(headers["content-length"]):
                body += await stream.receive_some(65_536)
            await box._send.send((headers, body))
            status = box.answers.pop(0) if box.answers else 200
            await stream.send_all(
                b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status
            )

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, take, 0, host="127.0.0.1"))
        box.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/rtk-webhook"
        yield box
        nursery.cancel_scope.cancel()


def kind_of(body: bytes) -> str:
    """The event name in either dialect."""
    document = json.loads(body)
    return str(document.get("type") or document["event"])
