"""Metrics of all workers in one answer, whichever of them is asked.

The parent makes a folder for its user alone. In it each worker listens on a socket of its own and
writes its metrics to whoever connects. The one that is asked over HTTP puts them together: each
line gets a label `worker`, so that sums are right, also when one of them is started again and
begins at 0.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import structlog
import trio

FOLDER = "SYNCBRIDGE_WORKER_FOLDER"
"""Where a worker finds the sockets of its siblings."""
SECONDS = 1.0
MOST_BYTES = 16_777_216
CHUNK = 65_536
UP = "syncbridge_worker_up"
_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?( .*)")

log = structlog.get_logger("server")


class Siblings:
    """The workers of one server, as one of them sees them.

    Args:
        folder: of their sockets. index: of this one. workers: how many there are.
        render: metrics of this process, as Prometheus text.
    """

    def __init__(self, folder: str, index: int, workers: int, render: Callable[[], bytes]) -> None:
        self._folder = Path(folder)
        self._index = index
        self._workers = workers
        self._render = render

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell siblings, until cancelled; started once they can connect."""
        path = self._folder / str(self._index)
        path.unlink(missing_ok=True)
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
            await listener.bind(str(path))
            listener.listen(16)
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    connection, _ = await listener.accept()
                    nursery.start_soon(self._tell, trio.SocketStream(connection))

    async def _tell(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(SECONDS):
            try:
                async with stream:
                    await stream.send_all(self._render())
            except (trio.BrokenResourceError, OSError) as error:
                log.debug("worker_disconnected", reason=str(error))

    async def gather(self) -> bytes:
        """The metrics of all, in at most SECONDS; of one that is silent, only that it is."""
        texts: dict[int, str | None] = dict.fromkeys(range(self._workers))
        texts[self._index] = self._render().decode()
        async with trio.open_nursery() as nursery:
            for index in texts.keys() - {self._index}:
                nursery.start_soon(partial(self._ask, index, texts))
        return merged(texts).encode()

    async def _ask(self, index: int, texts: dict[int, str | None]) -> None:
        read = bytearray()
        with trio.move_on_after(SECONDS):
            try:
                async with await trio.open_unix_socket(str(self._folder / str(index))) as stream:
                    async for chunk in stream:
                        read += chunk
                        if len(read) > MOST_BYTES:
                            return
            except (trio.BrokenResourceError, OSError) as error:
                log.debug("worker_unresponsive", worker=index, reason=str(error))
                return
            texts[index] = read.decode()


def merged(texts: Mapping[int, str | None]) -> str:
    """Prometheus texts as one, each line labelled with its worker. None: it did not answer."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for index, text in texts.items():
        head: list[str] = []
        lines: list[str] = []
        for line in (text or "").splitlines():
            if line.startswith("# HELP "):
                head, lines = families.setdefault(line.split(" ", 3)[2], ([], []))
                fresh = not head
            if line.startswith("#"):
                head += [line] if fresh else []
            elif found := _LINE.fullmatch(line):
                name, labels, value = found.groups()
                rest = f",{labels}" if labels else ""
                lines.append(f'{name}{{worker="{index}"{rest}}}{value}')
    up = [f'{UP}{{worker="{i}"}} {float(text is not None)}' for i, text in texts.items()]
    families[UP] = ([f"# HELP {UP} 1 for a worker that answered.", f"# TYPE {UP} gauge"], up)
    return "\n".join(line for head, lines in families.values() for line in [*head, *lines]) + "\n"
