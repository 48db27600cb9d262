"""Ends calls whose time has come, on every node: leases that ran out, calls about to be forgotten.

Any node may end any call; the store decides by the call as it is then, so that two nodes that look
at once end it once.
"""

from collections.abc import Callable

import trio
from prometheus_client import CollectorRegistry, Counter

from syncbridge.calls import Call, CallState
from syncbridge.errors import StoreError
from syncbridge_server.log import get_logger
from syncbridge_server.ports.calls import Ledger

SWEEP_SECONDS = 5.0
"""Between two looks."""

_log = get_logger("SESSION_MANAGER")

Tell = Callable[[Call, CallState | None], None]


class CallMetrics:
    """What is counted of call sessions. Once for each registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "syncbridge_calls_ended_unasked",
            "Call sessions that ended as nobody renewed or ended them.",
            ["cause"],
            registry=registry,
        )
        self.exported = Counter(
            "syncbridge_calls_exported",
            "Records of calls that exports have answered with.",
            registry=registry,
        )


class CallSweeper:
    """`tell`: hears of each call that was ended, with the state before."""

    def __init__(self, ledger: Ledger, metrics: CallMetrics, tell: Tell) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._tell = tell

    async def run(self) -> None:
        """Look for ever; while Redis is away, later."""
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                _log.warning("call_sweep_failed", reason=error.detail)
            await trio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> int:
        """One look; how many calls it has ended. Raises StoreError."""
        ended = await self._ledger.sweep()
        for reply in ended:
            if reply.call is not None:
                self._metrics.ended.labels(reply.call.cause).inc()
                self._tell(reply.call, reply.previous)
        return len(ended)
