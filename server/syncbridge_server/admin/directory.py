"""Which nodes there are: each keeps a record of itself in Redis, with a lease.

`node:<name>` holds a node's last brief report and expires `LEASE` seconds after it was written;
the sorted set `nodes` names them all. A node lives while its record does: only Redis's clock
counts. Records are written every `PERIOD` seconds, and one is removed when its node stops in good
order. A node that was killed is listed until its lease ends, and shows as one that does not answer.
"""

import time
from collections.abc import Callable

import msgspec
import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge_server.admin.figures import NodeReport
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.link.wire import pack

log = structlog.get_logger("admin")

PERIOD = 5.0
LEASE = 15.0
MAX_NODES = 1024
GOODBYE_SECONDS = 1.0
INDEX = "nodes"


class Directory:
    """Publishes this node and reads the others.

    Args:
        report: this node's figures, called for every record.
        clock: Unix seconds.
    """

    def __init__(
        self,
        io: RedisIO,
        node: str,
        report: Callable[[], NodeReport],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._io = io
        self._node = node
        self._report = report
        self._clock = clock

    async def run(self) -> None:
        """Keep the record fresh until cancelled, then remove it."""
        try:
            while True:
                try:
                    await self.publish()
                except StoreError as error:
                    log.debug("Node record not written", detail=error.detail)
                await trio.sleep(PERIOD)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(GOODBYE_SECONDS):
                await self._withdraw()

    async def publish(self) -> None:
        """Write the record now. Raises StoreError."""
        record = msgspec.json.encode(self._report())
        await self._all(
            ("SET", _key(self._node), record, "PX", int(LEASE * 1000)),
            ("ZADD", INDEX, int(self._clock() * 1000), self._node),
        )

    async def live(self) -> dict[str, NodeReport]:
        """The last report of each live node. Raises StoreError. Two round trips."""
        names = [name.decode() for name in await self._io.execute("ZREVRANGE", INDEX, 0, MAX_NODES)]
        records = await self._all(*(("GET", _key(name)) for name in names)) if names else []
        found = dict(zip(names, records, strict=True))
        gone = [name for name, record in found.items() if record is None]
        if gone:
            await self._io.execute("ZREM", INDEX, *gone)
        return {name: _decode(record) for name, record in found.items() if record is not None}

    async def _withdraw(self) -> None:
        try:
            await self._all(("DEL", _key(self._node)), ("ZREM", INDEX, self._node))
        except StoreError:
            pass  # the lease ends by itself

    async def _all(self, *commands: tuple[bytes | str | int, ...]) -> list[bytes | None]:
        replies = await self._io.request([Command(pack(*command)) for command in commands])
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies


def _key(node: str) -> str:
    return f"node:{node}"


def _decode(record: bytes) -> NodeReport:
    return msgspec.json.decode(record, type=NodeReport)
