"""Parses addresses in settings: where to listen, where Redis is, and who issues tokens."""

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

import idna

from syncbridge_server.redis.link.urls import SENTINEL_SCHEMES, SentinelURL, require_port

_ISSUER = re.compile(r"(https?://[^\s=]+)(?:=(https?://\S+))?\Z")
_ORIGIN = re.compile(r"(https?)://([^/?#\s]+)\Z", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
REDIS_SCHEMES = ("redis", "rediss", "unix", *SENTINEL_SCHEMES)


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
    if not is_port(port) or "/" in host:
        raise ValueError(f"not an address: {text[:80]!r}; write :8080, host:8080 or unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets: [{host}]:{port}")
    return Listen(host or "0.0.0.0", int(port))  # noqa: S104  ":8080" means every interface


def is_port(text: str) -> bool:
    """Whether a text is a number from 0 to 65535, in ASCII digits."""
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) <= 65_535


def parse_listens(text: str) -> tuple[Listen, ...]:
    """As `parse_listen`; a port alone is that port of every interface, IPv4 and IPv6."""
    found = parse_listen(text)
    text = text.strip()
    alone = not found.path and (text.startswith(":") or ":" not in text)
    return (found, found._replace(host="::")) if alone else (found,)


def redis_url(address: str) -> str:
    """`host:port`, `host`, or a URL of one of `REDIS_SCHEMES`, as a URL. Raises ValueError."""
    address = address.strip()
    if "://" not in address:
        host, _, port = address.rpartition(":") if ":" in address else (address, "", "6379")
        name = host.rpartition("@")[2]
        bare = ":" in name and not name.startswith("[")
        if not name or bare or "," in name or not is_port(port):
            raise ValueError("write host:port, [v6]:port, or a redis://, rediss:// or unix:// URL")
        return f"redis://{host}:{port}"
    parts = urlsplit(address)
    if parts.scheme not in REDIS_SCHEMES:
        known = ", ".join(REDIS_SCHEMES)
        raise ValueError(f"scheme {parts.scheme[:20]!r}; known are {known}")
    if parts.scheme.endswith("+sentinel"):
        SentinelURL(address)
        return address
    require_port(parts)
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError(
            f"{parts.scheme}:// needs a {'path' if parts.scheme == 'unix' else 'host'}"
        )
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,5}", parts.path):
        raise ValueError("after the host there may be /number of the database, and nothing else")
    return address


def parse_issuer(text: str) -> tuple[str, str]:
    """`ISSUER` or `ISSUER=KEYS_URL` as (issuer, URL of its keys or empty). Raises ValueError."""
    found = _ISSUER.fullmatch(text)
    if found is None:
        raise ValueError(f"not an issuer: {text[:80]!r}; write its URL, or URL=URL-of-its-keys")
    name, url = found[1], found[2] or ""
    if not is_safe_url(url or name):
        raise ValueError(f"{(url or name)[:80]}: keys are read by https://, or from this machine")
    return name, url


def is_safe_url(url: str) -> bool:
    """True for an https:// URL, and for an http:// URL of this machine."""
    parts = urlsplit(url)
    if parts.scheme == "http":
        return is_loopback(parts.hostname or "")
    return parts.scheme == "https" and bool(parts.hostname)


class Origin(NamedTuple):
    """A web origin (RFC 6454). `host` begins with `*.` when it stands for names below it."""

    scheme: str
    host: str
    port: int

    def covers(self, other: "Origin") -> bool:
        """Whether an origin is this one, or one of a name below."""
        if (self.scheme, self.port) != (other.scheme, other.port):
            return False
        return self.host == other.host or (
            self.host.startswith("*.") and other.host.endswith(self.host[1:])
        )


@lru_cache(1_024)
def origin_of(text: str) -> Origin | None:
    """What a browser sends as Origin, taken apart; None for `null` and for what is none."""
    found = _ORIGIN.match(text)
    if found is None:
        return None
    try:
        parts = urlsplit(f"//{found[2]}")
        port = parts.port or _DEFAULT_PORTS[found[1].lower()]
        host = parts.hostname or ""
        host = host if host.isascii() else idna.encode(host, uts46=True).decode()
    except ValueError:
        return None
    return Origin(found[1].lower(), host, port) if host and "@" not in found[2] else None


def parse_origin(text: str) -> Origin:
    """An origin as an operator writes it: `https://app.example.com`, `https://*.example.com`.

    A slash at the end, case, a default port and letters of any script are forgiven. Raises
    ValueError for what no browser sends.
    """
    origin = origin_of(text.removesuffix("/"))
    rest = origin.host.removeprefix("*.") if origin is not None else ""
    if origin is None or "*" in rest or ("*" in origin.host and "." not in rest):
        raise ValueError(
            f"{text[:80]!r} can never match; write scheme and host, such as"
            " https://app.example.com or https://*.example.com, without a path"
        )
    return origin


def client_address(text: str) -> str:
    """The address in an entry of X-Forwarded-For, without port, brackets and quotes; else "".

    An IPv4 address that is written as IPv6 (`::ffff:`) is given back as IPv4.
    """
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


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


def checked_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Addresses and networks, or `unix`, checked. Raises ValueError."""
    for text in value:
        if text != "unix":
            ipaddress.ip_network(text, strict=False)
    return value


def checked_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Origins, or `*`, checked. Raises ValueError."""
    return tuple(text for text in value if text == "*" or parse_origin(text))


def checked_issuers(value: tuple[str, ...]) -> tuple[str, ...]:
    """Issuers, as `parse_issuer` takes them, checked. Raises ValueError."""
    return tuple(text for text in value if parse_issuer(text))


def checked_listens(value: tuple[str, ...]) -> tuple[str, ...]:
    """Addresses to listen on, checked. Raises ValueError."""
    if not value:
        raise ValueError("at least one address is needed")
    return tuple(text for text in value if parse_listens(text))


def checked_listens_or_none(value: tuple[str, ...]) -> tuple[str, ...]:
    """The same, where there may be none."""
    return checked_listens(value) if value else ()
