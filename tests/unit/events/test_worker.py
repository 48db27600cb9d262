"""What serves one endpoint: how fast it takes the log, and what it remembers."""

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from syncbridge.events import kinds
from syncbridge.events.cursor import Cursor
from syncbridge.events.delivery import WINDOW, Item
from syncbridge.events.endpoints import Endpoint
from syncbridge.events.outbox import encode, new_event
from syncbridge.events.retries import GIVE_UP_SECONDS
from syncbridge_server.events.sender import Answer
from syncbridge_server.events.worker import Worker
from syncbridge_server.ports.endpoints import Status

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DAY = 86_400.0


class Log:
    """A log of so many events, each of a session of its own. Nobody tells of news."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def read(self, after: Cursor, most: int) -> list[tuple[Cursor, bytes]]:
        await trio.lowlevel.checkpoint()
        numbers = range(after.number + 1, min(after.number + most, self.count) + 1)
        return [(Cursor(1, number), self._text(number)) for number in numbers]

    def _text(self, number: int) -> bytes:
        event = new_event(f"e-{number}", "session.expired", 1, kinds.SessionExpired())
        event.session_id = f"s{number}"
        return encode(event)


class Store:
    """Held events and dead letters, as they are stored."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.items: list[Item] = []
        self.buried: list[str] = []

    async def status(self, name: str) -> Status:
        return Status()

    async def save(self, name: str, status: Status) -> None:
        pass

    async def held(self, name: str, after: str) -> tuple[list[Item], str]:
        return [], after

    async def hold(self, name: str, item: Item) -> str:
        await trio.lowlevel.checkpoint()
        entry = f"{len(self.kept)}-0"
        self.kept[entry] = item.text
        self.items.append(item)
        return entry

    async def text(self, name: str, entry: str) -> bytes:
        return self.kept[entry]

    async def note(self, name: str, item: Item) -> None:
        pass

    async def release(self, name: str, entry: str) -> None:
        pass

    async def bury(self, name: str, item: Item, reason: str) -> None:
        self.buried.append(item.event_id)


class Posts:
    """A receiver that answers at once, after `seconds`."""

    def __init__(self, status: int = 204, seconds: float = 0.0) -> None:
        self.status = status
        self.seconds = seconds
        self.ids: list[str] = []

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        assert body
        await trio.sleep(self.seconds)
        self.ids.append(headers["webhook-id"])
        bad = 200 if headers["webhook-id"] == "e-1" else self.status
        return Answer(bad, "" if bad < 300 else f"status {bad}")

    async def aclose(self) -> None:
        pass


async def nobody(endpoint: Endpoint, reason: str) -> None:
    raise AssertionError(reason)


def worker(log: Log, store: Store, posts: Posts, clock: Any) -> Worker:
    endpoint = Endpoint("e", "https://example.com/", [SECRET])
    return Worker(endpoint, store, log, posts, nobody, clock)  # type: ignore[arg-type]


async def until(posts: Posts, count: int) -> None:
    while len(posts.ids) < count:  # noqa: ASYNC110 - the clock jumps
        await trio.sleep(0.01)


async def test_what_has_piled_up_is_taken_without_a_pause(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nobody tells of news meanwhile: the log is read as soon as there is room."""
    posts, count = Posts(), 8 * WINDOW
    nursery.start_soon(worker(Log(count), Store(), posts, trio.current_time).run)
    with trio.fail_after(4.0):
        await until(posts, count)


@pytest.mark.parametrize("jump", [-DAY, 4 * DAY])
async def test_no_jump_of_the_clock_gives_up_an_event(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, jump: float
) -> None:
    """It is tried again after the same pauses, and for three days of them."""
    jumped = 0.0
    posts, store = Posts(500), Store()
    nursery.start_soon(worker(Log(3), store, posts, lambda: 2e9 + trio.current_time() + jumped).run)
    await until(posts, 3)
    jumped = jump
    with trio.fail_after(10.0):
        await until(posts, 5)

    assert [] == store.buried
    assert GIVE_UP_SECONDS < 4 * DAY


async def test_what_is_held_is_in_memory_only_while_it_is_sent(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """However often it has failed."""
    posts, store = Posts(500), Store()
    nursery.start_soon(worker(Log(3), store, posts, trio.current_time).run)
    await until(posts, 9)
    await trio.testing.wait_all_tasks_blocked()

    assert [b"", b""] == [item.text for item in store.items]
