"""Rotation of refresh tokens, and the end of a family whose spent token comes back."""

from typing import Any

import pytest
import trio

from support.auth_kit import NOW, SESSION, Clock, MemoryCommands, make_authentication
from syncbridge.errors import ErrorCode, StoreUnavailable, SyncBridgeError
from syncbridge.identity import Role, VoiceGrant
from syncbridge_server.auth.assembly import Authentication
from syncbridge_server.auth.claims import Grant

GRANT = Grant("alice", Role.SERVICE, SESSION, "phone", (VoiceGrant("w", "*", ("speak",)),))


async def ready(commands: Any = None, clock: Clock | None = None) -> Authentication:
    """Authentication with its revocation list read."""
    auth = make_authentication(clock or Clock(), commands)
    await auth.revocations.load()
    return auth


async def code_of(auth: Authentication, token: str) -> ErrorCode:
    """The error of a refresh."""
    with pytest.raises(SyncBridgeError) as caught:
        await auth.rotation.rotate(token)
    assert token not in caught.value.detail
    return caught.value.code


async def test_pair_has_the_documented_lives() -> None:
    """15 minutes of access, 7 days of refresh, both of the same family."""
    auth = await ready()

    pair = await auth.rotation.issue(GRANT)

    assert (900, 604_800, "Bearer") == (pair.expires_in, pair.refresh_expires_in, pair.token_type)
    access = auth.authenticator.verify(pair.access_token)
    refresh = auth.authenticator.tokens.verify_refresh(pair.refresh_token, NOW)
    assert access.family == refresh.fam != ""
    assert GRANT._replace(family=access.family) == refresh.grant()


async def test_rotation_keeps_the_grant_and_the_family() -> None:
    """Role, session, device and voice come over to the new pair."""
    auth = await ready()
    first = await auth.rotation.issue(GRANT)

    second = await auth.rotation.rotate(first.refresh_token)

    before = auth.authenticator.verify(first.access_token)
    after = auth.authenticator.verify(second.access_token)
    assert before.jti != after.jti
    assert (before.family, before.role, before.voice) == (after.family, after.role, after.voice)
    assert (SESSION, "phone") == (after.session_id, after.device_id)


async def test_spent_token_ends_the_family() -> None:
    """A spent token presented again revokes every token of the family, access tokens too."""
    auth = await ready()
    first = await auth.rotation.issue(GRANT)
    second = await auth.rotation.rotate(first.refresh_token)
    other = await auth.rotation.issue(GRANT)

    assert ErrorCode.TOKEN_REUSED is await code_of(auth, first.refresh_token)

    assert ErrorCode.TOKEN_REVOKED is await code_of(auth, second.refresh_token)
    for pair in (first, second):
        with pytest.raises(SyncBridgeError, match="revoked"):
            auth.authenticator.verify(pair.access_token)
    assert "alice" == auth.authenticator.verify(other.access_token).user_id
    await auth.rotation.rotate(other.refresh_token)


async def test_of_two_at_once_one_wins_and_the_family_ends() -> None:
    """Two uses of one token at once are one use and one reuse."""
    auth = await ready()
    first = await auth.rotation.issue(GRANT)
    results: list[str] = []

    async def use() -> None:
        try:
            await auth.rotation.rotate(first.refresh_token)
            results.append("ok")
        except SyncBridgeError as error:
            results.append(error.code.wire)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        nursery.start_soon(use)

    assert ["ok", "token_reused"] == sorted(results)


async def test_revoked_user_cannot_refresh() -> None:
    """Revoking a user, a device or the refresh token's jti stops its refreshing."""
    for kind, value in (("user", "alice"), ("device", "phone"), ("jti", "")):
        auth = await ready()
        pair = await auth.rotation.issue(GRANT)
        claims = auth.authenticator.tokens.verify_refresh(pair.refresh_token, NOW)
        await auth.revocations.revoke(kind, value or claims.jti)  # type: ignore[arg-type]

        assert ErrorCode.TOKEN_REVOKED is await code_of(auth, pair.refresh_token)


async def test_unknown_family_is_refused() -> None:
    """When Redis has lost the family its tokens are no longer good."""
    commands = MemoryCommands()
    auth = await ready(commands)
    pair = await auth.rotation.issue(GRANT)
    commands.families.clear()

    assert ErrorCode.TOKEN_INVALID is await code_of(auth, pair.refresh_token)


async def test_expired_and_foreign_tokens_are_refused() -> None:
    """Expired refresh tokens, access tokens and garbage rotate nothing."""
    clock = Clock()
    auth = await ready(clock=clock)
    pair = await auth.rotation.issue(GRANT)

    assert ErrorCode.TOKEN_INVALID is await code_of(auth, pair.access_token)
    assert ErrorCode.TOKEN_INVALID is await code_of(auth, "garbage")
    clock.now += 604_800 + 60
    assert ErrorCode.TOKEN_EXPIRED is await code_of(auth, pair.refresh_token)


async def test_without_redis_nothing_is_issued() -> None:
    """A pair whose family could not be stored would never refresh; none is given out."""
    commands = MemoryCommands()
    auth = await ready(commands)
    pair = await auth.rotation.issue(GRANT)
    commands.away = True

    with pytest.raises(StoreUnavailable):
        await auth.rotation.issue(GRANT)
    with pytest.raises(StoreUnavailable):
        await auth.rotation.rotate(pair.refresh_token)
    commands.away = False
    await auth.rotation.rotate(pair.refresh_token)
