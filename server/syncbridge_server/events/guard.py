"""Where events may be posted to: public addresses, and private ones that are allowed.

A URL of an endpoint is what somebody wrote into a form. So that nobody reaches services of our own
network by it, the name is resolved once, the address is judged, and that one is connected to.
"""

import socket
from collections.abc import Iterable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import trio

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.events.endpoints import Endpoint, EndpointSpec, take

RESOLVE_SECONDS = 5.0
EMBEDDING = tuple(map(ip_network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
"""Addresses of IPv6 whose last 32 bits are one of IPv4 (RFC 6052, RFC 4291, RFC 2765)."""

LOCAL_NAT64 = ip_network("64:ff9b:1::/48")
"""Leads to addresses of IPv4, which ones is known only where it is used (RFC 8215)."""


class NotAllowed(Exception):
    """The URL leads where nothing is posted to; the text says why."""


class Guard:
    """`networks`: private ones that are allowed, also without TLS."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ip_network(text, strict=False) for text in networks if text != "unix"]

    def judge(self, address: str, scheme: str) -> None:
        """Raise NotAllowed for an address that is private, or without TLS, and not allowed."""
        plain = _plain(address)
        if any(plain in network for network in self._networks):
            return
        site_local = isinstance(plain, IPv6Address) and plain.is_site_local
        if not plain.is_global or plain.is_multicast or site_local or plain in LOCAL_NAT64:
            raise NotAllowed(f"{plain} is not a public address (SYNCBRIDGE_WEBHOOK_NETWORKS)")
        if scheme != "https":
            raise NotAllowed("http is allowed to the networks of SYNCBRIDGE_WEBHOOK_NETWORKS only")

    def judge_host(self, host: str, scheme: str) -> None:
        """The same for a host that is an address; one that is a name is judged when it is used."""
        try:
            ip_address(host)
        except ValueError:
            return
        self.judge(host, scheme)

    async def resolve(
        self, host: str, port: int, scheme: str, threads: trio.CapacityLimiter
    ) -> str:
        """The first address of a host that may be posted to.

        Args:
            threads: of who asks. One that waits for a name server ends late, and takes no other
                endpoint's place meanwhile.

        Raises:
            NotAllowed, OSError, UnicodeError, trio.TooSlowError.
        """
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        with trio.fail_after(RESOLVE_SECONDS):
            found = await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=threads)
        refused = NotAllowed(f"{host} has no address")
        for *_, where in found:
            try:
                self.judge(str(where[0]), scheme)
            except NotAllowed as error:
                refused = error
            else:
                return str(where[0])
        raise refused


def check_spec(spec: EndpointSpec, guard: Guard) -> None:
    """Raise INVALID_FIELD for an endpoint that nothing can be posted to, or that asks for nothing.

    Whether a request or a file says so.
    """
    import httpx  # what sends must read the URL; a node that has no endpoints needs no client

    take(Endpoint("", "", []), spec, 0)
    try:
        url = httpx.URL(spec.url)
        guard.judge_host(url.host, url.scheme)
    except (NotAllowed, httpx.InvalidURL, UnicodeError) as error:
        raise SyncBridgeError(ErrorCode.INVALID_FIELD, f"url: {error}", field="url") from None


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address; the one of IPv4 that one of IPv6 stands for, where a gateway leads there."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv4Address):
        return found
    if any(found in network for network in EMBEDDING) and int(found) > 0xFFFF:
        return IPv4Address(int(found) & 0xFFFFFFFF)
    return found.ipv4_mapped or found.sixtofour or found
