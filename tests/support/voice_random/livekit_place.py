"""A random run on a real LiveKit: two server processes on one Redis, real clients, and the truth.

The truth is what the clients themselves say: a device is in a room from when it has joined until
it has left, was sent away, gave up, or its process was killed. While it tries to come back it is
there. Webhooks pass a gate that hands them to a node that lives, refuses them, or loses them for
good: for LiveKit that is an answer of 400.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
import trio

from support.history.faults import Deployment, Proxy
from support.redis_servers import RedisServer
from support.server_kit import bearer
from support.voice.livekit_kit import HOOK, Clients, adapter
from support.voice.livekit_server import KEY, SECRET, LiveKitServer
from support.voice.voice_kit import voice_mint
from support.voice_random.people import Events
from support.voice_random.truth import Truth
from syncbridge.identity import Role
from syncbridge.voice.provider import errors
from syncbridge.voice.provider.records import CannotVerify, VerifyFailure
from syncbridge_server.voice.payload import unbroken
from syncbridge_server.voice.provider.livekit import LiveKitProvider

SYNC_S = 0.5
WADDLE = "waddle"
ANSWER_S = 8.0
LOST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
POOLS = 2
SETTINGS = {
    "SYNCBRIDGE_VOICE_PROVIDER": "livekit",
    "SYNCBRIDGE_LIVEKIT_API_KEY": KEY,
    "SYNCBRIDGE_LIVEKIT_API_SECRET": SECRET,
    "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
    "SYNCBRIDGE_VOICE_SYNC": str(SYNC_S),
    "SYNCBRIDGE_VOICE_SYNC_STALE": str(SYNC_S / 4),
    "SYNCBRIDGE_VOICE_REQUESTS_PER_MINUTE": "60000",
    "SYNCBRIDGE_VOICE_REQUEST_BURST": "10000",
    "SYNCBRIDGE_VOICE_BREAKER_OPEN": "0.2",
    "SYNCBRIDGE_VOICE_BREAKER_LONGEST": "0.4",
    "SYNCBRIDGE_VOICE_SEAT": "15",
    "SYNCBRIDGE_VOICE_IDLE_LEFT": "120",
    "SYNCBRIDGE_VOICE_MIGRATION": "15",
    "SYNCBRIDGE_ACCESS_LOG": "false",
}
"""Comparisons come 60 times as often as by default, and all calls are looked at in each."""


class Gate(Enum):
    """Passes, refuses or drops webhooks."""

    OPEN = "open"
    REFUSED = "refused"
    LOST = "lost"


@dataclass
class Seat:
    """A device in a room. `gone` is set when it has left, for any reason."""

    name: str
    user: str
    channel: str
    session: str
    clients: Clients
    joined: bool = False
    gone: trio.Event = field(default_factory=trio.Event)


class LiveKitPlace:
    """Servers, LiveKit, clients, and the truth about who is where.

    Attributes:
        refused: refused tokens and failed joins.
        left_rooms: sessions that calls have moved from, and where to.
        shut_out: devices that were sent away although nothing was done to their room.
    """

    def __init__(
        self,
        servers: Deployment,
        livekit: LiveKitServer,
        provider: LiveKitProvider,
        http: httpx.AsyncClient,
        events: Events,
        nursery: trio.Nursery,
        cut: Callable[[], None],
    ) -> None:
        self.servers = servers
        self._cut = cut
        self.livekit = livekit
        self.provider = provider
        self.events = events
        self.truth = Truth()
        self.gate = Gate.OPEN
        self.refused = 0
        self.left_rooms: dict[str, str] = {}
        self.shut_out: list[str] = []
        self.pools: list[Clients] = []
        self.seats: dict[str, Seat] = {}
        self._http = http
        self._nursery = nursery
        self._devices: Counter[tuple[str, str]] = Counter()
        self._sessions: dict[str, list[str]] = {}
        self._deleted: set[str] = set()
        self._killed_at = 0.0
        self._moved = trio.Event()
        self._number = 0

    # Devices

    async def start_pool(self) -> Clients:
        """A process of clients."""
        clients = Clients(self._hear)
        await self._nursery.start(clients.run)
        return clients

    async def come(self, user: str, device: str, channel: str, pool: int) -> Seat | None:
        """Get a token and join; None when the user is refused, or it fails."""
        token = await self._token(user, device, channel)
        if token is None:
            return None
        self._number += 1
        seat = Seat(
            f"{user}/{device}/{self._number}", user, channel, token["sessionId"], self.pools[pool]
        )
        self.seats[seat.name] = seat
        url = self.livekit.url.replace("http", "ws")
        line = {"do": "join", "as": seat.name, "url": url, "token": token["token"], "speak": False}
        with suppress(trio.BrokenResourceError):
            await seat.clients.say(**line)
        return seat if await self._told(seat, "joined", "failed") == "joined" else None

    async def leave(self, seat: Seat) -> None:
        """Leave the room."""
        if not seat.gone.is_set():
            self._went(seat)
            with suppress(trio.BrokenResourceError):
                await seat.clients.say(do="leave", **{"as": seat.name})
                await self._told(seat, "left")
            self.events.note("left")

    async def _told(self, seat: Seat, *wanted: str) -> str:
        """A client's reports on these devices; empty when its process has ended."""
        found = [""]

        async def wait(scope: trio.CancelScope) -> None:
            found[0] = (await seat.clients.until(seat.name, *wanted, seconds=90.0))["event"]
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, nursery.cancel_scope)
            await seat.clients.dead.wait()
            nursery.cancel_scope.cancel()
        return found[0]

    def _hear(self, line: dict[str, Any]) -> None:
        """Handle a client's report as it arrives."""
        seat = self.seats[line["as"]]
        match line["event"]:
            case "joined" if not seat.gone.is_set():
                seat.joined = True
                self._devices[seat.session, seat.user] += 1
                self.truth.came(seat.channel, seat.session, seat.user, time.time())
                self.events.note("joined")
            case "failed":
                self.refused += 1
                seat.gone.set()
            case "back":
                self.events.note("came back")
            case "dropped" if not seat.gone.is_set():
                self.events.note("dropped")
                self._went(seat)
                if not self._excused(seat):
                    self.shut_out.append(f"{seat.name} out of {seat.session}: {line}")

    def _excused(self, seat: Seat) -> bool:
        """Whether something was done to a device's room, or to LiveKit."""
        over = seat.session in self._deleted or seat.session in self.left_rooms
        return over or time.time() - self._killed_at < 60.0

    def _went(self, seat: Seat) -> None:
        seat.gone.set()
        if not seat.joined:
            return
        self._devices[seat.session, seat.user] -= 1
        if not self._devices[seat.session, seat.user]:
            self.truth.went(seat.channel, seat.session, seat.user, time.time())

    async def _token(self, user: str, device: str, channel: str) -> dict[str, Any] | None:
        body = {"waddleId": WADDLE, "channelId": channel}
        token = voice_mint(user, waddle=WADDLE)
        try:
            answer = await self._post("/api/voice/token", body, token, {"x-device-id": device})
        except (httpx.HTTPError, ZeroDivisionError):
            self.refused += 1
            return None
        assert answer.status_code in (200, 409, 503), answer.text
        if answer.status_code != 200:
            self.refused += 1
            return None
        document: dict[str, Any] = answer.json()
        self._note_session(channel, document["sessionId"])
        return document

    # Deeds

    def pass_webhooks(self, gate: Gate) -> None:
        """Let them pass or not from now on, those under way included."""
        self.gate = gate
        self._cut()

    async def kill_clients(self, pool: int) -> None:
        """SIGKILL a process with clients, and start another one."""
        clients = self.pools[pool]
        clients.kill()
        for seat in self.seats.values():
            if seat.clients is clients and not seat.gone.is_set():
                self._went(seat)
        await clients.dead.wait()
        self.pools[pool] = await self.start_pool()

    async def kill_livekit(self) -> None:
        """SIGKILL; it returns after a second without any room."""
        self._killed_at = time.time()
        await trio.to_thread.run_sync(self.livekit.kill)
        await trio.sleep(1.0)
        await trio.to_thread.run_sync(self.livekit.start)
        self._killed_at = time.time()

    async def delete_room(self, channel: str) -> None:
        """Delete a room at LiveKit. Its users count as gone before their clients report it."""
        for session in self._sessions.get(channel, [])[-1:]:
            self._deleted.add(session)
            for user in self.there(session):
                self.truth.went(channel, session, user, time.time())
            with suppress(errors.ProviderError):
                await self.provider.end_session(session)

    async def migrate(self, channel: str) -> bool:
        """Migrate a call; True when its participants were told to rejoin."""
        with suppress(httpx.HTTPError):
            path = f"/voice/channels/{channel}/migrate"
            answer = await self._post(path, {}, operator(), {})
            assert answer.status_code in (200, 404, 409, 503), answer.text
            return answer.status_code == 200
        return False

    def told_session(self, channel: str, session: str) -> None:
        """Note the session of a call that devices were told: users in an older one must follow."""
        for old in self._note_session(channel, session):
            if old not in self.left_rooms:
                self.left_rooms[old] = session
                self.truth.moved(old, time.time())
        self._moved.set()
        self._moved = trio.Event()

    async def until_moved(self, seat: Seat) -> None:
        """Wait until the users in a device's room were told to follow."""
        while seat.session not in self.left_rooms:
            await self._moved.wait()

    def _note_session(self, channel: str, session: str) -> list[str]:
        """Remember a session of a channel; those that are older than it."""
        known = self._sessions.setdefault(channel, [])
        if session not in known:
            known.append(session)
            known.sort(key=lambda name: int(name.rsplit("_", 1)[1]))
        return known[: known.index(session)]

    # What is shown

    async def calm(self, seconds: float) -> None:
        """Wait until LiveKit lists in each room the users who are there, and no others."""
        until = trio.current_time() + seconds
        while wrong := [w for s in self.sessions() if (w := await self._differs(s))]:
            assert trio.current_time() < until, "\n".join(wrong)
            await trio.sleep(0.5)

    def sessions(self) -> list[str]:
        """Rooms with admitted users."""
        return sorted({seat.session for seat in self.seats.values()})

    def there(self, session: str) -> set[str]:
        """Users with a device in a room."""
        return {user for (room, user), count in self._devices.items() if room == session and count}

    async def _differs(self, session: str) -> str:
        state = await self.provider.fetch_state(session)
        if isinstance(state, CannotVerify):
            listed: set[str] = set()
            if state.doubt is not VerifyFailure.EMPTY:
                return f"{session}: {state}"
        else:
            listed = {one.user_id for one in state.participants}
        true = self.there(session)
        ours = f"not there {sorted(listed - true)}, not listed {sorted(true - listed)}"
        return f"{session}: {ours}; {state}" if listed != true else ""

    async def wrong(self, channel: str, node: int) -> str:
        """How a node's view of a call differs from the truth; empty if it does not."""
        body = (await self._get(f"/voice/channels/{channel}", node)).json()
        shown = {person["userId"] for person in body["participants"]}
        session = body["session"]["sessionId"] if body["session"] else ""
        true = self.there(session)
        if shown == true:
            return ""
        ghosts, missed = sorted(shown - true), sorted(true - shown)
        return f"{channel} on node {node}: not there {ghosts}, not shown {missed}; {body}"

    async def migrates(self, channel: str) -> bool:
        """Whether a migration is under way."""
        body = (await self._get(f"/voice/channels/{channel}", 0)).json()
        move = body["migration"]
        return bool(body["session"] and move) and move["result"] in ("opening", "moving")

    async def ready(self) -> None:
        """Wait until each node has Redis again."""
        for process in self.servers.nodes:
            assert process is not None
            probe = f"{process.url}/health/ready"
            while (await self._http.get(probe)).status_code != 200:  # noqa: ASYNC110 - a process
                await trio.sleep(0.05)

    async def passes(self) -> int:
        """How many comparisons both nodes have made since they were started, whatever came of it:
        without any room with people in it the list says nothing, and looks are made all the same.
        """
        found = 0
        for node in (0, 1):
            for line in (await self._get("/metrics", node)).text.splitlines():
                if line.startswith(PASSES):
                    found += int(float(line.split()[-1]))
        return found

    async def _get(self, path: str, node: int) -> httpx.Response:
        """What a node answers that has its Redis: on a busy machine it may miss it for a moment."""
        process, headers = self.servers.nodes[node], bearer(operator())
        assert process is not None
        with trio.fail_after(60):
            while (answer := await self._http.get(process.url + path, headers=headers)).is_error:
                assert answer.status_code == 503, answer.text
                await trio.sleep(0.2)
        return answer

    async def _post(
        self, path: str, body: dict[str, str], token: str, headers: dict[str, str]
    ) -> httpx.Response:
        """A request to the servers in turns."""
        self._number += 1
        url = f"http://127.0.0.1:{self.servers.port(self._number)}{path}"
        sent = {**bearer(token), **headers}
        request = self._http.build_request("POST", url, json=body, headers=sent)
        return await self._http.send(unbroken(request))


