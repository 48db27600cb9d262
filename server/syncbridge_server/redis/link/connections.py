"""The state of the connections for the Trio side: servers, slot map, missing primaries."""

from collections.abc import Mapping

import msgspec

from syncbridge_server.redis.link.link import LinkState
from syncbridge_server.redis.link.router import Router
from syncbridge_server.redis.link.server_info import ServerInfo
from syncbridge_server.redis.link.slot_map import SlotMap
from syncbridge_server.redis.link.urls import Address


class Connections(msgspec.Struct, frozen=True):
    """At one moment.

    Args:
        servers: every primary that is needed, with None while it is away.
        writers: the same for the connections of writes, where they have their own; else empty.
        reason: why one is away, empty when none is.
        tried: each of them has been connected to, or an attempt has failed.
        slots: None on a single Redis.
    """

    servers: Mapping[Address | None, ServerInfo | None]
    reason: str
    tried: bool
    slots: SlotMap | None
    writers: Mapping[Address | None, ServerInfo | None] = {}

    @property
    def complete(self) -> bool:
        """Whether every primary is there."""
        return not self.reason and None not in (*self.servers.values(), *self.writers.values())


def snapshot(reading: Router, writing: Router) -> Connections:
    """The state of the links of both routers, or of one that is both. O(links)."""
    found = _links(reading)
    if writing is reading:
        return found
    other = _links(writing)
    return msgspec.structs.replace(
        found,
        reason=found.reason or other.reason,
        tried=found.tried and other.tried,
        writers=other.servers,
    )


def _links(router: Router) -> Connections:
    needed = [None] if router.map is None else router.map.primaries
    servers: dict[Address | None, ServerInfo | None] = {}
    reason = "" if router.map is None or router.map.whole else "slots without a server: CLUSTERDOWN"
    tried = True
    for address in needed:
        link = router.links.get(address)
        down = link is None or link.state is LinkState.DOWN
        servers[address] = None if link is None or down else link.server
        if link is not None and down:
            reason = reason or link.reason or "away"
        tried &= servers[address] is not None or down
    return Connections(servers, reason, tried, router.map)
