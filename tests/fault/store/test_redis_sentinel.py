"""Sentinel moves the primary: commands and bus follow it, and then every write arrives."""

import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from support.redis_sentinels import SENTINEL_PASSWORD, SERVICE, SentinelGroup
from support.redis_servers import RedisServer, bundled, default_binary, until
from support.watched_node import watched, writes_arrive
from syncbridge_server.redis.bus import readiness as module
from syncbridge_server.redis.link.endpoint import RedisEndpoint
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import WireBroken

FAILOVER_SECONDS = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steady pace of the probes is not what is tested."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(module, "SENTINEL_SECONDS", 0.2)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)


@contextmanager
def group(kind: str) -> Iterator[SentinelGroup]:
    """Three servers and three sentinels."""
    with SentinelGroup(bundled() if kind == "valkey" else default_binary()) as running:
        yield running


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_primary_killed_and_back(kind: str) -> None:
    """kill -9; the promoted replica is used by both; the old one returns and is not used."""
    with group(kind) as servers:
        old = servers.primary()
        async with watched(servers.url, "n1") as one, watched(servers.url, "n2") as other:
            assert one.on(old.port)
            await writes_arrive(one, other)
            old.kill()
            new = await _moved_from(servers, old)
            await until(lambda: one.on(new) and other.on(new), FAILOVER_SECONDS)
            await writes_arrive(one, other)
            old.start()
            await until(lambda: _role(old) == "slave", FAILOVER_SECONDS)
            await until(lambda: one.on(new) and other.on(new))
            await writes_arrive(one, other)


async def test_promotion_with_the_old_primary_alive() -> None:
    """`SENTINEL FAILOVER`: both connections of both nodes leave a server that still answers."""
    with group("redis") as servers:
        old = servers.primary()
        async with watched(servers.url, "n1") as one, watched(servers.url, "n2") as other:
            await writes_arrive(one, other)
            await until(lambda: _asked_to_fail_over(servers), FAILOVER_SECONDS)
            new = await _moved_from(servers, old)
            await until(lambda: one.on(new) and other.on(new), FAILOVER_SECONDS)
            await writes_arrive(one, other)
        assert old.pid


async def test_the_primary_stood_still_and_was_replaced() -> None:
    """It comes back and takes itself for the primary until it is told; nobody writes to it."""
    with group("redis") as servers:
        old = servers.primary()
        async with watched(servers.url, "n1") as one, watched(servers.url, "n2") as other:
            old.pause()
            new = await _moved_from(servers, old)
            await until(lambda: one.on(new) and other.on(new), FAILOVER_SECONDS)
            old.resume()
            await writes_arrive(one, other)
            await until(lambda: _role(old) == "slave", FAILOVER_SECONDS)
            await writes_arrive(one, other)


async def _moved_from(servers: SentinelGroup, old: RedisServer) -> int:
    """The port of the new primary, which stays the primary from then on."""
    await until(lambda: servers.moved_from(old), FAILOVER_SECONDS)
    servers.settle()
    await until(servers.quiet, FAILOVER_SECONDS)  # another failover may have begun before
    return servers.primary().port


def _asked_to_fail_over(servers: SentinelGroup) -> bool:
    """A sentinel refuses while it has not asked the replicas yet."""
    try:
        servers.fail_over()
    except redis.ResponseError:
        return False
    return True


def _role(server: RedisServer) -> str:
    with server.client() as client:
        return str(client.info("replication")["role"])


class FakeSentinel(socketserver.ThreadingTCPServer):
    """Answers what a test says: an epoch and the address of the primary, or an error."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, epoch: int, port: int) -> None:
        self.epoch, self.named = epoch, port
        self.error = b""
        self.asked = 0
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def __exit__(self, *details: Any) -> None:
        self.shutdown()
        super().__exit__(*details)

    def reply(self, words: Sequence[bytes]) -> bytes:
        """What a sentinel says to a command."""
        self.asked += 1
        if self.error:
            return b"-" + self.error + b"\r\n"
        if words[0].upper() != b"SENTINEL":
            return b"+OK\r\n"
        port = b"%d" % self.named
        if words[1].upper() == b"MASTER":
            return _bulks([b"config-epoch", b"%d" % self.epoch, b"port", port])
        return _bulks([b"127.0.0.1", port])


class _Answers(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, FakeSentinel)
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size))
                self.rfile.read(2)
            self.wfile.write(server.reply(words))


def _bulks(texts: Sequence[bytes]) -> bytes:
    bodies = b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)
    return b"*%d\r\n%b" % (len(texts), bodies)


def _url(*sentinels: int, secrets: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
    return f"redis+sentinel://{hosts}/{SERVICE}{secrets}"


def test_the_newest_failover_counts() -> None:
    """One sentinel of the current epoch beats two that have slept, and one that is dead."""
    with FakeSentinel(4, 1) as slept, FakeSentinel(4, 1) as too, FakeSentinel(5, 2) as awake:
        endpoint = RedisEndpoint(_url(slept.port, 1, too.port, awake.port))
        assert endpoint.primary() == Address("127.0.0.1", 2)
        awake.error = b"ERR No such master with that name"
        assert endpoint.primary() == Address("127.0.0.1", 1)


def test_no_sentinel_knows() -> None:
    """The reason is one sentence without a password."""
    with FakeSentinel(4, 1) as only:
        endpoint = RedisEndpoint(_url(only.port, secrets=f"?sentinel_password={SENTINEL_PASSWORD}"))
        only.error = b"WRONGPASS invalid username-password pair"
        with pytest.raises(WireBroken) as caught:
            endpoint.connect()
    assert "no sentinel reports the primary" in caught.value.reason
    assert SENTINEL_PASSWORD not in caught.value.reason


async def test_cut_off_from_the_sentinels() -> None:
    """An old primary that nobody has told is left, although it answers and says that it is one."""
    with RedisServer(tcp=True) as old, RedisServer(tcp=True) as new:
        with FakeSentinel(1, old.port) as first, FakeSentinel(1, old.port) as second:
            url = _url(first.port, second.port)
            async with watched(url, "n1") as one, watched(url, "n2") as other:
                assert one.on(old.port)
                first.named, first.epoch = new.port, 2
                await until(lambda: one.on(new.port) and other.on(new.port))
                await writes_arrive(one, other)


async def test_sentinels_away() -> None:
    """What is connected stays connected; what asks who the primary is waits for one of them."""
    with RedisServer(tcp=True) as server, FakeSentinel(1, server.port) as only:
        async with watched(_url(only.port), "n1") as one:
            only.error = b"ERR away"
            asked = only.asked
            await until(lambda: only.asked > asked + 10)
            assert one.on(server.port)
            one.io.renew()
            await until(lambda: one.readiness.reason == "away")
            only.error = b""
            await until(lambda: one.on(server.port))
