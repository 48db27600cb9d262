"""What an endpoint is sent, in which order, and what becomes of failures."""

import random
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from syncbridge.events import kinds
from syncbridge.events.cursor import Cursor
from syncbridge.events.delivery import (
    DOWN_AFTER,
    HELD_MOST,
    WINDOW,
    Delivery,
    Fate,
    Item,
    lane_of,
)
from syncbridge.events.kinds import Event
from syncbridge.events.outbox import new_event
from syncbridge.events.retries import GIVE_UP_SECONDS, STEPS, pause

DAY = 86_400.0


def delivery(failing_since: float = 0.0) -> Delivery:
    return Delivery(Cursor(), lambda: 0.5, failing_since)


def event(number: int, session: str) -> Event:
    about = new_event(f"e-{number}", "session.expired", 0, kinds.SessionExpired())
    about.session_id = session
    return about


def offer(to: Delivery, number: int, session: str) -> str:
    return to.offer(Cursor(1, number), event(number, session), b"text")


def hold(to: Delivery, lane: str) -> list[str]:
    names = []
    while item := to.to_hold(lane):
        to.kept(item, f"h-{item.event_id}")
        names.append(item.event_id)
    return names


def sent(to: Delivery, now: float) -> list[Item]:
    found = []
    while item := to.next(now):
        found.append(item)
    return found


def test_sessions_do_not_wait_for_each_other_and_their_events_do() -> None:
    """One of a session at a time; the next one when that has arrived."""
    to = delivery()
    for number, session in enumerate("aab", 1):
        offer(to, number, session)
    first = sent(to, 0)
    assert ["e-1", "e-3"] == [item.event_id for item in first]
    to.delivered(first[1])
    assert Cursor() == to.cursor
    to.delivered(first[0])
    assert Cursor(1, 1) == to.cursor
    assert ["e-2"] == [item.event_id for item in sent(to, 0)]


def test_what_fails_is_held_with_what_follows() -> None:
    """The log goes on; the session waits; the others do not."""
    to = delivery()
    for number, session in enumerate("aab", 1):
        offer(to, number, session)
    failing, other = sent(to, 100)
    assert Fate.HELD is to.failed(failing, 100)
    assert ["e-1", "e-2"] == hold(to, failing.lane)
    to.delivered(other)
    assert Cursor(1, 3) == to.cursor
    assert "sa" == offer(to, 4, "a")
    assert ["e-4"] == hold(to, "sa")
    assert (Cursor(1, 4), 3) == (to.cursor, to.held)
    assert [] == sent(to, 100 + STEPS[0] - 1)
    assert 100 + STEPS[0] == to.due()
    (again,) = sent(to, 100 + STEPS[0])
    assert (again.event_id, again.entry) == ("e-1", "h-e-1")
    to.delivered(again)
    assert ["e-2"] == [item.event_id for item in sent(to, 106)]


def test_what_fails_for_three_days_is_a_dead_letter() -> None:
    """While others arrive; its session goes on."""
    to, now = delivery(), 0.0
    offer(to, 1, "a")
    offer(to, 2, "a")
    (item,) = sent(to, now + 1)
    attempts = 1
    while to.failed(item, now + 1) is Fate.HELD:
        hold(to, item.lane)
        offer(to, 10 + attempts, "b")
        (other,) = [one for one in sent(to, now) if one.lane == "sb"] or [None]
        if other is not None:
            to.delivered(other)
        now = (to.due() or now) + 1
        (item,) = sent(to, now)
        attempts += 1

    assert GIVE_UP_SECONDS <= now <= GIVE_UP_SECONDS + DAY
    assert 12 < attempts < 20
    assert ["e-2"] == [one.event_id for one in sent(to, now)]


def test_an_endpoint_that_is_down_is_tried_with_one_event_at_a_time() -> None:
    """Nothing else is taken from the log; one success begins everything again."""
    to = delivery()
    for number in range(1, 9):
        offer(to, number, f"s{number}")
    items = sent(to, 0)
    for item in items[:DOWN_AFTER]:
        to.failed(item, 10)
        hold(to, item.lane)
    for item in items[DOWN_AFTER:]:
        to.failed(item, 11)
        hold(to, item.lane)
    assert (True, 0, Cursor(1, 8)) == (to.down, to.room, to.cursor)
    due = to.due()
    assert due is not None
    assert [] == sent(to, due - 0.1)
    (probe,) = sent(to, due)
    to.failed(probe, due)
    later = to.due()
    assert later is not None
    assert later - due > due - 11
    (probe,) = sent(to, later)
    to.delivered(probe)
    assert (False, WINDOW) == (to.down, to.room)
    assert 7 == len(sent(to, later))


def test_an_endpoint_that_fails_for_three_days_is_disabled() -> None:
    """Nothing becomes a dead letter by that: it may be enabled again."""
    to = delivery()
    for number in range(1, DOWN_AFTER + 1):
        offer(to, number, f"s{number}")
    for item in sent(to, 1):
        to.failed(item, 1)
        hold(to, item.lane)
    fate, now = Fate.HELD, 0.0
    while fate is Fate.HELD:
        now = to.due() or now
        (probe,) = sent(to, now)
        fate = to.failed(probe, now)

    assert Fate.DISABLED is fate
    assert GIVE_UP_SECONDS <= now < GIVE_UP_SECONDS + DAY
    assert DOWN_AFTER == to.held


def test_what_is_held_is_bounded() -> None:
    """Beyond the bound a failure is a dead letter at once."""
    to = delivery()
    for number in range(HELD_MOST):
        to.load(Item(f"s{number}", entry=f"{number}", event_id=f"{number}", due=1e9))
    offer(to, 1, "new")
    (item,) = sent(to, 0)

    assert Fate.DEAD is to.failed(item, 0)
    assert Cursor(1, 1) == to.cursor


