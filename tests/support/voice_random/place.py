"""The place of a random run: two server processes on one Redis, and the stand-in provider.

The provider runs in the test's own loop and is asked over HTTP by the servers. Its truth is noted
as it happens, in one step with each change. Its webhooks go to a proxy which hands them to a node
that lives, as a load balancer does.
"""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import httpx
import trio

from support.history.faults import Deployment, Proxy
from support.redis_servers import RedisServer
from support.server_kit import Node, Process, bearer
from support.voice import sim_kit
from support.voice.voice_kit import voice_mint
from support.voice_random.truth import Truth
from syncbridge.identity import Role
from syncbridge_server.voice.payload import unbroken
from syncbridge_tools.rtk_sim.reports import Delivery
from syncbridge_tools.rtk_sim.world import Happening, SimRoom, WorldError

SYNC_S = 2.0
SETTINGS = {
    "RTK_API_KEY": sim_kit.KEY,
    "SYNCBRIDGE_VOICE_WEBHOOK_SECRETS": sim_kit.SECRET,
    "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
    "SYNCBRIDGE_VOICE_SYNC": str(SYNC_S),
    "SYNCBRIDGE_VOICE_SYNC_STALE": str(SYNC_S / 4),
    "SYNCBRIDGE_VOICE_DEADLINE": "1",
    "SYNCBRIDGE_VOICE_REQUESTS_PER_MINUTE": "60000",
    "SYNCBRIDGE_VOICE_REQUEST_BURST": "10000",
    "SYNCBRIDGE_VOICE_BREAKER_OPEN": "0.5",
    "SYNCBRIDGE_VOICE_BREAKER_LONGEST": "1",
    "SYNCBRIDGE_VOICE_SEAT": "15",
    "SYNCBRIDGE_VOICE_IDLE_LEFT": "20",
    "SYNCBRIDGE_VOICE_MIGRATION": "10",
    "SYNCBRIDGE_ACCESS_LOG": "false",
}
"""Comparisons come 15 times as often as by default, and all calls are looked at in each."""
WADDLE = "waddle"
ANSWER_S = 8.0
PATIENCE_S = 30.0


class Wrong(NamedTuple):
    """A wrong view of a call. `empty`: nobody is in the call."""

    text: str
    empty: bool


class Nodes(Protocol):
    """Running servers. `nodes`: None for one that is being started."""

    @property
    def nodes(self) -> Sequence[Process | Node | None]: ...

    def port(self, number: int) -> int:
        """Where to send request `number`."""


