"""The circuit breaker: when it opens, how long, and its one probe."""

from hypothesis import given
from hypothesis import strategies as st

from syncbridge.voice.provider.breaker import Breaker, BreakerLimits, BreakerState, Ticket, Wait

LIMITS = BreakerLimits(threshold=3, least_s=1.0, first_s=5.0, most_s=20.0, probe_s=10.0)


def breaker(chance: float = 0.5) -> Breaker:
    return Breaker(LIMITS, lambda: chance)


def admitted(one: Breaker, now: float) -> Ticket:
    ticket = one.admit(now)
    assert isinstance(ticket, Ticket)
    return ticket


def opened(one: Breaker, now: float = 0.0) -> None:
    for _ in range(LIMITS.threshold):
        one.failed(admitted(one, now), now)


def test_it_opens_after_failures_in_a_row() -> None:
    """Two failures, a success and two failures are not three in a row."""
    one = breaker()
    for fails in (True, True, False, True, True):
        ticket = admitted(one, 0.0)
        if fails:
            one.failed(ticket, 0.0)
        else:
            one.succeeded(ticket)
    before = one.state(0.0)
    one.failed(admitted(one, 0.0), 0.0)

    assert (BreakerState.CLOSED, BreakerState.OPEN) == (before, one.state(0.0))
    assert one.admit(0.0) == Wait(3.0)


def test_half_open_lets_one_probe_through() -> None:
    """Of all who ask after the open time, one gets a ticket; its success lets everybody in."""
    one = breaker()
    opened(one)
    answers = [one.admit(3.0) for _ in range(5)]
    probe = answers[0]
    assert isinstance(probe, Ticket)
    state = one.state(3.0)
    one.succeeded(probe)

    assert state is BreakerState.HALF_OPEN
    assert [isinstance(a, Ticket) for a in answers] == [True, False, False, False, False]
    assert isinstance(one.admit(3.0), Ticket)


def test_a_probe_that_fails_opens_it_for_longer() -> None:
    """The bound of the open time doubles with each failed probe, and stays under its own bound."""
    one = breaker(chance=0.999_999)
    opened(one)
    now, waits = 0.0, []
    for _ in range(5):
        answer = one.admit(now)
        assert isinstance(answer, Wait)
        waits.append(round(answer.seconds))
        now += answer.seconds
        one.failed(admitted(one, now), now)

    assert waits == [5, 10, 20, 20, 20]


def test_a_success_forgets_how_often_it_was_open() -> None:
    """After a good probe the next opening is a first one again."""
    one = breaker(chance=0.999_999)
    opened(one)
    one.failed(admitted(one, 5.0), 5.0)
    one.succeeded(admitted(one, 30.0))
    opened(one, 40.0)
    answer = one.admit(40.0)

    assert isinstance(answer, Wait)
    assert round(answer.seconds) == 5


def test_outcomes_of_before_the_opening_say_nothing() -> None:
    """A call that began while it was closed neither closes it nor opens it for longer."""
    one = breaker()
    early = [admitted(one, 0.0), admitted(one, 0.0)]
    opened(one)
    one.succeeded(early[0])
    one.failed(early[1], 1.0)

    assert one.admit(2.0) == Wait(1.0)


def test_a_probe_that_was_given_up_leaves_the_place_to_another() -> None:
    """Nothing was learnt: the next one who asks is the probe."""
    one = breaker()
    opened(one)
    one.given_up(admitted(one, 3.0), 3.0)
    ticket = one.admit(3.0)

    assert isinstance(ticket, Ticket)
    assert ticket.probe


def test_a_probe_that_never_comes_back_is_not_waited_for() -> None:
    """After `probe_s` somebody else may try, and the lost probe's outcome does not count."""
    one = breaker()
    opened(one)
    lost = admitted(one, 3.0)
    waits = one.admit(12.9)
    admitted(one, 13.0)
    one.succeeded(lost)

    assert isinstance(waits, Wait)
    assert one.state(13.0) is BreakerState.HALF_OPEN


@given(
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["ok", "bad", "lost"])), max_size=60),
    st.floats(0, 0.999),
)
def test_it_never_stays_shut_and_never_probes_twice(
    story: list[tuple[float, str]], chance: float
) -> None:
    """Whatever happens: a wait is within its bound, and while it is open one ticket is out."""
    one, now = breaker(chance), 0.0
    for pause, outcome in story:
        now += pause
        answer = one.admit(now)
        if isinstance(answer, Wait):
            assert 0 < answer.seconds <= LIMITS.most_s
            continue
        if answer.probe:
            assert isinstance(one.admit(now), Wait)
        if outcome == "ok":
            one.succeeded(answer)
        elif outcome == "bad":
            one.failed(answer, now)
        else:
            one.given_up(answer, now)

    assert isinstance(one.admit(now + LIMITS.most_s + LIMITS.probe_s), Ticket)
