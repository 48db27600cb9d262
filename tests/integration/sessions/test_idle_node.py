"""What a node asks of Redis while nobody is there, and for sessions in which nothing happens."""

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
import trio

from support.redis_servers import RedisServer, until
from support.server_kit import mint, new_session, running_node
from support.voice.voice_kit import voice_server
from support.ws_client import Device

SECONDS = 10.0
FREEZER_LOOK = 32
"""Commands of one look at the index of cold sessions, which comes every five minutes."""

VOICE_LOOK = 32
"""Likewise of the first look at the channels that are due and live."""


def calls(raw: redis.Redis) -> dict[str, int]:
    """How often each command was called."""
    stats = raw.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


async def counted(raw: redis.Redis, seconds: float) -> dict[str, int]:
    """What is called in a while, without our own look."""
    before = calls(raw)
    await trio.sleep(seconds)
    after = calls(raw)
    found = {name: count - before.get(name, 0) for name, count in after.items()}
    found["info"] -= 1
    return {name: count for name, count in found.items() if count}


@asynccontextmanager
async def idle(redis_url: str, voice: bool) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        if voice:
            await stack.enter_async_context(voice_server(redis_url, voice_sync=3600.0))
        else:
            await stack.enter_async_context(running_node(redis_url))
        yield


@pytest.mark.parametrize("voice", [False, True])
async def test_an_idle_node_asks_little(redis_server: RedisServer, voice: bool) -> None:
    """Three commands a second at most, besides the looks every two minutes, and no script."""
    with redis_server.client() as raw:
        async with idle(redis_server.url, voice):
            # The first probe of the bus is a script: it shows what scripts may do.
            await until(lambda: calls(raw).get("set", 0) >= 3)
            found = await counted(raw, SECONDS)

    assert "evalsha" not in found
    looks = FREEZER_LOOK + VOICE_LOOK * voice
    assert sum(found.values()) <= 3 * SECONDS + looks, found


LONG_SECONDS = 20.0
LOOKS = {"fz:": FREEZER_LOOK / 300, "calls:": 16 / 120, "ledger:": 16 / 1200}
"""What comes seldom, by its keys, and how many commands a second that is."""


async def test_mean_of_an_idle_node(redis_server: RedisServer) -> None:
    """Three commands a second, with what comes seldom; the witness is what is written most."""
    with redis_server.client() as raw:
        async with idle(redis_server.url, voice=False):
            await until(lambda: calls(raw).get("set", 0) >= 3)
            found = await trio.to_thread.run_sync(monitored, raw, LONG_SECONDS)

    names = [name for name, key in found if not key.startswith(tuple(LOOKS))]
    assert len(names) / LONG_SECONDS + sum(LOOKS.values()) <= 3.0, Counter(names)
    assert "PING" not in names
    witnesses = sum(key.startswith("w:") for _, key in found)
    assert witnesses > 2 * names.count("INFO") > 0


def monitored(raw: redis.Redis, seconds: float) -> list[tuple[str, str]]:
    """Names and first arguments of the commands that come in a while."""
    with raw.monitor() as monitor:
        found: list[tuple[str, str]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            words = monitor.next_command()["command"].split()
            found.append((words[0], words[1] if words[1:] else ""))
    return found


async def test_turns_of_voice_take_no_script(redis_server: RedisServer) -> None:
    """Who has a lock keeps it with plain commands, and the other node looks whether it is free."""
    often = {"voice_sync": 1.0, "voice_monitor": 1.0}
    with redis_server.client() as raw:
        async with voice_server(redis_server.url, nodes=2, **often):
            await until(lambda: calls(raw).get("getex", 0) >= 4)
            found = await counted(raw, SECONDS)

    assert "evalsha" not in found
    assert found["getex"] >= 10, found


async def test_idle_sessions_are_compared_by_plain_reads(redis_server: RedisServer) -> None:
    """Each twice in a period, which is shortened here to 5 seconds, and no script is run."""
    sessions, sid = 40, ""
    short = {"presence_timeout": 2.0, "heartbeat_interval": 0.5}
    with redis_server.client() as raw:
        async with (
            running_node(redis_server.url, **short) as node,
            contextlib.AsyncExitStack() as stack,
            trio.open_nursery() as nursery,
        ):
            for number in range(2 * sessions):
                sid = new_session() if number % 2 == 0 else sid
                device = await stack.enter_async_context(await Device.open(node.port))
                await device.auth(mint("ann"), f"d{number}", session_id=sid)
                await device.set("a", number)
                nursery.start_soon(answer_pings, device)
            await until(lambda: calls(raw).get("hmget", 0) >= 6 * sessions)
            found = await counted(raw, 10.0)
            nursery.cancel_scope.cancel()

    # Inside of scripts HMGET is counted as well: there are none, so these are comparisons.
    assert "evalsha" not in found
    assert 2 * sessions <= found["hmget"] <= 5 * sessions


async def answer_pings(device: Device) -> None:
    while True:
        with contextlib.suppress(trio.TooSlowError):
            await device.receive(0)
