"""A cluster for tests: real primaries and replicas, whose slots can be moved and servers killed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from support.redis_servers import RedisServer, wait_until
from syncbridge.slots import SLOTS
from syncbridge_server.redis.link.server_info import info_fields

NODE_TIMEOUT_MS = 1_500
OPTIONS: Sequence[object] = (
    *("--cluster-enabled", "yes"),
    *("--cluster-require-full-coverage", "no"),
    *("--cluster-replica-validity-factor", 0),
    *("--repl-diskless-sync", "no"),
)
"""Without the last one, a replica that is back confirms nothing for up to a second on Redis 7."""


class RedisCluster:
    """Whole when it is entered.

    Args:
        masters: number of primaries, among which the slots are divided in ranges.
        replicas: number of replicas of each.
        timeout_ms: `cluster-node-timeout`.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        masters: int = 3,
        replicas: int = 0,
        timeout_ms: int = NODE_TIMEOUT_MS,
    ) -> None:
        self._options = (*OPTIONS, "--cluster-node-timeout", timeout_ms)
        self._stack = ExitStack()
        self._binary = binary
        self._counts = masters, replicas
        self.masters: list[RedisServer] = []
        self.replicas: list[RedisServer] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            masters, replicas = self._counts
            servers = [self._server(stack) for _ in range(masters * (1 + replicas))]
            self.masters, self.replicas = servers[:masters], servers[masters:]
            self._divide()
            self._meet(servers)
            self._replicate()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _server(self, stack: ExitStack) -> RedisServer:
        return stack.enter_context(RedisServer(self._binary, tcp=True, options=self._options))

    @contextmanager
    def stranger(self) -> Iterator[RedisServer]:
        """One more server, counted among the primaries, that has not met the others yet."""
        with RedisServer(self._binary, tcp=True, options=self._options) as server:
            self.masters.append(server)
            yield server
            self.masters.remove(server)

    @property
    def servers(self) -> list[RedisServer]:
        """All of them."""
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        """That of the first primary; any other would do."""
        return url_of(self.masters[0])

    def client(self) -> redis.RedisCluster:
        """A plain client, for what a test wants to see or break behind the store's back."""
        port = self.masters[0].port
        return redis.RedisCluster(host="127.0.0.1", port=port, protocol=2, socket_timeout=5.0)

    def _divide(self) -> None:
        count = len(self.masters)
        bounds = [SLOTS * at // count for at in range(count + 1)]
        for at, master in enumerate(self.masters):
            ask(master, "CLUSTER", "SET-CONFIG-EPOCH", at + 1)
            ask(master, "CLUSTER", "ADDSLOTSRANGE", bounds[at], bounds[at + 1] - 1)

    def _meet(self, servers: list[RedisServer]) -> None:
        for server in servers[1:]:
            ask(server, "CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        wait_until(lambda: all(self._knows(one, len(servers)) for one in servers), "all met", 30)

    def _knows(self, server: RedisServer, count: int) -> bool:
        info = info_fields(text(ask(server, "CLUSTER", "INFO")))
        met = info["cluster_known_nodes"] == str(count) and info["cluster_state"] == "ok"
        return met and info["cluster_slots_ok"] == str(SLOTS)

    def _replicate(self) -> None:
        for at, replica in enumerate(self.replicas):
            ask(replica, "CLUSTER", "REPLICATE", self.id_of(self.masters[at % len(self.masters)]))
        for replica in self.replicas:
            wait_until(lambda r=replica: _in_step(r), "replicated", 30)
        wait_until(self._all_know_replicas, "every server knows the replicas", 30)

    def _all_know_replicas(self) -> bool:
        wanted = len(self.replicas)
        return all(text(ask(s, "CLUSTER", "NODES")).count("slave") >= wanted for s in self.servers)

    def id_of(self, server: RedisServer) -> str:
        """A server's name in the cluster."""
        return text(ask(server, "CLUSTER", "MYID"))

    def owner(self, slot: int) -> RedisServer:
        """The owner of a slot, according to the majority of answering servers."""
        ports = [port for server in self._alive() if (port := _owner(server, slot))]
        port = max(set(ports), key=ports.count)
        return next(server for server in self.servers if server.port == port)

    def _alive(self) -> list[RedisServer]:
        return [server for server in self.servers if server.running]

    def primaries(self) -> list[RedisServer]:
        """Those that are now, by their own account."""
        return [server for server in self._alive() if _is_primary(server)]

    def replica_of(self, master: RedisServer) -> RedisServer:
        """The first replica of a primary."""
        return self.replicas[self.masters.index(master)]

    # Slots

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """From now on keys of a slot may be on either of two servers."""
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(
        self,
        slot: int,
        source: RedisServer,
        target: RedisServer,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Move every key of a slot, one by one."""
        while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            ask(source, "MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5_000)
            between()

    def end_move(self, slot: int, target: RedisServer) -> None:
        """Tell all servers the owner of a slot, the new owner first."""
        name = self.id_of(target)
        for server in [target, *(s for s in self.primaries() if s is not target)]:
            ask(server, "CLUSTER", "SETSLOT", slot, "NODE", name)

    def move_slot(
        self, slot: int, target: RedisServer, between: Callable[[], None] = lambda: None
    ) -> None:
        """Move a slot while it is in use; `between` is called after each key."""
        source = self.owner(slot)
        self.begin_move(slot, source, target)
        self.move_keys(slot, source, target, between)
        self.end_move(slot, target)


def url_of(server: RedisServer) -> str:
    """Where one server of a cluster is."""
    return f"redis://127.0.0.1:{server.port}"


def ask(server: RedisServer, *words: object) -> Any:
    """One command to one server."""
    with server.client() as client:
        return client.execute_command(*words)


def text(reply: Any) -> str:
    """A reply that is bytes or a string."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _in_step(replica: RedisServer) -> bool:
    with replica.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")


def _is_primary(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.info("replication")["role"] == "master")


def _owner(server: RedisServer, slot: int) -> int:
    try:
        found = ask(server, "CLUSTER", "SLOTS")
    except redis.RedisError:
        return 0
    return next((int(one[2][1]) for one in found if one[0] <= slot <= one[1]), 0)
