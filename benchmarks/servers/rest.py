"""One Starlette application, a JSON GET of 1.2 KB, on one of three servers.

`rest.py PORT fast|uvicorn|stock`: our listener, uvicorn with httptools and uvloop, or Hypercorn
with its Trio worker. None writes an access log.
"""

import logging
import socket
import sys
from functools import partial
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.serve import serve

DOCUMENT = {
    "session_id": "6f1d2c3e-8a0b-4c5d-9e7f-102030405060",
    "version": 42,
    "state_data": {f"setting_{number:02}": "0123456789" * 8 for number in range(11)},
}


async def read(request: Request) -> JSONResponse:
    return JSONResponse(DOCUMENT)


class NoSockets:
    """A sink that no WebSocket reaches."""

    def admit(self, client: str) -> Refusal | None:
        return Refusal(503, "no_sockets", "there are none here")

    def adopt(self, sock: socket.socket, **_: Any) -> int:
        raise OSError("there are none here")


def run_fast(app: Any, port: int) -> None:
    config = ListenerConfig(binds=(f"127.0.0.1:{port}",))
    trio.run(partial(serve, app, config, NoSockets(), shutdown_trigger=trio.sleep_forever))


def run_uvicorn(app: Any, port: int) -> None:
    import uvicorn

    options: dict[str, Any] = {"access_log": False, "log_level": "warning"}
    uvicorn.run(app, port=port, http="httptools", loop="uvloop", **options)


def run_stock(app: Any, port: int) -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve as serve_stock

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.keep_alive_max_requests = 2**31
    trio.run(partial(serve_stock, app, config))


SERVERS = {"fast": run_fast, "uvicorn": run_uvicorn, "stock": run_stock}

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    SERVERS[sys.argv[2]](Starlette(routes=[Route("/doc", read)]), int(sys.argv[1]))
