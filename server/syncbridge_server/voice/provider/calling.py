"""One HTTP request to a voice provider, with a deadline, the shared budget and typed errors.

Requests are not retried here. The key is sent in a header only. Redirects are not followed, so the
key goes to no other host, and proxy settings of the environment are ignored. The body of an answer
never gets into an error, because it may contain tokens.
"""

import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import trio

from syncbridge.voice.provider import errors
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.records import CannotVerify, VerifyFailure
from syncbridge_server.voice.payload import unbroken
from syncbridge_server.voice.provider import metering

MAX_ANSWER = 4_194_304
DEADLINE = 5.0
DEFAULT_RETRY = 60.0
MAX_RETRY = 3600.0
MAX_CONNECTIONS = 32

Monotonic = Callable[[], float]


def new_client() -> httpx.AsyncClient:
    """A client for requests to providers. The caller closes it.

    The timeout applies to each read; `ProviderCalls` enforces the deadline of the whole request.
    """
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=8)
    return httpx.AsyncClient(
        timeout=DEADLINE, limits=limits, trust_env=False, follow_redirects=False
    )


@dataclass(frozen=True)
class ProviderAnswer:
    """A complete response. `body` is {} when it is not a JSON object."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    readable: bool = True

    @property
    def ok(self) -> bool:
        """True for a 2xx answer with a readable body."""
        return 200 <= self.status < 300 and self.readable


class ProviderCalls:
    """Sends requests to one provider.

    Args:
        base_url: without a trailing slash. key: bearer token.
        deadline: seconds for a whole request. clock: monotonic seconds.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        key: str,
        budget: RequestBudget,
        deadline: float = DEADLINE,
        clock: Monotonic = time.monotonic,
    ) -> None:
        self._client = client
        self._base = base_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}", "accept": "application/json"}
        self._budget = budget
        self._deadline = deadline
        self._clock = clock

    async def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        poll: bool = False,
        reads: bool = False,
        most: int = MAX_ANSWER,
        accept: tuple[int, ...] = (),
    ) -> ProviderAnswer:
        """Send one request and read its answer.

        Args:
            path: quoted path below the base URL. poll: do not use the budget's reserve.
            reads: the request changes nothing, although it is not a GET.
            most: maximum bytes of the answer.
            accept: statuses besides 2xx that are not errors.

        Raises:
            ProviderError: for any other answer, or none.
        """
        wait = self._budget.take(self._clock(), poll=poll)
        if wait:
            raise errors.RateLimited("the request budget is used up", retry_after=wait)
        if (meter := metering.current.get()) is not None:
            meter.count()
        changes = method != "GET" and not reads
        try:
            with trio.fail_after(self._deadline):
                answer = await self._exchange(method, path, body, query or {}, headers or {}, most)
        except (httpx.ConnectError, httpx.UnsupportedProtocol):
            raise errors.NetworkFailed("the provider cannot be reached") from None
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError):
            raise errors.NetworkFailed(
                "the provider gave no answer in time", outcome_unknown=changes
            ) from None
        if answer.ok or answer.status in accept:
            return answer
        raise self._error(answer, changes)

    async def _exchange(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        query: Mapping[str, str | int],
        headers: Mapping[str, str],
        most: int,
    ) -> ProviderAnswer:
        sent = {**self._headers, **headers}
        url = self._base + path
        params = dict(query) or None
        try:
            request = self._client.build_request(
                method, url, json=body, params=params, headers=sent
            )
        except ValueError:  # text that is invalid in a header or a URL
            raise errors.InvalidRequest("the request cannot be encoded") from None
        response = await self._client.send(unbroken(request), stream=True)
        async with aclosing(response):
            text = await _read(response, most)
        document = _object(text)
        return ProviderAnswer(
            response.status_code, document or {}, response.headers, document is not None
        )

    def _error(self, answer: ProviderAnswer, changes: bool) -> errors.ProviderError:
        kind = errors.BY_CODE.get(_code(answer)) or _by_status(answer.status)
        retry = _retry_after(answer)
        if answer.status == 429 or kind is errors.RateLimited:
            retry = retry or DEFAULT_RETRY
            self._budget.shut(self._clock() + retry)
            return errors.RateLimited("the provider limits our requests", retry_after=retry)
        detail = f"the provider answered {answer.status}"
        if kind is errors.ProviderUnavailable:
            return kind(detail, retry_after=retry, outcome_unknown=changes)
        return kind(detail)


def doubt_of(error: errors.ProviderError) -> CannotVerify:
    """The result of a failed read."""
    return CannotVerify(
        _DOUBTS.get(type(error), VerifyFailure.REFUSED), error.detail, error.retry_after
    )


_DOUBTS: dict[type[errors.ProviderError], VerifyFailure] = {
    errors.NetworkFailed: VerifyFailure.UNREACHABLE,
    errors.ProviderUnavailable: VerifyFailure.UNREACHABLE,
    errors.RateLimited: VerifyFailure.RATE_LIMITED,
    errors.SessionNotFound: VerifyFailure.NOT_FOUND,
}


async def _read(response: httpx.Response, most: int) -> bytes:
    text = bytearray()
    stream = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            text += chunk
            if len(text) > most:
                raise httpx.DecodingError("answer too large")
    return bytes(text)


def _object(text: bytes) -> dict[str, Any] | None:
    """The JSON object of an answer; {} for an empty answer, None for anything else."""
    if not text:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _told(answer: ProviderAnswer, name: str) -> Any:
    """A field of the error in a body; an error that is only text is the code."""
    found = answer.body.get("error", answer.body)
    if isinstance(found, dict):
        return found.get(name)
    return found if name == "code" else None


def _code(answer: ProviderAnswer) -> str:
    """The error code in a body in lower case, or empty."""
    code = _told(answer, "code")
    return code.lower() if isinstance(code, str) else ""


def _by_status(status: int) -> type[errors.ProviderError]:
    if status in (401, 403):
        return errors.PermissionDenied
    if status == 404:
        return errors.SessionNotFound
    if status in (400, 409, 412, 413, 415, 422):
        return errors.InvalidRequest
    return errors.ProviderUnavailable


def _retry_after(answer: ProviderAnswer) -> float | None:
    """Seconds from `Retry-After`, else from the body's `retryAfter`, else None."""
    header = _seconds(answer.headers.get("retry-after"))
    return header if header is not None else _seconds(_told(answer, "retryAfter"))


def _seconds(value: Any) -> float | None:
    """A retry time of at most an hour; None for a date or an invalid value."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return min(seconds, MAX_RETRY) if math.isfinite(seconds) and seconds > 0 else None
