"""The iterators behind `session.changes()` and `session.events()`.

Nobody waits for a slow reader. Changes are conflated: of a key that changed ten times the reader
gets the newest value. Events are kept in order up to a bound, then the oldest go, and the reader is
told how many.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar

import anyio

from syncbridge_client.events import Change, Event, EventsLost
from syncbridge_client.replica import Step

T = TypeVar("T")


class Feed(Generic[T]):
    """An async iterator that ends when the session does. Cancelling a wait loses nothing."""

    def __init__(self) -> None:
        self._news = anyio.Event()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        await anyio.lowlevel.checkpoint()
        while not self._waiting():
            if self._closed:
                raise StopAsyncIteration
            await self._news.wait()
        return self._take()

    def close(self) -> None:
        """What waits can still be read, then the iterator ends."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def _waiting(self) -> bool:
        raise NotImplementedError

    def _take(self) -> T:
        raise NotImplementedError


class ChangeFeed(Feed[Change]):
    """Changes of the view since the last answer, newest value of each key.

    Args:
        view: the live view. version: of the session, asked when an answer is put together.
        max_keys: keys that may wait; then the whole view is given instead.
    """

    def __init__(self, view: Mapping[str, Any], version: Callable[[], int], max_keys: int) -> None:
        super().__init__()
        self._view = view
        self._version = version
        self._max_keys = max_keys
        self._keys: dict[str, bool] = {}
        self._reset = False

    def push(self, step: Step, own: bool) -> None:
        """Note the keys that a step has changed."""
        if self._reset:
            return
        for key in (*step.changed, *step.deleted):
            self._keys[key] = own
        if len(self._keys) > self._max_keys:
            self._reset = True
            self._keys.clear()
        self._wake()

    def _waiting(self) -> bool:
        return self._reset or bool(self._keys)

    def _take(self) -> Change:
        keys, self._keys = self._keys, {}
        reset, self._reset = self._reset, False
        if reset:
            return Change(dict(self._view), frozenset(), frozenset(), self._version(), True)
        changed = {key: self._view[key] for key in keys if key in self._view}
        own = frozenset(key for key, ours in keys.items() if ours)
        return Change(changed, frozenset(keys.keys() - changed.keys()), own, self._version())


class EventFeed(Feed[Event]):
    """Events in order; at most `limit` wait."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._events: deque[Event] = deque()
        self._lost = 0

    def push(self, event: Event) -> None:
        """Add one; the oldest goes when there is no room."""
        if len(self._events) >= self._limit:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._wake()

    def _waiting(self) -> bool:
        return bool(self._events)

    def _take(self) -> Event:
        if self._lost:
            lost, self._lost = self._lost, 0
            return EventsLost(lost)
        return self._events.popleft()
