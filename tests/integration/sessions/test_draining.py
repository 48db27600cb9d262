"""A stop while devices write: what has arrived is answered before its socket is closed."""

from contextlib import AsyncExitStack

import pytest

from support.redis_servers import RedisServer, until
from support.server_kit import mint, new_session, running_node
from support.ws_client import Closed, Device

STATE_UPDATE, ERROR = 5, 6
DEVICES = 50


async def joined(port: int, stack: AsyncExitStack, count: int) -> list[Device]:
    """Devices, each in a session of its own."""
    devices = []
    for _ in range(count):
        device = await stack.enter_async_context(await Device.open(port))
        await device.auth(mint("ann"), "d", session_id=new_session())
        devices.append(device)
    return devices


async def last_words(device: Device) -> tuple[list[str], int]:
    """Correlation ids of what was acknowledged, and the code of the close."""
    acknowledged = []
    try:
        while True:
            message = await device.receive(STATE_UPDATE)
            acknowledged.append(message["correlation_id"])
    except Closed as closed:
        return acknowledged, closed.code


async def test_writes_that_have_arrived_are_answered(redis_url: str) -> None:
    """They wait in the sockets' buffers when the stop begins."""
    async with running_node(redis_url) as node, AsyncExitStack() as stack:
        devices = await joined(node.port, stack, DEVICES)
        for device in devices:
            await device.send(STATE_UPDATE, {"key": "a", "value": 1}, "w1")
            await device.send(STATE_UPDATE, {"key": "a", "value": 2}, "w2")
        node.stop.set()
        ends = [await last_words(device) for device in devices]

    assert [(["w1", "w2"], 1012)] * DEVICES == ends


async def test_writes_that_wait_for_redis_are_answered(redis_server: RedisServer) -> None:
    """The stop waits for them; what comes meanwhile is refused, and is not stored."""
    async with running_node(redis_server.url, drain=20.0) as node, AsyncExitStack() as stack:
        devices = await joined(node.port, stack, 8)
        gateway = node.server.gateway
        redis_server.pause()
        try:
            for device in devices:
                await device.send(STATE_UPDATE, {"key": "a", "value": 1}, "early")
            await until(lambda: gateway.store_queue.in_flight >= len(devices))
            node.stop.set()
            await until(lambda: gateway.engine.leaving)
            for device in devices:
                await device.send(STATE_UPDATE, {"key": "a", "value": 2}, "late")
            refused = [await device.receive(ERROR) for device in devices]
        finally:
            redis_server.resume()
        ends = [await last_words(device) for device in devices]

    assert [("draining", "late")] * 8 == [
        (message["payload"]["code"], message["correlation_id"]) for message in refused
    ]
    assert [(["early"], 1012)] * 8 == ends


@pytest.mark.parametrize("count", [1, 40])
async def test_messages_behind_auth_are_answered(redis_url: str, count: int) -> None:
    """Sent without waiting for the answer to AUTH, and before the stop."""
    async with running_node(redis_url) as node, AsyncExitStack() as stack:
        devices = [
            await stack.enter_async_context(await Device.open(node.port)) for _ in range(count)
        ]
        for device in devices:
            auth = {"token": mint("ann"), "device_id": "d", "session_id": new_session()}
            await device.send(7, auth)
            await device.send(STATE_UPDATE, {"key": "a", "value": 1}, "w")
        node.stop.set()
        ends = [await last_words(device) for device in devices]

    assert [(["w"], 1012)] * count == ends
