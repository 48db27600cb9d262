"""Roles, owners and bindings."""

from collections.abc import Collection
from itertools import product
from typing import Any

import pytest

from support.auth_kit import NOW
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import (
    ADMIN_READERS,
    ADMINS,
    CLIENTS,
    SERVICES,
    Identity,
    Role,
    authorize,
)

A, B = "550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440001"


def caller(role: Role = Role.USER, **bound: str) -> Identity:
    """Alice in that role."""
    return Identity("alice", role, "j", NOW, NOW + 900, **bound)


def refusal(identity: Identity, roles: Collection[Role] = CLIENTS, **asked: Any) -> str:
    """Code of what `authorize` says; empty when it lets in."""
    try:
        authorize(identity, roles, **asked)
    except SyncBridgeError as error:
        return error.code.wire
    return ""


@pytest.mark.parametrize(
    ("roles", "let_in"),
    [
        (CLIENTS, {"user", "service", "admin"}),
        (SERVICES, {"service", "admin"}),
        (ADMINS, {"admin"}),
        (ADMIN_READERS, {"admin", "viewer"}),
    ],
)
def test_a_role_is_let_in_or_is_told_which_ones_are(
    roles: frozenset[Role], let_in: set[str]
) -> None:
    """INSUFFICIENT_ROLE with the names of the roles that would do."""
    assert let_in == {role for role in Role if not refusal(caller(role), roles)}
    outsider = next((role for role in Role if role not in let_in), None)
    assert outsider is not None
    with pytest.raises(SyncBridgeError) as caught:
        authorize(caller(outsider), roles)
    assert ErrorCode.INSUFFICIENT_ROLE is caught.value.code
    assert all(role in caught.value.detail for role in let_in)


@pytest.mark.parametrize("role", sorted(CLIENTS))
def test_only_a_user_is_held_to_what_is_theirs(role: Role) -> None:
    """A user reaches what is their own only; service and admin reach all."""
    assert "" == refusal(caller(role), user_id="alice") == refusal(caller(role), user_id="")
    expected = "forbidden" if role is Role.USER else ""
    assert expected == refusal(caller(role), user_id="bob")
    assert caller(role).privileged is (role is not Role.USER)


def test_a_viewer_is_not_privileged() -> None:
    """What is open to service and admin is not open to it by not being a user."""
    assert not caller(Role.VIEWER).privileged


@pytest.mark.parametrize("role", sorted(CLIENTS))
def test_bound_to_a_session(role: Role) -> None:
    """That session only; what names none concerns more than one, and is refused."""
    bound, free = caller(role, session_id=A), caller(role)
    asked = (A, B, None, "")
    assert ["", "wrong_session", "wrong_session", "wrong_session"] == [
        refusal(bound, session_id=session) for session in asked
    ]
    assert "wrong_session" == refusal(bound), "whoever does not say is refused"
    assert {""} == {refusal(free, session_id=session) for session in asked}


@pytest.mark.parametrize("role", sorted(CLIENTS))
def test_bound_to_a_device(role: Role) -> None:
    """That device, or none in particular; what may concern any is refused."""
    bound, free = caller(role, device_id="phone"), caller(role)
    asked = ("phone", "", "watch", None)
    assert ["", "", "wrong_device", "wrong_device"] == [
        refusal(bound, device_id=device) for device in asked
    ]
    assert {""} == {refusal(free, device_id=device) for device in asked}


def test_a_binding_only_takes_away() -> None:
    """Whatever a bound token may do, the same token without the binding may do, too."""
    wider = 0
    for role, roles, user, session, device in product(
        Role, (CLIENTS, SERVICES, ADMINS), ("", "alice", "bob"), (A, B, None), ("", "p", "q", None)
    ):
        asked = {"user_id": user, "session_id": session, "device_id": device}
        free = refusal(caller(role), roles, **asked)
        for bound in ({"session_id": A}, {"device_id": "p"}, {"session_id": A, "device_id": "p"}):
            held = refusal(caller(role, **bound), roles, **asked)
            assert held or not free
            wider += bool(held and not free)

    assert wider > 0
