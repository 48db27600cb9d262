"""What SIGHUP, SIGUSR1 and SIGUSR2 do to a serving process, from before it listens.

SIGHUP has files read again; one that comes too early waits until there is something to read again.
SIGUSR1 and SIGUSR2 do nothing. Left to themselves all three end a process without a drain.
SIGTERM, SIGINT and SIGQUIT stop it: `listener/shutdown.py`.
"""

import signal
from types import FrameType

UNUSED = (signal.SIGUSR1, signal.SIGUSR2)
HELD = frozenset({signal.SIGHUP, *UNUSED})
"""Held from a worker's first instruction on, because nobody but its parent could do so in time."""


def hold_signals() -> None:
    """From now on none of them ends this process; SIGHUP waits for `release_signals`.

    Handlers, unlike SIG_IGN, are not handed down to a Redis that is started from here.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    for number in HELD:
        signal.signal(number, _nothing)


def release_signals() -> None:
    """Take those that have come meanwhile."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def _nothing(number: int, frame: FrameType | None) -> None:
    """What is not handled otherwise does nothing."""
