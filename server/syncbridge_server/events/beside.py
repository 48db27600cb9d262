"""`syncbridge dev` starts `syncbridge deliver` beside it, when there is an endpoint."""

import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from syncbridge.errors import StoreError

LOOK_SECONDS = 2.0
LOCAL = ("127.0.0.0/8", "::1")
"""Networks in which endpoints may be while one develops."""


async def deliver_beside(redis_addr: str, wanted: Callable[[], Awaitable[int]] | None) -> None:
    """Wait for an endpoint, and have deliveries made from then on.

    Args:
        redis_addr: of this server. wanted: how many endpoints there are; None: do not wait.
    """
    if wanted is not None:
        await _until(wanted)
    networks = os.environ.get("SYNCBRIDGE_WEBHOOK_NETWORKS") or ",".join(LOCAL)
    environment = {
        **os.environ,
        "REDIS_ADDR": redis_addr,
        "SYNCBRIDGE_WEBHOOK_NETWORKS": networks,
    }
    command = [sys.executable, "-m", "syncbridge_server", "deliver"]
    await trio.run_process(command, env=environment, check=False)


async def _until(wanted: Callable[[], Awaitable[int]]) -> None:
    while True:
        with suppress(StoreError):
            if await wanted():
                return
        await trio.sleep(LOOK_SECONDS)
