"""A primary, its replicas, and the sentinels that watch them, for tests: real processes."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from support.redis_servers import RedisServer, wait_until

SERVICE = "syncbridge"
PASSWORD = "of-the-servers"
SENTINEL_PASSWORD = "of-the-sentinels"
DOWN_MS = 1_000
SETTLED_MS = 600_000
FAILOVER_SECONDS = 30.0

CONFIGURATION = """
sentinel monitor {service} 127.0.0.1 {port} {quorum}
sentinel down-after-milliseconds {service} {down}
sentinel failover-timeout {service} {timeout}
sentinel parallel-syncs {service} 8
sentinel auth-pass {service} {password}
requirepass {sentinel_password}
sentinel sentinel-pass {sentinel_password}
"""


class Sentinel(RedisServer):
    """One sentinel; it writes its own configuration file.

    Args:
        watched: port of the primary. timeout_ms: a failover follows another after twice that.
    """

    def __init__(self, binary: Path | None, watched: int, quorum: int, timeout_ms: int) -> None:
        super().__init__(binary, tcp=True, password=SENTINEL_PASSWORD)
        text = CONFIGURATION.format(
            service=SERVICE,
            port=watched,
            quorum=quorum,
            down=DOWN_MS,
            timeout=timeout_ms,
            password=PASSWORD,
            sentinel_password=SENTINEL_PASSWORD,
        )
        self._file = self.directory / "sentinel.conf"
        self._file.write_text(text)

    def arguments(self) -> list[str]:
        """A sentinel takes a server's options, except those of storage."""
        listen = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        return [str(self._file), "--sentinel", *listen, "--unixsocket", str(self.socket)]


class SentinelGroup:
    """Servers and sentinels, whole when it is entered.

    Attributes:
        servers: the first one is the primary at the start.
        url: for the server under test, with all passwords.
    """

    def __init__(
        self,
        binary: Path | None = None,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        timeout_ms: int = 4_000,
    ) -> None:
        self._timeout_ms = timeout_ms
        self._stack = ExitStack()
        self._binary = binary
        self._replicas = replicas
        self._count = sentinels
        self.servers: list[RedisServer] = []
        self.sentinels: list[Sentinel] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            first = self._server(stack)
            for _ in range(self._replicas):
                self._server(stack, "--replicaof", "127.0.0.1", first.port)
            for _ in range(self._count):
                quorum = self._count // 2 + 1
                sentinel = Sentinel(self._binary, first.port, quorum, self._timeout_ms)
                self.sentinels.append(stack.enter_context(sentinel))
            wait_until(self._whole, "the sentinels know the replicas and each other", 30)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            for sentinel in self.sentinels:
                print(sentinel.port, (sentinel.directory / "log").read_text()[-4_000:])
        self._stack.close()

    def _server(self, stack: ExitStack, *options: object) -> RedisServer:
        at_once = ("--repl-diskless-sync-delay", 0)
        options = (*at_once, *options)
        server = RedisServer(self._binary, tcp=True, options=options, password=PASSWORD)
        self.servers.append(stack.enter_context(server))
        return server

    @property
    def url(self) -> str:
        """As REDIS_ADDR may be written."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        passwords = f"?sentinel_password={SENTINEL_PASSWORD}"
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{SERVICE}/0{passwords}"

    def state(self, sentinel: Sentinel) -> dict[str, Any]:
        """What a sentinel knows of the primary."""
        with sentinel.client() as client:
            found: dict[str, Any] = client.sentinel_master(SERVICE)
            return found

    def _whole(self) -> bool:
        states = [self.state(sentinel) for sentinel in self.sentinels]
        return all(
            state["num-slaves"] == self._replicas
            and state["num-other-sentinels"] == self._count - 1
            and self._synchronized()
            for state in states
        )

    def _synchronized(self) -> bool:
        with self.servers[0].client() as client:
            replication = client.info("replication")
        states = [replication.get(f"slave{n}", {}).get("state") for n in range(self._replicas)]
        return states == ["online"] * self._replicas

    def primary(self) -> RedisServer:
        """The server that most sentinels name."""
        ports = [int(self.state(sentinel)["port"]) for sentinel in self.sentinels]
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == port)

    def moved_from(self, old: RedisServer) -> bool:
        """Whether every sentinel names another primary, and that one takes writes."""
        ports = {int(self.state(sentinel)["port"]) for sentinel in self.sentinels}
        if len(ports) != 1 or ports == {old.port}:
            return False
        with self.primary().client() as client:
            return bool(client.info("replication")["role"] == "master")

    def settle(self) -> None:
        """No more failovers: a server that is busy for a second no longer counts as dead."""
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                client.sentinel_set(SERVICE, "down-after-milliseconds", SETTLED_MS)

    def quiet(self) -> bool:
        """Whether every sentinel names the same primary, and none is replacing it."""
        states = [self.state(sentinel) for sentinel in self.sentinels]
        return len({state["port"] for state in states}) == 1 and all(
            state["flags"] in ("master", {"master"}) for state in states
        )

    def fail_over(self) -> None:
        """Promote a replica while the primary is alive."""
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
