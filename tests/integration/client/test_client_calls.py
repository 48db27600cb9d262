"""`SessionManagerClient` on a real server and on servers that fail, on Trio and on asyncio."""

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from support.client_kit import on
from support.server_kit import Node, mint, running_node
from syncbridge.identity import Role
from syncbridge_client import (
    ApiError,
    CallExists,
    CallNotFound,
    CallStateRefused,
    RequestFailed,
    SessionManagerClient,
)

pytestmark = pytest.mark.parametrize("backend", ["trio", "asyncio"])
CALL = {
    "id": "c",
    "type": "SIP",
    "state": "pending",
    "createdAt": "2023-10-27T10:00:00Z",
    "updatedAt": "2023-10-27T10:00:00Z",
}


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


def gateway(node: Node) -> SessionManagerClient:
    return SessionManagerClient(node.url, mint("sip-gateway", Role.SERVICE))


async def test_a_call_from_creation_to_deletion(node: Node, backend: str) -> None:
    """Every method, typed answers, ids that need quoting."""

    async def scenario() -> None:
        call_id = f"{uuid.uuid4().hex}/é@[::1]"
        async with gateway(node) as calls:
            made = await calls.create(call_id, "SIP", {"caller_id": "1001"})
            assert (call_id, "SIP", "pending", {"caller_id": "1001"}) == (
                made.id,
                made.type,
                made.state,
                made.details,
            )
            active = await calls.set_state(call_id, "active")
            merged = await calls.set_details(call_id, {"x": "y"})
            assert ("active", {"caller_id": "1001", "x": "y"}) == (active.state, merged.details)
            assert merged == await calls.get(call_id)
            assert ["pending", "active"] == [c.state for c in await calls.history(call_id)]
            assert call_id in {c.id async for c in calls.all(state="active", call_type="SIP")}
            assert call_id not in {c.id async for c in calls.all(state="pending")}
            assert 1 == len((await calls.page(limit=1)).sessions)
            await calls.delete(call_id)

    await on(backend, scenario)


async def test_refusals_have_types(node: Node, backend: str) -> None:
    """Not found, exists, and steps that do not follow; others are plain ApiErrors."""

    async def scenario() -> None:
        call_id = uuid.uuid4().hex
        async with gateway(node) as calls:
            with pytest.raises(CallNotFound):
                await calls.get(call_id)
            with pytest.raises(CallNotFound):
                await calls.delete(call_id)
            await calls.create(call_id, "WebRTC", idempotency_key="k")
            await calls.create(call_id, "WebRTC", idempotency_key="k")
            with pytest.raises(CallExists):
                await calls.create(call_id, "WebRTC")
            await calls.set_state(call_id, "terminated")
            with pytest.raises(CallStateRefused) as refused:
                await calls.set_state(call_id, "active")
            assert ("call_terminated", "terminated") == (
                refused.value.code,
                refused.value.fields["state"],
            )
            with pytest.raises(ApiError) as invalid:
                await calls.set_state(call_id, "ringing")  # type: ignore[arg-type]
            assert 400 == invalid.value.status

    await on(backend, scenario)


Answer = httpx.Response | Exception


def scripted(answers: list[Answer], requests: list[httpx.Request]) -> httpx.MockTransport:
    """A server that gives these answers, one after the other."""

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        following = answers.pop(0)
        if isinstance(following, Exception):
            raise following
        return following

    return httpx.MockTransport(answer)


def busy(status: int = 503, wait: str = "0") -> httpx.Response:
    return httpx.Response(status, headers={"Retry-After": wait}, json={"code": "overloaded"})


async def played(
    backend: str,
    answers: list[Answer],
    use: Callable[[SessionManagerClient], Any],
    **options: Any,
) -> list[httpx.Request]:
    """The requests that a use of the client sends to a server with these answers."""
    requests: list[httpx.Request] = []

    async def scenario() -> None:
        transport = scripted(answers, requests)
        fast: dict[str, Any] = {"backoff_base": 0.0, "transport": transport} | options
        async with SessionManagerClient("http://gateway.test", "t", **fast) as calls:
            await use(calls)

    await on(backend, scenario)
    return requests


async def test_a_creation_is_repeated_under_one_key(backend: str) -> None:
    """429, 503 and lost answers are tried again, each time as the same request."""
    answers: list[Answer] = [
        busy(),
        busy(429),
        httpx.ReadError("cut"),
        httpx.ReadTimeout("late"),
        httpx.Response(201, json=CALL),
    ]
    requests = await played(backend, answers, lambda calls: calls.create("c", "SIP"))

    assert 5 == len(requests)
    assert 1 == len({(r.headers["idempotency-key"], r.content) for r in requests})


async def test_attempts_are_bounded(backend: str) -> None:
    """By their number, and by the time that the server's Retry-After would take."""

    async def use(calls: SessionManagerClient) -> None:
        with pytest.raises(ApiError) as caught:
            await calls.get("c")
        assert 503 == caught.value.status

    assert 3 == len(await played(backend, [busy() for _ in range(9)], use, attempts=3))
    assert 1 == len(await played(backend, [busy(wait="60")], use, within=30.0))


async def test_no_answer_in_the_end(backend: str) -> None:
    """RequestFailed says so."""

    async def use(calls: SessionManagerClient) -> None:
        with pytest.raises(RequestFailed) as caught:
            await calls.get("c")
        assert "disconnected" == caught.value.code

    cut: list[Answer] = [httpx.ConnectError("no") for _ in range(2)]
    assert 2 == len(await played(backend, cut, use, attempts=2))


async def test_what_is_refused_is_not_repeated(backend: str) -> None:
    """One request for a 404, 409 or 500."""
    for status in (404, 409, 500):

        async def use(calls: SessionManagerClient) -> None:
            with pytest.raises(ApiError):
                await calls.get("c")

        assert 1 == len(await played(backend, [httpx.Response(status)], use))


async def test_waits_are_drawn(backend: str) -> None:
    """Full jitter: each wait is drawn, and a draw of 0 does not wait, however long the interval."""
    drawn: list[float] = []

    def draw() -> float:
        drawn.append(1.0)
        return 0.0

    answers: list[Answer] = [busy(), busy(), httpx.Response(200, json=CALL)]
    await played(backend, answers, lambda calls: calls.get("c"), draw=draw, backoff_base=100.0)
    assert 2 == len(drawn)


async def test_a_deletion_whose_answer_was_lost(backend: str) -> None:
    """404 for the repetition means done; 404 after a 429 does not."""
    gone: dict[str, Any] = {"status_code": 404, "json": {"code": "call_not_found"}}
    lost: list[Answer] = [httpx.ReadError("cut"), httpx.Response(**gone)]
    assert 2 == len(await played(backend, lost, lambda calls: calls.delete("c")))

    async def use(calls: SessionManagerClient) -> None:
        with pytest.raises(CallNotFound):
            await calls.delete("c")

    assert 2 == len(await played(backend, [busy(429), httpx.Response(**gone)], use))
