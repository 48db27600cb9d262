"""Ends calls on every node: those whose lease ran out, and those about to expire.

Any node may end any call. The store checks the call again, so two nodes together end it once.
"""

from collections.abc import Callable

import trio
from prometheus_client import CollectorRegistry, Counter

from syncbridge.calls import Call, CallState
from syncbridge.errors import StoreError
from syncbridge_server.log import get_logger
from syncbridge_server.ports.calls import Ledger

SWEEP_SECONDS = 5.0
"""Pause between two checks."""

_log = get_logger("SESSION_MANAGER")

Tell = Callable[[Call, CallState | None], None]


class CallMetrics:
    """Metrics of call sessions. One for each registry."""

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
    """`tell`: called with each ended call and its former state."""

    def __init__(self, ledger: Ledger, metrics: CallMetrics, tell: Tell) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._tell = tell

    async def run(self) -> None:
        """End calls for ever; retries while Redis is away."""
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                _log.warning("call_sweep_failed", reason=error.detail)
            await trio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> int:
        """End calls that are due; returns their number. Raises StoreError."""
        ended = await self._ledger.sweep()
        for reply in ended:
            if reply.call is not None:
                self._metrics.ended.labels(reply.call.cause).inc()
                self._tell(reply.call, reply.previous)
        return len(ended)
