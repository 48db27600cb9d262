"""Commands on their way to Redis: what one is, and which were submitted together."""

from binascii import crc_hqx
from collections.abc import Callable, Sequence, Set
from enum import IntEnum
from typing import Any, Union

import msgspec

from syncbridge.errors import StoreTimeout
from syncbridge.slots import SLOTS
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import pack

Argument = bytes | str | int | float


class Confirm(IntEnum):
    """Whether a command is answered only once enough replicas have it, where that is configured."""

    NO = 0
    YES = 1
    PROBE = 2
    """Like YES, and sent also while the others are refused: it tells when that is over."""
    NOTED = 3
    """Answered in any case, with `Unconfirmed` where they do not have it."""


class Unconfirmed(list[Any]):
    """A reply to a write that replicas have not confirmed: it may be lost."""


def unknown(reason: str) -> StoreTimeout:
    """The answer to a command that may have been done."""
    return StoreTimeout(f"Redis: {reason}; the outcome is not known")


class Command(msgspec.Struct, gc=False, frozen=True):
    """One command ready to be sent.

    Args:
        packed: RESP bytes.
        key: its first key. It decides the slot in a cluster, and commands with the same first key
            take effect in the order of submission. Empty for a command without keys.
        repeatable: sending it twice does no harm and gives an equally good answer.
        at: the server that a command without keys is for; None for any.
        confirm: see `Confirm`.
        reads: it changes nothing, and may go where no order with writes is kept.
    """

    packed: bytes
    key: str = ""
    repeatable: bool = False
    at: Address | None = None
    confirm: Confirm = Confirm.NO
    reads: bool = False


def slot_of_key(key: str) -> int:
    """The slot of a key in a cluster: that of its hash tag, where it has one."""
    start = key.find("{")
    end = key.find("}", start)
    tag = key[start + 1 : end] if -1 < start < end - 1 else key
    return crc_hqx(tag.encode(errors="surrogateescape"), 0) % SLOTS


KEYLESS = frozenset(
    {
        "CLIENT",
        "CLUSTER",
        "CONFIG",
        "DBSIZE",
        "ECHO",
        "FLUSHALL",
        "INFO",
        "PING",
        "SCAN",
        "SCRIPT",
        "TIME",
    }
)
"""Commands whose first argument is not a key."""


READING = frozenset(
    {
        "CONFIG",
        "DBSIZE",
        "EXISTS",
        "GET",
        "HGET",
        "HGETALL",
        "HMGET",
        "HVALS",
        "INFO",
        "LRANGE",
        "SCAN",
        "XLEN",
        "XRANGE",
        "XREVRANGE",
        "ZRANGE",
        "ZRANGEBYSCORE",
        "ZREVRANGE",
        "ZSCAN",
    }
)
"""Read-only commands."""

CONFIRMED = frozenset({"XADD", "XDEL", "ZADD"})
"""Commands that store acknowledged data: revocations and dead letters."""


def plain(
    *args: Argument,
    repeatable: bool = False,
    at: Address | None = None,
    confirm: Confirm | None = None,
) -> Command:
    """A command whose first argument is its key; `at` is for one of `KEYLESS`."""
    key = "" if len(args) < 2 or args[0] in KEYLESS else args[1]
    text = key.decode(errors="surrogateescape") if isinstance(key, bytes) else str(key)
    if confirm is None:
        confirm = Confirm.YES if args[0] in CONFIRMED else Confirm.NO
    return Command(pack(*args), text, repeatable, at, confirm, args[0] in READING)


class Job:
    """Commands that were submitted together, and what to do with their replies.

    Args:
        size: bytes of all commands.
        expires: seconds of `time.monotonic()`; what was not sent by then is not sent.
        deliver: called once with one reply or StoreError each.
        reads: nothing of it changes anything.
    """

    __slots__ = (
        "after",
        "before",
        "commands",
        "deliver",
        "expires",
        "lanes",
        "missing",
        "reads",
        "replies",
        "size",
    )

    def __init__(
        self,
        commands: Sequence[Command],
        size: int,
        expires: float,
        deliver: Callable[[list[Any]], None],
        *,
        reads: bool = False,
    ) -> None:
        self.commands = commands
        self.reads = reads
        self.size = size
        self.expires = expires
        self.deliver = deliver
        self.replies: list[Any] = [None] * len(commands)
        self.missing = len(commands)
        # Kept by the router: the job's lanes, how many jobs must be delivered first, and who waits.
        self.lanes: Set[Lane] = NO_LANES
        self.before = 0
        self.after: list[Job] | None = None


Lane = Union[str, int, "PendingCommand", None]
"""The unit of order: a key, in a cluster a slot; a command without keys has its own lane."""


NO_LANES: frozenset[Lane] = frozenset()


class PendingCommand(msgspec.Struct, eq=False):
    """One command of a job on its way.

    Attributes:
        lane: see `Lane`.
        sent: seconds of `time.monotonic()`.
        tries: how often Redis answered that it was not done.
        loads: how often that was for want of its script.
        repeated: it was under way when a connection broke, and is sent a second time.
    """

    command: Command
    job: Job
    index: int
    lane: "Lane"
    sent: float = 0.0
    tries: int = 0
    loads: int = 0
    repeated: bool = False


class LinkCommand:
    """A command of the link itself, among those of jobs. `answer` gets its reply."""

    __slots__ = ("answer", "command", "sent")
    lane = None

    def __init__(self, command: Command, answer: Callable[[Any], None]) -> None:
        self.command = command
        self.answer = answer
        self.sent = 0.0


def _unread(reply: Any) -> None:
    """Nobody needs it."""


PING = Command(pack("PING"), repeatable=True)
ASKING = Command(pack("ASKING"))


def link_command(command: Command) -> LinkCommand:
    """A command whose reply is discarded."""
    return LinkCommand(command, _unread)
