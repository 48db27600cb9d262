"""Wakes a thread that polls sockets."""

import os
import threading


class Waker:
    """An eventfd to be polled beside sockets. `wake` is for any thread, the rest for its owner."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        """For poll."""
        return self._descriptor

    def wake(self) -> None:
        """Make the poll return; nothing after `close`."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Reset after all calls of `wake` so far."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Free the descriptor."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._descriptor)
