"""Keeps requests in order, and unpacks frozen sessions that they need.

Theory of operation. Each submission is a batch; batches stand in one queue and are delivered from
its head, so answers come in the order of submission. Normally the head is what Redis has just
answered, and the queue is a formality.

A reply FROZEN means that nothing was done because the state is packed; OLD, that the session still
has the keys of format 1: `move.lua` then replaces the unpack call. The batch then stays in the
queue, and a round begins: (1) the packed state is read; (2) one pipeline carries the unpack call
and then every waiting request of that session, in order. From the first FROZEN until (2) is sent,
further requests of the session are parked: they count as answered FROZEN without being sent, so
none overtakes. Requests under way when the round began are answered before (1), because one
connection keeps order. After (2) is sent nothing needs to be parked.

One gap is left: between two requests under way, another node may unpack the session, so that the
earlier gets FROZEN and the later is done. If both are writes of one device, the earlier is not
repeated, because it would undo the later; it answers StoreUnavailable (nothing was done), as in
`pipeline` for missing scripts. Requests of different devices that are under way together have no
order.

While nodes of format 1 run, `barred` is set: requests that change a session are not sent but
answered StoreUnavailable, in order, and no session is moved, because those nodes use it.

Bounds: a session is unpacked at most ROUNDS times for one request, at most ROUND_SESSIONS sessions
at once, and PARKED_MOST requests wait. The deadline of each step is that of the connection.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import structlog

from syncbridge.errors import StoreError, StoreOverloaded, StoreUnavailable
from syncbridge.records.devices import OpenHandoff, Redeem
from syncbridge.records.sessions import Apply, Hello, Leave, Request, Status
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.link.wire import pack
from syncbridge_server.redis.stores.cold import (
    StateDamaged,
    thaw_command,
    unpack_state,
)
from syncbridge_server.redis.stores.keys import meta_key, moved_keys, session_keys

log = structlog.get_logger(__name__)

FROZEN, OLD = [int(Status.FROZEN)], [int(Status.OLD)]
"""Replies of scripts: the state is packed away; the session has the keys of format 1."""

NOT_YET = (FROZEN, OLD)

WRITES = (Apply, Hello, OpenHandoff, Redeem)
"""Requests that are not sent while `barred`. Departures and sign-outs are sent: they only
remove."""

ROUNDS = 4
ROUND_SESSIONS = 64
PARKED_MOST = 8192


class Batch:
    """One submission. `replies` is None until Redis has answered what was sent of it."""

    __slots__ = ("deliver", "frozen", "parked", "replies", "requests")

    def __init__(self, requests: Sequence[Request], deliver: Callable[[list[Any]], None]) -> None:
        self.requests = requests
        self.deliver = deliver
        self.replies: list[Any] | None = None
        self.parked: dict[int, Any] | None = None
        self.frozen = 0

    def waiting(self) -> Iterator[tuple[int, str]]:
        """Index and session of each request that must be repeated."""
        if self.frozen:
            places = self.parked or {} if self.replies is None else dict(enumerate(self.replies))
            for at, reply in places.items():
                if reply in NOT_YET:
                    yield at, session_of(self.requests[at])

    def sent(self) -> list[Request]:
        """The requests that were not parked."""
        parked = self.parked or {}
        return [request for at, request in enumerate(self.requests) if at not in parked]

    def settle(self, at: int, reply: Any) -> None:
        """The reply to a request that waited."""
        self.frozen -= reply not in NOT_YET
        if self.replies is not None:
            self.replies[at] = reply
        elif self.parked is not None:
            self.parked[at] = reply

    def answered(self, replies: list[Any]) -> None:
        """What was sent is answered; what was parked has its place between."""
        if self.parked:
            sent, parked = iter(replies), self.parked
            places = range(len(self.requests))
            replies = [parked[at] if at in parked else next(sent) for at in places]
        self.replies = replies


def session_of(request: Request) -> str:
    """The session of a request, "" for one that belongs to none."""
    sid: str = getattr(request, "sid", "")
    return sid


class FrozenQueue:
    """See the top of this file.

    Args:
        command: the call of a request.
        nonce: random bytes for the place of a session that is moved from format 1.
        most_bytes: bound of an unpacked state.
        on_thaw: called with unpacked sessions.

    Attributes:
        barred: why nothing may be changed, or empty.
    """

    def __init__(
        self,
        io: RedisIO,
        command: Callable[[Request], Command],
        *,
        nonce: Callable[[], bytes],
        most_bytes: int,
        on_thaw: Callable[[Iterable[str]], None],
    ) -> None:
        self._io = io
        self._command = command
        self._nonce = nonce
        self._most_bytes = most_bytes
        self._on_thaw = on_thaw
        self._batches: deque[Batch] = deque()
        self._rounds: dict[str, int] = {}
        self._parking: set[str] = set()
        self._old: set[str] = set()
        self._next: list[str] = []
        self._reading = False
        self.barred = ""
        self.thawed = 0

    def submit(self, requests: Sequence[Request], deliver: Callable[[list[Any]], None]) -> None:
        """Send requests; `deliver` gets their replies or StoreErrors, never FROZEN, in order.

        Raises StoreOverloaded; nothing was sent then.
        """
        commands = [self._command(request) for request in requests]
        batch = Batch(requests, deliver)
        if self._parking or self.barred:
            commands = self._park(batch, commands)
        if commands or not batch.frozen:
            self._io.submit(commands, partial(self._answered, batch))
        else:
            batch.answered([])
        self._batches.append(batch)

    def _park(self, batch: Batch, commands: list[Command]) -> list[Command]:
        """Hold back requests that are barred or wait for an unpacking; returns the others."""
        parked = {at: kept for at, r in enumerate(batch.requests) if (kept := self._kept(r))}
        if not parked:
            return commands
        frozen = sum(kept in NOT_YET for kept in parked.values())
        if frozen + sum(waiting.frozen for waiting in self._batches) > PARKED_MOST:
            raise StoreOverloaded("too many requests wait for states that are being unpacked")
        batch.parked = parked
        batch.frozen = frozen
        return [command for at, command in enumerate(commands) if at not in parked]

    def _kept(self, request: Request) -> Any:
        """The assumed answer of a request that is not sent; None when it is sent."""
        if self.barred and isinstance(request, WRITES):
            return StoreUnavailable(self.barred)
        return FROZEN if session_of(request) in self._parking else None

    def _answered(self, batch: Batch, replies: list[Any]) -> None:
        batch.answered(replies)
        if FROZEN in replies or OLD in replies:
            batch.frozen += replies.count(FROZEN) + replies.count(OLD)
            pairs = list(zip(batch.sent(), replies, strict=True))
            self._old.update(session_of(request) for request, reply in pairs if reply == OLD)
            self._meet([session_of(request) for request, reply in pairs if reply in NOT_YET])
        self._drain()

    def _drain(self) -> None:
        """Deliver complete batches from the head of the queue."""
        batches = self._batches
        while batches and batches[0].replies is not None and not batches[0].frozen:
            batch = batches.popleft()
            assert batch.replies is not None
            try:
                batch.deliver(batch.replies)
            except Exception:
                # A bug in one receiver must not affect the batches behind it.
                log.exception("store_deliver_failed")

    # A round

    def _meet(self, sids: Iterable[str]) -> None:
        """Sessions are frozen: park their requests, and read their packed states."""
        for sid in sids:
            if sid not in self._parking:
                self._parking.add(sid)
                self._next.append(sid)
        self._read()

    def _read(self) -> None:
        while self._next and not self._reading:
            sids = self._next[:ROUND_SESSIONS]
            del self._next[:ROUND_SESSIONS]
            reads = []
            for sid in sids:
                packed = pack("GET", session_keys(sid, "z")[0])
                reads.append(Command(packed, meta_key(sid), repeatable=True))
            try:
                self._io.submit(reads, partial(self._unpack, sids))
                self._reading = True
            except StoreError as error:
                for sid in sids:
                    self._fail(sid, error)

    def _unpack(self, sids: Sequence[str], blobs: list[Any]) -> None:
        """Send the unpack calls, and behind them all requests that wait."""
        self._reading = False
        good: list[str] = []
        thaws: list[Command] = []
        for sid, blob in zip(sids, blobs, strict=True):
            try:
                if isinstance(blob, StoreError):
                    raise blob
                if sid in self._old:
                    if self.barred:
                        raise StoreUnavailable(self.barred)
                    self._old.discard(sid)
                    thaws.append(self._move(sid))
                elif blob is not None:  # else another node was faster
                    thaws.append(thaw_command(self._io, sid, unpack_state(blob, self._most_bytes)))
                good.append(sid)
            except StoreError as error:
                self._fail(sid, error)
        self._ask_again(good, thaws)
        self._drain()
        self._read()

    def _move(self, sid: str) -> Command:
        """Gives a session of format 1 its new keys; the second time there is nothing to do."""
        nonce = [self._nonce()]
        return self._io.script_command("move", moved_keys(sid), nonce, repeatable=True)

    def _ask_again(self, sids: Sequence[str], thaws: list[Command]) -> None:
        places = self._in_order(frozenset(sids))
        commands = [self._command(batch.requests[at]) for batch, at, _ in places]
        try:
            self._io.submit([*thaws, *commands], partial(self._repeated, sids, places))
        except StoreError as error:
            for sid in sids:
                self._fail(sid, error)
            return
        self._parking.difference_update(sids)
        for sid in sids:
            self._rounds[sid] = self._rounds.get(sid, 0) + 1

    def _in_order(self, sids: frozenset[str]) -> list[tuple[Batch, int, str]]:
        """The requests that wait for these sessions, oldest first; overtaken ones are refused."""
        found: list[tuple[Batch, int, str]] = []
        done: set[tuple[str, str]] = set()
        for batch in reversed(self._batches):
            waiting = {at: sid for at, sid in batch.waiting() if sid in sids}
            for at in range(len(batch.requests) - 1, -1, -1):
                request = batch.requests[at]
                if at in waiting:
                    if _conflict(request) in done:
                        batch.settle(at, StoreUnavailable("a later request was quicker"))
                    else:
                        found.append((batch, at, waiting[at]))
                elif batch.replies is not None:
                    done.add(_effect(request, batch.replies[at]))
        found.reverse()
        return found

    def _repeated(
        self, sids: Sequence[str], places: list[tuple[Batch, int, str]], replies: list[Any]
    ) -> None:
        first = len(replies) - len(places)
        self.thawed += replies[:first].count(1)
        again: dict[str, None] = {}
        for (batch, at, sid), reply in zip(places, replies[first:], strict=True):
            batch.settle(at, reply)
            if reply in NOT_YET:
                again[sid] = None
                if reply == OLD:
                    self._old.add(sid)
        for sid in sids:
            if sid not in again:
                self._rounds.pop(sid, None)
            elif self._rounds.get(sid, 0) >= ROUNDS:
                self._fail(sid, StateDamaged("the packed state does not fit its session"))
        self._on_thaw([sid for sid in sids if sid not in again])
        self._meet([sid for sid in again if sid in self._rounds])
        self._drain()

    def _fail(self, sid: str, error: StoreError) -> None:
        """Answer everything that waits for a session with an error."""
        if isinstance(error, StateDamaged):
            log.error("state_damaged", session_id=sid, reason=error.detail)
        self._parking.discard(sid)
        self._old.discard(sid)
        self._rounds.pop(sid, None)
        for batch in self._batches:
            for at, waiting in list(batch.waiting()):
                if waiting == sid:
                    batch.settle(at, error)


def _effect(request: Request, reply: Any) -> tuple[str, str]:
    """The possible effect of a request: a write of a device, or the end of its connection."""
    if isinstance(request, Apply) and isinstance(reply, list) and reply[0] == Status.OK:
        return request.sid, "write " + request.device_id
    if isinstance(request, Leave):
        return request.sid, "leave " + request.device_id
    return "", ""


def _conflict(request: Request) -> tuple[str, str]:
    """Which later effect a request must not follow."""
    if isinstance(request, Apply):
        return request.sid, "write " + request.device_id
    if isinstance(request, Hello):
        return request.sid, "leave " + request.device_id
    return "-", "-"
