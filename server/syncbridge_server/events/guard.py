"""Where events may be posted to: public addresses, and private ones that are allowed.

A URL of an endpoint is what somebody wrote into a form. So that nobody reaches services of our own
network by it, the name is resolved once, the address is judged, and that one is connected to.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import trio

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.events.endpoints import Endpoint, EndpointSpec, take

RESOLVE_SECONDS = 5.0
EMBEDDING = (ip_network("64:ff9b::/96"), ip_network("::/96"))
"""Addresses of IPv6 whose last 32 bits are one of IPv4 (RFC 6052, RFC 4291)."""


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
        if not plain.is_global or plain.is_multicast or site_local:
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

    async def resolve(self, host: str, port: int, scheme: str) -> str:
        """The first address of a host that may be posted to. Raises NotAllowed, OSError."""
        with trio.fail_after(RESOLVE_SECONDS):
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
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
    take(Endpoint("", "", []), spec, 0)
    parts = urlsplit(spec.url)
    try:
        guard.judge_host(parts.hostname or "", parts.scheme)
    except NotAllowed as error:
        raise SyncBridgeError(ErrorCode.INVALID_FIELD, f"url: {error}", field="url") from None


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address; the one of IPv4 that one of IPv6 stands for, where a gateway leads there."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv4Address):
        return found
    if any(found in network for network in EMBEDDING) and int(found) > 0xFFFF:
        return IPv4Address(int(found) & 0xFFFFFFFF)
    return found.ipv4_mapped or found.sixtofour or found
