"""Requests over HTTP/1.1 at a steady rate, each due at its own time.

The latency of a request counts from when it was due, so a server that falls behind cannot hide it.
"""

import math
from collections.abc import Sequence

import trio

ANSWER_SECONDS = 30.0


class OpenLoop:
    """Sends requests at `rate` a second over `connections`. `late`: ms of each answer."""

    def __init__(
        self, port: int, requests: Sequence[bytes], rate: float, connections: int = 32
    ) -> None:
        self._port = port
        self._requests = requests
        self._rate = rate
        self._connections = connections
        self._next = 0
        self._begin = 0.0
        self.late: list[float] = []
        self.answers: list[bytes] = []

    async def run(self) -> None:
        """Send all of them. Raises RuntimeError with the first answer that is not 200 or 201."""
        self._begin = trio.current_time() + 0.05
        async with trio.open_nursery() as nursery:
            for _ in range(min(self._connections, len(self._requests))):
                nursery.start_soon(self._connection)

    async def _connection(self) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
            while self._next < len(self._requests):
                number, self._next = self._next, self._next + 1
                due = self._begin + number / self._rate
                await trio.sleep_until(due)
                await stream.send_all(self._requests[number])
                head, body = await read_answer(stream)
                self.late.append((trio.current_time() - due) * 1000)
                self.answers.append(body)
                if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
                    raise RuntimeError((head + body).decode(errors="replace"))


async def read_answer(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """(head, body) of an answer that says how long it is."""
    data = b""
    with trio.fail_after(ANSWER_SECONDS):
        while b"\r\n\r\n" not in data:
            data += await _more(stream)
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        while len(body) < length:
            body += await _more(stream)
    return head, body


async def _more(stream: trio.SocketStream) -> bytes:
    more = await stream.receive_some(16_384)
    if not more:
        raise RuntimeError("the server closed the connection")
    return bytes(more)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
