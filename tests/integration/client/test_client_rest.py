"""`RestClient` and `TokenSource` on a real server, on Trio and on asyncio."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from support.client_kit import device, next_event, on
from support.server_kit import Node, mint, new_session, running_node
from syncbridge.identity import Role
from syncbridge_client import ApiError, DeviceLeft, RequestFailed, RestClient, TokenSource
from syncbridge_client.session import connect

pytestmark = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


async def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value


async def test_snapshot_and_etag(node: Node, backend: str) -> None:
    """Created, read, not read again while it is the same, stale writes refused with the version."""

    async def scenario() -> None:
        sid = new_session()
        async with RestClient(node.url, mint("ann")) as rest:
            written = await rest.put_snapshot(sid, "ann", {"a": 1, "b": [None]})
            stored = await rest.get_session(sid)
            assert stored is not None
            assert (1, True, {"a": 1, "b": [None]}) == (
                stored.version,
                written.created,
                stored.state_data,
            )
            assert None is await rest.get_session(sid, stored.etag)
            again = await rest.put_snapshot(sid, "ann", {"a": 2}, version=1)
            assert (2, False, stored.epoch) == (again.version, again.created, again.epoch)
            error = await refused(rest.put_snapshot(sid, "ann", {"a": 3}, version=1))
            assert ("version_conflict", 409, 2) == (
                error.code,
                error.status,
                error.fields["current_version"],
            )
            assert 404 == (await refused(rest.get_session(new_session()))).status

    await on(backend, scenario)


async def test_incremental_and_resolve(node: Node, backend: str) -> None:
    """Changes by key, conflicts with the server's values, and how they are settled."""

    async def scenario() -> None:
        sid = new_session()
        async with RestClient(node.url, mint("ann")) as rest:
            await rest.put_snapshot(sid, "ann", {"a": 1, "b": 1})
            applied = await rest.incremental(
                sid, "ann", {"a": 2}, base_version=1, deleted_keys=["b"]
            )
            assert (2, {"a", "b"}) == (applied.version, set(applied.applied))
            error = await refused(rest.incremental(sid, "ann", {"a": 3}, base_version=1))
            assert [{"key": "a", "server_value": 2}] == error.fields["conflicts"]
            for strategy, value in (("server_wins", 2), ("merge", 3)):
                resolved = await rest.resolve(sid, {"a": 3}, client_version=1, strategy=strategy)
                assert {"a": value} == resolved.state_data

    await on(backend, scenario)


async def test_devices_are_listed_and_removed(node: Node, backend: str) -> None:
    """A removed device is told so, and its session ends for good."""

    async def scenario() -> None:
        sid = new_session()
        async with RestClient(node.url, mint("ann")) as rest:
            async with device(node.port, "phone", sid) as phone:
                await (await phone.set("a", 1)).acknowledged()
                listed = await rest.devices(sid)
                assert [("phone", "online")] == [(d.device_id, d.status) for d in listed.devices]
                await rest.remove_device(sid, "phone")
                assert 4010 == (await phone.wait_closed()).code
            assert 404 == (await refused(rest.remove_device(sid, "nobody"))).status

    await on(backend, scenario)


async def test_handoff(node: Node, backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """The target device gets the state, the source device hears of it; the token works once, and
    no log or repr shows it.
    """
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="httpx")  # a server in this process may have quietened it

    async def scenario() -> None:
        sid = new_session()
        async with RestClient(node.url, mint("ann")) as rest:
            async with device(node.port, "phone", sid) as phone:
                events = phone.events()
                await (await phone.set("a", 1)).acknowledged()
                handoff = await rest.handoff_create(sid, "phone", "tablet")
                redeemed = await rest.handoff_redeem(sid, handoff.token, "tablet")
                assert (True, {"a": 1}) == (redeemed.valid, redeemed.state_data)
                left = await next_event(events, DeviceLeft)
                assert handoff.token not in f"{handoff} {caplog.text}"
                assert f"/session/{sid}/handoff/..." in caplog.text
                assert ("phone", "handoff") == (left.device_id, left.reason)
            error = await refused(rest.handoff_redeem(sid, handoff.token, "watch"))
            assert error.status in (403, 410)

    await on(backend, scenario)


async def test_token_source_rotates(node: Node, backend: str) -> None:
    """Each refresh token works once; the session and the REST client live from one source."""

    async def scenario() -> None:
        kept: list[str] = []
        async with RestClient(node.url, mint("root", Role.SERVICE)) as service:
            pair = await service.mint_tokens("ann")
        async with RestClient(node.url) as rest:
            source = TokenSource(rest, pair.refresh_token, kept.append)
            async with connect(
                f"ws://127.0.0.1:{node.port}/ws", token=source, device_id="phone"
            ) as session:
                assert "ann" == session.user_id
            await source()
            assert 2 == len(set(kept))
            error = await refused(rest.refresh_tokens(pair.refresh_token))
            assert ("token_reused", 401) == (error.code, error.status)

    await on(backend, scenario)


async def test_expired_token_is_renewed_once(backend: str) -> None:
    """401 token_expired: one new token, one more try; other errors come out at once."""

    async def scenario() -> None:
        seen: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request.headers["authorization"])
            return httpx.Response(401, json={"code": "token_expired", "detail": "too old"})

        async def refresh() -> str:
            return f"token{len(seen)}"

        transport = httpx.MockTransport(answer)
        async with RestClient("http://x", refresh, transport=transport) as rest:
            error = await refused(rest.devices("s"))
        assert "token_expired" == error.code
        assert ["Bearer token0", "Bearer token1"] == seen

    await on(backend, scenario)


async def test_odd_answers_are_typed_errors(backend: str) -> None:
    """A proxy's page, an answer of another shape, Retry-After, no answer at all."""

    async def scenario() -> None:
        answers: list[Any] = [
            httpx.Response(502, text="<h1>Bad Gateway</h1>"),
            httpx.Response(200, json={"hello": 1}),
            httpx.Response(503, headers={"Retry-After": "3"}, json={"code": "draining", "x": 1}),
            httpx.ConnectError("no"),
            httpx.ReadTimeout("no"),
        ]

        def answer(request: httpx.Request) -> httpx.Response:
            reply = answers.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply

        async with RestClient("http://x", "t", transport=httpx.MockTransport(answer)) as rest:
            assert "http_502" == (await refused(rest.devices("s"))).code
            assert "unexpected_answer" == (await refused(rest.devices("s"))).code
            error = await refused(rest.devices("s"))
            assert ("draining", 503, 3.0, {"x": 1}) == (
                error.code,
                error.status,
                error.retry_after,
                error.fields,
            )
            for code in ("disconnected", "timeout"):
                with pytest.raises(RequestFailed) as caught:
                    await rest.devices("s")
                assert code == caught.value.code

    await on(backend, scenario)
