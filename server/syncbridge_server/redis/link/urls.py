"""Builds the URL of `RedisEndpoint` from an address, passwords and a database number."""

from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SENTINEL_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
SENTINEL_PORT = 26_379
MOST_SENTINELS = 16


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def connection_url(url: str, password: str, db: int, sentinel_password: str = "") -> str:
    """Add passwords and a database to a URL; parts of the URL take precedence.

    The result holds a secret: it is for `RedisEndpoint` only, never for a log.
    """
    parts = urlsplit(url)
    netloc, query, path = parts.netloc, dict(parse_qsl(parts.query)), parts.path
    if parts.scheme in SENTINEL_SCHEMES:
        if sentinel_password:
            query.setdefault("sentinel_password", sentinel_password)
        path = path.rstrip("/") + ("" if "/" in path.strip("/") else f"/{db}")
        db = 0
    if password and parts.password is None and "password" not in query:
        if parts.scheme == "unix":
            query["password"] = password
        else:
            user, _, host = netloc.rpartition("@")
            netloc = f"{user}:{quote(password, safe='')}@{host}"
    if db and "db" not in query and (parts.scheme == "unix" or path in ("", "/")):
        query["db"] = str(db)
    tail = f"?{urlencode(query)}" if query else ""
    return f"{parts.scheme}://{netloc}{path}{tail}"


class SentinelURL:
    """The parts of a URL with sentinels.

    Attributes:
        server: URL of a server, without a meaning of its host.
        credentials: options with which redis-py authenticates to a sentinel.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        login, at, hosts = parts.netloc.rpartition("@")
        self.sentinels = [_address(text) for text in hosts.split(",")]
        if len(self.sentinels) > MOST_SENTINELS:
            raise ValueError(f"more than {MOST_SENTINELS} sentinels")
        words = [unquote(word) for word in parts.path.split("/")[1:]]
        if not words or not words[0] or len(words) > 2 or not ("".join(words[1:]) or "0").isdigit():
            raise ValueError("write host:port,host:port/service, or /service/number of database")
        self.service = words[0]
        query = dict(parse_qsl(parts.query))
        self.credentials = {
            "username": query.pop("sentinel_username", None),
            "password": query.pop("sentinel_password", None),
        }
        path = "/".join(words[1:])
        scheme = SENTINEL_SCHEMES[parts.scheme]
        self.server = f"{scheme}://{login}{at}sentinel/{path}?{urlencode(query)}"


def read_sentinel_url(url: str) -> SentinelURL | None:
    """None for a URL without sentinels. Raises ValueError for one that cannot be read."""
    return SentinelURL(url) if urlsplit(url).scheme in SENTINEL_SCHEMES else None


def require_port(parts: SplitResult) -> None:
    """Raise ValueError for a port that is no number.

    The text of the standard library's error has what stands there: perhaps a part of a password.
    """
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the port must be a number up to 65535") from None


def _address(text: str) -> Address:
    parts = urlsplit(f"//{text}")
    require_port(parts)
    if not parts.hostname:
        raise ValueError("sentinels are written host:port,host:port")
    return Address(parts.hostname, parts.port or SENTINEL_PORT)
