"""The server of one process: lifespan, accept loops, and a graceful stop.

Order of a graceful stop: fail the readiness check (`on_stop`); accept what already waits and close
the listening sockets; close idle HTTP connections and let running requests end, while `drain`
closes the WebSockets; cut off the rest after `drain_timeout`; then shut the application's lifespan
down.
"""

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence

import trio
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from hypercorn.utils import repr_socket_addr, wrap_app

from syncbridge_server.listener.accept import Acceptor
from syncbridge_server.listener.bind import bind, listen
from syncbridge_server.listener.capacity import Bounds
from syncbridge_server.listener.contract import ASGIApplication, ListenerConfig, SocketSink
from syncbridge_server.listener.fast.engine import FastHttp
from syncbridge_server.listener.http2 import serve_http2
from syncbridge_server.listener.hypercorn import Certificates, Site, hypercorn_config

logger = logging.getLogger("syncbridge.listener")

LAST_HEAD_SECONDS = 1.0

Hook = Callable[[], Awaitable[None]]


async def serve(
    app: ASGIApplication,
    config: ListenerConfig,
    sink: SocketSink,
    *,
    shutdown_trigger: Hook,
    sockets: Sequence[socket.socket] | None = None,
    drain: Hook | None = None,
    on_stop: Callable[[], None] | None = None,
    bounds: Bounds | None = None,
    certificates: Certificates | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `shutdown_trigger` returns, then stop gracefully.

    Args:
        sockets: bound sockets to use instead of binding `config.binds`; closed at the end.
        drain: closes the WebSockets; called once, cut off after `config.drain_timeout`.
        on_stop: called first when stopping, to make the readiness check fail.
        bounds: made from `config` by a caller that reads its figures.
        certificates: made from `config` by a caller that reloads them.
        task_status: started with the URLs once connections are accepted.

    Raises:
        OSError, ValueError: an address cannot be bound, or is invalid. LifespanFailureError,
            LifespanTimeoutError: in a group; the application did not start.
    """
    hypercorn = hypercorn_config(config)
    state: LifespanState = {}
    wrapped = wrap_app(app, 0, "asgi")
    lifespan = Lifespan(wrapped, hypercorn, state)
    context = WorkerContext(None)
    site = Site(
        app=wrapped,
        config=config,
        hypercorn=hypercorn,
        context=context,
        state=ConnectionState(state),
        sink=sink,
        certificates=certificates or Certificates(config),
        bounds=bounds or Bounds(config),
    )
    engine = FastHttp(site, serve_http2, app, state)
    listeners = bind(config.binds, mode=config.unix_mode) if sockets is None else list(sockets)
    try:
        async with trio.open_nursery() as lifespan_nursery:
            await lifespan_nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            lifespan_nursery.start_soon(engine.run)
            async with trio.open_nursery() as connections:
                acceptor = _acceptor(site, engine, connections)
                listen(listeners, config.backlog)
                await _accept_until(acceptor, listeners, shutdown_trigger, task_status)
                connections.cancel_scope.deadline = trio.current_time() + config.drain_timeout
                if on_stop is not None:
                    on_stop()
                _close_entrance(acceptor, listeners)
                await context.terminated.set()
                engine.stop()
                await _drain(drain)
            await lifespan.wait_for_shutdown()
            lifespan_nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()


def _acceptor(site: Site, engine: FastHttp, nursery: trio.Nursery) -> Acceptor:
    tls = engine.serve_secure if site.certificates.context is not None else None
    acceptor = Acceptor(site.config, site.sink, nursery, engine.serve, tls, site.bounds)
    engine.upgrade = acceptor.upgrade
    return acceptor


async def _accept_until(
    acceptor: Acceptor,
    listeners: Sequence[socket.socket],
    shutdown_trigger: Hook,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(acceptor.run, listener)
        urls = [url(listener, acceptor.secure) for listener in listeners]
        logger.info("listening on %s", ", ".join(urls))
        task_status.started(urls)
        await shutdown_trigger()
        nursery.cancel_scope.cancel()


async def _drain(drain: Hook | None) -> None:
    """Run the hook; its failure does not prevent the application's shutdown."""
    try:
        if drain is not None:
            await drain()
    except Exception:
        logger.exception("drain failed")


def url(listener: socket.socket, secure: bool) -> str:
    """The URL under which a bound socket is reached."""
    address = repr_socket_addr(listener.family, listener.getsockname())
    return f"{'https' if secure else 'http'}://{address}"


def _close_entrance(acceptor: Acceptor, listeners: Sequence[socket.socket]) -> None:
    """Accept what has connected already, so that closing does not reset it."""
    for listener in listeners:
        try:
            while acceptor.accept_batch(listener):
                pass
        except OSError:
            pass
        listener.close()
    acceptor.hurry(LAST_HEAD_SECONDS)
