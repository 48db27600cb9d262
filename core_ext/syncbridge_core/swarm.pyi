"""Thousands of WebSocket clients in one thread, for measuring a server. See swarm.pyx.

Clients are named by index, 0 to count - 1. Every phase gives the interpreter lock up while it
runs, and every 50 ms it calls `watch` with a `Progress`; what `watch` raises ends the phase.
Latencies are nanoseconds. Messages are JSON text of at most 64 KiB; the type of a message is the
number after its first `"type":`.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, final

from syncbridge_core.swarm_engine import Engine
from syncbridge_core.swarm_histogram import Histogram

ANY_TYPE: Final = -2
"""Counts messages of every type."""
KEY: Final[str]
"""The Sec-WebSocket-Key of every client."""
SEQUENCE_FIELD: Final[bytes]
"""Twelve characters of an update's template that become its number."""
UPDATE_VALUE: Final[bytes]
"""The mark and the number by which an update is recognised wherever it arrives."""

class Progress(NamedTuple):
    """Progress of a phase. `goal` is 0 when only time ends it."""

    done: int
    goal: int
    seconds: float

class Totals(NamedTuple):
    """What arrived in one phase. `errors`: messages of type 6. `payload_bytes`: without headers."""

    messages: int
    payload_bytes: int
    errors: int
    pings: int
    closed: int
    protocol_errors: int
    send_failures: int

class ConnectResult(NamedTuple):
    """`latency`: from connect() to the reply to the first message. `error`: the last one's text."""

    opened: int
    failed: int
    seconds: float
    latency: Histogram
    error: str

class PhaseResult(NamedTuple):
    """`done`: replies or messages of the wanted type. `goal`: how many were asked for, or 0."""

    done: int
    goal: int
    seconds: float
    latency: Histogram
    totals: Totals

class UpdatesResult(NamedTuple):
    """An open loop's outcome.

    Attributes:
        sent, unsent: written, and due but not writable (connection gone or its buffer full).
        acknowledged: updates that came back to their sender. acks: how late, from the due time.
        delivered, expected: arrivals at other devices, and sent x copies. latency: how late.
        repeated: arrivals beyond these.
        lag: how late the generator itself wrote; it is part of the two latencies.
    """

    sent: int
    unsent: int
    acknowledged: int
    delivered: int
    expected: int
    repeated: int
    seconds: float
    latency: Histogram
    acks: Histogram
    lag: Histogram
    totals: Totals

@final
class Swarm(Engine):
    def __init__(
        self, host: str, port: int, count: int, *, path: str = "/ws", subprotocol: str = ""
    ) -> None:
        """Prepare `count` clients of ws://host:port/path; `connect` opens them.

        Above 25,000 clients of a 127.0.0.0/8 server the source addresses vary too, since one
        address has some 28,000 ports. Raises ValueError and OSError (no such host).
        """

    def connect(
        self,
        first_messages: Sequence[bytes] = (),
        *,
        concurrency: int = 64,
        seconds: float = 60.0,
        watch: Callable[[Progress], object] | None = None,
    ) -> ConnectResult:
        """Open every client that is not open, at most `concurrency` at a time.

        With `first_messages`, one for each client, a client counts as open when a reply came that
        is neither ERROR (6) nor AUTH_FAILURE (9); without, after the handshake. What is not open
        after `seconds` has failed. May be called again. Raises RuntimeError when all are open.
        """

    def idle(
        self, seconds: float, *, watch: Callable[[Progress], object] | None = None
    ) -> PhaseResult:
        """Only read, count, and answer pings."""

    def echo(
        self,
        message: bytes,
        seconds: float,
        *,
        clients: int = 0,
        reply_type: int = -2,
        watch: Callable[[Progress], object] | None = None,
    ) -> PhaseResult:
        """Closed loop: the first `clients` open clients (0: all) send, wait for a reply, send.

        `latency` runs from a send to its reply. A closed loop slows down with its server, so its
        percentiles are no answer to "how late at this load": that is what `updates` is for.
        """

    def receive(
        self,
        messages: int,
        seconds: float,
        *,
        wanted_type: int = -2,
        trigger: Callable[[], object] | None = None,
        watch: Callable[[Progress], object] | None = None,
    ) -> PhaseResult:
        """Count messages of one type until there are `messages`. `trigger` runs after the clock
        has started; `latency` is each arrival's distance from that start.
        """

    def updates(
        self,
        templates: Sequence[bytes],
        rate: float,
        seconds: float,
        *,
        senders: Sequence[int],
        copies: int = 1,
        warmup: float = 0.0,
        drain: float = 5.0,
        watch: Callable[[Progress], object] | None = None,
    ) -> UpdatesResult:
        """Open loop at `rate` updates a second over `senders` in turn.

        Args:
            templates: 1 to 64 messages with UPDATE_VALUE in them; each sender goes through them.
            copies: how many other clients receive each update.
            warmup: seconds at the start that are sent and counted, but not in the histograms.
            drain: how many seconds to wait at the end for what is on its way.
        """

    def close(self, *, seconds: float = 5.0, reset: bool = False) -> None:
        """Close with 1000 and wait for the replies, or with `reset` drop all at once."""

    def send(self, index: int, message: bytes) -> bool:
        """One text message now; False when that client is not open or its buffer is full."""

    def is_open(self, index: int) -> bool: ...
    @property
    def totals(self) -> Totals:
        """Counters since the last phase began."""

    @property
    def elapsed(self) -> float:
        """Seconds since the last phase began, or its length when it is over."""
