"""One request to a provider: when its errors say to come back, and how requests are counted."""

from typing import Any

import httpx
import pytest
import trio

from syncbridge.voice.provider import errors
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge_server.voice.provider.calling import (
    DEFAULT_RETRY,
    MAX_RETRY,
    ProviderCalls,
)
from syncbridge_server.voice.provider.metering import metered

LIMITED = "RATE_LIMITED"


def client_of(status: int, body: Any = None, retry: str = "") -> httpx.AsyncClient:
    """A client to a provider that always answers the same."""
    headers = {"retry-after": retry} if retry else {}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json=body if body is not None else {}, headers=headers)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def calls_of(client: httpx.AsyncClient, burst: float = 100) -> ProviderCalls:
    return ProviderCalls(client, "http://provider", "key", RequestBudget(0.001, burst))


@pytest.mark.parametrize(
    ("status", "body", "header", "seconds"),
    [
        (429, {"error": {"code": LIMITED, "retryAfter": 7}}, "", 7.0),
        (429, {"error": {"code": LIMITED, "retryAfter": 7}}, "120", 120.0),
        (429, {"error": {"code": LIMITED, "retryAfter": "7.5"}}, "tomorrow", 7.5),
        (429, {"code": LIMITED, "retryAfter": 9}, "", 9.0),
        (429, {"error": {"retryAfter": 10**400}}, "", DEFAULT_RETRY),
        (429, {"error": {"retryAfter": 10**9}}, "", MAX_RETRY),
        (429, {"error": {"retryAfter": True}}, "", DEFAULT_RETRY),
        (429, {"error": LIMITED, "retryAfter": -1}, "-5", DEFAULT_RETRY),
        (429, {}, "nan", DEFAULT_RETRY),
        (503, {"error": {"code": LIMITED}}, "", DEFAULT_RETRY),
        (403, {"error": {"code": "rate_limited", "retryAfter": 3}}, "", 3.0),
    ],
)
async def test_when_to_come_back(status: int, body: Any, header: str, seconds: float) -> None:
    """The header counts, then the body, then a minute; whatever the status of RATE_LIMITED is."""
    async with client_of(status, body, header) as client:
        calls = calls_of(client)
        with pytest.raises(errors.RateLimited) as told:
            await calls.ask("POST", "/a", {})
        with pytest.raises(errors.RateLimited) as unsent, metered() as meter:
            await calls.ask("GET", "/a")

    assert (seconds, False) == (told.value.retry_after, told.value.outcome_unknown)
    assert 0 < (unsent.value.retry_after or 0) <= seconds
    assert 0 == meter.sent


async def test_trouble_names_its_time_as_well() -> None:
    """A 503 with a time in its body is trouble of the provider, and may be done all the same."""
    async with client_of(503, {"error": {"code": "X", "retryAfter": 4}}) as client:
        with pytest.raises(errors.ProviderUnavailable) as told:
            await calls_of(client).ask("POST", "/a", {})

    assert (4.0, True) == (told.value.retry_after, told.value.outcome_unknown)


async def test_requests_are_counted_where_they_are_sent() -> None:
    """Those of a block and of the tasks that it starts, and of no other; refused ones are none."""
    async with client_of(200) as client:
        calls = calls_of(client, burst=5)

        async def ask() -> None:
            await calls.ask("GET", "/a")

        with metered() as outer:
            await ask()
            async with trio.open_nursery() as nursery:
                with metered() as inner:
                    nursery.start_soon(ask)
                    await ask()
                nursery.start_soon(ask)
        await ask()
        with metered() as spent, pytest.raises(errors.RateLimited):
            await ask()

    assert (4, 2, 0) == (outer.sent, inner.sent, spent.sent)
