"""The simulated provider of a development server, in a thread of its process.

Its socket listens from the start; its application is imported at the first connection, so the
server's start does not wait for it.
"""

import secrets
import select
import socket
import threading

import trio

BACKLOG = 64


def start() -> tuple[str, str, str]:
    """Start it; returns its URL, its key and its secret. It ends with the process."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(BACKLOG)
    key, secret = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
    thread = threading.Thread(target=_serve, args=(listening, key, secret), daemon=True)
    thread.name = "rtk-sim"
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", key, secret


def _serve(listening: socket.socket, key: str, secret: str) -> None:
    select.select([listening], [], [])
    trio.run(_run, listening, key, secret)


async def _run(listening: socket.socket, key: str, secret: str) -> None:
    from syncbridge_tools.rtk_sim.app import new_sim, running

    async with running(new_sim(key, secret), f"fd://{listening.detach()}"):
        await trio.sleep_forever()
