"""Writes that a node took, and carries out only when their device has long been elsewhere."""

import os
import signal
from pathlib import Path

from support.server_kit import Process, mint, new_session, server_process
from support.ws_client import Device

STATE_UPDATE = 5


async def join(process: Process, session: str, **extra: object) -> Device:
    device = await Device.open(process.port)
    await device.auth(mint("ann"), "phone", session_id=session, **extra)
    return device


async def test_write_on_a_replaced_socket_comes_too_late(redis_url: str, tmp_path: Path) -> None:
    """A node stands still with a write in its socket; the device moves on and writes something
    newer. Awake again, the node must not put the old value over it."""
    session = new_session()
    with (
        server_process(tmp_path, redis_url) as still,
        server_process(tmp_path, redis_url) as other,
    ):
        async with await join(still, session) as old:
            await old.set("mood", "first")
            os.kill(still.popen.pid, signal.SIGSTOP)
            await old.send(STATE_UPDATE, {"key": "mood", "value": "late"}, "late")
            async with await join(other, session) as new:
                await new.set("mood", "newer")
                os.kill(still.popen.pid, signal.SIGCONT)
                closed = await old.closed()
                again = await new.set("other", 1)
                state = (await new.request(3))["payload"]["state_data"]

    assert 4009 == closed.code
    assert {"mood": "newer", "other": 1} == state
    assert 3 == again["payload"]["version"]
