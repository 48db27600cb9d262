"""Whether Redis will do: reached, allowed, kept, as durable as promised, of the same time."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from syncbridge.errors import StoreError
from syncbridge_server.checks.findings import Finding, Level
from syncbridge_server.gateway.gateway import node_name
from syncbridge_server.redis import formats
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.readiness import (
    StoreReadiness,
    configuration_warnings,
    durability_warnings,
)
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.embedded import find_binary
from syncbridge_server.redis.link.pipeline import plain
from syncbridge_server.redis.link.urls import connection_url
from syncbridge_server.settings import Settings

NAME = "redis"
RIGHTS = Finding("redis-rights", Level.OK, "the user has all required permissions")

Found = list[Finding]


async def check_redis(settings: Settings) -> Found:
    """Everything about Redis; one finding when it cannot be reached."""
    if not settings.redis_addr:
        return [_embedded()]
    async with _link(settings) as (io, readiness):
        if not io.connected:
            return [_refused(io.refusing)]
        found = [await _admitted(io), _usable(readiness)]
        try:
            found += [RIGHTS, *await _configuration(settings, io), await _clock(io)]
        except StoreError as error:
            found.append(Finding(NAME, Level.FAILED, str(error.detail)))
    return [finding for finding in found if finding.text]


def _refused(reason: str) -> Finding:
    """Why there is no connection; one is made only for a user with all permissions."""
    text = f"REDIS_ADDR: {reason or 'nothing answers'}"
    return Finding(RIGHTS.check if "NOPERM" in reason else NAME, Level.FAILED, text)


def _embedded() -> Finding:
    try:
        return Finding(NAME, Level.OK, f"REDIS_ADDR is not set: {find_binary().name} is started")
    except Exception as error:
        return Finding(NAME, Level.FAILED, f"REDIS_ADDR is not set, and {error}")


@asynccontextmanager
async def _link(settings: Settings) -> AsyncIterator[tuple[RedisIO, StoreReadiness]]:
    url = connection_url(
        settings.redis_url(),
        settings.redis_password.get_secret_value(),
        settings.redis_db,
        settings.sentinel_password.get_secret_value(),
    )
    io = RedisIO(url, deadline=settings.store_deadline, durability=settings.durable)
    async with io.running():
        bus = RedisBus(io, node_name())
        async with bus.running(), StoreReadiness(io, bus).running() as readiness:
            yield io, readiness


async def _admitted(io: RedisIO) -> Finding:
    try:
        await formats.admit(io)
    except formats.FormatRefused as refused:
        return Finding(NAME, Level.FAILED, str(refused))
    except StoreError as error:
        return Finding(NAME, Level.FAILED, str(error.detail))
    servers = [server for server in io.connections.servers.values() if server is not None]
    version = ".".join(map(str, servers[0].version)) if servers else "?"
    shape = f"cluster of {len(servers)} primaries" if io.connections.slots else "one primary"
    return Finding(NAME, Level.OK, f"answers; version {version}, {shape}")


def _usable(readiness: StoreReadiness) -> Finding:
    """A write is stored and a message comes back, by the probe that a running server makes."""
    reason = readiness.reason
    text = f"not ready: {reason}" if reason else "a write is stored, a message comes back"
    return Finding("redis-ready", Level.FAILED if reason else Level.OK, text)


async def _configuration(settings: Settings, io: RedisIO) -> Found:
    """Persistence, eviction, the cluster's timeouts, and whether durability can be kept."""
    kept, durable = "redis-configuration", "durability"
    found: Found = []
    lacking: Found = []
    for at, server in io.connections.servers.items():
        where = f"{at}: " if at else ""
        for setting, advice in await configuration_warnings(io, at):
            found.append(Finding(kept, Level.WARNING, f"{where}{setting}: {advice}"))
        if server is not None and server.lacks:
            lacking.append(Finding(durable, Level.FAILED, f"{where}{server.lacks}"))
        elif server is not None:
            for setting, advice in durability_warnings(io, server):
                lacking.append(Finding(durable, Level.WARNING, f"{where}{setting}: {advice}"))
    told = await io.request([plain("CONFIG", "GET", "save")])
    if isinstance(told[0], StoreError):
        text = "CONFIG GET is refused: persistence and cluster settings are not looked at"
        found.append(Finding(kept, Level.SKIPPED, text))
    found = found or [Finding(kept, Level.OK, "persistence is on and eviction is off")]
    return found + (lacking or [Finding(durable, Level.OK, settings.durability)])


async def _clock(io: RedisIO) -> Finding:
    """Redis orders by its own clock, tokens are judged by ours: they should agree."""
    before = time.time()
    seconds, micros = await io.execute("TIME")
    now = (before + time.time()) / 2
    apart = abs(int(seconds) + int(micros) / 1e6 - now)
    level = Level.WARNING if apart > 1.0 else Level.OK
    return Finding("clocks", level, f"this machine and Redis are {apart:.3f} s apart")
