"""Which sessions a user has: an index that is written beside the sessions, rarely.

It stands in another slot of a cluster than the sessions, so it cannot be written with them. It is
written when a device joins, with writes, and when the life of a session is renewed because devices
are connected; at most once a minute for each session and node. So its order is right to a minute.
Who reads it looks at each session and drops what is not there any more.
"""

from collections.abc import Callable
from typing import Any

from syncbridge.errors import StoreError
from syncbridge.records.devices import Remember
from syncbridge_server.gateway.courier import Courier

PERIOD = 60.0
MAX_REMEMBERED = 65_536


class UserIndex:
    """Writes the index. `clock`: Unix seconds."""

    def __init__(self, courier: Courier, clock: Callable[[], float]) -> None:
        self._courier = courier
        self._clock = clock
        self._written: dict[tuple[str, str], float] = {}

    def seen(self, user_id: str, session_id: str) -> None:
        """There was activity of this user in this session. O(1)."""
        key, now = (user_id, session_id), self._clock()
        if not user_id or now - self._written.get(key, -PERIOD) < PERIOD:
            return
        self._written.pop(key, None)
        self._written[key] = now
        if len(self._written) > MAX_REMEMBERED:
            del self._written[next(iter(self._written))]
        self._courier.ask(Remember(user_id, session_id), self._remembered, key)

    def _remembered(self, answer: Any, key: tuple[str, str]) -> None:
        if isinstance(answer, StoreError):
            self._written.pop(key, None)
