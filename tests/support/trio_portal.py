"""A Trio loop in a thread, for tests that are not coroutines themselves."""

import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import trio

T = TypeVar("T")


class Portal(Generic[T]):
    """Keeps an async context open; `value` is what it gave, `run` calls into its loop."""

    value: T

    def __init__(self, context: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._context = context
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="trio-portal")

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Await a coroutine function in the loop; returns or raises what it does."""
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _main(self) -> None:
        try:
            trio.run(self._hold)
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _hold(self) -> None:
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        async with self._context() as self.value:
            self._ready.set()
            await self._stop.wait()