def operator() -> str:
    """An unexpired token, however long the run is."""
    return voice_mint("operator", Role.ADMIN)


PASSES = (
    'syncbridge_voice_sync_passes_total{result="verified"}',
    'syncbridge_voice_sync_passes_total{result="list_empty"}',
)


@asynccontextmanager
async def livekit_place(
    redis: RedisServer, tmp_path: Path, events: Events
) -> AsyncIterator[LiveKitPlace]:
    """Start everything."""
    places: list[LiveKitPlace] = []

    async def dial() -> trio.SocketStream:
        where = places[0] if places else None
        if where is None or where.gate is Gate.REFUSED:
            raise OSError("refused")
        if where.gate is Gate.LOST:
            return await trio.open_tcp_stream("127.0.0.1", loser)
        living = [node for node in where.servers.nodes if node]
        if not living:
            raise OSError("no node lives")
        return await trio.open_tcp_stream("127.0.0.1", living[-1].port)

    gate = Proxy(dial)
    async with trio.open_nursery() as nursery:
        await nursery.start(gate.run)
        listeners = await nursery.start(trio.serve_tcp, lose, 0)
        loser = listeners[0].socket.getsockname()[1]
        livekit = LiveKitServer(f"http://127.0.0.1:{gate.port}{HOOK}")
        await trio.to_thread.run_sync(livekit.start)
        variables = {**SETTINGS, "SYNCBRIDGE_LIVEKIT_URL": livekit.url}
        try:
            async with (
                adapter(livekit) as provider,
                Deployment.open(redis, tmp_path, **variables) as servers,
                httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as http,
            ):
                where = LiveKitPlace(
                    servers, livekit, provider, http, events, nursery, gate.cut_all
                )
                places.append(where)
                where.pools = [await where.start_pool() for _ in range(POOLS)]
                yield where
        finally:
            livekit.__exit__()
        nursery.cancel_scope.cancel()


async def lose(stream: trio.SocketStream) -> None:
    """Take one webhook, and drop it."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        if await stream.receive_some():
            await stream.send_all(LOST)
