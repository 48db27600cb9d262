"""The caller's address behind proxies."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope

from syncbridge_server.addresses import client_address

UNIX = "unix"
"""Among the trusted: whoever connects to a unix socket."""


class TrustedProxies:
    """Only a connection from a trusted address may name another one, and of its list the rightmost
    entry that is not itself trusted counts: what stands left of it, anybody may have written.
    """

    def __init__(self, networks: tuple[str, ...] = ()) -> None:
        self._unix = UNIX in networks
        self._networks = tuple(ip_network(text, strict=False) for text in networks if text != UNIX)

    def client(self, scope: Scope) -> str:
        """The caller's address of an ASGI request, "" when it is not known (unix socket)."""
        peer = str(scope["client"][0]) if scope.get("client") else ""
        if not self._networks and not self._unix:
            return peer
        return self.resolve(peer, Headers(scope=scope).getlist("x-forwarded-for"))

    def resolve(self, peer: str, forwarded: Iterable[str]) -> str:
        """The caller's address, from the peer's address and the values of X-Forwarded-For.

        Entries may have a port, and IPv6 addresses brackets.
        """
        if not self.trusts(peer):
            return peer
        for value in reversed(list(forwarded)):
            for entry in reversed(value.split(",")):
                address = client_address(entry)
                if not address:
                    return peer
                if not self._trusted(address):
                    return address
                peer = address
        return peer

    def trusts(self, peer: str) -> bool:
        """Whether a peer at this address may name another one."""
        return self._unix if peer in ("", UNIX) else self._trusted(peer)

    def _trusted(self, address: str) -> bool:
        if not self._networks:
            return False
        plain = client_address(address)
        return bool(plain) and any(ip_address(plain) in network for network in self._networks)
