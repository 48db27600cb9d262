"""What one batch of commands means: answers in order, and the truth about what failed.

Theory of operation. A batch is written as one piece and its replies are read in order, without
MULTI: every command stands for itself, and scripts are atomic anyway. Three things can go wrong.

*The connection breaks.* Commands without a reply may or may not have run. If Redis can be
reached again at once, those that are safe to repeat (reads, and writes with a mutation id, which
Redis deduplicates) are sent a second time, once, in their order. The others answer StoreTimeout,
which says "unknown". When it is certain that nothing was sent, all are repeated, or answer
StoreUnavailable. After a missed deadline nothing is repeated: its time is over.

*A script is missing* (SCRIPT FLUSH, failover). Scripts are loaded at each connect, so that this
is rare. Normally everything from the flush on answers NOSCRIPT, and sending those again, with the
scripts loaded in front of them, keeps their order. But another node may load the script while our
batch is running, so that a later command of the same session succeeds. Then the earlier one must
not be run after it: it answers StoreUnavailable (nothing was done). `Command.lane`, the session,
is what decides; commands of different lanes have no order among each other.

*Redis refuses* (WRONGTYPE, OOM, READONLY...). Our scripts check before they write, so nothing was
done: StoreUnavailable with the error's code. READONLY means that this server is no longer the
master, so the connection is dropped and the next connect asks again where the master is.
"""

import re
import time
from collections.abc import Sequence
from typing import Any

import hiredis
import msgspec

from syncbridge.errors import StoreTimeout, StoreUnavailable
from syncbridge_server.redis.scripts import Scripts
from syncbridge_server.redis.wire import CONNECT_SECONDS, Endpoint, Wire, WireBroken, pack

OLDEST_SERVER = (7, 0)
_CODE = re.compile(r"[A-Z]+")


class Command(msgspec.Struct, gc=False, frozen=True):
    """One command ready to be sent.

    Args:
        packed: RESP bytes.
        lane: commands of one lane take effect in the order of submission; empty for no order.
        repeatable: sending it twice does no harm and gives an equally good answer.
    """

    packed: bytes
    lane: str = ""
    repeatable: bool = False


class Pipeline:
    """A connection that runs batches. Belongs to one thread.

    Attributes:
        hung: the last break was a missed deadline, not a closed connection.
        reason: of the last break.
    """

    def __init__(self, endpoint: Endpoint, scripts: Scripts) -> None:
        self._endpoint = endpoint
        self._scripts = scripts
        self._wire: Wire | None = None
        self.hung = False
        self.reason = ""

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has not failed yet."""
        return self._wire is not None

    def connect(self) -> None:
        """Connect, check the version and load the scripts; raises WireBroken."""
        self.close()
        wire = self._endpoint.connect()
        try:
            deadline = time.monotonic() + CONNECT_SECONDS
            _require_version(_ask(wire, [pack("INFO", "server")], deadline)[0])
            _ask(wire, self._loads(), deadline)
        except WireBroken as broken:
            wire.close()
            self._note(broken)
            raise
        self._wire = wire

    def close(self) -> None:
        """Drop the connection."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def run(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Run a batch; one reply or StoreError each, in order. O(commands).

        `deadline` is in seconds of `time.monotonic()`. Never raises for what Redis does.
        """
        replies: list[Any] = []
        try:
            self._exchange([command.packed for command in commands], replies, deadline)
        except WireBroken as broken:
            self._recover(commands, replies, broken, deadline)
        if hiredis.ReplyError in set(map(type, replies)):
            self._settle(commands, replies, deadline)
        return replies

    def _exchange(self, packed: Sequence[bytes], replies: list[Any], deadline: float) -> None:
        if self._wire is None:
            raise WireBroken("not connected", sent=False)
        try:
            self._wire.exchange(packed, replies, deadline)
        except WireBroken as broken:
            self._note(broken)
            self.close()
            raise

    def _note(self, broken: WireBroken) -> None:
        self.hung = broken.hung
        self.reason = broken.reason

    def _recover(
        self, commands: Sequence[Command], replies: list[Any], broken: WireBroken, deadline: float
    ) -> None:
        """Fill up `replies` after a break, sending again what may be sent again."""
        first = len(replies)
        replies.extend(_failure(broken) for _ in range(first, len(commands)))
        again = [
            index
            for index in range(first, len(commands))
            if not broken.sent or commands[index].repeatable
        ]
        if broken.hung or not again:
            return
        try:
            self.connect()
        except WireBroken:
            return
        self._repeat(commands, replies, again, [], deadline)

    def _repeat(
        self,
        commands: Sequence[Command],
        replies: list[Any],
        again: Sequence[int],
        before: Sequence[bytes],
        deadline: float,
    ) -> None:
        """Send `before` and the commands at `again`; put their answers into `replies`."""
        answers: list[Any] = []
        try:
            packed = [*before, *(commands[index].packed for index in again)]
            self._exchange(packed, answers, deadline)
        except WireBroken as broken:
            missing = len(before) + len(again) - len(answers)
            answers.extend(_failure(broken) for _ in range(missing))
        for index, answer in zip(again, answers[len(before) :], strict=True):
            replies[index] = answer

    def _settle(self, commands: Sequence[Command], replies: list[Any], deadline: float) -> None:
        """Load missing scripts and run their calls; turn what is refused into StoreError."""
        again = _in_order(commands, replies)
        if again:
            self._repeat(commands, replies, again, self._loads(), deadline)
        for index, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                code = _code(reply)
                replies[index] = StoreUnavailable(f"Redis refused: {code}")
                if code == "READONLY":
                    self.close()

    def _loads(self) -> list[bytes]:
        return [pack("SCRIPT", "LOAD", text) for text in self._scripts.sources.values()]


def _in_order(commands: Sequence[Command], replies: Sequence[Any]) -> list[int]:
    """Indices of the NOSCRIPT replies that no later command of their lane has overtaken."""
    done: set[str] = set()
    again: list[int] = []
    for index in range(len(replies) - 1, -1, -1):
        lane, reply = commands[index].lane, replies[index]
        if not isinstance(reply, Exception):
            done.add(lane)
        elif str(reply).startswith("NOSCRIPT") and (not lane or lane not in done):
            again.append(index)
    again.reverse()
    return again


def _failure(broken: WireBroken) -> StoreTimeout | StoreUnavailable:
    if broken.sent:
        return StoreTimeout(f"Redis: {broken.reason}; the outcome is not known")
    return StoreUnavailable(f"Redis: {broken.reason}")


def _ask(wire: Wire, packed: Sequence[bytes], deadline: float) -> list[Any]:
    replies: list[Any] = []
    wire.exchange(packed, replies, deadline)
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise WireBroken(f"not ready: {_code(reply)}", sent=False)
    return replies


def _code(reply: Exception) -> str:
    """The error's code word. The rest may quote data, so that it is not passed on."""
    found = _CODE.match(str(reply))
    return found.group() if found else "ERR"


def _require_version(info: bytes) -> None:
    # Valkey says with which version of Redis it is compatible: 7.2.
    found = re.search(rb"redis_version:(\d+)\.(\d+)", info)
    version = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    if version < OLDEST_SERVER:
        raise WireBroken("Redis 7.0 or newer is needed", sent=False)
