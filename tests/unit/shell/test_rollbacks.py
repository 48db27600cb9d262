"""When all sessions are compared again after some went back."""

from syncbridge_server.gateway.rollbacks import ComparisonSchedule


def asked(again: ComparisonSchedule, counts: dict[int, int], seconds: int) -> list[int]:
    """The seconds at which all are compared; `counts`: how many went back, from a second on."""
    found, at = 0, []
    for now in range(seconds):
        found = counts.get(now, found)
        if again.due(found, float(now)):
            at.append(now)
    return at


def test_each_pause_is_twice_the_one_before() -> None:
    """Nothing without a rollback; then a bounded number of times, and from the beginning again."""
    assert [] == asked(ComparisonSchedule(), {}, 600)
    assert [12, 16, 24, 40, 72, 136, 264] == asked(ComparisonSchedule(), {10: 5}, 3_000)
    assert [12, 16, 20, 24, 32] == asked(ComparisonSchedule(), {10: 5, 18: 6}, 40)
