"""Stopping by signals."""

import signal
from collections.abc import Awaitable, Callable

import trio

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


async def run_until_stopped(
    main: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    lifeline: int | None = None,
) -> int:
    """Run `main(shutdown_trigger)`; a first STOP_SIGNALS signal asks it to stop, a second cancels
    it.

    Args:
        lifeline: read end of a pipe whose other end a supervisor holds; end of file there (the
            supervisor died) counts as the first signal.

    Returns:
        Exit status: 0 after an orderly end, 1 when it was cut short.
    """
    asked = trio.Event()
    status = 0
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def watch_signals() -> None:
                nonlocal status
                async for _ in signals:
                    if asked.is_set():
                        status = 1
                        nursery.cancel_scope.cancel()
                    asked.set()

            async def watch_lifeline(descriptor: int) -> None:
                await trio.lowlevel.wait_readable(descriptor)
                asked.set()

            nursery.start_soon(watch_signals)
            if lifeline is not None:
                nursery.start_soon(watch_lifeline, lifeline)
            await main(asked.wait)
            nursery.cancel_scope.cancel()
    return status
