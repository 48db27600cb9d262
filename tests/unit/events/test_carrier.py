"""How often sessions that have changed are told."""

from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from syncbridge.errors import StoreError, StoreUnavailable
from syncbridge_server.events.carrier import Carrier
from syncbridge_server.events.expiry import Expiry
from syncbridge_server.ports.events import Load, Part, Place, Round, Want

ENTRY = (b"1-0", [b"k", b"session.updated", b"s", b"5f0c", b"f", b"1", b"v", b"2"])
Json = dict[str, Any]


class Nothing:
    """Whatever is asked of it, it does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Switch(Nothing):
    """Nobody has written."""

    values = False

    def take_touched(self) -> set[str]:
        return set()

    take_changed = take_touched


class Store(Nothing):
    """Each of its outboxes has so many updates to be told in a round."""

    tags = ("0", "1")

    def __init__(self, each: int) -> None:
        self.each = each
        self.rounds: list[dict[str, Round]] = []

    async def noted(self) -> set[str]:
        return set()

    async def changed(self) -> set[str]:
        return set(self.tags)

    async def take(self, wanted: list[Want], most: int, *, values: bool) -> list[Part]:
        self.rounds.append({one.tag: one.round for one in wanted})
        return [Part([ENTRY] * self.each, 0, 0, 0, 0, b"") for _ in wanted]

    async def carry(self, loads: list[Load]) -> tuple[list[Place | None], int]:
        return [None] * len(loads), 0


@pytest.mark.parametrize(("each", "pause"), [(0, 1.0), (50, 1.0), (100, 2.0), (1_000, 5.0)])
async def test_a_round_that_tells_much_is_followed_later(each: int, pause: float) -> None:
    """A hundred a second; never sooner than after one second, nor later than after five."""
    store = Store(each)
    carrier = Carrier(store, Switch(), Nothing(), Nothing())  # type: ignore[arg-type]
    await carrier._step(trio.current_time(), begin=True)

    assert [dict.fromkeys(store.tags, Round.BEGIN)] == store.rounds
    assert pause == carrier._pause


class Away(Store):
    """Redis does not answer."""

    async def take(self, wanted: list[Want], *_: Any, **__: Any) -> Any:
        return [StoreUnavailable("Redis: away") for _ in wanted]

    async def expire(self, tags: list[str]) -> list[StoreError]:
        return [StoreUnavailable("Redis: away") for _ in tags]


async def test_outboxes_that_fail_together_are_one_line_in_the_log() -> None:
    """There are a thousand. What was to be told is told with the next look."""
    store = Away(0)
    carrier = Carrier(store, Switch(), Nothing(), Nothing())  # type: ignore[arg-type]
    expiry = Expiry(store)  # type: ignore[arg-type]
    with capture_logs() as lines:
        await carrier._step(trio.current_time(), begin=True)
        looked = await expiry.tell(store.tags, 0.0)

    said = [(line["event"], line["outbox"], line["more"]) for line in lines]
    assert [("events_not_read", "0", 1), ("expiry_not_told", "0", 1)] == said
    assert (set(), ["0", "1"]) == (looked, expiry.due(0.0))
