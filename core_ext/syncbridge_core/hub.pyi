"""The socket hub: every WebSocket of a process behind one epoll descriptor. See hub.pyx.

One thread uses a hub. A connection is named by `cid`, a non-zero integer that is never used again
for another connection; calls with a cid that is gone do nothing and return False (or 0).
Times are integer milliseconds of a monotonic clock that the caller chooses and passes in.
"""

from typing import Final, NamedTuple

__all__ = [
    "ENCODING_JSON",
    "ENCODING_PROTOBUF",
    "EVENT_CLOSED",
    "EVENT_DEADLINE",
    "EVENT_HUSHED",
    "EVENT_LIMITED",
    "EVENT_MESSAGE",
    "EVENT_RESYNC",
    "KIND_NOTICE",
    "KIND_REPLY",
    "KIND_SPEAKING",
    "KIND_STATE",
    "Hub",
    "HubLimits",
    "HubStatistics",
]

# Events: (kind, cid, data, aux)
EVENT_MESSAGE: Final = 1
"""One whole message. data: payload (UTF-8 checked when text). aux: opcode, 1 text, 2 binary."""
EVENT_CLOSED: Final = 2
"""The connection is gone, once per cid. data: reason. aux: close code (ours if we closed first,
else the peer's, 1005 without one, 1006 when the socket died)."""
EVENT_DEADLINE: Final = 3
"""The deadline set with `set_deadline` has passed; one shot. aux: that deadline in ms."""
EVENT_RESYNC: Final = 4
"""A slow reader has drained after STATE frames were dropped. aux: tag of the oldest dropped."""
EVENT_LIMITED: Final = 5
"""A message above the rate limit. data: its payload; of a compressed one only if it is short, and
one of the first in a row, else empty. aux: ms until a token is there; 0 once, when
more than `flood_messages` came in a row: close the connection then, the rest is not read."""
EVENT_HUSHED: Final = 6
"""A slow reader has drained after SPEAKING frames were dropped."""

# Kinds of outgoing frames, in the order in which a full outbox gives them up
KIND_SPEAKING: Final = 0
KIND_STATE: Final = 1
KIND_NOTICE: Final = 2
KIND_REPLY: Final = 3

ENCODING_JSON: Final = 0
"""Text frames; `payload` of send and publish."""
ENCODING_PROTOBUF: Final = 1
"""Binary frames; `binary` of publish."""

class HubLimits(NamedTuple):
    """Bounds and periods. Sizes in bytes, times in ms, rates in messages."""

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
    """Payloads of at least this size are compressed where negotiated."""
    message_timeout: int = 30000
    """Longest time from the first byte of a message to its last, before the connection is
    closed."""

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
    """Messages compressed, each once however many received it."""
    deflate_saved: int
    """Bytes saved by compression, each message counted once."""
    inflated: int

class Hub:
    def __init__(self, limits: HubLimits = ...) -> None: ...
    def fileno(self) -> int:
        """An epoll descriptor; readable when `poll` has work, timers included (timerfd)."""

    def adopt(
        self,
        fd: int,
        now: int,
        encoding: int = 0,
        initial: bytes = b"",
        bridged: bool = False,
        deflate: bool = False,
        unfold: int = 0,
    ) -> int:
        """Take ownership of a connected stream socket after its handshake; return its cid.

        `initial`: bytes that arrived after the handshake. `bridged`: the other end is our own
        socketpair; no pings are sent there. `deflate`: permessage-deflate was negotiated, with
        both `no_context_takeover` and a server window of at least `deflate.WINDOW_BITS`. `unfold`:
        bytes that compressed messages may unfold to altogether until `trust`, 0 for no bound;
        above it the connection is closed with 4007. Raises OSError when the hub is full or closed,
        and then the descriptor still belongs to the caller.
        """

    def poll(self, now: int, max_events: int = 2048) -> list[tuple[int, int, bytes, int]]:
        """Read without blocking, write to writable sockets, run timers.

        At most about `max_events` events; the descriptor stays readable when more is waiting.
        """

    def flush(self) -> int:
        """Write what `send`, `publish` and `close` queued: one gathered write a connection.

        More than 1024 connections are written to in slices of so many, one a flush, in order. The
        descriptor stays readable until none is left, so a loop of `poll` and `flush` goes on by
        itself. Returns the number of frames that went to the kernel.
        """

    def send(self, cid: int, payload: bytes, kind: int = 3, tag: int = 0) -> bool:
        """Queue one data frame for one connection (text or binary by its encoding, compressed
        when that was negotiated, `payload` is long enough and it makes it shorter).

        True when the connection is open, also when the policy for slow readers drops the frame;
        EVENT_RESYNC, EVENT_HUSHED or EVENT_CLOSED tells about that.
        """

    def publish(
        self,
        topic: int,
        payload: bytes,
        kind: int = 2,
        tag: int = 0,
        exclude: int = 0,
        binary: bytes | None = None,
    ) -> int:
        """Queue one shared frame for every member of a topic but `exclude`; return how many.

        `binary` is the same message for protobuf members, who are left out when it is None. For
        members that negotiated it the message is compressed once, when there are any.
        """

    def close(self, cid: int, code: int, reason: str = "") -> bool:
        """Queue a close frame after what is queued already; the peer has `close_timeout`.

        A reason above 123 bytes is cut. Raises ValueError for a code that may not be sent
        (RFC 6455 section 7.4). False when it is closing already.
        """

    def abort(self, cid: int) -> bool:
        """Close the socket now, without a close frame; EVENT_CLOSED comes with the next poll."""

    def set_deadline(self, cid: int, deadline: int) -> bool:
        """One EVENT_DEADLINE at that time (ms, same clock as `poll`); 0 clears."""

    def set_rate(self, cid: int, per_second: int, burst: int) -> bool: ...
    def trust(self, cid: int) -> bool:
        """Lift the bound `unfold` of a connection."""

    def refund(self, cid: int) -> bool:
        """Do not count the last message: return its token, up to the burst."""

    def open_topic(self) -> int: ...
    def close_topic(self, topic: int) -> bool: ...
    def subscribe(self, topic: int, cid: int) -> bool:
        """True when it is now a member, even if it was before."""

    def unsubscribe(self, topic: int, cid: int) -> bool:
        """False when it was not a member. A closed connection leaves its topics automatically."""

    def topic_size(self, topic: int) -> int: ...
    def queued(self, cid: int) -> int:
        """Bytes waiting in the outbox of a connection."""

    def is_open(self, cid: int) -> bool:
        """Whether it accepts messages: False from the first close frame on, ours or the peer's."""

    def last_received(self, cid: int) -> int:
        """When bytes last came from it, ms; 0 when it is gone."""

    def statistics(self) -> HubStatistics: ...
    def shutdown(self) -> None:
        """Close every socket and the epoll descriptor. Safe to call twice."""
