"""An event that is cleared when its waiter wakes up: `trio.Event` cannot be cleared."""

import trio


class AutoResetEvent:
    """For one waiting task; any number of tasks may set it. Each method is O(1)."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake the waiter, or let its next `wait` return at once."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until the event is set, and clear it; a cancelled wait leaves it as it is."""
        await self._event.wait()
        self._event = trio.Event()
