"""Holds answers until enough replicas have the writes. No socket, no clock.

Theory of operation. Behind a batch that has something to confirm go `SET` of a key that nobody
reads and `WAIT N`. WAIT waits for the last write of its own connection alone; without the SET a
repetition that only finds "it was done before" would be confirmed at once, although no replica has
it yet. What was done is held until the answer comes; no further batch is sent meanwhile, since
Redis would not look at it, and so the next one gathers.

In a cluster the key of SET must be in a slot that the server still has. Where it is refused for
that, SET and WAIT are sent again, in another slot that is the server's by the map, or in that of
something just done.
"""

from collections.abc import Callable, Iterable
from typing import Any

import hiredis

from syncbridge_server.redis.link.pipeline import (
    ASKING,
    Command,
    Confirm,
    LinkCommand,
    PendingCommand,
    link_command,
)
from syncbridge_server.redis.link.wire import pack

KEY_MS = 10_000
MOST_TRIES = 5
MOST_SHORT = 3
"""Unconfirmed batches in a row after which writes are refused at once."""

Held = tuple[PendingCommand, Any]
Done = Callable[[list[Held], bool], None]


class Confirmation:
    """The part of one link that waits for replicas.

    Args:
        replicas: how many.
        wait_ms: how long Redis waits for them.
        own_tag: a tag whose slot is the server's, another one for each number, or none.
        done: called with what was held, and whether enough replicas have it.

    Attributes:
        waiting: a batch is not confirmed yet.
        again: SET and WAIT are to be sent once more.
        short: batches in a row that fell short.
        held: what was done, with its reply.
    """

    __slots__ = (
        *("_done", "_own_tag", "_proven", "_replicas", "_tag", "_tries", "_wait"),
        *("again", "held", "short", "waiting"),
    )

    def __init__(
        self, replicas: int, wait_ms: int, own_tag: Callable[[int], str], done: Done
    ) -> None:
        self._own_tag = own_tag
        self._replicas = replicas
        self._wait = Command(pack("WAIT", replicas, wait_ms))
        self._done = done
        self._tag = ""
        self._proven = False
        self._tries = 0
        self.waiting = self.again = False
        self.short = 0
        self.held: list[Held] = []

    def behind(
        self, batch: Iterable[PendingCommand | LinkCommand], *, cluster: bool, lacking: bool = False
    ) -> list[LinkCommand]:
        """The commands to send after a batch; none if it has nothing to confirm.

        While replicas are `lacking`, commands that are answered in any case do not wait.
        """
        if not self.again:
            spared = (Confirm.NO, Confirm.NOTED) if lacking else (Confirm.NO,)
            first = next((item for item in batch if item.command.confirm not in spared), None)
            if first is None:
                return []
            self._tag = self._tag or self._own_tag(0) or tag_of(first.command.key)
        self.waiting, self.again, self._proven = True, False, False
        written = Command(pack("SET", f"wait:{{{self._tag}}}", "", "PX", KEY_MS))
        # A server that only imports the slot takes it after ASKING, as it took what came before.
        asking = [link_command(ASKING)] if cluster else []
        return [*asking, LinkCommand(written, self._written), LinkCommand(self._wait, self._waited)]

    def _written(self, reply: Any) -> None:
        self._proven = not isinstance(reply, hiredis.ReplyError)

    def _waited(self, reply: Any) -> None:
        if not self._proven and self.held and self._tries < MOST_TRIES:
            self._tries += 1
            done = self.held[self._tries % len(self.held)][0].command
            self._tag = (self._tries % 2 and self._own_tag(self._tries)) or tag_of(done.key)
            self.again = True
            return
        enough = self._proven and isinstance(reply, int) and reply >= self._replicas
        if self._proven:
            self.short = 0 if enough else self.short + 1
        else:
            self._tag = ""
        held = self.drop()
        self._done(held, enough)

    def drop(self) -> list[Held]:
        """Reset; returns the held commands."""
        held, self.held = self.held, []
        self.waiting = self.again = False
        self._tries = 0
        return held


def tag_of(key: str) -> str:
    """What decides the slot of a key."""
    found = key.partition("{")[2].partition("}")[0]
    return found or key
