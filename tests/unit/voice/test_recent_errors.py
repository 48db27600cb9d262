"""What the provider's latest answers were: errors count until the next good one, for a while."""

import pytest

from syncbridge_server.voice.provider.recent_errors import SECONDS, RecentErrors


def test_the_latest_of_each_kind_counts() -> None:
    """A good answer to another kind of request takes nothing away."""
    recent_errors = RecentErrors()
    assert not recent_errors.failing(0.0)
    recent_errors.note("issue_token", "service_unavailable", 1.0)
    recent_errors.note("fetch_state", "ok", 2.0)
    assert recent_errors.failing(3.0)
    recent_errors.note("issue_token", "ok", 4.0)
    assert not recent_errors.failing(5.0)


def test_an_error_is_forgotten() -> None:
    """Nobody has asked again: it is not known to be so any more."""
    recent_errors = RecentErrors()
    recent_errors.note("issue_token", "network_error", 1.0)

    assert (True, False) == (recent_errors.failing(SECONDS), recent_errors.failing(1.0 + SECONDS))


@pytest.mark.parametrize(
    ("outcome", "fails"),
    [("cancelled", True), ("rate_limited", True), ("session_not_found", False), ("empty", False)],
)
def test_what_is_an_error(outcome: str, fails: bool) -> None:
    """What was given up says nothing; what is said of one room is an answer."""
    recent_errors = RecentErrors()
    recent_errors.note("fetch_state", "unreachable", 1.0)
    recent_errors.note("fetch_state", outcome, 2.0)

    assert fails == recent_errors.failing(3.0)
