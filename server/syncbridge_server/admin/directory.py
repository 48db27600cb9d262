"""The directory of nodes: each keeps a leased record of itself in Redis.

`report:{nodes}:<name>` holds a node's last brief report and expires `LEASE` seconds after it was
written. The list in `membership` names all nodes; those with an unexpired record are shown, by
Redis's clock alone. Records are written every `PERIOD` seconds, and removed when their node stops
orderly. A killed node is shown as not answering until its record expires. An unreadable record is
left out until its node writes it again.
"""

from collections.abc import Callable

import msgspec
import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.integrity import UNREADABLE
from syncbridge_server.admin.figures import NodeReport
from syncbridge_server.isolation import of_record
from syncbridge_server.log import Occasionally
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import plain
from syncbridge_server.redis.stores.node_codec import NODES

log = structlog.get_logger("admin")

PERIOD = 5.0
LEASE = 15.0
MAX_NODES = 1024
"""Most nodes that are shown and asked, in alphabetical order; others are only counted."""

GOODBYE_SECONDS = 1.0
LOG_SECONDS = 60.0


class Directory:
    """Publishes this node and reads the others.

    Args:
        report: this node's figures, called for every record.
    Attributes:
        left_out: nodes beyond `MAX_NODES` when they were last listed.
    """

    def __init__(
        self,
        io: RedisIO,
        node: str,
        report: Callable[[], NodeReport],
    ) -> None:
        self._io = io
        self._node = node
        self._report = report
        self.left_out = 0
        self._occasionally = Occasionally(LOG_SECONDS)

    async def run(self) -> None:
        """Renew the record until cancelled, then remove it."""
        try:
            while True:
                try:
                    await self.publish()
                except StoreError as error:
                    log.debug("node_record_not_written", detail=error.detail)
                await trio.sleep(PERIOD)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(GOODBYE_SECONDS):
                await self._withdraw()

    async def publish(self) -> None:
        """Write the record now. Raises StoreError."""
        record = msgspec.json.encode(self._report())
        await self._io.execute("SET", _key(self._node), record, "PX", int(LEASE * 1000))

    async def live(self) -> dict[str, NodeReport]:
        """The last report of each live node. Raises StoreError. Two round trips."""
        listed = await self._io.execute("HKEYS", NODES)
        names = sorted(name.decode(errors="surrogateescape") for name in listed)
        self.left_out = max(0, len(names) - MAX_NODES)
        del names[MAX_NODES:]
        asked = [plain("GET", _key(name), repeatable=True) for name in names]
        found = dict(zip(names, await self._io.request(asked) if asked else [], strict=True))
        reports = {name: self._read(name, record) for name, record in found.items()}
        return {name: report for name, report in reports.items() if report is not None}

    def _read(self, name: str, record: bytes | StoreError | None) -> NodeReport | None:
        """A node's record; None if missing or unreadable."""
        if record is None:
            return None
        try:
            if isinstance(record, StoreError):
                raise record
            return msgspec.json.decode(record, type=NodeReport)
        except (StoreError, *UNREADABLE) as error:
            if not of_record(error):
                raise
            if self._occasionally.due():
                log.warning("node_record_unreadable", node=name, why=type(error).__name__)
            return None

    async def _withdraw(self) -> None:
        try:
            await self._io.execute("DEL", _key(self._node))
        except StoreError:
            pass  # the lease ends by itself


def _key(node: str) -> str:
    return f"report:{{nodes}}:{node}"
