"""Listening sockets for the addresses in the settings."""

import errno
import logging
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import ExitStack

EVERY = "0.0.0.0"  # noqa: S104
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

logger = logging.getLogger("syncbridge.listener")


class AddressTaken(OSError):
    """Somebody has begun to listen at an address after it was bound."""


def bind(
    addresses: Sequence[str],
    *,
    shared: bool = False,
    only: bool = False,
    mode: int | None = None,
) -> list[socket.socket]:
    """Bind one non-blocking socket to each address, or none at all; they do not listen yet.

    Args:
        addresses: `host:port`, `:port` (every IPv4 interface), `[v6]:port`, `unix:/path`
            (a socket file at which nobody listens is replaced), `fd://n` (an inherited socket).
        shared: other sockets may listen on the same port (SO_REUSEPORT).
        only: IPv6 sockets accept no IPv4.
        mode: permissions of socket files; None: what the umask leaves.

    `[::]:port` beside `0.0.0.0:port` is IPv6 only. Without IPv6 it is left out, and logged.

    Raises:
        OSError: an address cannot be bound; the message names it.
        ValueError: not an address.
    """
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for address in addresses:
            beside = _beside(address, addresses, sockets)
            try:
                sock = opened.enter_context(_open(beside or address))
                if beside or (only and sock.family == socket.AF_INET6):
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                _bind(sock, beside or address, shared, mode)
            except OSError as error:
                if not beside or error.errno not in NO_IPV6:
                    raise
                logger.info("no IPv6 here: %s is left out", address)
                continue
            sockets.append(sock)
        _refuse_overlap(sockets)
        opened.pop_all()
    return sockets


def _beside(address: str, addresses: Sequence[str], sockets: Sequence[socket.socket]) -> str:
    """`[::]:port` if the same IPv4 port is bound; for port 0, the port that IPv4 was given."""
    every = address.replace("[::]", EVERY)
    if not address.startswith("[::]:") or every not in addresses:
        return ""
    index = addresses.index(every)
    port = sockets[index].getsockname()[1] if index < len(sockets) else address[5:]
    return f"[::]:{port}"


def _open(address: str) -> socket.socket:
    if address.startswith("fd://"):
        return socket.socket(fileno=int(address.removeprefix("fd://")))
    if address.startswith("unix:"):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM)


def listen(sockets: Sequence[socket.socket], backlog: int) -> None:
    """Start listening with a backlog of `backlog` connections. Raises AddressTaken, OSError."""
    for sock in sockets:
        try:
            sock.listen(backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            text = f"cannot listen on {_name(sock)}: {error.strerror}"
            raise AddressTaken(error.errno, text) from None


def _name(sock: socket.socket) -> str:
    """An address as it is written in settings."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port, *_ = sock.getsockname()
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def _refuse_overlap(sockets: Sequence[socket.socket]) -> None:
    """Raise OSError for two sockets of which only one could listen: to bind both is allowed."""
    taken: dict[tuple[int, int], set[str]] = {}
    for sock in sockets:
        if sock.family == socket.AF_UNIX:
            continue
        host, port, *_ = sock.getsockname()
        hosts = taken.setdefault((sock.family, port), set())
        if host in hosts or (hosts and {host, *hosts} & {EVERY, "::"}):
            raise OSError(errno.EADDRINUSE, f"cannot listen on {_name(sock)}: it is taken twice")
        hosts.add(host)


def _bind(sock: socket.socket, address: str, shared: bool, mode: int | None) -> None:
    try:
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            _remove_stale(path)
            sock.bind(path)
            if mode is not None:  # nobody can connect before it listens
                os.chmod(path, mode)
        elif not address.startswith("fd://"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            sock.bind(host_and_port(address))
        sock.setblocking(False)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(error.errno, f"cannot listen on {address}: {reason}") from error


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`. Raises ValueError for other text."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"not an address to listen on: {address!r} (want host:port)")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _remove_stale(path: str) -> None:
    """Remove a socket file that a server has left. Raises OSError when one may still be there."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        os.remove(path)
        return
    except OSError:
        pass  # its queue is full, or it is not ours to ask
    raise OSError(errno.EADDRINUSE, "another server listens there")
