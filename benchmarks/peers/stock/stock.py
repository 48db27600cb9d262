"""The same service written the usual way: a Starlette WebSocket route on Hypercorn with Trio.

AUTH is checked with PyJWT and answered with AUTH_SUCCESS, HEARTBEAT with HEARTBEAT_ACK, and a text
message "fan N" sends N messages of 200 bytes to everybody else. Each connection has a task that
reads and a task that writes from a bounded memory channel; a broadcast is a loop over the channels.
JSON is read and written with msgspec, as in the product, so that the difference is the plumbing.

What this leaves out: sessions, Redis, metrics. Run it as `stock.py PORT` with JWT_SECRET set.
"""

import os
import sys
import time
from functools import partial

import jwt
import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PAYLOAD = 200
QUEUE = 64
HEAD, TAIL = '{"type":13,"payload":{"message":"', '"}}'
BROADCAST = HEAD + "x" * (PAYLOAD - len(HEAD) - len(TAIL)) + TAIL
SECRET = os.environ.get("JWT_SECRET", "")

everybody: dict[int, "trio.MemorySendChannel[str]"] = {}


class Envelope(msgspec.Struct, omit_defaults=True):
    """The messages' common shape."""

    type: int
    payload: dict[str, object] = {}
    timestamp: int = 0
    correlation_id: str = ""


decode = msgspec.json.Decoder(Envelope).decode
encode = msgspec.json.Encoder().encode


def answer(message: Envelope) -> Envelope:
    """The reply to AUTH or HEARTBEAT."""
    now = time.time()
    message.timestamp = int(now)
    if message.type == 7:
        claims = jwt.decode(str(message.payload["token"]), SECRET, algorithms=["HS256"])
        message.type = 8
        message.payload = {"user_id": claims["sub"], "device_id": message.payload["device_id"]}
        return message
    message.type = 2
    message.payload = {**message.payload, "server_time": int(now * 1000), "version": 0}
    return message


async def fan_out(sender: int, messages: int) -> None:
    for _ in range(messages):
        for key, channel in list(everybody.items()):
            if key != sender:
                await channel.send(BROADCAST)


async def write(socket: WebSocket, channel: "trio.MemoryReceiveChannel[str]") -> None:
    async for text in channel:
        await socket.send_text(text)


async def read(socket: WebSocket, channel: "trio.MemorySendChannel[str]") -> None:
    try:
        while True:
            text = await socket.receive_text()
            if text.startswith("fan "):
                await fan_out(id(socket), int(text[4:]))
            else:
                await channel.send(encode(answer(decode(text))).decode())
    except WebSocketDisconnect:
        pass


async def connection(socket: WebSocket) -> None:
    await socket.accept()
    send, receive = trio.open_memory_channel[str](QUEUE)
    everybody[id(socket)] = send
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, socket, receive)
            await read(socket, send)
            nursery.cancel_scope.cancel()
    finally:
        del everybody[id(socket)]


def main() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.backlog = 1024
    config.accesslog = None
    app = Starlette(routes=[WebSocketRoute("/ws", connection)])
    trio.run(partial(serve, app, config))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
