"""Redis that comes back older, in each of the ways in which that happens; devices that keep a copy
of the state and number their updates, as a client does."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import redis
import trio

from support.redis_servers import RedisServer, wait_until
from support.server_kit import Node, bearer, mint, new_session
from support.tcp_proxy import TcpProxy
from support.ws_client import Device

AUTH_SUCCESS, SNAPSHOT_RESPONSE, STATE_UPDATE, ERROR = 8, 4, 5, 6
WAYS = ("rdb", "replica", "backup", "flushall", "demoted")
PATIENCE = 20.0


@dataclass
class Way:
    """One way back. `url`: for nodes. `raw`: a client of the Redis that is in use now."""

    url: str

    def raw(self) -> redis.Redis:
        raise NotImplementedError

    def mark(self) -> None:
        """Take a snapshot to go back to."""

    def go_back(self) -> None:
        """Redis has what it had at the mark."""


@dataclass
class Restart(Way):
    """A restart from the last RDB file."""

    server: RedisServer

    def raw(self) -> redis.Redis:
        return self.server.client()

    def mark(self) -> None:
        with self.raw() as raw:
            raw.save()

    def go_back(self) -> None:
        self.server.kill()
        self.server.start()


@dataclass
class Backup(Restart):
    """A backup that is put back into the running server: no connection breaks."""

    kept: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)

    def mark(self) -> None:
        with self.raw() as raw:
            self.kept = {key: (max(0, raw.pttl(key)), raw.dump(key)) for key in raw.scan_iter()}

    def go_back(self) -> None:
        with self.raw() as raw:
            pipeline = raw.pipeline()
            pipeline.flushall()
            for key, (left, dump) in self.kept.items():
                pipeline.restore(key, left, dump)
            pipeline.execute()


@dataclass
class Flushed(Backup):
    """Everything is deleted."""

    def mark(self) -> None:
        self.kept = {}


@dataclass
class Promoted(Way):
    """A replica that lagged takes the place of the primary, behind one address."""

    primary: RedisServer
    replica: RedisServer
    front: TcpProxy
    link: TcpProxy

    def raw(self) -> redis.Redis:
        here = self.primary if self.front.upstream == self.primary.port else self.replica
        return here.client()

    def mark(self) -> None:
        with self.primary.client() as one, self.replica.client() as two:
            offset = int(one.info("replication")["master_repl_offset"])
            wait_until(
                lambda: int(two.info("replication")["slave_repl_offset"]) >= offset, "replicated"
            )
        self.link.refusing = True
        self.link.cut()

    def go_back(self) -> None:
        self.front.upstream = self.replica.port
        self.primary.kill()
        with self.replica.client() as raw:
            raw.replicaof("NO", "ONE")


@dataclass
class Demoted(Way):
    """The primary is demoted to a replica of one that is behind, and promoted again: its
    connections stay open."""

    primary: RedisServer
    behind: RedisServer

    def raw(self) -> redis.Redis:
        return self.primary.client()

    def mark(self) -> None:
        with self.behind.client() as raw:
            follow(raw, self.primary.port)
            raw.replicaof("NO", "ONE")

    def go_back(self) -> None:
        with self.raw() as raw:
            follow(raw, self.behind.port)
            raw.replicaof("NO", "ONE")


def follow(raw: redis.Redis, port: int) -> None:
    """Make a server the replica of another, and wait until it has the same data."""
    raw.replicaof("127.0.0.1", port)
    wait_until(lambda: raw.info()["master_link_status"] == "up", "the replica is there")
    with redis.Redis(port=port) as primary:
        offset = int(primary.info("replication")["master_repl_offset"])
    wait_until(lambda: int(raw.info("replication")["slave_repl_offset"]) >= offset, "replicated")


@contextmanager
def way_back(name: str) -> Iterator[Way]:
    """One of `WAYS`, with its own servers."""
    with ExitStack() as stack:
        if name == "demoted":
            primary, behind = (stack.enter_context(RedisServer(tcp=True)) for _ in range(2))
            yield Demoted(primary.url, primary, behind)
            return
        if name != "replica":
            server = stack.enter_context(RedisServer())
            kinds = {"rdb": Restart, "backup": Backup, "flushall": Flushed}
            yield kinds[name](server.url, server)
            return
        primary, replica = (stack.enter_context(RedisServer(tcp=True)) for _ in range(2))
        front, link = (stack.enter_context(TcpProxy(primary.port)) for _ in range(2))
        with replica.client() as raw:
            raw.replicaof("127.0.0.1", link.port)
            wait_until(lambda: raw.info()["master_link_status"] == "up", "the replica is there")
        url = f"redis://127.0.0.1:{front.port}"
        yield Promoted(url, primary, replica, front, link)


@dataclass
class Copy:
    """A device with a copy of the state.

    Attributes:
        place: version, epoch, lineage. acked: its last acknowledged number.
        ids: number -> id of each update that was acknowledged.
        resets: payloads of the resets that it was told of.
    """

    device: Device
    name: str
    session: str
    state: dict[str, Any] = field(default_factory=dict)
    place: tuple[int, str, str] = (0, "", "")
    acked: int = 0
    ids: dict[int, str] = field(default_factory=dict)
    resets: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stream(self) -> str:
        return f"queue of {self.name}"

    def resume(self) -> dict[str, Any]:
        """AUTH's `resume`."""
        version, epoch, lineage = self.place
        return {"version": version, "epoch": epoch, "lineage": lineage}

    async def write(self, **changes: Any) -> dict[str, Any]:
        """One numbered update; returns the answer, acknowledgement or ERROR."""
        return await self.update({"changes": changes})

    async def update(self, payload: dict[str, Any]) -> dict[str, Any]:
        seq = self.acked + 1
        name = f"{self.name}-{seq}-{len(self.device.seen)}"
        await self.device.send(5, payload | {"stream": self.stream, "seq": seq}, name)
        while True:
            message = await self.next()
            if message.get("correlation_id") == name:
                if message["type"] == STATE_UPDATE:
                    self.acked, self.ids[seq] = seq, name
                return message

    async def next(self) -> dict[str, Any]:
        """The next message, taken into the copy."""
        message = await self.device.receive()
        self.take(message)
        return message

    def take(self, message: dict[str, Any]) -> None:
        payload = message["payload"]
        if message["type"] == STATE_UPDATE:
            assert payload["prev_version"] <= self.place[0], "a hole"
            if payload["version"] > self.place[0]:
                continued = payload["prev_lineage"] == self.place[2]
                assert continued or payload["prev_version"] < self.place[0], "another history"
                self._change(payload)
        elif message["type"] in (SNAPSHOT_RESPONSE, AUTH_SUCCESS):
            if payload.get("reset"):
                self.resets.append(payload)
            if not payload["resumed"]:
                self.state = {}
            self._change(payload, payload.get("state_data"))
            self.acked = payload.get("applied", self.acked)

    def _change(self, payload: dict[str, Any], whole: dict[str, Any] | None = None) -> None:
        self.state |= payload.get("changes", {}) if whole is None else whole
        for key in payload.get("deleted_keys", []):
            self.state.pop(key, None)
        self.place = (payload["version"], payload["epoch"], payload["lineage"])

    async def reset(self) -> dict[str, Any]:
        """Wait until it is told of a reset that it has not been told of; returns that."""
        seen = len(self.resets)
        with trio.fail_after(PATIENCE):
            while len(self.resets) == seen:
                await self.next()
        return self.resets[-1]

    async def reaches(self, version: int) -> None:
        """Wait until the copy has a version."""
        with trio.fail_after(PATIENCE):
            while self.place[0] != version:
                await self.next()


