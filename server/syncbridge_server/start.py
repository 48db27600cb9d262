"""From settings to a process that serves: its sockets, Redis, its workers.

What cannot work is refused before anything is served: see `tests/server/test_start_refused.py`.
"""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import trio

from syncbridge.errors import StoreError
from syncbridge.identity import Role
from syncbridge_server.admin.links import keep_code
from syncbridge_server.app import Server
from syncbridge_server.auth.audit import Audit
from syncbridge_server.auth.http import DEVELOPER
from syncbridge_server.auth.state_policy import StatePolicy
from syncbridge_server.collector import Collector
from syncbridge_server.configuration.parts import listener_config
from syncbridge_server.descriptors import with_descriptors
from syncbridge_server.environment import WORKER
from syncbridge_server.listener.bind import AddressTaken, bind
from syncbridge_server.listener.shutdown import run_until_stopped
from syncbridge_server.listener.workers import (
    Inheritance,
    Spawner,
    Supervisor,
    bind_for_workers,
    inheritance,
)
from syncbridge_server.redis import formats
from syncbridge_server.redis.durability import Durability
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.embedded import (
    WORKER_REDIS,
    EmbeddedRedis,
    EmbeddedRedisError,
)
from syncbridge_server.redis.link.server_info import TOO_OLD
from syncbridge_server.redis.link.urls import connection_url
from syncbridge_server.redis.link.wire import NO_DATABASE, NO_LOGIN
from syncbridge_server.settings import ConfigError, Settings
from syncbridge_server.signals import release_signals
from syncbridge_server.telemetry.siblings import FOLDER
from syncbridge_server.telemetry.tracing import require_packages
from syncbridge_server.voice.provider.kinds import check_provider

REPLICA_SECONDS, REPLICA_LOOK_SECONDS = 5.0, 0.25
"""How long a start waits until enough replicas are connected, and between two looks."""


def run(settings: Settings, dev: bool = False, code: str = "") -> None:
    """Serve until a signal; ends the process with its exit status. Raises ConfigError.

    `code`: opens the dashboard once, as the developer.
    """
    check_provider(settings)
    StatePolicy(settings.state_policy)
    if settings.audit_log:
        Audit(settings.audit_log).close()
    if settings.otlp_url:
        require_packages()
    worker = _inherited()
    sockets = [worker.sockets] if worker else bound_sockets(settings)
    try:
        status = _run(settings, worker, sockets, code)
    finally:
        for sock in chain(*sockets):
            sock.close()
    sys.exit(status)


def _inherited() -> Inheritance | None:
    try:
        return inheritance()
    except (OSError, OverflowError, ValueError):
        raise ConfigError(f"{WORKER} is internal to a server and its workers; remove it") from None


def _run(
    settings: Settings,
    worker: Inheritance | None,
    sockets: list[list[socket.socket]],
    code: str = "",
) -> int:
    with redis_for(settings, worker) as address, _handed_down(WORKER_REDIS, address):
        url = connection_url(
            address,
            settings.redis_password.get_secret_value(),
            settings.redis_db,
            settings.sentinel_password.get_secret_value(),
        )
        if worker is None:
            trio.run(admit, url, settings.durable, code)
        settings = with_descriptors(settings, tell=worker is None)
        if worker is None and settings.workers > 1:
            return supervise(settings, sockets)
        return _served(partial(serve_process, settings, url, sockets[0], worker))


def _served(process: Callable[[], Awaitable[int]]) -> int:
    """The exit status; ConfigError for what only shows when a server is put together.

    Such as another one that has begun to listen at an address since it was bound here.
    """
    try:
        return trio.run(process)
    except ExceptionGroup as group:
        refused, other = group.split((AddressTaken, ConfigError))
        if refused is None or other is not None:
            raise
        first: BaseException = refused
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        where = "SERVER_ADDR: " if isinstance(first, OSError) else ""
        raise ConfigError(f"{where}{getattr(first, 'strerror', first)}") from None


def bound_sockets(settings: Settings) -> list[list[socket.socket]]:
    """The sockets of each worker, taken before anything else is done. Raises ConfigError.

    Those of SYNCBRIDGE_ADMIN_ADDR come last.
    """
    config = listener_config(settings)
    admin = tuple(map(str, settings.admin_addresses()))
    config = replace(config, binds=config.binds + admin)
    try:
        if settings.workers == 1:
            return [bind(config.binds, mode=config.unix_mode)]
        return bind_for_workers(config, settings.workers)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        at_admin = any(f"listen on {address}:" in str(reason) for address in admin)
        name = "SYNCBRIDGE_ADMIN_ADDR" if at_admin else "SERVER_ADDR"
        raise ConfigError(f"{name}: {reason}") from None


