"""One connection to Redis: made by redis-py (`endpoint.py`), then spoken to directly.

Redis-py's `Connection` costs about 3 us for each reply, so batches go straight to the socket: one
write of all the commands, and hiredis on what comes back. RESP2 is forced, so that replies have
one shape on every server version.

A connection that broke or missed a deadline is never reused, because the next reply is unknown.
"""

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis.connection import Connection
from redis.exceptions import AuthenticationError, NoPermissionError

from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.waker import Waker

CONNECT_SECONDS = 1.0
READ_BYTES = 65_536
NO_LOGIN = "Redis refuses the user or the password"
NO_DATABASE = "there is no such database; a cluster has only database 0"
WRITE_BYTES = 262_144
IDLE_SECONDS = 0.01
_MORE = object()


class WireBroken(Exception):
    """The connection is gone.

    Args:
        reason: for a log or an error, without secrets.
        sent: False when it is certain that Redis has seen none of the commands.
        hung: True when a deadline passed, False when the other side closed or refused.
    """

    def __init__(self, reason: str, *, sent: bool, hung: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.hung = hung


class Wire:
    """A live connection. Used by one thread at a time.

    `address`: with whom, None for a Unix socket.
    """

    def __init__(self, connection: Connection, address: Address | None) -> None:
        self.address = address
        self._connection = connection
        self.socket = cast(Any, connection._sock)
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._buffer = bytearray(READ_BYTES)
        # Between batches nothing may be readable. TLS has records of its own there, so that
        # only plain sockets can be asked.
        self._idle_poll: select.poll | None = None
        self._used = 0.0
        self._armed = 0.0
        if not isinstance(self.socket, ssl.SSLSocket):
            self._idle_poll = select.poll()
            self._idle_poll.register(self.socket.fileno(), select.POLLIN)

    def close(self) -> None:
        """Close the socket; may be called more than once."""
        self._connection.disconnect()  # type: ignore[no-untyped-call]

    def interrupt(self) -> None:
        """End a read of another thread at once."""
        with contextlib.suppress(OSError):
            # Not `self.socket.shutdown`: on TLS that would also take the session apart.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def exchange(self, packed: Sequence[bytes], replies: list[Any], deadline: float) -> None:
        """Send commands and append one reply each to `replies`, in order.

        A reply is what hiredis makes of it; `hiredis.ReplyError` objects stand for errors.
        `deadline` is in seconds of `time.monotonic()`. Raises WireBroken with the replies that
        did arrive already in `replies`.
        """
        if self._was_closed():
            raise WireBroken("closed by Redis", sent=False)
        try:
            self._send(packed, deadline)
            wanted = len(replies) + len(packed)
            while len(replies) < wanted:
                reply = self._reader.gets()
                if reply is _MORE:
                    self._receive(deadline)
                else:
                    replies.append(reply)
            self._used = time.monotonic()
        except (TimeoutError, BlockingIOError) as error:
            raise WireBroken("no answer in time", sent=True, hung=True) from error
        except (OSError, hiredis.ProtocolError) as error:
            raise WireBroken(f"connection lost: {type(error).__name__}", sent=True) from error

    def receive(self, seconds: float, waker: Waker) -> list[Any]:
        """Wait for messages that were not asked for (pub/sub); none after `seconds`, or when woken.

        Raises WireBroken when the connection is gone.
        """
        messages: list[Any] = []
        while (message := self._reader.gets()) is not _MORE:
            messages.append(message)
        if messages or not self._readable(seconds, waker):
            return messages
        try:
            self._receive(time.monotonic() + CONNECT_SECONDS)
        except (TimeoutError, BlockingIOError):
            return []
        except (OSError, hiredis.ProtocolError) as error:
            raise WireBroken(f"connection lost: {type(error).__name__}", sent=True) from error
        while (message := self._reader.gets()) is not _MORE:
            messages.append(message)
        return messages

    def _readable(self, seconds: float, waker: Waker) -> bool:
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(waker, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(seconds * 1000 + 0.5)]
        if waker.fileno() in ready:
            waker.clear()
        return self.socket.fileno() in ready

    def send(self, packed: bytes, seconds: float) -> None:
        """Send without waiting for an answer; raises WireBroken."""
        try:
            self._send([packed], time.monotonic() + seconds)
        except OSError as error:
            raise WireBroken(f"connection lost: {type(error).__name__}", sent=True) from error

    def _was_closed(self) -> bool:
        """Whether Redis has gone since the last exchange; not asked in the midst of work."""
        idle = time.monotonic() - self._used > IDLE_SECONDS
        return idle and self._idle_poll is not None and bool(self._idle_poll.poll(0))

    def _limit(self, deadline: float) -> None:
        """Have the next system call end by the deadline.

        Python's own timeouts cost a poll() before each call, and each gives the interpreter lock
        away. So a plain socket blocks, with the kernel's timeouts, which are set anew only when
        what remains is much less than what they say.
        """
        remaining = _remaining(deadline)
        if self._idle_poll is None:
            self.socket.settimeout(remaining)
        elif not 0.75 * self._armed <= remaining <= self._armed:
            self._armed = remaining
            self.socket.settimeout(None)
            timeval = struct.pack("@ll", *divmod(max(1, int(remaining * 1e6)), 1_000_000))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def _send(self, packed: Sequence[bytes], deadline: float) -> None:
        self._limit(deadline)
        pieces: list[bytes] = []
        size = 0
        for piece in packed:
            pieces.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES:
                self.socket.sendall(b"".join(pieces))
                self._limit(deadline)
                pieces.clear()
                size = 0
        if pieces:
            self.socket.sendall(b"".join(pieces))

    def _receive(self, deadline: float) -> None:
        self._limit(deadline)
        size = self.socket.recv_into(self._buffer)
        if not size:
            raise ConnectionResetError("closed by Redis")
        self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("deadline passed")
    return remaining


def open_wire(make: type[Connection], options: dict[str, Any]) -> Wire:
    """Connect and authenticate with redis-py; raises WireBroken."""
    connection = make(**options)
    try:
        connection.connect()  # type: ignore[no-untyped-call]
    except Exception as error:
        # Any error of the client library: the threads must survive and retry.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise WireBroken(f"cannot connect: {_why(error)}", sent=False) from error
    if "path" in options:
        return Wire(connection, None)
    return Wire(connection, Address(options.get("host", "localhost"), options.get("port", 6379)))


def _why(error: Exception) -> str:
    """The system error inside the message of redis-py."""
    cause = error.__context__
    if any(sign in str(error) for sign in ("cluster mode", "DB index")):
        return NO_DATABASE
    if isinstance(error, AuthenticationError):
        return NO_LOGIN
    if isinstance(error, NoPermissionError):
        return f"NOPERM, {error}"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return str(cause.reason)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(error).__name__


def pack(*args: bytes | str | int | float) -> bytes:
    """One command in RESP; strings as UTF-8.

    What was read as bytes that are no UTF-8 (`surrogateescape`) is written as it was.
    """
    try:
        packed: bytes = hiredis.pack_command(args)  # type: ignore[arg-type]
    except UnicodeEncodeError:
        raw = tuple(a.encode(errors="surrogateescape") if isinstance(a, str) else a for a in args)
        packed = hiredis.pack_command(raw)  # type: ignore[arg-type]
    return packed
