"""Authenticates HTTP requests by `Authorization: Bearer` (RFC 6750 section 2.1) only.

A token in the URL is ignored: URLs end up in logs, histories and Referer headers.

In development, a caller on this machine without a token is an administrator. That is only safe if
the caller really is on this machine. So it does not apply with a forwarding header (a proxy), a
Host that is not loopback (DNS rebinding), or an Origin or Sec-Fetch-Site of another site (a web
page in the developer's browser). An allowed page (`Origins`) still needs a token: `Sec-Fetch-Site`
distinguishes it from our own pages; if the browser does not send that, the Origin must match the
Host.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Scope

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import ADMIN_READERS, CLIENTS, Identity, Role, authorize
from syncbridge_server.addresses import is_loopback
from syncbridge_server.auth.authenticator import Authenticator
from syncbridge_server.auth.tokens import KeyNotKnown
from syncbridge_server.listener.contract import FIELDS, KNOWN
from syncbridge_server.origins import is_loopback_origin, same_origin

DEVELOPER = "developer"
_FORWARDED = frozenset(
    {
        "forwarded",
        "via",
        "cdn-loop",
        "client-ip",
        "true-client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-host",
        "x-originating-ip",
        "x-real-ip",
        "x-remote-addr",
        "x-remote-ip",
        "fly-client-ip",
        "fastly-client-ip",
    }
)
_FORWARDED_PREFIXES = ("x-forwarded", "x-original-", "cf-", "x-azure-", "x-appengine-", "x-amzn-")
"""With `_FORWARDED`, headers that proxies and content delivery networks add."""


class Authenticate(Protocol):
    """Authenticates a caller, or refuses: `BearerAuth`, or a wrapper of it."""

    async def __call__(
        self,
        request: HTTPConnection,
        roles: Collection[Role] = CLIENTS,
        *,
        session_bound: bool = False,
    ) -> Identity:
        """The caller. See `BearerAuth.__call__`."""


class BearerAuth:
    """Authenticates requests. `dev`: callers on this machine need no token."""

    def __init__(self, authenticator: Authenticator, dev: bool, clock: Callable[[], float]) -> None:
        self._authenticator = authenticator
        self._dev = dev
        self._clock = clock

    async def __call__(
        self,
        request: HTTPConnection,
        roles: Collection[Role] = CLIENTS,
        *,
        session_bound: bool = False,
    ) -> Identity:
        """The caller, if its token is valid for this route.

        Args:
            roles: who may call it.
            session_bound: accept a token that is bound to a session; the route then checks the
                session with `authorize`.

        Raises AUTH_REQUIRED, TOKEN_*, StoreUnavailable, and what `authorize` raises.
        """
        scope = request.scope
        values, device_id = _credentials(scope)
        if values:
            token = _bearer(values)
            try:
                identity = self._authenticator.verify(token, device_id)
            except KeyNotKnown:
                identity = await self._authenticator.authenticate(token, device_id)
        elif self._dev and is_local_caller(request):
            identity = self._developer()
        else:
            raise SyncBridgeError(
                ErrorCode.AUTH_REQUIRED, "send Authorization: Bearer <access token>"
            )
        state = scope.setdefault("state", {})
        state["user"], state["role"] = identity.user_id, identity.role
        if (known := scope.get(KNOWN)) is not None:
            known(identity.user_id)
        reached = identity.session_id if session_bound else None
        authorize(identity, roles, session_id=reached, device_id=device_id)
        return identity

    def is_revoked(self, identity: Identity, device_id: str) -> bool:
        """Whether tokens accepted before have been revoked. Raises StoreUnavailable."""
        return self._authenticator.revocations.is_revoked(identity, device_id)

    def _developer(self) -> Identity:
        now = self._clock()
        return Identity(DEVELOPER, Role.ADMIN, DEVELOPER, now, now + 60.0)


class ReadAsAdmin:
    """For routes that only read: an admin or a viewer sees what an admin sees."""

    def __init__(self, authenticate: BearerAuth) -> None:
        self._authenticate = authenticate

    async def __call__(
        self,
        request: HTTPConnection,
        roles: Collection[Role] = ADMIN_READERS,
        *,
        session_bound: bool = False,
    ) -> Identity:
        """The caller, as an admin. The route's own requirements are ignored."""
        identity = await self._authenticate(request, ADMIN_READERS)
        return msgspec.structs.replace(identity, role=Role.ADMIN)


def is_local_caller(request: HTTPConnection) -> bool:
    """Whether a request certainly came from this machine.

    Not with HTTP/1.0: proxies that put our address into Host and add no header use it.
    """
    if request.scope.get("http_version") == "1.0":
        return False
    peer = request.client.host if request.client else ""
    headers = request.headers
    if not is_loopback(peer) or any(map(_says_forwarded, headers)):
        return False
    if not _loopback_authority(f"//{headers.get('host', '')}"):
        return False
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None:
        return origin is None or same_origin(origin, headers.get("host", ""))
    ours = site in ("none", "same-origin")
    return ours and (origin is None or is_loopback_origin(origin))


def _says_forwarded(name: str) -> bool:
    """Whether only an intermediary writes a header. The name is in lower case."""
    return name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES)


def _loopback_authority(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def named_device(request: HTTPConnection) -> str:
    """The device in X-Device-ID; empty without one."""
    return _credentials(request.scope)[1]


def _credentials(scope: Scope) -> tuple[list[str], str]:
    """All values of Authorization, and the first of X-Device-ID, of a scope's headers.

    A device id is UTF-8, as everywhere else; bytes that are not are read as ISO 8859-1 (RFC 9110
    section 5.5 knows no other).
    """
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    fields: Mapping[bytes, bytes] | None = scope.get(FIELDS)
    if fields is not None and len(fields) == len(headers):  # no field came twice
        given = fields.get(b"authorization")
        values = [] if given is None else [given.decode("latin-1")]
        device_id = fields.get(b"x-device-id", b"")
    else:
        values = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        devices = (value for name, value in headers if name == b"x-device-id" and value)
        device_id = next(devices, b"")
    if not device_id:
        return values, ""
    try:
        return values, device_id.decode()
    except UnicodeDecodeError:
        return values, device_id.decode("latin-1")


def _bearer(values: list[str]) -> str:
    scheme, _, rest = values[0].partition(" ")
    token = rest.strip()
    if len(values) > 1 or scheme.lower() != "bearer" or not token:
        raise SyncBridgeError(
            ErrorCode.TOKEN_INVALID, "token refused: write Authorization: Bearer <access token>"
        )
    return token