async def admit(url: str, durability: Durability, code: str = "") -> None:
    """End with one line when Redis is not for this release, or not for these settings.

    One that is away may be. Replicas that are on their way are waited for. `code` opens the
    dashboard from then on.
    """
    async with RedisIO(url, durability=durability).running() as io:
        if NO_DATABASE in io.refusing:
            raise ConfigError(f"REDIS_DB: {NO_DATABASE}")
        if NO_LOGIN in io.refusing:
            raise ConfigError(
                "REDIS_PASSWORD: Redis refuses the password, or the user in REDIS_ADDR"
            )
        if TOO_OLD in io.refusing or "NOPERM" in io.refusing:
            raise ConfigError(f"REDIS_ADDR: {io.refusing}")
        try:
            await formats.admit(io)
        except formats.FormatRefused as refused:
            raise ConfigError(str(refused)) from None
        except StoreError:
            return
        lacks = await lacking(io)
        if lacks:
            raise ConfigError(f"SYNCBRIDGE_DURABILITY: {lacks}")
        if code:
            with suppress(StoreError):
                await keep_code(io, code, DEVELOPER, Role.ADMIN)


async def lacking(io: RedisIO) -> str:
    """What a primary lacks for the durability that is configured, once it has had time for it."""
    waits = trio.current_time() + REPLICA_SECONDS
    while True:
        servers = io.connections.servers.values()
        lacks = next((server.lacks for server in servers if server and server.lacks), "")
        if not lacks or not io.durability.replicas or trio.current_time() > waits:
            return lacks
        for at in io.primaries():
            io.renew(at)
        await trio.sleep(REPLICA_LOOK_SECONDS)


@contextmanager
def redis_for(settings: Settings, worker: Inheritance | None) -> Iterator[str]:
    """The URL of Redis; the embedded one runs meanwhile where none is configured."""
    if settings.redis_addr:
        yield settings.redis_url()
    elif worker is not None:
        yield os.environ[WORKER_REDIS]
    else:
        redis, address = _started(settings)
        try:
            yield address
        finally:
            redis.stop()


@contextmanager
def _handed_down(name: str, value: str) -> Iterator[None]:
    """A variable for the processes that are started meanwhile."""
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _started(settings: Settings) -> tuple[EmbeddedRedis, str]:
    try:
        fsync = "always" if settings.durable.fsync else "everysec"
        redis = EmbeddedRedis(Path(settings.data_dir), fsync=fsync)
        return redis, redis.start()
    except OSError as error:
        raise ConfigError(f"SYNCBRIDGE_DATA_DIR: {settings.data_dir}: {error.strerror}") from None
    except EmbeddedRedisError as error:
        raise ConfigError(f"REDIS_ADDR is not set, and {error}") from None


async def serve_process(
    settings: Settings,
    url: str,
    sockets: list[socket.socket],
    worker: Inheritance | None,
) -> int:
    """One serving process, from start to exit status."""

    async def main(shutdown_trigger: Callable[[], Awaitable[None]]) -> None:
        index = worker.index if worker else 0
        async with Server.open(settings, url, index) as server, trio.open_nursery() as nursery:
            nursery.start_soon(Collector().run)
            await nursery.start(_reload_on_hangup, server)
            public = len(settings.listen_addresses())
            await server.run(shutdown_trigger, sockets[:public], sockets[public:])
            nursery.cancel_scope.cancel()

    return await run_until_stopped(main, worker.lifeline if worker else None)


async def _reload_on_hangup(server: Server, *, task_status: trio.TaskStatus[None]) -> None:
    """Have the server read its files again with each SIGHUP, for ever."""
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        release_signals()
        task_status.started()
        async for _ in hangups:
            server.reload()


def supervise(settings: Settings, sockets: list[list[socket.socket]]) -> int:
    """Start and watch the workers; returns the exit status."""
    spawner = Spawner([sys.executable, "-m", "syncbridge_server", *sys.argv[1:]])
    with (
        tempfile.TemporaryDirectory(prefix="syncbridge-") as folder,
        _handed_down(FOLDER, folder),
    ):
        try:
            return Supervisor(spawner, sockets, drain_timeout=settings.drain).run()
        finally:
            spawner.close()
