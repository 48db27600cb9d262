"""Requests over HTTP/1.1 at a steady rate, each due at its own time.

The latency of a request counts from when it was due, so a server that falls behind cannot hide it.
"""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import trio

ANSWER_SECONDS = 30.0


class OpenLoop:
    """Sends requests at `rate` a second over `connections`. `late`: ms of each answer.

    Args:
        statuses: of answers that are right.
    """

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        rate: float,
        connections: int = 32,
        statuses: Sequence[int] = (200,),
    ) -> None:
        self._port = port
        self._requests = requests
        self._rate = rate
        self._connections = connections
        self._right = tuple(b"HTTP/1.1 %d " % status for status in statuses)
        self._next = 0
        self._begin = 0.0
        self.late: list[float] = []

    async def run(self) -> None:
        """Send all of them. Raises RuntimeError with the first answer that is not right."""
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
                if not head.startswith(self._right):
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


def report(
    title: str,
    samples: list[dict[str, float]],
    target: float,
    is_bound: Callable[[str], bool],
) -> list[dict[str, Any]]:
    """Print medians with their range; returns the lines.

    Args:
        target: what the figures that `is_bound` names are to stay below.
    """
    lines = []
    for name in samples[0]:
        values = sorted(sample[name] for sample in samples)
        line: dict[str, Any] = {
            "figure": f"{title}: {name}",
            "median": round(statistics.median(values), 2),
            "range": [round(values[0], 2), round(values[-1], 2)],
        }
        if is_bound(name):
            line |= {"target": target, "met": line["median"] < target}
        lines.append(line)
        print(json.dumps(line))
    return lines