class Room:
    """The devices of one session; they are gone at the end of the block."""

    def __init__(self) -> None:
        self.session = new_session()
        self._opened: list[Device] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            for device in self._opened:
                await device.kill()

    async def join(self, node: Node, name: str, was: Copy | None = None) -> Copy:
        """A device connects; `was`: its copy from before, from which it resumes."""
        device = await Device.open(node.port, protobuf=name == "tablet")
        self._opened.append(device)
        copy = Copy(device, name, self.session)
        extra: dict[str, Any] = {"stream": copy.stream}
        if was is not None:
            copy.state, copy.place, copy.acked = dict(was.state), was.place, was.acked
            copy.ids = dict(was.ids)
            extra |= {"resume": was.resume(), "acked": was.acked}
        await device.auth(mint("ann"), name, session_id=self.session, **extra)
        copy.take(device.seen[0])
        return copy


async def stored(node: Node, session: str) -> tuple[dict[str, Any], tuple[int, str, str]]:
    """State and place as Redis has them, asked until it answers."""
    async with node.http() as http:
        with trio.fail_after(PATIENCE):
            while True:
                answer = await http.get(f"/session/{session}", headers=bearer(mint("ann")))
                if answer.status_code == 404:
                    return {}, (0, "", "")
                if answer.status_code == 200:
                    body = answer.json()
                    return body["state_data"], (body["version"], body["epoch"], body["lineage"])
                await trio.sleep(0.05)
