"""Where events may be posted to: public addresses, and private ones that are allowed.

A URL of an endpoint is what somebody wrote into a form. So that nobody reaches services of our own
network by it, the name is resolved once, the address is judged, and that one is connected to.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import trio

RESOLVE_SECONDS = 5.0


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
        if not plain.is_global or plain.is_multicast:
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


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address; one of IPv4 that is written as IPv6 is the former."""
    found = ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return mapped or found
