"""Batches: which events they have, and that nothing of them is lost or told out of order."""

import json

from syncbridge.events import kinds
from syncbridge.events.batches import MOST_BYTES, Gathering, batch_of
from syncbridge.events.cursor import Cursor
from syncbridge.events.delivery import Delivery, Fate
from syncbridge.events.outbox import new_event


def texts(*names: str) -> list[tuple[str, bytes]]:
    return [(name, json.dumps({"id": name}).encode()) for name in names]


def delivery() -> Delivery:
    return Delivery(Cursor(), lambda: 0.5)


def gather(to: Delivery, numbers: range) -> list[Cursor]:
    places = [Cursor(1, number) for number in numbers]
    for place in places:
        to.gather(place)
    return places


def test_a_batch_is_one_message() -> None:
    """Its body has the events in order; its id is that of the same events, and of no others."""
    name, body = batch_of(texts("a", "b"))
    told = json.loads(body)

    assert (name, "events.batch", 1) == (told["id"], told["type"], told["type_version"])
    assert ["a", "b"] == [event["id"] for event in told["data"]["events"]]
    assert name == batch_of(texts("a", "b"))[0]
    assert 4 == len({name, *(batch_of(texts(*names))[0] for names in ("a", "ba", "abc"))})


def test_a_batch_is_full_or_waits_so_long() -> None:
    """By number, by bytes, or by the time since its first event; then the next one begins."""
    gathering = Gathering(2, 0.5)
    assert None is gathering.wait(10.0)
    gathering.add(Cursor(1, 1), "a", b"1", 10.0)
    assert (0.5, 0.0) == (gathering.wait(10.0), gathering.wait(10.5))
    gathering.add(Cursor(1, 2), "b", b"2", 10.4)
    assert (True, 0.0) == (gathering.full, gathering.wait(10.4))
    assert [Cursor(1, 1), Cursor(1, 2)] == gathering.take()[0]
    assert None is gathering.wait(11.0)
    gathering.add(Cursor(1, 3), "c", b"x" * MOST_BYTES, 11.0)
    assert gathering.full


def test_the_cursor_stands_before_a_batch_until_it_has_arrived() -> None:
    """What is gathered and what is under way is told again after a crash."""
    to = delivery()
    places = gather(to, range(1, 4))
    assert (Cursor(), Cursor(1, 3)) == (to.cursor, to.seen)
    to.offer_batch(places, "batch-1", b"text")
    to.offer(Cursor(1, 4), None)
    item = to.next(0)
    assert item is not None
    assert Cursor() == to.cursor
    to.delivered(item)
    assert Cursor(1, 4) == to.cursor


def test_a_batch_that_fails_is_sent_again_before_the_next_one() -> None:
    """With its id; all that comes later is held behind it."""
    to = delivery()
    to.offer_batch(gather(to, range(1, 3)), "batch-1", b"one")
    to.offer_batch(gather(to, range(3, 5)), "batch-2", b"two")
    first = to.next(0)
    assert first is not None
    assert Fate.HELD is to.failed(first, 10)
    while item := to.to_hold(first.lane):
        to.kept(item, f"held-{item.event_id}")
    assert Cursor(1, 4) == to.cursor
    assert first.lane == to.offer_batch(gather(to, range(5, 6)), "batch-3", b"three")
    due = to.due()
    assert due is not None
    again = to.next(due)
    assert (again, None) == (first, to.next(due))
    to.delivered(first)
    following = to.next(due)
    assert following is not None
    assert "batch-2" == following.event_id


def test_an_event_of_a_test_has_a_kind() -> None:
    """It is one of those that are documented."""
    event = new_event("test-1", "endpoint.test", 0, kinds.EndpointTest("e"))

    assert ("endpoint.test", 1) == (event.type, event.type_version)
