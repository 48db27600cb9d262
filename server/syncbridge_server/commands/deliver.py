"""`syncbridge deliver`: posts events to the endpoints, in a process of its own.

A POST costs more than a message on a socket, and may wait for seconds: so it is not done by the
processes that serve sockets. Several may run; one delivers, and the others wait for its lease.
`syncbridge dev` starts one when there is an endpoint. SIGHUP has the endpoints' file read again.
"""

import secrets
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import structlog
import trio
import typer

from syncbridge.events.endpoints import Endpoint
from syncbridge_server.configuration.load import load_settings
from syncbridge_server.events.configured import load_endpoints
from syncbridge_server.events.guard import Guard
from syncbridge_server.events.process import Deliveries
from syncbridge_server.log import configure_logging
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.urls import connection_url
from syncbridge_server.settings import ConfigError, Settings
from syncbridge_server.signals import hold_signals, release_signals

log = structlog.get_logger("deliver")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def deliver(
    alive: Annotated[
        Path | None,
        typer.Option(help="A file that is touched every few seconds, for a supervisor's probe."),
    ] = None,
) -> None:
    """Deliver events to endpoints until SIGTERM or Ctrl-C."""
    hold_signals()
    try:
        settings = load_settings()
        if not settings.redis_addr:
            raise ConfigError("set REDIS_ADDR: only its own server can use the embedded Redis")
        configured = load_endpoints(settings.webhooks, Guard(settings.webhook_networks))
        beat: Callable[[], None] = alive.touch if alive else _nothing
        beat()
    except ConfigError as error:
        typer.echo(f"syncbridge deliver: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"syncbridge deliver: --alive: {error.strerror}", err=True)
        raise typer.Exit(2) from None
    configure_logging(settings.log_format, settings.log_level)
    trio.run(run, settings, configured, beat)


def _nothing() -> None:
    pass


async def run(
    settings: Settings, configured: Sequence[Endpoint] = (), beat: Callable[[], None] = _nothing
) -> None:
    """Deliver until a signal other than SIGHUP."""
    url = connection_url(
        settings.redis_url(),
        settings.redis_password.get_secret_value(),
        settings.redis_db,
        settings.sentinel_password.get_secret_value(),
    )
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    io = RedisIO(url, deadline=settings.store_deadline, durability=settings.durable)
    with trio.open_signal_receiver(*wanted) as signals:
        release_signals()
        bus = RedisBus(io, f"deliver-{secrets.token_hex(8)}")
        deliveries = Deliveries(settings, io, bus, configured, beat)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_deliver, io, bus, deliveries)
            async for number in signals:
                if number != signal.SIGHUP:
                    nursery.cancel_scope.cancel()
                    return
                _reload(settings, deliveries)


def _reload(settings: Settings, deliveries: Deliveries) -> None:
    """Read the endpoints' file again; one that cannot be used changes nothing but the log."""
    try:
        found = load_endpoints(settings.webhooks, Guard(settings.webhook_networks))
    except ConfigError as error:
        log.error("endpoints_not_reloaded", reason=str(error))
        return
    deliveries.configure(found)
    log.info("endpoints_reloaded", endpoints=len(found))


async def _deliver(io: RedisIO, bus: RedisBus, deliveries: Deliveries) -> None:
    async with io.running(), bus.running():
        await deliveries.run()
