"""Reads the URL of Redis, and makes connections to it.

redis-py parses the URL and does the difficult parts of connecting: TCP, TLS and Unix sockets,
credentials, database, client name. With Sentinel the URL names the sentinels and a service, and
each connection begins with the question where that service's primary is.
"""

from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError
from redis.retry import Retry

from syncbridge_server.redis.link.sentinel import Sentinels
from syncbridge_server.redis.link.urls import Address, read_sentinel_url
from syncbridge_server.redis.link.wire import CONNECT_SECONDS, Wire, open_wire


class RedisEndpoint:
    """Makes connections to one Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://` as redis-py reads it; or
            `redis+sentinel://[user:password@]host[:port],.../service[/db]`, `rediss+sentinel` with
            TLS. User and password are the server's; `sentinel_username` and `sentinel_password` in
            the query are the sentinels'. Other options are redis-py's, and for both.

    Raises ValueError for a URL that cannot be read.
    """

    def __init__(self, url: str, *, client_name: str = "syncbridge") -> None:
        named = read_sentinel_url(url)
        pool = ConnectionPool.from_url(named.server if named else url)
        self._make, self._options = pool.connection_class, pool.connection_kwargs
        self._options.update(
            protocol=2,
            decode_responses=False,
            socket_timeout=CONNECT_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
            health_check_interval=0,
            client_name=client_name,
            driver_info=DriverInfo(),  # else each connection looks redis-py's version up: 0.8 ms
        )
        try:
            self._make(**self._options)
        except TypeError as error:
            raise ValueError(f"an option is not known: {str(error).rpartition(' ')[2]}") from None
        except RedisError as error:
            raise ValueError(str(error)) from None
        self._sentinels: Sentinels | None = None
        if named:
            own = {**self._options, **named.credentials, "db": 0}
            self._sentinels = Sentinels(named.sentinels, named.service, self._make, own)

    @property
    def database(self) -> int:
        """Number of the database, 0 when the URL names none."""
        return int(self._options.get("db") or 0)

    @property
    def by_sentinel(self) -> bool:
        """Whether the primary can move to another address."""
        return self._sentinels is not None

    def primary(self) -> Address | None:
        """Where the sentinels say that the primary is; None without sentinels. WireBroken."""
        return self._sentinels.primary() if self._sentinels else None

    def connect(self, at: Address | None = None) -> Wire:
        """Connect and authenticate, within `CONNECT_SECONDS` a step; raises WireBroken.

        `at`: the server of a cluster, or None for the one that the URL names.
        """
        at = at or self.primary()
        place = {"host": at.host, "port": at.port} if at else {}
        return open_wire(self._make, {**self._options, **place})
