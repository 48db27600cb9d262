"""The handle of one update."""

import math

import anyio

from syncbridge_client.queue import Pending


class Update:
    """One update that was queued. Nobody has to wait for it.

    Attributes:
        id: correlation id. keys: what it touches.
        version: that the server gave it, None until then. error: why it was refused, or None.
    """

    def __init__(self, pending: Pending) -> None:
        self.id = pending.id
        self.keys = pending.keys
        self.version: int | None = None
        self.error: Exception | None = None
        self._done = anyio.Event()

    @property
    def done(self) -> bool:
        """Acknowledged, refused, or overtaken by the end of the session."""
        return self._done.is_set()

    async def settled(self) -> None:
        """Wait until it is done, in whatever way."""
        await self._done.wait()

    async def acknowledged(self, within: float = math.inf) -> int:
        """Wait until the server has it; returns its version, or a later one if that was lost.

        Raises:
            UpdateRefused: see there. SessionClosed: the session ended first; the outcome is not
            known. TimeoutError: not within `within` seconds; it stays queued.
        """
        with anyio.fail_after(within):
            await self._done.wait()
        if self.error is not None:
            raise self.error
        assert self.version is not None
        return self.version

    def finish(self, version: int, error: Exception | None) -> None:
        """Called once, by the session."""
        self.version = None if error is not None else version
        self.error = error
        self._done.set()