class Place:
    """Servers, provider, and the truth about who is where.

    Attributes:
        refused: requests for a token that were refused. slowest: seconds from an event to the end
            of the last attempt to report it.
        left_rooms: sessions that calls have moved from, as participants were told, and where to.
    """

    def __init__(self, servers: Nodes, rig: sim_kit.Rig, http: httpx.AsyncClient) -> None:
        self.servers = servers
        self.rig = rig
        self.truth = Truth()
        self.refused = 0
        self.slowest = 0.0
        self.left_rooms: dict[str, str] = {}
        self._moved = trio.Event()
        self._http = http
        self._tokens: dict[str, str] = {}
        self._channels: dict[str, str] = {}
        self._turn = 0
        self._service = voice_mint("operator", Role.ADMIN)
        self._clear = rig.sim.world.clear
        rig.sim.world.clear = self._cleared  # type: ignore[method-assign]
        self._note = rig.sim.reports._note
        rig.sim.reports._note = self._delivered  # type: ignore[method-assign]

    # Users

    async def token(self, user: str, channel: str) -> str | None:
        """The session for which a user gets a token; None when refused."""
        pass_ = self._tokens.setdefault(user, voice_mint(user, waddle=WADDLE))
        body = {"waddleId": WADDLE, "channelId": channel}
        try:
            answer = await self._post("/api/voice/token", body, pass_)
        except (httpx.HTTPError, ZeroDivisionError):
            self.refused += 1
            return None
        assert answer.status_code in (200, 409, 503), answer.text
        if answer.status_code != 200:
            assert "retry-after" in answer.headers, answer.text
            self.refused += 1
            return None
        session = str(answer.json()["sessionId"])
        self._channels[session] = channel
        return session

    def channel_of(self, session: str) -> str:
        """The channel of a session with admitted users."""
        return self._channels[session]

    def join(self, session: str, user: str) -> bool:
        """A user connects at the provider; False when the session is over."""
        return self._move(session, user, came=True)

    def leave(self, session: str, user: str) -> bool:
        """A user's connections end; False when the session is over."""
        return self._move(session, user, came=False)

    def _move(self, session: str, user: str, *, came: bool) -> bool:
        world, now = self.rig.sim.world, time.time()
        try:
            room = world.find(session)
            happened = (world.join if came else world.leave)(room, user, now)
        except WorldError:
            return False
        note = self.truth.came if came else self.truth.went
        note(self._channels[session], session, user, now)
        self.rig.sim.reports.tell(happened)
        return True

    def _cleared(self, room: SimRoom, now: float) -> list[Happening]:
        """Note that the service has ended a room."""
        channel = self._channels.get(room.id, "")
        moved = any(self._follows(name, room) for name in self._channels)
        for peer in room.present:
            self.truth.evicted.append((now, room.id, peer.user_id, moved))
            self.truth.went(channel, room.id, peer.user_id, now)
        return self._clear(room, now)

    def _follows(self, session: str, room: SimRoom) -> bool:
        """Whether the call of a room may have moved to a session: of its channel, and younger."""
        if self._channels[session] != self._channels.get(room.id, ""):
            return False
        return self.rig.sim.world.rooms[session].created_at > room.created_at

    def _delivered(self, delivery: Delivery, outcome: str) -> None:
        happened = json.loads(delivery[1])["timestamp"] / 1000
        self.slowest = max(self.slowest, time.time() - happened)
        self._note(delivery, outcome)

    async def reported(self) -> None:
        """Wait until the provider has reported everything."""
        queue = self.rig.sim.reports._receive
        with trio.fail_after(60):
            while not queue.statistics().tasks_waiting_receive:  # noqa: ASYNC110 - no word for it
                await trio.sleep(0.05)

    # Migrations

    async def migrate(self, channel: str) -> bool:
        """Migrate a call; True when its participants were told to rejoin."""
        try:
            answer = await self._post(f"/voice/channels/{channel}/migrate", {}, self._service)
        except httpx.HTTPError:
            return False
        assert answer.status_code in (200, 404, 409, 503), answer.text
        return answer.status_code == 200

    def told_session(self, channel: str, session: str) -> None:
        """Note the session of a call that devices were told: users in an older one must follow."""
        rooms = self.rig.sim.world.rooms
        self._channels.setdefault(session, channel)
        for old in self._channels.keys() - self.left_rooms.keys():
            if self._follows(session, rooms[old]):
                self._left(old, session)

    def _left(self, old: str, new: str) -> None:
        self.left_rooms[old] = new
        self.truth.moved(old, time.time())
        self._moved.set()
        self._moved = trio.Event()

    async def moves(self, session: str, over: trio.Event) -> bool:
        """Wait until participants of a session were told to come over; False: until `over`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at, over, nursery.cancel_scope)
            while session not in self.left_rooms:
                await self._moved.wait()
            nursery.cancel_scope.cancel()
        return session in self.left_rooms

    # What is shown

    async def wrong(self, channel: str, node: int) -> Wrong | None:
        """How a node's view of a call differs from the truth; None if it does not."""
        body = (await self._get(f"/voice/channels/{channel}", node)).json()
        shown = {person["userId"] for person in body["participants"]}
        session = body["session"]["sessionId"] if body["session"] else ""
        room = self.rig.sim.world.rooms.get(session)
        true = {peer.user_id for peer in room.present} if room else set()
        if shown == true:
            return None
        state = "unknown" if room is None else "ended" if room.ended else "open"
        text = (
            f"{channel}: not there {sorted(shown - true)}, not shown {sorted(true - shown)},"
            f" there {sorted(true)}; {session} is {state} at the provider; {body}"
        )
        return Wrong(text, not true)

    async def migrates(self, channel: str) -> bool:
        """Whether a migration is under way, perhaps to be continued by another node."""
        body = (await self._get(f"/voice/channels/{channel}", 0)).json()
        move = body["migration"]
        return bool(body["session"] and move) and move["result"] in ("opening", "moving")

    async def ready(self) -> None:
        """Wait until each node has Redis again: what broke last may have been their connection."""
        for process in self.servers.nodes:
            assert process is not None
            probe = f"{process.url}/health/ready"
            while (await self._http.get(probe)).status_code != 200:  # noqa: ASYNC110 - a process
                await trio.sleep(0.05)

    async def passes(self) -> int:
        """How many whole comparisons both nodes have made since they were started."""
        found = 0
        for node in (0, 1):
            lines = (await self._get("/metrics", node)).text.splitlines()
            name = 'syncbridge_voice_sync_passes_total{result="verified"}'
            found += sum(int(float(line.split()[-1])) for line in lines if line.startswith(name))
        return found

    async def _get(self, path: str, node: int) -> httpx.Response:
        process = self.servers.nodes[node]
        assert process is not None
        url, headers = process.url + path, bearer(self._service)
        with trio.fail_after(PATIENCE_S):
            answer = await self._http.get(url, headers=headers)
            while answer.status_code == 503:  # as any caller
                await trio.sleep(float(answer.headers["retry-after"]))
                answer = await self._http.get(url, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    async def _post(self, path: str, body: dict[str, str], token: str) -> httpx.Response:
        """A request to the servers in turns."""
        self._turn += 1
        request = self._http.build_request(
            "POST", self._url(self._turn) + path, json=body, headers=bearer(token)
        )
        return await self._http.send(unbroken(request))

    def _url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.servers.port(number)}"


class Deployed(Place):
    """A place with server processes that can be killed."""

    def __init__(self, deployment: Deployment, rig: sim_kit.Rig, http: httpx.AsyncClient) -> None:
        super().__init__(deployment, rig, http)
        self.deployment = deployment


async def cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    """Cancel a scope when an event happens."""
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def place(redis: RedisServer, tmp_path: Path, **more: str) -> AsyncIterator["Deployed"]:
    """Start everything. `more`: settings, by the names of their variables."""
    deployments: list[Deployment] = []

    async def dial() -> trio.SocketStream:
        living = [node for node in (deployments[0].nodes if deployments else []) if node]
        if not living:
            raise OSError("no node lives")
        return await trio.open_tcp_stream("127.0.0.1", living[-1].port)

    gate = Proxy(dial)
    async with sim_kit.rig() as rig, trio.open_nursery() as nursery:
        await nursery.start(gate.run)
        variables: dict[str, Any] = {
            **SETTINGS,
            "RTK_API_URL": rig.url,
            "WORKER_URL": f"http://127.0.0.1:{gate.port}",
            **more,
        }
        async with (
            Deployment.open(redis, tmp_path, **variables) as deployment,
            httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as http,
        ):
            deployments.append(deployment)
            yield Deployed(deployment, rig, http)
        nursery.cancel_scope.cancel()
