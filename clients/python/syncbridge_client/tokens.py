"""Where a session takes its access tokens from."""

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from syncbridge_client.errors import ApiError, ClientError

Refresh = Callable[[], Awaitable[str]]
"""Returns an access token that is good now."""

MARGIN = 90.0
"""Seconds before its end in which a token is renewed; a fifth of its life when that is less."""


class NoToken(ClientError):
    """There is no token to connect with; `final`: and there will be none."""

    def __init__(self, detail: str, final: bool) -> None:
        super().__init__(detail)
        self.final = final


def margin(life: float) -> float:
    """How long before its end a token that lives `life` seconds should be renewed."""
    return min(MARGIN, life / 5)


class TokenKeeper:
    """The token of one session: a fixed text, or one that a callable renews.

    Args:
        source: see `Refresh`; with a text nothing can be renewed.
        timeout: seconds for one call of it.

    Attributes:
        old: the last token for a connection was not a new one, or was accepted: another one may
            be accepted, too.
    """

    def __init__(self, source: str | Refresh, timeout: float) -> None:
        if not source or not (callable(source) or isinstance(source, str)):
            raise TypeError("token: text or an async callable is expected")
        self._source = source
        self._timeout = timeout
        self._token = source if isinstance(source, str) else ""
        self._until = math.inf
        self.old = False
        self._asking = anyio.Lock()

    @property
    def renewable(self) -> bool:
        """Whether a new token can be had."""
        return not isinstance(self._source, str)

    def replace(self, token: str) -> None:
        """The program has a new token."""
        self._token, self._until = token, math.inf

    def expire_at(self, moment: float) -> None:
        """A token was accepted, and is good until then, on anyio's clock."""
        self.old = True
        self._until = moment

    def spent(self) -> None:
        """The server does not take the present token any more."""
        self._until = -math.inf

    async def current(self) -> str:
        """A token for a new connection, renewed when it is about to end; raises NoToken."""
        good = anyio.current_time() < self._until
        good |= not self.renewable and self._until != -math.inf
        self.old = good and bool(self._token)
        return self._token if self.old else await self.renewed()

    async def renewed(self) -> str:
        """A new token; raises NoToken. One call of the source at a time."""
        source = self._source
        if isinstance(source, str):
            raise NoToken("the token has expired, and there is no callable to renew it", True)
        async with self._asking:
            try:
                with anyio.fail_after(self._timeout):
                    token = await source()
                if not (isinstance(token, str) and token):
                    raise TypeError("the callable returned no text")
            except TimeoutError:
                raise NoToken("no new token in time", False) from None
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                raise NoToken(f"no new token: {why}", final(error)) from error
        self.replace(token)
        return token


def final(error: Exception) -> bool:
    """Whether asking for a token again is pointless: the login itself is over."""
    return isinstance(error, ApiError) and 400 <= error.status < 500 and error.status != 429


class Pair(Protocol):
    """What a refresh answers. Lives in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int


class Refresher(Protocol):
    """The call that `TokenSource` needs; `RestClient` has it."""

    async def refresh_tokens(self, refresh_token: str) -> Pair: ...


class TokenSource:
    """Access tokens out of a refresh token, by `POST /auth/refresh`; give it to `connect`.

    Each refresh token works once: the newest one has to be kept, and `on_rotate` is the place for
    it. After a refresh without an answer the old one may be spent; it is tried once more all the
    same, because without it there is no way on. If it was spent, the login is over.

    Args:
        rest: a `RestClient`. refresh_token: the newest.
        on_rotate: called with each new refresh token, before its access token is used.
    """

    def __init__(
        self,
        rest: Refresher,
        refresh_token: str,
        on_rotate: Callable[[str], None] | None = None,
    ) -> None:
        self._rest = rest
        self._refresh_token = refresh_token
        self._on_rotate = on_rotate
        self._asking = anyio.Lock()

    async def __call__(self) -> str:
        """A new access token; raises ApiError and what httpx raises."""
        async with self._asking:
            pair = await self._rest.refresh_tokens(self._refresh_token)
            self._refresh_token = pair.refresh_token
            if self._on_rotate is not None:
                self._on_rotate(pair.refresh_token)
            return pair.access_token
