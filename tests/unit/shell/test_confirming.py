"""Replicas are waited for behind a batch; in parts, until they have confirmed one."""

from typing import Any

import hiredis
import pytest

from syncbridge_server.redis.link.confirming import MOST_SHORT, PARTS, Confirmation, Held
from syncbridge_server.redis.link.pipeline import Command, Confirm, Item, Job, Own
from syncbridge_server.redis.link.wire import pack

WAIT_MS = 700


class Watched:
    """A confirmation that waits for two replicas, and what it has told."""

    def __init__(self) -> None:
        self.told: list[tuple[list[Held], bool]] = []
        self.confirmation = Confirmation(2, WAIT_MS, lambda number: "t", self._done)

    def _done(self, held: list[Held], enough: bool) -> None:
        self.told.append((held, enough))

    def asked(self) -> list[Own]:
        """What goes behind a probe."""
        command = Command(b"", "k", confirm=Confirm.PROBE)
        item = Item(command, Job([command], 0, 0.0, lambda replies: None), 0)
        own = self.confirmation.behind([item], cluster=False)
        self.confirmation.held.append((item, "reply"))
        return own


def packed(own: list[Own]) -> list[bytes]:
    return [each.command.packed for each in own]


def answer(own: list[Own], *replies: Any) -> None:
    for each, reply in zip(own, replies, strict=True):
        each.answer(reply)


def test_one_wait_once_a_batch_was_confirmed() -> None:
    """A SET and a WAIT for the whole time; after one that falls short, or a break, parts again."""
    watched = Watched()
    answer(watched.asked(), "OK", *[2] * PARTS)
    own = watched.asked()
    answer(own, "OK", 1)
    short = watched.asked()
    answer(short, "OK", *[2] * PARTS)
    watched.confirmation.drop()

    assert packed(own)[1:] == [pack("WAIT", 2, WAIT_MS)]
    assert [enough for _, enough in watched.told] == [True, False, True]
    assert len(short) == len(watched.asked()) == 1 + PARTS


@pytest.mark.parametrize("at", range(PARTS))
def test_parts_on_a_new_connection(at: int) -> None:
    """As long together; replicas are asked anew in each, and enough of them in one are enough."""
    watched = Watched()
    own = watched.asked()
    answer(own, "OK", *[0] * at, *[2] * (PARTS - at))

    assert packed(own)[1:] == [pack("WAIT", 2, WAIT_MS // PARTS)] * PARTS
    assert [enough for _, enough in watched.told] == [True]
    assert len(watched.told[0][0]) == 1


def test_too_few_in_every_part() -> None:
    """It counts as one batch that fell short; what an error answers is no replica."""
    watched = Watched()
    for _ in range(MOST_SHORT):
        own = watched.asked()
        answer(own, "OK", *[1] * (PARTS - 1), hiredis.ReplyError("ERR"))

    assert [enough for _, enough in watched.told] == [False] * MOST_SHORT
    assert watched.confirmation.short == MOST_SHORT
