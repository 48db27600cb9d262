"""Tells which connections are readable: one Trio wait for all of them.

Theory of operation. Each wait for a socket with Trio costs a system call and some bookkeeping. So
the engine has its own epoll, in which a connection is registered once for its whole life, and one
task waits with Trio for that epoll alone. It wakes the tasks of readable connections, at most
`TURN_CONNECTIONS` a turn, so that WebSockets and the other tasks of the process get their turn in
between.

Registration is edge-triggered: an event says that bytes have arrived since the last event. So three
things must not be lost. Bytes that arrive while nobody waits: `ready` remembers them. Bytes that a
read left behind because its buffer was full: the reader sets `ready` itself; a read that did not
fill its buffer has taken everything, and later bytes make a new event. The end of the stream, which
may come with the last bytes and then makes no event of its own: `ended` remembers it, and reads no
longer wait.
"""

import select
from collections.abc import Awaitable, Callable

import trio

from syncbridge_server.listener.fast.limits import TURN_CONNECTIONS

_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Watched:
    """One descriptor, read by one task.

    Attributes:
        ready: bytes may be left although no event will follow. ended: the end of the stream was
            reported; no event follows.
    """

    __slots__ = ("_task", "ended", "ready")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self.ready = False
        self.ended = False

    def wait(self) -> Awaitable[None]:
        """Wait until a read may succeed; await it at once. A checkpoint."""
        if self.ready or self.ended:
            self.ready = False
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - the caller awaits it
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105 - as above

    def wake(self, flags: int = 0) -> None:
        """Wake the reader, for an event or another reason."""
        if flags & _ENDED:
            self.ended = True
        task = self._task
        if task is None:
            self.ready = True
        else:
            self._task = None
            trio.lowlevel.reschedule(task)

    def _abort(self, _: Callable[[], None]) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Readiness:
    """The descriptors of one engine."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}

    def watch(self, fd: int) -> Watched:
        """Report on a descriptor until `forget`. Raises OSError."""
        watched = Watched()
        self._epoll.register(fd, _READABLE)
        self._watched[fd] = watched
        return watched

    def forget(self, fd: int) -> None:
        """Stop reporting; call it before the descriptor is closed or handed over."""
        if self._watched.pop(fd, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fd)

    async def run(self) -> None:
        """Wake readers until cancelled."""
        wait, poll, watched = trio.lowlevel.wait_readable, self._epoll.poll, self._watched
        try:
            while True:
                await wait(self._epoll)
                for fd, flags in poll(0, TURN_CONNECTIONS):
                    watched[fd].wake(flags)
        finally:
            self._epoll.close()
