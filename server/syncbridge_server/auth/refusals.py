"""Counts refusals, and logs some of them.

Doors: `connection` (before there is a request), `handshake` (a WebSocket that is not opened),
`auth` (AUTH on a socket), `message` (any other message), `http` (a request). A label is a code of
our catalogues, never text from outside. For each door and code, one log line in LOG_SECONDS gives
the caller, the number since the last line, and the setting that decides.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from syncbridge.errors import SyncBridgeError
from syncbridge_server.listener.contract import Refusal
from syncbridge_server.log import Occasionally, get_logger

LOG_SECONDS = 10.0
SETTINGS = {
    "token_invalid": "JWT_SECRET, SYNCBRIDGE_JWT_ISSUERS, SYNCBRIDGE_JWT_AUDIENCE",
    "token_expired": "SYNCBRIDGE_ACCESS_TTL, SYNCBRIDGE_TOKEN_LEEWAY",
    "insufficient_role": "SYNCBRIDGE_JWT_CLAIM_ROLE, SYNCBRIDGE_JWT_DEFAULT_ROLE",
    "origin_refused": "SYNCBRIDGE_ORIGINS",
    "rate_limited": "SYNCBRIDGE_MESSAGES_PER_SECOND, SYNCBRIDGE_REQUESTS_PER_SECOND,"
    " SYNCBRIDGE_HANDSHAKES_PER_SECOND, SYNCBRIDGE_USER_MESSAGES_PER_SECOND,"
    " SYNCBRIDGE_USER_JOINS_PER_SECOND, SYNCBRIDGE_DEVICE_JOINS_PER_MINUTE,"
    " SYNCBRIDGE_USER_SOCKETS",
    "quota_exceeded": "SYNCBRIDGE_USER_SESSIONS, SYNCBRIDGE_USER_BYTES",
    "overloaded": "SYNCBRIDGE_MAX_CONNECTIONS, SYNCBRIDGE_HTTP_REQUESTS, SYNCBRIDGE_STORE_QUEUE",
    "too_large": "SYNCBRIDGE_STATE_BYTES, SYNCBRIDGE_VALUE_BYTES, SYNCBRIDGE_HTTP_BODY_BYTES",
    "too_many_keys": "SYNCBRIDGE_STATE_KEYS",
    "too_many_changes": "SYNCBRIDGE_MAX_CHANGES",
    "too_deep": "SYNCBRIDGE_DEPTH",
    "too_many_devices": "SYNCBRIDGE_MAX_DEVICES_PER_SESSION",
}
"""The settings that decide on refusals with a code."""
_QUIET = frozenset({"session_not_found", "not_found", "version_conflict", "store_unavailable"})
"""Routine answers, or logged elsewhere: only counted."""

_log = get_logger("REFUSED")


class Refusals(Collector):
    """See the top of this file. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, str], int] = {}
        self._told: dict[tuple[str, str], tuple[Occasionally, int]] = {}

    def error(self, door: str, error: SyncBridgeError, **who: Any) -> None:
        """Count a refusal by error code. `who`: what is known of the caller."""
        self._count(door, error.code.wire, error.detail, who)

    def handshake(self, refusal: Refusal, client: str, door: str = "handshake") -> None:
        """Count a refused handshake, or a connection refused before its first request."""
        self._count(door, refusal.code, refusal.detail, {"client": client})

    def _count(self, door: str, code: str, detail: str, who: dict[str, Any]) -> None:
        key = door, code
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if code in _QUIET:
            return
        sometimes, before = self._told.get(key) or (Occasionally(LOG_SECONDS, self._clock), 0)
        if not sometimes.due():
            return
        self._told[key] = sometimes, count
        setting = {"settings": SETTINGS[code]} if code in SETTINGS else {}
        _log.info(
            "refused",
            door=door,
            code=code,
            reason=detail,
            **{name: value for name, value in who.items() if value},
            **setting,
            refused=count - before,
        )

    def of(self, door: str) -> dict[str, int]:
        """How often each code was sent at a door."""
        return {code: count for (at, code), count in list(self._counts.items()) if at == door}

    def collect(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            "syncbridge_refused",
            "What was refused, by where and the code that was answered.",
            labels=("door", "code"),
        )
        for (door, code), count in list(self._counts.items()):
            refused.add_metric((door, code), count)
        yield refused
