"""Where the session of a history lives, to be broken: one Redis, Sentinel, or a cluster.

The methods of a place wait as a whole test may not: they are called on a thread of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import redis

from support.redis_cluster import RedisCluster
from support.redis_sentinels import SentinelGroup
from support.redis_servers import RedisServer, wait_until
from syncbridge.slots import TAGS, bucket_of, slot_of

REPLICAS = {"SYNCBRIDGE_DURABILITY": "replicas:1"}
"""A primary that dies may lose what it acknowledged; that is not what these runs are about."""

MEND_SECONDS = 60.0


class Place(Protocol):
    """A Redis in which one session is looked at.

    Attributes:
        session: its id. variables: what the nodes need besides.
        proxied: whether nodes reach it through the proxy of the deployment.
    """

    session: str
    variables: dict[str, str]
    proxied: bool

    @property
    def url(self) -> str:
        """As REDIS_ADDR, where no proxy is in between."""

    def primary(self) -> RedisServer:
        """The server that has the session now."""

    def kill(self) -> None:
        """SIGKILL of the primary, which comes back; returns when the place is whole."""

    def move(self) -> None:
        """What is done in order: a restart, a failover, the move of the session's slot."""

    def mend(self) -> None:
        """Wait until the place is whole."""

    def flush_scripts(self) -> None:
        """SCRIPT FLUSH, everywhere."""

    def cut(self) -> None:
        """Close all connections of nodes."""


class Single:
    """One server with an append-only file."""

    session = ""
    proxied = True

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.variables: dict[str, str] = {}

    @property
    def url(self) -> str:
        return self._server.url

    def primary(self) -> RedisServer:
        return self._server

    def kill(self) -> None:
        self._server.kill()
        self._server.start()

    def move(self) -> None:
        self._server.stop()
        self._server.start()

    def mend(self) -> None:
        """It always is."""

    def flush_scripts(self) -> None:
        flush_scripts(self._server)

    def cut(self) -> None:
        cut(self._server)


class Watched:
    """A primary with a replica, and three sentinels."""

    session = ""
    proxied = False

    def __init__(self, group: SentinelGroup) -> None:
        self._group = group
        self.variables = dict(REPLICAS)

    @property
    def url(self) -> str:
        return self._group.url

    def primary(self) -> RedisServer:
        return self._group.primary()

    def kill(self) -> None:
        old = self.primary()
        old.kill()
        wait_until(lambda: self._group.moved_from(old), "another primary", MEND_SECONDS)
        old.follow(self.primary().port)
        old.start()
        self.mend()

    def move(self) -> None:
        old = self.primary()
        wait_until(self._asked, "a failover is begun", MEND_SECONDS)
        wait_until(lambda: self._group.moved_from(old), "another primary", MEND_SECONDS)
        self.mend()

    def _asked(self) -> bool:
        """A sentinel refuses while it has not asked the replica yet."""
        try:
            self._group.fail_over()
        except redis.ResponseError:
            return False
        return True

    def mend(self) -> None:
        # Sentinels do the same with a primary that was replaced, after ten seconds.
        for server in self._group.servers:
            if server is not (primary := self.primary()) and is_primary(server):
                with server.client() as client:
                    client.replicaof("127.0.0.1", primary.port)
        wait_until(lambda: in_step(self.primary()), "the replica is in step", MEND_SECONDS)

    def flush_scripts(self) -> None:
        flush_scripts(self.primary())

    def cut(self) -> None:
        cut(self.primary())


class Clustered:
    """Three primaries with a replica each."""

    session = ""
    proxied = False

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster
        self.variables = dict(REPLICAS)

    @property
    def url(self) -> str:
        return self._cluster.url

    @property
    def _slot(self) -> int:
        return slot_of(TAGS[bucket_of(self.session)])

    def primary(self) -> RedisServer:
        return self._cluster.owner(self._slot)

    def kill(self) -> None:
        old = self.primary()
        old.kill()
        wait_until(lambda: self.primary() is not old, "another primary", MEND_SECONDS)
        old.start()
        self.mend()

    def move(self) -> None:
        """The slot goes to another primary, key by key."""
        old = self.primary()
        others = [one for one in self._cluster.primaries() if one is not old]
        self._cluster.move_slot(self._slot, others[0])
        self.mend()

    def mend(self) -> None:
        wait_until(self._whole, "each primary has its replica", MEND_SECONDS)

    def _whole(self) -> bool:
        primaries = self._cluster.primaries()
        return len(primaries) == 3 and all(map(in_step, primaries))

    def flush_scripts(self) -> None:
        for server in self._cluster.primaries():
            flush_scripts(server)

    def cut(self) -> None:
        for server in self._cluster.primaries():
            cut(server)


def is_primary(server: RedisServer) -> bool:
    """By its own account."""
    with server.client() as client:
        return bool(client.info("replication")["role"] == "master")


def in_step(server: RedisServer) -> bool:
    """Whether a server is a primary with its only replica in sync."""
    with server.client() as client:
        found = client.info("replication")
    return bool(found["role"] == "master" and found.get("slave0", {}).get("state") == "online")


def flush_scripts(server: RedisServer) -> None:
    """SCRIPT FLUSH."""
    with server.client() as client:
        client.script_flush()


def cut(server: RedisServer) -> None:
    """Close the connections of all nodes."""
    with server.client() as client:
        for kind in ("normal", "pubsub"):
            try:
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            except redis.ResponseError:
                continue


@contextmanager
def place(kind: str) -> Iterator[Place]:
    """`single`, `sentinel` or `cluster`, whole when it is entered."""
    if kind == "single":
        with RedisServer(aof=True) as server:
            yield Single(server)
    elif kind == "sentinel":
        with SentinelGroup(replicas=1, timeout_ms=1_000) as group:
            yield Watched(group)
    else:
        with RedisCluster(replicas=1) as cluster:
            yield Clustered(cluster)
