"""The speaking throttle, rule by rule, on the kernel and on its twin."""

from collections.abc import Callable

import pytest

from syncbridge.kernels import _throttle_py
from syncbridge_core import throttle

Throttle = throttle.Throttle
CHANGED, RESTED, REST_WINDOWS = throttle.CHANGED, throttle.RESTED, throttle.REST_WINDOWS


@pytest.fixture(params=[Throttle, _throttle_py.Throttle], ids=["compiled", "pure"])
def make(request: pytest.FixtureRequest) -> Callable[..., Throttle]:
    """One of the two implementations."""
    return request.param  # type: ignore[no-any-return]


def test_the_leading_edge_is_due_at_once(make: Callable[..., Throttle]) -> None:
    """The first "speaking" goes out in the tick that brought it."""
    speech = make()

    assert speech.report(7, "ann", True, 1000)
    assert speech.next_due() == 1000
    assert speech.collect(1000) == [(7, [("ann", True)])]
    assert speech.snapshot(7) == ["ann"]


def test_the_last_state_of_a_window_is_delivered(make: Callable[..., Throttle]) -> None:
    """A "stopped" inside the window waits for its end and is not lost."""
    speech = make()
    speech.report(7, "ann", True, 0)
    speech.collect(0)

    assert not speech.report(7, "ann", False, 100)
    assert speech.collect(249) == []
    assert speech.next_due() == 250
    assert speech.collect(250) == [(7, [("ann", False)])]
    assert speech.collect(500) == []
    assert (speech.held, speech.channels, speech.next_due()) == (1, 1, 1100)
    assert speech.collect(1100) == []
    assert (speech.held, speech.channels, speech.next_due()) == (0, 0, None)


def test_who_changes_all_the_time_is_not_rested(make: Callable[..., Throttle]) -> None:
    """The answer to a report tells a change after a rest from one of a series."""
    speech = make()
    assert speech.report(7, "ann", True, 0) == RESTED
    speech.collect(0)
    speech.report(7, "ann", False, 100)
    assert speech.collect(250) == [(7, [("ann", False)])]

    assert speech.report(7, "ann", True, 600) == CHANGED
    assert speech.report(7, "ann", False, 700) == 0
    assert speech.report(7, "ann", False, 1000) == 0
    assert speech.report(7, "ann", True, 699 + REST_WINDOWS * 250) == CHANGED
    assert speech.report(7, "ann", False, 900 + REST_WINDOWS * 250) == 0
    assert speech.report(7, "ann", True, 900 + 2 * REST_WINDOWS * 250) == RESTED
    assert speech.report(7, "ann", True, 901 + 2 * REST_WINDOWS * 250) == RESTED
    assert speech.collect(3000) == [(7, [("ann", True)])]


def test_a_speaker_rests_too(make: Callable[..., Throttle]) -> None:
    """Who spoke for a second, said again and again, and stops: that is news."""
    speech = make()
    for now in range(0, 900, 100):
        speech.report(7, "ann", True, now)
        speech.collect(now)

    assert speech.report(7, "ann", False, REST_WINDOWS * 250 - 1) == CHANGED
    assert speech.report(7, "ann", True, REST_WINDOWS * 250 - 1) == 0
    assert speech.report(7, "ann", False, REST_WINDOWS * 500 - 1) == RESTED


def test_whose_changes_cancel_out_rests_on(make: Callable[..., Throttle]) -> None:
    """Who is quiet again before anything was handed out is forgotten when the rest is over."""
    speech = make()
    speech.report(7, "ann", True, 0)
    speech.collect(0)
    speech.report(7, "ann", False, 250)
    speech.collect(250)
    speech.report(7, "ann", True, 900)
    speech.report(7, "ann", False, 950)

    assert speech.collect(1949) == []
    assert speech.held == 1
    assert speech.collect(1950) == []
    assert (speech.held, speech.next_due()) == (0, None)


