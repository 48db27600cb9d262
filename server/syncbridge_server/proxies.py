"""Who the caller is when proxies stand in between."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope


class TrustedProxies:
    """Only a connection from a trusted address may name another one, and of its list the rightmost
    entry that is not itself trusted counts: what stands left of it, anybody may have written.
    """

    def __init__(self, networks: tuple[str, ...] = ()) -> None:
        self._networks = tuple(ip_network(text, strict=False) for text in networks)

    def client(self, scope: Scope) -> str:
        """The caller's address of an ASGI request, "" when it is not known (unix socket)."""
        peer = str(scope["client"][0]) if scope.get("client") else ""
        if not self._networks:
            return peer
        return self.resolve(peer, Headers(scope=scope).getlist("x-forwarded-for"))

    def resolve(self, peer: str, forwarded: Iterable[str]) -> str:
        """The caller's address, given who connected and the values of X-Forwarded-For."""
        if not self._networks or not self._trusted(peer):
            return peer
        for value in reversed(list(forwarded)):
            for entry in reversed(value.split(",")):
                address = entry.strip()
                if not _is_address(address):
                    return peer
                if not self._trusted(address):
                    return address
                peer = address
        return peer

    def _trusted(self, address: str) -> bool:
        return _is_address(address) and any(
            ip_address(address) in network for network in self._networks
        )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
