"""Roles and ownership."""

import pytest

from auth_kit import NOW
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity, Role


def caller(role: Role) -> Identity:
    """Alice in that role."""
    return Identity("alice", role, "j", NOW, NOW + 900)


@pytest.mark.parametrize(
    ("have", "need", "allowed"),
    [
        (Role.USER, Role.USER, True),
        (Role.USER, Role.SERVICE, False),
        (Role.USER, Role.ADMIN, False),
        (Role.SERVICE, Role.USER, True),
        (Role.SERVICE, Role.SERVICE, True),
        (Role.SERVICE, Role.ADMIN, False),
        (Role.ADMIN, Role.USER, True),
        (Role.ADMIN, Role.SERVICE, True),
        (Role.ADMIN, Role.ADMIN, True),
    ],
)
def test_each_role_includes_the_one_before(have: Role, need: Role, allowed: bool) -> None:
    """user < service < admin; less than needed is FORBIDDEN."""
    if allowed:
        caller(have).require(need)
        return
    with pytest.raises(SyncBridgeError) as caught:
        caller(have).require(need)
    assert ErrorCode.FORBIDDEN is caught.value.code


@pytest.mark.parametrize("role", list(Role))
def test_only_a_user_is_held_to_what_is_theirs(role: Role) -> None:
    """A user reaches the own sessions only; service and admin reach all."""
    caller(role).require_owner("alice")
    assert caller(role).privileged is (role is not Role.USER)
    if role is Role.USER:
        with pytest.raises(SyncBridgeError) as caught:
            caller(role).require_owner("bob")
        assert ErrorCode.FORBIDDEN is caught.value.code
    else:
        caller(role).require_owner("bob")
