"""Revocation and refresh rotation on a real Redis, over the real bus."""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from support.auth_kit import make_settings
from support.redis_places import client_of
from support.redis_servers import RedisServer
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge_server.auth.assembly import Authentication, build_authentication
from syncbridge_server.auth.claims import Grant
from syncbridge_server.auth.refresh import TokenPair
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.link.client import RedisIO

ENDED = {ErrorCode.TOKEN_REUSED, ErrorCode.TOKEN_REVOKED}


@asynccontextmanager
async def node(url: str) -> AsyncIterator[Authentication]:
    """Authentication of one node, running."""
    async with RedisIO(url).running() as io, RedisBus(io, uuid.uuid4().hex).running() as bus:
        auth = build_authentication(make_settings(), io, bus, time.time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(auth.authenticator.run)
            await until(lambda: auth.revocations.ready)
            yield auth
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other threads bring about."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


def revoked(auth: Authentication, pair: TokenPair) -> bool:
    """Whether the access token is refused as revoked."""
    try:
        auth.authenticator.verify(pair.access_token)
    except SyncBridgeError as error:
        return error.code is ErrorCode.TOKEN_REVOKED
    return False


async def test_rotation_and_reuse(redis_url: str) -> None:
    """The script gives the family to the newest token, and ends it for a spent one."""
    async with node(redis_url) as auth:
        first = await auth.rotation.issue(Grant(uuid.uuid4().hex))
        second = await auth.rotation.rotate(first.refresh_token)
        third = await auth.rotation.rotate(second.refresh_token)
        codes = []
        for pair in (first, third, second, third):
            with pytest.raises(SyncBridgeError) as caught:
                await auth.rotation.rotate(pair.refresh_token)
            codes.append(caught.value.code)

        assert [ErrorCode.TOKEN_REUSED, *[ErrorCode.TOKEN_REVOKED] * 3] == codes
        assert revoked(auth, third)


async def test_only_one_of_many_at_once_wins(redis_url: str) -> None:
    """Twenty uses of one refresh token at once: one new pair, and the family has ended."""
    async with node(redis_url) as auth:
        pair = await auth.rotation.issue(Grant(uuid.uuid4().hex))
        won: list[TokenPair] = []
        lost: list[ErrorCode] = []

        async def use() -> None:
            try:
                won.append(await auth.rotation.rotate(pair.refresh_token))
            except SyncBridgeError as error:
                lost.append(error.code)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(use)

        assert (1, 19) == (len(won), len(lost))
        assert {ErrorCode.TOKEN_REUSED} <= set(lost) <= ENDED
        assert revoked(auth, won[0])


async def test_family_record_expires(redis_url: str) -> None:
    """A family is kept a little longer than its refresh token can live, and not for ever."""
    async with node(redis_url) as auth:
        pair = await auth.rotation.issue(Grant("alice"))
        family = auth.authenticator.verify(pair.access_token).family
        with client_of(redis_url) as client:
            life = client.pttl(f"sb:family:{{{family}}}")

    assert 604_800_000 < life <= 604_800_000 + 61_000


async def test_nodes_tell_each_other(redis_url: str) -> None:
    """A user revoked on one node is refused on the other, and on one that starts later."""
    async with node(redis_url) as first, node(redis_url) as second:
        user = uuid.uuid4().hex
        pair = await first.rotation.issue(Grant(user))
        assert not revoked(second, pair)

        await first.revocations.revoke("user", user)

        await until(lambda: revoked(second, pair))
        async with node(redis_url) as third:
            assert revoked(third, pair)
        await trio.sleep(0.002)
        assert not revoked(first, await first.rotation.issue(Grant(user)))


async def test_rules_outlive_a_crash_of_redis(redis_server: RedisServer) -> None:
    """A rule made while a node could not hear it is known there after the resync."""
    async with node(redis_server.url) as first:
        pair = await first.rotation.issue(Grant("alice"))
        redis_server.kill()
        with pytest.raises(SyncBridgeError) as caught:
            await first.rotation.rotate(pair.refresh_token)
        assert 503 == caught.value.code.status

        redis_server.start()
        async with node(redis_server.url) as second:
            await second.revocations.revoke("user", "alice")
        await until(lambda: revoked(first, pair))
