"""One connection's commands: what waits to be written, what is unanswered. No socket, no clock.

A link without a connection is either `CONNECTING`, after a break, and what comes waits for that one
attempt; or `DOWN`, since an attempt failed or a deadline was missed, and what comes is refused.
"""

from collections import deque
from collections.abc import Iterable
from enum import Enum
from itertools import islice

from syncbridge_server.redis.link.confirming import Confirmation
from syncbridge_server.redis.link.pipeline import (
    ASKING,
    Confirm,
    LinkCommand,
    PendingCommand,
    link_command,
)
from syncbridge_server.redis.link.server_info import ServerInfo
from syncbridge_server.redis.link.urls import Address

BATCH_COMMANDS = 512
BATCH_BYTES = 262_144
MOST_UNANSWERED = 1_024
MOST_BATCHES = 4
"""Writes under way: the first answers come while the last ones travel. More make smaller ones."""


class LinkState(Enum):
    """Of a link's connection."""

    CONNECTING = 0
    UP = 1
    DOWN = 2


class Link:
    """Commands for one server.

    Args:
        address: of the server; None for the one that the URL names.

    Attributes:
        confirmation: holds answers until replicas have what was written, where that is wanted.
        state: of the connection.
        reason: why it is down.
        server: with whom the present or last connection was made.
        lacks: why nothing is written that is to be confirmed; empty while it is.
        leaving: nothing more is written; it is closed when everything is answered.
        retry: seconds of the clock at which to connect again, None while an attempt is under way.
        used: when something was last sent or received.
        loaded: when the scripts were last loaded.
    """

    def __init__(self, address: Address | None) -> None:
        self.address = address
        self.confirmation: Confirmation | None = None
        self.lacks = ""
        self.state = LinkState.CONNECTING
        self.reason = ""
        self.server: ServerInfo | None = None
        self.leaving = False
        self.retry: float | None = 0.0
        self.failures = 0
        self.used = 0.0
        self.loaded = 0.0
        self.queue: deque[PendingCommand | LinkCommand] = deque()
        self.sent: deque[PendingCommand | LinkCommand] = deque()
        self._batches: deque[int] = deque()
        self._unwritten = 0
        self._output = b""
        self._at = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is unanswered."""
        confirming = self.confirmation is not None and self.confirmation.waiting
        return not (self.queue or self.sent or confirming)

    @property
    def healthy(self) -> bool:
        """Whether the link is connected and writes what is queued."""
        return self.state is LinkState.UP and not self.lacks

    def wake(self) -> None:
        """Something is to be sent: a connection that broke while it was idle is made again now."""
        if self.state is LinkState.CONNECTING and self.retry is not None:
            self.retry = 0.0

    def put(self, item: PendingCommand | LinkCommand, *, asking: bool = False) -> None:
        """Queue a command; `asking` lets a server take it that only imports its slot."""
        self.wake()
        if asking:
            self.queue.append(link_command(ASKING))
        self.queue.append(item)

    def outgoing(self, now: float) -> memoryview:
        """The bytes to write now; `wrote` reports how many were."""
        if self._at == len(self._output):
            self._output, self._at = self._next(now), 0
        return memoryview(self._output)[self._at :]

    def _next(self, now: float) -> bytes:
        queue, sent, size = self.queue, self.sent, 0
        pieces: list[bytes] = []
        if self.leaving or self.state is not LinkState.UP:
            return b""
        confirmation = self.confirmation
        if confirmation is not None and confirmation.waiting:
            return self._confirm_again(now) if confirmation.again else b""
        if not queue or len(sent) >= MOST_UNANSWERED or len(self._batches) >= MOST_BATCHES:
            return b""
        while queue and len(pieces) < BATCH_COMMANDS and size < BATCH_BYTES:
            item = queue.popleft()
            item.sent = now
            sent.append(item)
            pieces.append(item.command.packed)
            size += len(item.command.packed)
        self.used = now
        self._unwritten = len(pieces)
        if confirmation is not None:
            pieces.append(self._confirming(now))
        self._batches.append(self._unwritten)
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]

    def _confirm_again(self, now: float) -> bytes:
        self.used = now
        packed = self._confirming(now)
        self._batches.append(self._unwritten)
        return packed

    def _confirming(self, now: float) -> bytes:
        """The commands that confirm the last batch, if it needs them."""
        assert self.confirmation is not None
        batch = islice(reversed(self.sent), self._unwritten)
        cluster = self.server is not None and self.server.cluster
        asked = self.confirmation.behind(batch, cluster=cluster, lacking=bool(self.lacks))
        for item in asked:
            item.sent = now
        self.sent.extend(asked)
        self._unwritten += len(asked)
        return b"".join([item.command.packed for item in asked])

    def wrote(self, size: int) -> None:
        """`size` bytes were written."""
        self._at += size
        self._unwritten = 0

    def answered(self, count: int) -> None:
        """So many more replies have come; they are taken out of `sent` by the caller."""
        batches = self._batches
        while count:
            count -= batches[0]
            if count < 0:
                batches[0] = -count
                return
            batches.popleft()

    def lost(self) -> tuple[list[PendingCommand], list[PendingCommand], list[PendingCommand]]:
        """The connection is gone. What was done and not confirmed, not answered, not written."""
        waiting = self.queue
        while self._unwritten:
            waiting.appendleft(self.sent.pop())
            self._unwritten -= 1
        held = self.confirmation.drop() if self.confirmation is not None else []
        found = [item for item, _ in held], _items(self.sent), _items(waiting)
        self.queue, self.sent, self._output, self._at = deque(), deque(), b"", 0
        self._batches.clear()
        return found

    def take(self, lane: object) -> list[PendingCommand]:
        """Remove the waiting commands of a lane."""
        taken = [item for item in self.queue if item.lane == lane]
        if taken:
            self.queue = deque(item for item in self.queue if item.lane != lane)
        return [item for item in taken if isinstance(item, PendingCommand)]

    def take_confirmed(self) -> list[PendingCommand]:
        """Remove the waiting commands that need confirmation."""
        taken = [item for item in self.queue if item.command.confirm is Confirm.YES]
        if taken:
            self.queue = deque(item for item in self.queue if item not in taken)
        return _items(taken)

    def unanswered(self, lane: object) -> int:
        """How many commands of a lane were sent and have no answer."""
        return sum(item.lane == lane for item in self.sent)


def _items(found: Iterable[PendingCommand | LinkCommand]) -> list[PendingCommand]:
    return [item for item in found if isinstance(item, PendingCommand)]
