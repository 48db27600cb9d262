"""The target of a load run: a WebSocket URL, on this machine unless allowed otherwise."""

import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_URL = "ws://127.0.0.1:8080/ws"


class TargetError(ValueError):
    """The URL cannot be measured; the text says why."""


class Target(NamedTuple):
    """A server under test. `address` is numeric, so no lookup is part of a measurement."""

    host: str
    address: str
    port: int
    path: str

    @property
    def http(self) -> str:
        """The base URL of the same server's REST interface."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parse_target(url: str, allow_remote: bool = False) -> Target:
    """Check a ws:// URL and look its host up.

    Raises TargetError: not ws://, no such host, or not this machine without `allow_remote`.
    """
    parts = urlsplit(url)
    if parts.scheme != "ws" or not parts.hostname or parts.username or parts.query:
        raise TargetError("the URL must look like ws://host:port/ws (TLS is not measured)")
    try:
        port = parts.port or 80
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise TargetError(f"cannot use {parts.hostname}: {error}") from None
    address = str(found[0][4][0])
    if not allow_remote and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise TargetError(
            f"{parts.hostname} is not this machine; load somebody else's server only with their "
            "consent, and say --allow-remote"
        )
    return Target(parts.hostname, address, port, parts.path or "/")
