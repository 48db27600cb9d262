"""Running the client in tests: on Trio, or on asyncio in a thread beside the test's Trio."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import trio

from support.server_kit import mint
from syncbridge_client import Change, Session, connect

T = TypeVar("T")
LIMIT = 60.0
"""Seconds after which a test of the client has failed."""

FAST = {"backoff_base": 0.05, "backoff_cap": 0.2, "start_timeout": 10.0}
"""Options of a client that reconnects without much waiting."""


def device(port: int, device_id: str, session_id: str, **options: Any) -> Session:
    """A client of the user `ann`."""
    token = options.pop("token", None) or mint("ann")
    url = f"ws://127.0.0.1:{port}/ws"
    return connect(url, token=token, device_id=device_id, session_id=session_id, **(FAST | options))


async def on(backend: str, scenario: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run a scenario here on Trio, or on asyncio in a thread of its own."""

    async def limited() -> T:
        with anyio.fail_after(LIMIT):
            return await scenario(*args)

    if backend == "trio":
        return await limited()
    return await trio.to_thread.run_sync(partial(anyio.run, limited, backend="asyncio"))


async def until(condition: Callable[[], bool]) -> None:
    """Let time pass until a condition holds; TimeoutError when it does not in time."""
    with anyio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await anyio.sleep(0.005)


async def next_change(changes: Any) -> Change:
    """The next change, in time."""
    with anyio.fail_after(LIMIT):
        change: Change = await anext(changes)
    return change


async def next_event(events: Any, kind: type[T]) -> T:
    """The next event of a kind, in time; others are passed over."""
    with anyio.fail_after(LIMIT):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the session ended before a {kind.__name__}")
