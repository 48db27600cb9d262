"""The thread that receives messages from one primary.

Theory of operation. `assign` sets the wanted channels. The thread subscribes to those that are
missing, and tells the bus when all are in place. A sharded channel lives where its slot is. When a
slot moves away, the server ends the subscription. A server that does not serve the slot yet
refuses; it is asked again after `RETRY_SECONDS`, while the slot map is read. Messages published
meanwhile are lost, so the bus compares whenever all channels are in place again.

A connection that is silent for `PING_SECONDS` gets a PING, and is closed without a PONG. So a dead
connection is noticed within `PING_SECONDS + PONG_SECONDS`.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import structlog
import trio

from syncbridge_server.redis.link.endpoint import RedisEndpoint
from syncbridge_server.redis.link.server_info import ServerInfo, error_code, interview
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.waker import Waker
from syncbridge_server.redis.link.wire import CONNECT_SECONDS, Wire, WireBroken, pack

log = structlog.get_logger(__name__)

PING_SECONDS = 5.0
PONG_SECONDS = 2.0
RETRY_SECONDS = 0.1
SETTLE_SECONDS = 1.0
"""Seconds between two reports that all are in place, while slots move: each makes the bus
compare."""
BACKOFF_SECONDS = (0.05, 1.0)
_ELSEWHERE = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})


class SubscriptionHandler(Protocol):
    """The bus; every method runs on the Trio thread."""

    def receive(self, payloads: list[bytes]) -> None:
        """Messages that arrived together."""

    def subscribed(self, at: Address | None, server: ServerInfo) -> None:
        """All channels are subscribed."""

    def incomplete(self, at: Address | None) -> None:
        """The connection works, but a channel is not subscribed."""

    def displaced(self, at: Address | None) -> None:
        """A channel was refused because its slot is not served there."""

    def lost(self, at: Address | None, reason: str) -> None:
        """The connection broke or could not be made."""


class Listener:
    """One primary's channels.

    Args:
        at: the primary; None for the one that the URL names.
        handler: called on the Trio thread.
    """

    def __init__(
        self,
        endpoint: RedisEndpoint,
        at: Address | None,
        token: trio.lowlevel.TrioToken,
        handler: SubscriptionHandler,
    ) -> None:
        self._endpoint = endpoint
        self._at = at
        self._post = token.run_sync_soon
        self._handler = handler
        self._closing = threading.Event()
        self._assigned: frozenset[str] = frozenset()
        self._wire: Wire | None = None
        self._waker = Waker()
        self._thread = threading.Thread(target=self._main, name="redis-bus", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def assign(self, channels: Iterable[str]) -> None:
        """Set the wanted channels."""
        self._assigned = frozenset(channels)
        self._waker.wake()

    def close(self) -> None:
        """Ask the thread to end."""
        self._closing.set()
        self.interrupt()
        self._waker.wake()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(seconds)

    def interrupt(self) -> None:
        """End the present connection; another is made."""
        wire = self._wire
        if wire is not None:
            wire.interrupt()

    def _main(self) -> None:
        pause, longest = BACKOFF_SECONDS
        try:
            while not self._closing.is_set():
                try:
                    self._listen()
                except WireBroken as broken:
                    if self._closing.is_set():
                        return
                    self._post(self._handler.lost, self._at, broken.reason)
                    pause = BACKOFF_SECONDS[0] if broken.sent else min(2 * pause, longest)
                self._closing.wait(pause * random.uniform(0.75, 1.25))  # noqa: S311
        except trio.RunFinishedError:
            pass
        finally:
            self._waker.close()

    def _listen(self) -> None:
        """Serve one connection until it ends, always with WireBroken."""
        wire = self._wire = self._endpoint.connect(self._at)
        try:
            if self._closing.is_set():
                return
            server = interview(wire, time.monotonic() + CONNECT_SECONDS)
            subscription = Subscription(wire)
            while not self._closing.is_set():
                self._turn(wire, subscription, server)
        finally:
            self._wire = None
            wire.close()

    def _turn(self, wire: Wire, subscription: "Subscription", server: ServerInfo) -> None:
        now = time.monotonic()
        subscription.ask(self._assigned, now)
        change = subscription.change(self._assigned, now)
        if change is True:
            self._post(self._handler.subscribed, self._at, server)
        elif change is False:
            self._post(self._handler.incomplete, self._at)
        messages = wire.receive(subscription.patience(now), self._waker)
        payloads = subscription.take(messages, time.monotonic())
        if subscription.displaced:
            subscription.displaced = False
            self._post(self._handler.displaced, self._at)
        if payloads:
            self._post(self._handler.receive, payloads)


class Subscription:
    """The subscriptions of one connection, those requested, and whether the server is alive.

    `displaced`: a channel was refused because its slot is not served there.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._standing: set[str] = set()
        self._asked: deque[str] = deque()
        self._asked_at = time.monotonic()
        self._told: bool | None = None
        self._again = 0.0
        self._settled = 0.0
        self._heard = self._asked_at
        self._pinged = False
        self.displaced = False

    def ask(self, wanted: frozenset[str], now: float) -> None:
        """Subscribe to the missing channels, with one command each: one for several slots is
        refused.

        Raises WireBroken, also when an answer is late.
        """
        if self._asked and now > self._asked_at + CONNECT_SECONDS:
            raise WireBroken("no subscription in time", sent=False, hung=True)
        if self._asked or now < self._again:
            return
        missing = sorted(wanted - self._standing)
        if missing:
            self._asked.extend(missing)
            self._asked_at = now
            packed = b"".join(pack("SSUBSCRIBE", channel) for channel in missing)
            self._wire.send(packed, CONNECT_SECONDS)

    def change(self, wanted: frozenset[str], now: float) -> bool | None:
        """Whether all are subscribed, if that must be reported now; else None."""
        complete = wanted <= self._standing
        if complete == self._told or (complete and now < self._settled):
            return None
        if not complete and self._told is None:
            return None
        self._told = complete
        self._settled = now + SETTLE_SECONDS if complete else self._settled
        return complete

    def patience(self, now: float) -> float:
        """How long to wait for messages; sends PING after a silence. Raises WireBroken."""
        due = self._heard + PING_SECONDS + (PONG_SECONDS if self._pinged else 0.0)
        if now >= due:
            if self._pinged:
                raise WireBroken("silent", sent=True, hung=True)
            self._pinged = True
            self._wire.send(pack("PING"), PONG_SECONDS)
            due += PONG_SECONDS
        times = [due]
        if self._asked:
            times.append(self._asked_at + CONNECT_SECONDS)
        times += [time for time in (self._again, self._settled) if time > now]
        return max(0.001, min(times) - now)

    def take(self, messages: Sequence[Any], now: float) -> list[bytes]:
        """Take note of answers; returns what was published. Raises WireBroken."""
        if messages:
            self._heard, self._pinged = now, False
        payloads: list[bytes] = []
        for message in messages:
            if not isinstance(message, list):
                self._refused(message, now)
            elif message[0] == b"smessage":
                payloads.append(message[2])
            elif message[0] == b"ssubscribe":
                self._standing.add(self._asked.popleft())
            elif message[0] == b"sunsubscribe":
                self._standing.discard(message[1].decode())
        return payloads

    def _refused(self, reply: Any, now: float) -> None:
        if not isinstance(reply, Exception):
            return
        code = error_code(reply)
        if code not in _ELSEWHERE or not self._asked:
            raise WireBroken(f"subscription refused: {code}", sent=False)
        self._asked.popleft()
        self.displaced = True
        self._again = now + RETRY_SECONDS
