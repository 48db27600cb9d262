"""A server process for tests of signals, workers and descriptor limits.

`python listener_app.py single` serves in this process, `workers N` supervises N processes of the
kind `worker`. The first line on stdout is the port. Every HTTP request is answered with the pid.
"""

import os
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.listener.listener_site import EchoSink, lifespan
from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.listener.serve import serve
from syncbridge_server.listener.shutdown import run_until_stopped
from syncbridge_server.listener.workers import (
    Inheritance,
    RestartPolicy,
    Spawner,
    Supervisor,
    bind_for_workers,
    inheritance,
)

CONFIG = ListenerConfig(binds=("127.0.0.1:0",), drain_timeout=5.0)


async def app(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = b"%d" % os.getpid()
    headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def run(given: Inheritance | None) -> int:
    """Serve in this process until a signal; return its exit status."""

    async def main(shutdown_trigger: Callable[[], Awaitable[None]]) -> None:
        sink = EchoSink()
        sockets = given.sockets if given else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.run)

            async def stop(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
                await serve(
                    app,
                    CONFIG,
                    sink,
                    sockets=sockets,
                    shutdown_trigger=shutdown_trigger,
                    drain=sink.drain if os.environ.get("HANG") is None else trio.sleep_forever,
                    task_status=task_status,
                )
                nursery.cancel_scope.cancel()

            urls = await nursery.start(stop)
            if given is None:
                print(urls[0].rpartition(":")[2], flush=True)

    return trio.run(run_until_stopped, main, given.lifeline if given else None)


def supervise(count: int) -> int:
    sockets = bind_for_workers(CONFIG, count)
    print(sockets[0][0].getsockname()[1], flush=True)
    spawner = Spawner([sys.executable, __file__, os.environ.get("WORKER", "worker")])
    try:
        return Supervisor(spawner, sockets, 5.0, RestartPolicy(base=0.01)).run()
    finally:
        spawner.close()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["single"]:
            sys.exit(run(None))
        case ["limited", number]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(number), int(number)))
            sys.exit(run(None))
        case ["workers", number]:
            sys.exit(supervise(int(number)))
        case ["worker"]:
            sys.exit(run(inheritance()))
        case _:
            sys.exit(3)
