"""The socket hub and the listener alone: what fan-out costs before there is any session.

Heartbeats are answered as the product does it, decoded and encoded with msgspec. A text message
"fan N" publishes N messages of 200 bytes to everybody but its sender, in one tick: one `flush`.

What this leaves out: authentication, sessions, Redis, metrics. It shows the hub's own cost, and is
measured beside the peers under benchmarks/peers, which leave the same things out.
"""

import argparse
import socket
import time
from collections.abc import Callable
from functools import partial

import msgspec
import trio

from syncbridge_core.hub import EVENT_MESSAGE, KIND_NOTICE, KIND_REPLY, Hub, HubLimits
from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.serve import serve

PAYLOAD = 200
NO_RATE = 0
NO_LIMITS = HubLimits(
    rate_per_second=NO_RATE, rate_burst=NO_RATE, flood_messages=NO_RATE, max_outbox=4 << 20
)


class Heartbeat(msgspec.Struct):
    """The request, and the shape of its reply."""

    type: int
    payload: dict[str, int]
    timestamp: int = 0
    correlation_id: str = ""


def broadcast() -> bytes:
    """The 200-byte message that every server under test sends."""
    head, tail = b'{"type":13,"payload":{"message":"', b'"}}'
    return head + b"x" * (PAYLOAD - len(head) - len(tail)) + tail


def milliseconds() -> int:
    return time.monotonic_ns() // 1_000_000


class HubSink:
    """Every upgraded socket joins the hub and its one topic."""

    def __init__(self) -> None:
        self.hub = Hub(NO_LIMITS)
        self.everybody = self.hub.open_topic()
        self.message = broadcast()
        self.decoder = msgspec.json.Decoder(Heartbeat)
        self.encoder = msgspec.json.Encoder()

    def admit(self, client: str) -> Refusal | None:
        return None

    def adopt(
        self,
        sock: socket.socket,
        *,
        encoding: int,
        client: str,
        initial: bytes,
        bridged: bool,
        deflate: bool,
        on_known: Callable[[], None] | None = None,
    ) -> int:
        cid = self.hub.adopt(sock.fileno(), milliseconds(), encoding, initial, bridged, deflate)
        sock.detach()
        self.hub.subscribe(self.everybody, cid)
        return cid

    async def run(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.hub.fileno())
            for kind, cid, data, _ in self.hub.poll(milliseconds()):
                if kind == EVENT_MESSAGE:
                    self.answer(cid, data)
            self.hub.flush()

    def answer(self, cid: int, data: bytes) -> None:
        if data.startswith(b"fan "):
            for _ in range(int(data[4:])):
                self.hub.publish(self.everybody, self.message, KIND_NOTICE, 0, cid)
            return
        beat = self.decoder.decode(data)
        now = time.time()
        beat.type, beat.timestamp = 2, int(now)
        beat.payload = {**beat.payload, "server_time": int(now * 1000), "version": 0}
        self.hub.send(cid, self.encoder.encode(beat), KIND_REPLY)


async def application(scope, receive, send):  # type: ignore[no-untyped-def]
    """No HTTP here, only the lifespan that an ASGI server asks for."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def main(port: int) -> None:
    sink = HubSink()
    config = ListenerConfig(binds=(f"127.0.0.1:{port}",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        await nursery.start(
            partial(serve, application, config, sink, shutdown_trigger=trio.sleep_forever)
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    trio.run(main, parser.parse_args().port)