def test_what_waits_behind_a_held_event_is_bounded_too() -> None:
    """Beyond the bound it is to be a dead letter; the session goes on behind the others."""
    to = delivery()
    for number in range(HELD_MOST):
        to.load(Item("sa", entry=f"{number}", event_id=f"{number}", due=1.0))
    assert "sa" == offer(to, 1, "a")
    item = to.to_hold("sa")
    assert item is not None
    assert to.dropped(item)
    assert (None, HELD_MOST, Cursor(1, 1)) == (to.to_hold("sa"), to.held, to.cursor)
    (first,) = sent(to, 1)
    to.delivered(first)
    offer(to, 2, "a")
    item = to.to_hold("sa")
    assert item is not None
    assert not to.dropped(item)


def test_what_is_held_is_loaded_once() -> None:
    """Also when it is read again before it has arrived."""
    to = delivery()
    for _ in range(2):
        to.load(Item("sa", entry="1-0", event_id="e-1"))
    (item,) = sent(to, 1)
    to.delivered(item)

    assert (0, []) == (to.held, sent(to, 1))


def test_what_is_asked_for_is_tried_at_once_where_everything_fails() -> None:
    """Whoever sends a test may have repaired the endpoint: it is not kept waiting for hours."""
    to = delivery()
    for number in range(1, DOWN_AFTER + 1):
        offer(to, number, f"s{number}")
    for item in sent(to, 1):
        to.failed(item, 1)
        hold(to, item.lane)
    assert [] == sent(to, 2)
    to.load(Item("e-test", entry="9-9", event_id="test"))
    (probe,) = sent(to, 2)
    assert ("test", [None]) == (probe.event_id, [to.next(2)])
    to.failed(probe, 2)
    assert [] == sent(to, 3)


def test_an_attempt_that_takes_long_does_not_stop_the_log() -> None:
    """What is not wanted, and what has arrived meanwhile, needs no room."""
    to = delivery()
    offer(to, 1, "slow")
    (slow,) = sent(to, 0)
    for number in range(2, 2 * WINDOW, 2):
        offer(to, number, f"s{number}")
        to.offer(Cursor(1, number + 1), None)
        (item,) = sent(to, 0)
        to.delivered(item)

    assert (WINDOW - 1, Cursor()) == (to.room, to.cursor)
    assert Cursor(1, 2 * WINDOW - 1) == to.seen
    to.delivered(slow)
    assert Cursor(1, 2 * WINDOW - 1) == to.cursor


def test_only_what_belongs_together_waits_for_each_other() -> None:
    """Sessions, channels of a waddle, call sessions; anything else waits for nothing."""

    def call(call_id: str, number: int) -> Event:
        data = kinds.CallSessionDeleted(call_id, "root")
        return new_event(f"c-{number}", "call_session.deleted", 0, data)

    lost = [
        new_event(f"l-{n}", "events.lost", 0, kinds.EventsLost(1, "", "", "", "")) for n in "ab"
    ]
    found = [call("A", 1), call("A", 2), call("B", 3), event(4, "A"), event(5, "A"), *lost]

    assert [0, 0, 2, 3, 3, 5, 6] == [
        [lane_of(other) for other in found].index(lane_of(one)) for one in found
    ]


def test_pauses_grow_and_a_receiver_may_ask_for_longer_ones() -> None:
    """Within a tenth of the step; what is asked for has a bound."""
    assert [*STEPS] == [round(pause(n, 0.5)) for n in range(1, len(STEPS) + 1)]
    assert STEPS[-1] * 0.9 <= pause(99, 0.0) <= pause(99, 0.999) <= STEPS[-1] * 1.1
    assert (60, 3_600) == (pause(1, 0.5, 60), pause(1, 0.5, 1e9))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=40), st.randoms())
def test_nothing_is_lost_and_sessions_keep_their_order(
    events: list[tuple[str, int]], draw: random.Random
) -> None:
    """Whatever fails how often, and whichever attempt ends first."""
    to, now = delivery(), 1.0
    fails = {f"e-{number}": count for number, (_, count) in enumerate(events, 1)}
    arrived: dict[str, list[int]] = defaultdict(list)
    waiting, under_way = list(enumerate(events, 1)), []
    while waiting or under_way or to.due() is not None:
        if waiting and to.room and draw.random() < 0.5:
            number, (session, _) = waiting.pop(0)
            if lane := offer(to, number, session):
                hold(to, lane)
        under_way += sent(to, now)
        if under_way:
            item = under_way.pop(draw.randrange(len(under_way)))
            if fails[item.event_id]:
                fails[item.event_id] -= 1
                assert to.failed(item, now) is Fate.HELD
                hold(to, item.lane)
            else:
                to.delivered(item)
                arrived[item.lane].append(int(item.event_id[2:]))
        elif (due := to.due()) is not None:
            now = max(now, due)

    assert all(numbers == sorted(numbers) for numbers in arrived.values())
    assert len(events) == sum(map(len, arrived.values()))
    assert Cursor(1, len(events)) == to.cursor if events else Cursor() == to.cursor
    assert 0 == to.held == to.under_way


def test_an_endpoint_that_was_down_has_something_to_be_tried_with() -> None:
    """A process that begins so, with nothing held, takes one event of the log."""
    to = delivery(failing_since=5.0)
    assert (True, 1) == (to.down, to.room)
    offer(to, 1, "a")
    assert 0 == to.room
    (probe,) = sent(to, 10)
    to.delivered(probe)
    assert (False, WINDOW, Cursor(1, 1)) == (to.down, to.room, to.cursor)
