"""Whether a process may open as many descriptors as its bounds on connections allow.

The soft limit (`ulimit -n`) is raised as far as the hard one lets it. What is still missing is
taken from the bounds: at a bound clients are answered politely, without a descriptor they are not
answered at all.
"""

import resource

from syncbridge_server.log import get_logger
from syncbridge_server.settings import ConfigError, Settings

OTHERS = 192
"""Descriptors of a process that are no connection: files, Redis, the voice provider."""
LEAST = 512
UNBOUNDED = 1_048_576
"""Asked for when there is no bound on WebSockets, which then is left so."""

_log = get_logger("APP")


def wanted(settings: Settings) -> int:
    """Most descriptors of a process, when all bounds are reached."""
    return (settings.max_connections or UNBOUNDED) + _without_sockets(settings)


def _without_sockets(settings: Settings) -> int:
    # A connection of the reserve may have a request that opens another one.
    return settings.http_connections + settings.http_handshakes + 2 * settings.http_reserve + OTHERS


def raised_limit(need: int) -> int:
    """The limit of descriptors of this process, raised towards `need` where that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return need
    if soft < need:
        most = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return soft


def with_descriptors(settings: Settings, tell: bool = True) -> Settings:
    """Settings with bounds that fit the limit of descriptors. Raises ConfigError below `LEAST`.

    Args:
        tell: warn of bounds that were lowered.
    """
    limit = raised_limit(wanted(settings))
    lowered = fitting(settings, limit)
    if not lowered:
        return settings
    if tell:
        shown = {name: value for name, value in lowered.items() if value != getattr(settings, name)}
        _log.warning("descriptor_limit_low", limit=limit, hint="raise ulimit -n", **shown)
    return settings.with_values(**lowered)


def fitting(settings: Settings, limit: int) -> dict[str, int]:
    """The bounds to lower so that `limit` descriptors are enough; none when they are.

    A quarter is left to HTTP and an eighth to handshakes; WebSockets have the rest.
    """
    if limit < LEAST:
        raise ConfigError(f"ulimit -n is {limit}; {LEAST} or more are required")
    if wanted(settings) <= limit or not settings.max_connections:
        return {}
    left = limit - OTHERS - 2 * settings.http_reserve
    connections = min(settings.http_connections, left // 4)
    handshakes = min(settings.http_handshakes, left // 8)
    sockets = left - connections - handshakes
    return {
        "max_connections": min(settings.max_connections, sockets),
        "http_connections": connections,
        "http_handshakes": handshakes,
    }
