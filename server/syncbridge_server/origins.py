"""The web pages that may use this server, and the headers that tell a browser.

One rule for both doors: the opening handshake of a WebSocket (RFC 6455 section 10.2), and answers
over HTTP, which a browser shows to a page of another origin only when they say so (CORS, Fetch
standard section 3.3). Credentials are never allowed: nothing here is authenticated by a cookie, so
a page can only do what the token that it holds can do.

What is refused for its origin looks to the page like a server that is not there. So it is counted,
and at most once in LOG_SECONDS a line names the setting that would let the page in.
"""

import re
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter

from syncbridge_server.addresses import is_loopback, origin_of, parse_origin
from syncbridge_server.log import Occasionally, get_logger

ANY = "*"
LOG_SECONDS = 10.0
DOORS = ("websocket", "preflight")
"""What a page can be refused at, as labels of the metric."""
EXPOSED = "Accept, Accept-Encoding, Allow, ETag, Retry-After, WWW-Authenticate, X-Request-ID"
"""Headers of an answer that a page may read, besides those that it always may."""
_ORIGIN = re.compile(r"(https?|wss?)://([^/?#@\s]+)\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

_log = get_logger("LISTENER")

HeaderList = list[tuple[bytes, bytes]]


class Origins:
    """The pages that are let in: those of this host, and those of `listed`.

    Args:
        listed: origins such as `https://app.example` and `https://*.example.com`; `*` for any.
            Raises ValueError for what can never match.
        loopback: let pages from this machine in too, whatever their port.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        listed: Iterable[str] = (),
        loopback: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        listed = frozenset(listed)
        self._any = ANY in listed
        self._listed = [parse_origin(text) for text in listed - {ANY}]
        self._loopback = loopback
        self._occasionally = Occasionally(LOG_SECONDS, clock)
        self._unlogged = 0
        self.refused = Counter(
            "syncbridge_origins_refused",
            "Requests refused because pages of their Origin may not connect.",
            ["door"],
            registry=None,
        )
        for door in DOORS:
            self.refused.labels(door)

    def register(self, registry: CollectorRegistry) -> None:
        """Show in a registry how many were refused."""
        registry.register(self.refused)

    def allows(self, origin: str, host: str) -> bool:
        """Whether pages of `origin` may talk to the server that they call `host`."""
        if self._any or same_origin(origin, host):
            return True
        page = origin_of(origin) if self._listed else None
        if page is not None and any(listed.covers(page) for listed in self._listed):
            return True
        return self._loopback and is_loopback_origin(origin)

    def admits(self, origin: bytes, host: bytes, door: str) -> bool:
        """As `allows`; what is refused at this door is counted and logged."""
        shown = origin.decode("latin-1")
        if self.allows(shown, host.decode("latin-1")):
            return True
        self.refused.labels(door).inc()
        self._unlogged += 1
        if self._occasionally.due():
            _log.info(
                "origin_refused",
                origin=shown[:200],
                door=door,
                refused=self._unlogged,
                hint="SYNCBRIDGE_ORIGINS lists the origins that may connect",
            )
            self._unlogged = 0
        return False

    def answer_headers(self, origin: bytes, host: bytes) -> HeaderList:
        """What any answer to a request of this Origin carries; nothing if it is not let in."""
        if not self.allows(origin.decode("latin-1"), host.decode("latin-1")):
            return []
        return [
            (b"access-control-allow-origin", b"*" if self._any else origin),
            (b"access-control-expose-headers", EXPOSED.encode()),
        ]


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from `host` (RFC 6454).

    The scheme is not compared, because a proxy may have taken the TLS off.
    """
    found = _ORIGIN.match(origin)
    if found is None:
        return False
    default = _DEFAULT_PORTS[found[1]]
    try:
        page, own = urlsplit(f"//{found[2]}"), urlsplit(f"//{host}")
        ports = (page.port or default, own.port or default)
    except ValueError:
        return False
    return page.hostname is not None and page.hostname == own.hostname and ports[0] == ports[1]


def is_loopback_origin(origin: str) -> bool:
    """Whether a page of `origin` came from this machine, on any port.

    Names below `.localhost` are this machine's, too: browsers and resolvers ask nobody for them
    (RFC 6761 section 6.3).
    """
    found = _ORIGIN.match(origin)
    try:
        name = (urlsplit(f"//{found[2]}").hostname or "") if found is not None else ""
    except ValueError:
        return False
    return is_loopback(name) or name.endswith(".localhost")
