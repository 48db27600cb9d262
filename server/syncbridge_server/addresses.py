"""Where to listen and where Redis is, out of the text that an operator writes."""

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit


class Listen(NamedTuple):
    """One address to listen on: a TCP host and port, or a unix socket path."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """ ":8080", "host:port", "[::1]:8080", "8080" or "unix:/path". Raises ValueError."""
    text = text.strip()
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path:
            raise ValueError("unix: needs a path, such as unix:/run/syncbridge.sock")
        return Listen(path=path)
    host, separator, port = text.rpartition(":")
    if not separator:
        host = ""
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"not an address: {text[:80]!r}; write :8080, host:8080 or unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets: [{host}]:{port}")
    return Listen(host or "0.0.0.0", int(port))  # noqa: S104  ":8080" means every interface


def redis_url(address: str) -> str:
    """`host:port`, `host`, or a redis://, rediss:// or unix:// URL, as a URL. Raises ValueError."""
    address = address.strip()
    if "://" not in address:
        host, _, port = address.rpartition(":") if ":" in address else (address, "", "6379")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise ValueError("write host:port, or a redis://, rediss:// or unix:// URL")
        return f"redis://{host}:{port}"
    parts = urlsplit(address)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"scheme {parts.scheme[:20]!r}; redis, rediss and unix are known")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError(
            f"{parts.scheme}:// needs a {'path' if parts.scheme == 'unix' else 'host'}"
        )
    return address


def is_loopback(host: str) -> bool:
    """True for 127.0.0.0/8, ::1 (also as ::ffff:127.0.0.1) and the name localhost."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
