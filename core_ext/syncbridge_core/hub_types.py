"""Plain values of the hub's interface: limits and counters. `hub` exports both."""

from typing import NamedTuple

REASON_MOST = 123
"""Bytes of a close reason (RFC 6455 section 5.5)."""


class HubLimits(NamedTuple):
    """Bounds and periods. Sizes in bytes, times in ms, rates in messages; 0 means no limit for the
    periods of silence, the time for a message, the rate, and the number of connections."""

    max_message: int = 65536
    conflate_bytes: int = 262144
    max_outbox: int = 1048576
    ping_interval: int = 25000
    idle_timeout: int = 120000
    close_timeout: int = 5000
    rate_per_second: int = 50
    rate_burst: int = 100
    flood_messages: int = 200
    max_connections: int = 0
    deflate_from: int = 512
    message_timeout: int = 30000


class HubStatistics(NamedTuple):
    """Counters since the start, except those named `open_*` and `queued_*`, which are gauges."""

    open_connections: int
    open_topics: int
    queued_bytes: int
    accepted: int
    closed: int
    messages_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int
    writes: int
    pings: int
    pongs: int
    protocol_errors: int
    rate_limited: int
    state_dropped: int
    speaking_dropped: int
    slow_closed: int
    idle_closed: int
    deflated: int
    deflate_saved: int
    inflated: int


def check_limits(limits: HubLimits) -> None:
    """Raise ValueError for a limit that C cannot hold."""
    for name, value in zip(limits._fields, limits, strict=True):
        least = 1 if name == "max_message" else 0
        if not least <= value <= 0x7FFFFFFF:
            raise ValueError(f"{name} must be between {least} and 2**31 - 1")


def close_reason(reason: str) -> bytes:
    """UTF-8 of a reason, cut to fit a close frame, never inside a character."""
    text = reason.encode()
    if len(text) <= REASON_MOST:
        return text
    return text[:REASON_MOST].decode(errors="ignore").encode()