def test_whoever_is_new_is_rested(make: Callable[..., Throttle]) -> None:
    """A participant who was dropped or never heard of counts as quiet until then."""
    speech = make()
    speech.report(7, "ann", True, 0)
    speech.collect(0)
    speech.drop(7, "ann")

    assert speech.report(7, "ann", True, 10) == RESTED
    assert speech.report(7, "bob", True, 10) == RESTED


def test_changes_that_cancel_out_are_not_sent(make: Callable[..., Throttle]) -> None:
    """Stopped and speaking again inside one window is no news."""
    speech = make()
    speech.report(7, "ann", True, 0)
    speech.collect(0)
    speech.report(7, "ann", False, 50)
    speech.report(7, "ann", True, 90)

    assert speech.collect(250) == []
    assert speech.snapshot(7) == ["ann"]


def test_silence_of_the_client_clears(make: Callable[..., Throttle]) -> None:
    """A speaker who is not heard of for two seconds has stopped; a report extends it."""
    speech = make()
    speech.report(7, "ann", True, 0)
    speech.collect(0)
    speech.report(7, "ann", True, 1500)

    assert speech.collect(3499) == []
    assert speech.next_due() == 3500
    assert speech.collect(3500) == [(7, [("ann", False)])]


def test_one_batch_a_channel(make: Callable[..., Throttle]) -> None:
    """Changes of one tick come together by channel, in the order of the first change."""
    speech = make()
    names: list[tuple[int, str | bytes]] = [(1, "ann"), (2, b"bob"), (1, "cy")]
    for channel, who in names:
        speech.report(channel, who, True, 5)

    assert speech.collect(5) == [(1, [("ann", True), ("cy", True)]), (2, [(b"bob", True)])]


def test_the_bounds_refuse_and_count(make: Callable[..., Throttle]) -> None:
    """Over a bound nothing is stored; room comes back when somebody is dropped."""
    speech = make(max_participants=1, max_channels=1)
    speech.report(1, "ann", True, 0)

    assert not speech.report(1, "bob", True, 0)
    assert not speech.report(2, "bob", True, 0)
    assert (speech.refused, speech.held) == (2, 1)
    assert speech.drop(1, "ann") == 1
    assert speech.report(2, "bob", True, 0)


def test_dropping_says_nothing(make: Callable[..., Throttle]) -> None:
    """A dropped participant or channel is in no batch and in no snapshot."""
    speech = make()
    for who in "abc":
        speech.report(1, who, True, 0)

    assert speech.drop(1, "b") == 1
    assert speech.drop(1, "nobody") == 0
    assert speech.collect(0) == [(1, [("a", True), ("c", True)])]
    assert speech.drop(1) == 2
    assert speech.drop(1) == 0
    assert (speech.collect(9000), speech.held, speech.next_due()) == ([], 0, None)


def test_a_stop_of_a_stranger_is_nothing(make: Callable[..., Throttle]) -> None:
    """A "stopped" about somebody who never spoke stores nothing."""
    speech = make()

    assert not speech.report(1, "ann", False, 0)
    assert speech.held == 0


def test_time_does_not_go_back(make: Callable[..., Throttle]) -> None:
    """A smaller `now` counts as the largest one seen."""
    speech = make()
    speech.report(1, "ann", True, 1000)
    speech.collect(1000)
    speech.report(1, "ann", False, 10)

    assert speech.collect(20) == []
    assert speech.collect(1250) == [(1, [("ann", False)])]


@pytest.mark.parametrize("name", ["interval_ms", "clear_ms", "max_participants", "max_channels"])
def test_a_bound_is_at_least_one(make: Callable[..., Throttle], name: str) -> None:
    """No length of zero and no empty room."""
    with pytest.raises(ValueError, match="at least 1"):
        make(**{name: 0})


@pytest.mark.parametrize("who", [3, ("a",), ["a"]])
def test_a_participant_is_text(make: Callable[..., Throttle], who: object) -> None:
    """Anything that is neither str nor bytes is refused, and nothing is stored."""
    speech = make()

    with pytest.raises(TypeError):
        speech.report(1, who, True, 0)  # type: ignore[arg-type]
    assert speech.held == 0
