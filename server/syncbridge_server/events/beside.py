"""`syncbridge dev` runs `syncbridge deliver` beside it, when there is an endpoint."""

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog
import trio

from syncbridge.errors import StoreError

log = structlog.get_logger("deliver")

LOOK_SECONDS = 2.0
LOCAL = ("127.0.0.0/8", "::1")
"""Networks in which endpoints may be while one develops."""

AGAIN_SECONDS = 2.0
MISTAKE = 2
"""The status with which it ends for settings that cannot work: it has said so."""


async def deliver_beside(
    redis_addr: str,
    networks: Sequence[str],
    log_format: str,
    wanted: Callable[[], Awaitable[int]] | None,
) -> None:
    """Wait for an endpoint, and have deliveries made from then on, by one process after another.

    Args:
        redis_addr, networks, log_format: of this server. wanted: how many endpoints there are;
            None: do not wait.
    """
    if wanted is not None:
        await _until(wanted)
    environment = {
        **os.environ,
        "REDIS_ADDR": redis_addr,
        "SYNCBRIDGE_WEBHOOK_NETWORKS": ",".join(networks),
        "SYNCBRIDGE_LOG_FORMAT": log_format,
    }
    command = [sys.executable, "-m", "syncbridge_server", "deliver"]
    while (ended := await trio.run_process(command, env=environment, check=False)).returncode:
        if ended.returncode == MISTAKE:
            return
        log.warning("deliver_ended", status=ended.returncode)
        await trio.sleep(AGAIN_SECONDS)


async def _until(wanted: Callable[[], Awaitable[int]]) -> None:
    while True:
        with suppress(StoreError):
            if await wanted():
                return
        await trio.sleep(LOOK_SECONDS)
