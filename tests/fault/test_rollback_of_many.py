"""A thousand sessions go back together; the long run takes ten thousand, and reports the time."""

import os
from pathlib import Path

import pytest

from support.rollback.load import roll_back

SESSIONS = int(os.environ.get("SYNCBRIDGE_ROLLBACK_SESSIONS", "1000"))


@pytest.mark.parametrize("silently", [False, True], ids=["killed", "silently"])
def test_every_socket_of_many_sessions_is_told(tmp_path: Path, silently: bool) -> None:
    """Redis is killed and comes back from an older file, or goes back without a broken connection:
    each device is given the whole state, and the log says how many sessions that were."""
    told = roll_back(SESSIONS, tmp_path, silently=silently)
    print(
        f"\n{told.sessions:,} sessions{', silently' * silently}: Redis away {told.away:.2f} s;"
        f" after its first answer half were told within {told.median:.2f} s, the last after"
        f" {told.last:.2f} s; {told.redis_us:.1f} us of Redis for each"
    )

    assert told.sessions == told.told == told.reported
