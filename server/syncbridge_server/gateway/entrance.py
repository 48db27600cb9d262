"""How many handshakes, and how many connections without AUTH, one address may have.

Before AUTH an address is all that is known of a client. It may stand for many people (a company, a
mobile network), so the bounds are wide; they stop one machine from taking all places. Callers on
this machine are not bounded: they are the operator, or a proxy whose clients cannot be told apart
because it is not among the trusted ones.
"""

import math
from collections.abc import Mapping

from syncbridge.buckets import TokenBuckets
from syncbridge.errors import ErrorCode
from syncbridge.limits import Limits
from syncbridge_server.addresses import is_loopback
from syncbridge_server.listener.contract import Refusal

UNIX = "unix"
RETRY_SECONDS = 5
"""After this long a place may be free: one without AUTH is closed then, or has authenticated."""


class Entrance:
    """Judges handshakes. A bound of 0 in the limits is none.

    Args:
        waiting: address -> connections without AUTH, kept by the registry.
    """

    def __init__(self, limits: Limits, waiting: Mapping[str, int]) -> None:
        self._waiting = waiting
        self._most = limits.unauthenticated_per_address
        self._buckets = None
        if limits.handshakes_per_second:
            rate, burst = limits.handshakes_per_second, limits.handshake_burst
            self._buckets = TokenBuckets(rate, burst)

    def admit(self, client: str, now: float) -> Refusal | None:
        """Whether an address may open another WebSocket at `now` (monotonic seconds)."""
        if client == UNIX or not client or is_loopback(client):
            return None
        if 0 < self._most <= self._waiting.get(client, 0):
            return _refusal("too many connections of this address wait for AUTH", RETRY_SECONDS)
        wait = self._buckets.take(client, now) if self._buckets is not None else 0.0
        if wait:
            return _refusal("too many handshakes from this address", math.ceil(wait))
        return None


def _refusal(detail: str, seconds: int) -> Refusal:
    code = ErrorCode.RATE_LIMITED
    return Refusal(code.status, code.wire, detail, max(1, seconds))
