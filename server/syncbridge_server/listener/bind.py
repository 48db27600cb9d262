"""Listening sockets from addresses as settings write them."""

import os
import socket
import stat
from collections.abc import Sequence
from contextlib import ExitStack


def bind(addresses: Sequence[str], backlog: int, *, shared: bool = False) -> list[socket.socket]:
    """Make one non-blocking listening socket for each address; all of them or none.

    Args:
        addresses: `host:port`, `:port` (every IPv4 interface), `[v6]:port`, `unix:/path`
            (a socket file that is there already is replaced), `fd://n` (an inherited socket).
        backlog: how many connections may wait to be accepted.
        shared: other sockets may listen on the same port (SO_REUSEPORT).

    Raises:
        OSError: an address cannot be bound; the message names it.
        ValueError: it is not an address.
    """
    with ExitStack() as opened:
        sockets = []
        for address in addresses:
            sock = opened.enter_context(_open(address))
            _listen(sock, address, backlog, shared)
            sockets.append(sock)
        opened.pop_all()
    return sockets


def _open(address: str) -> socket.socket:
    if address.startswith("fd://"):
        return socket.socket(fileno=int(address.removeprefix("fd://")))
    if address.startswith("unix:"):
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM)


def _listen(sock: socket.socket, address: str, backlog: int, shared: bool) -> None:
    try:
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            _remove_stale(path)
            sock.bind(path)
        elif not address.startswith("fd://"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            sock.bind(host_and_port(address))
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`; raises ValueError when it is something else."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"not an address to listen on: {address!r} (want host:port)")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _remove_stale(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
