"""Who is concerned by a revocation, among those who are in a call."""

import pytest

from syncbridge.voice.records import Participant
from syncbridge_server.voice.rooms.revoking import Revocation, concerns

AT = 1_000
PARTICIPANT = Participant(token_at=AT, device_id="phone", logins=("token", "login"))


@pytest.mark.parametrize(
    ("kind", "value", "meant"),
    [
        ("user", "ann", True),
        ("device", "phone", True),
        ("device", "tablet", False),
        ("jti", "token", True),
        ("family", "login", True),
        ("jti", "another", False),
        ("family", "another", False),
    ],
)
def test_what_was_taken_back_decides(kind: str, value: str, meant: bool) -> None:
    """The user, the device that holds the call, or the token that the voice token was got with;
    never one that was got later; and everybody of whom that is not known."""
    revocation = Revocation("ann", kind, value, AT)

    assert meant == concerns(revocation, PARTICIPANT)
    assert not concerns(revocation._replace(at=AT - 1), PARTICIPANT)
    assert concerns(revocation, Participant(token_at=AT))


def test_a_call_that_moves_is_of_both_devices() -> None:
    """The one that holds it, and the one that takes it over."""
    moving = Participant(device_id="phone", moving_to="tablet")

    devices = [
        concerns(Revocation("ann", "device", d, AT), moving) for d in ("phone", "tablet", "tv")
    ]

    assert [True, True, False] == devices
