"""Outboxes and the log of events, script by script, on every kind of server."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
import redis

from support.contract.requests import join, leave, session_id, write
from syncbridge.errors import StoreError
from syncbridge.events.cursor import START
from syncbridge.events.kinds import Event
from syncbridge.events.outbox import event_of
from syncbridge.records.devices import Expel, OpenHandoff, Redeem
from syncbridge.records.nodes import Sweep
from syncbridge.records.sessions import Status
from syncbridge.slots import TAGS, bucket_of
from syncbridge_server.events.outboxes import carried, lost_of, place_after
from syncbridge_server.ports.events import Load, Part, Place, Round, Want
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.events import (
    AT,
    CHANGED,
    LOG,
    NOTED,
    TOLD_AT_ONCE,
    RedisEvents,
    dirty,
    expiring,
    outbox,
)
from syncbridge_server.redis.stores.inbox import DEAD, RedisInbox
from syncbridge_server.redis.stores.keys import every_key, meta_key
from syncbridge_server.redis.stores.store import RedisStore

WEEK_MS = 604_800_000
Json = dict[str, Any]


class Declares:
    """Declares the keys of events, as a node does in a cluster."""

    def __init__(self, io: RedisIO) -> None:
        self._io = io

    def created(self, sid: str) -> None:
        """Nobody waits for it."""

    def written(self, name: str, keys: Any) -> Any:
        assert name
        key = keys[0]
        tag = key[key.index("{") + 1 : key.index("}")]
        assert self._io.server is not None
        return (*keys, outbox(tag), dirty(tag)) if self._io.server.cluster else keys


@pytest.fixture
def telling(io: RedisIO, store: RedisStore) -> Iterator[RedisStore]:
    """The store of a node that writes events."""
    io.scripts.tell(True)
    io.outboxes = Declares(io)
    yield store
    io.scripts.tell(False)
    io.outboxes = None


@pytest.fixture
async def events(io: RedisIO) -> AsyncIterator[RedisEvents]:
    """The store of events, with a small log that is empty."""
    await io.execute("UNLINK", LOG, AT)
    yield RedisEvents(io, most=10, most_bytes=100_000, session_ms=WEEK_MS)
    await io.execute("UNLINK", LOG, AT)


async def part_of(events: RedisEvents, sid: str, place: Place = Place(), most: int = 100) -> Part:
    """What follows in the outbox of a session, whatever else is there."""
    (part,) = await events.take([Want(TAGS[bucket_of(sid)], place)], most, values=False)
    assert isinstance(part, Part)
    return part


async def told(events: RedisEvents, sid: str) -> list[Event]:
    """The events of a session."""
    part = await part_of(events, sid, most=10_000)
    found = [event_of("t", name, fields) for name, fields in part.entries]
    return [event for event in found if event.session_id == sid]


def data(event: Event) -> Json:
    found: Json = msgspec.json.decode(event.data)
    return found


async def round_of(events: RedisEvents, sid: str, *, values: bool = False) -> list[Json]:
    """Tell what has changed; the updates of a session so far."""
    wanted = Want(TAGS[bucket_of(sid)], Place(), Round.BEGIN)
    while True:
        (part,) = await events.take([wanted], 1, values=values)
        assert isinstance(part, Part)
        if not part.left:
            break
        wanted = wanted._replace(round=Round.GO_ON)
    found = [one for one in await told(events, sid) if one.type == "session.updated"]
    assert {""} >= {one.channel_id for one in found}
    return [data(one) for one in found]


async def test_a_write_tells_only_while_somebody_reads(
    store: RedisStore, io: RedisIO, events: RedisEvents
) -> None:
    """Off: no key, and the text of the script has nothing of events."""
    sid = session_id()
    await store.call(write(sid, {"a": "1"}))
    await store.call(write(sid, {"a": "2"}))
    tag = TAGS[bucket_of(sid)]

    assert [] == await told(events, sid)
    assert None is await io.execute("ZSCORE", dirty(tag), sid)
    assert b"XADD" not in io.scripts.sources["apply"]
    assert b"told_created" not in io.scripts.sources["apply"]


async def test_the_first_write_is_told_at_once(telling: RedisStore, events: RedisEvents) -> None:
    """With place and device; a refused and an empty write tell nothing."""
    sid = session_id()
    made = await telling.call(write(sid, {"a": "1"}))
    await telling.call(write(sid, {"a": "1"}))
    refused = await telling.call(write(sid, {"a": "9"}, user_id="eve", owner_check=True))
    (created,) = await told(events, sid)

    assert Status.FORBIDDEN is refused.status
    assert ("session.created", "u", 1) == (created.type, created.user_id, created.type_version)
    expected = {"version": 1, "epoch": made.epoch, "lineage": made.lineage}
    assert expected | {"device_id": "d", "app_version": ""} == data(created)
    assert [] == await round_of(events, sid)


async def test_changes_of_a_round_are_one_event(telling: RedisStore, events: RedisEvents) -> None:
    """From the version that was told last, with each key once; then the next from there."""
    sid = session_id()
    await telling.call(write(sid, {"a": "1"}))
    await telling.call(write(sid, {"b": "1"}))
    await telling.call(write(sid, {"b": "2", "odd 5 key": "1"}, device_id="watch"))
    last = await telling.call(write(sid, {}, "a"))
    first = await round_of(events, sid)
    await telling.call(write(sid, {"c": "1"}))
    second = await round_of(events, sid)
    third = await round_of(events, sid)

    assert [(1, 4, True)] == [
        (one["from_version"], one["to_version"], one["keys_complete"]) for one in first
    ]
    assert ["b", "odd 5 key", "a"] == first[0]["keys"]
    assert (last.lineage, "d") == (first[0]["lineage"], first[0]["device_id"])
    assert [(4, 5, ["c"])] == [
        (one["from_version"], one["to_version"], one["keys"]) for one in second[1:]
    ]
    assert third == second


async def test_values_are_those_of_the_version(telling: RedisStore, events: RedisEvents) -> None:
    """Null for a deleted key; none where they are too much."""
    small, large = session_id(), session_id()
    for sid in (small, large):
        await telling.call(write(sid, {"a": "1", "b": "2"}))
    await telling.call(write(small, {"a": '{"x":[1.50]}'}, "b"))
    await telling.call(write(large, {"a": '"' + 20_000 * "x" + '"'}))
    (of_small,) = await round_of(events, small, values=True)
    (of_large,) = await round_of(events, large, values=True)

    assert {"a": {"x": [1.5]}, "b": None} == of_small["values"]
    assert (["a"], None) == (of_large["keys"], of_large.get("values"))


async def test_keys_that_are_not_known_are_not_claimed(
    telling: RedisStore, events: RedisEvents
) -> None:
    """More keys than an event may have, or deletions that are forgotten: it says so."""
    long, wide, gone = session_id(), session_id(), session_id()
    for sid in (long, wide, gone):
        await telling.call(write(sid, {"a": "0"}))
    for turn in range(300):
        await telling.call(write(long, {"a": str(turn + 1)}))
    for first in range(0, 200, 4):
        await telling.call(write(wide, {f"k{first + n}": "1" for n in range(4)}))
    many = {f"k{number}": "1" for number in range(300)}
    await telling.call(write(gone, many))
    request = write(gone)
    request.deletes = [key.encode() for key in many]
    await telling.call(request)
    (of_long,) = await round_of(events, long)
    (of_wide,) = await round_of(events, wide)
    (of_gone,) = await round_of(events, gone)

    assert (1, 301, ["a"], True) == tuple(
        of_long[name] for name in ("from_version", "to_version", "keys", "keys_complete")
    )
    assert (128, False) == (len(of_wide["keys"]), of_wide["keys_complete"])
    assert not of_gone["keys_complete"]


async def test_devices_are_told(telling: RedisStore, events: RedisEvents) -> None:
    """Each arrival and departure once, with the reason and how many are online."""
    sid = session_id()
    await telling.call(write(sid, {"a": "1"}))
    await telling.call(join(sid, "phone", "c1"))
    await telling.call(join(sid, "phone", "c1"))
    await telling.call(join(sid, "phone", "c2"))
    await telling.call(join(sid, "watch", "w1", "dead"))
    await telling.call(leave(sid, "phone", "c1", reason="closed"))
    await telling.call(leave(sid, "phone", "c2", reason="closed"))
    await telling.call(Sweep(sid, "dead", 1_000))
    await telling.call(join(sid, "tablet", "t1"))
    await telling.call(Expel(sid, "tablet", "u"))
    found = (await told(events, sid))[1:]

    shown = [
        (one.type, data(one)["device_id"], data(one).get("reason"), data(one)["devices_online"])
        for one in found
    ]
    assert [
        ("device.joined", "phone", None, 1),
        ("device.joined", "phone", None, 1),
        ("device.joined", "watch", None, 2),
        ("device.left", "phone", "closed", 1),
        ("device.left", "watch", "timeout", 0),
        ("device.joined", "tablet", None, 1),
        ("device.left", "tablet", "removed", 0),
    ] == shown
    assert [False, True] == [data(one)["replaced"] for one in found[:2]]
    assert {"u"} == {one.user_id for one in found}


async def test_a_handoff_is_told(telling: RedisStore, events: RedisEvents) -> None:
    """Made, redeemed, and that the source has left; a second reading tells nothing."""
    sid = session_id()
    await telling.call(write(sid, {"a": "1"}))
    await telling.call(join(sid, "phone", "c1"))
    await telling.call(OpenHandoff(sid, "0" * 64, "phone", "tablet", "u", True, 60_000))
    for _ in range(2):
        redeemed = await telling.call(Redeem(sid, "0" * 64, "tablet", "u", True, 30_000))
        assert Status.OK is redeemed.status
    found = (await told(events, sid))[2:]

    assert ["handoff.created", "handoff.redeemed", "device.left"] == [one.type for one in found]
    assert ("phone", "tablet") == (
        data(found[0])["source_device"],
        data(found[0])["target_device"],
    )
    assert ("phone", "tablet", 1) == tuple(data(found[1]).values())
    assert "handoff" == data(found[2])["reason"]


async def test_the_end_of_a_session_is_told(
    telling: RedisStore, events: RedisEvents, io: RedisIO
) -> None:
    """Once, when its keys are gone; one that lives is looked at again later."""
    gone, lives = session_id(), session_id()
    for sid in (gone, lives):
        await telling.call(write(sid, {"a": "1"}))
        await io.execute("ZADD", f"ex:{{{TAGS[bucket_of(sid)]}}}", 1, f"{sid} u")
    await io.execute("UNLINK", meta_key(gone))
    for sid in (gone, lives, gone):
        await events.expire([TAGS[bucket_of(sid)]])
    tag = TAGS[bucket_of(lives)]

    assert ["session.created", "session.expired"] == [one.type for one in await told(events, gone)]
    assert ["session.created"] == [one.type for one in await told(events, lives)]
    score = await io.execute("ZSCORE", f"ex:{{{tag}}}", f"{lives} u")
    assert float(score) > 1_000_000_000_000


async def test_sessions_from_before_are_known(
    store: RedisStore, events: RedisEvents, io: RedisIO
) -> None:
    """The walk notes when each is to be looked at, once; one that was only joined is none."""
    made, joined = session_id(), session_id()
    await store.call(write(made, {"a": "1"}))
    await store.call(join(joined, "phone", "c1"))
    for _ in range(2):
        at = await events.walk(0)
        while at:
            at = await events.walk(at)
    last = int(await io.execute("HGET", meta_key(made), "t"))
    score = await io.execute("ZSCORE", expiring(TAGS[bucket_of(made)]), f"{made} u")

    assert last + WEEK_MS == int(score)
    assert None is await io.execute("ZSCORE", expiring(TAGS[bucket_of(joined)]), f"{joined} u")


async def test_a_session_that_was_erased_has_not_expired(
    telling: RedisStore, events: RedisEvents, io: RedisIO
) -> None:
    """Nothing is told when its life would have ended; what waits longest says when to look."""
    sid = session_id()
    tag = TAGS[bucket_of(sid)]
    await telling.call(write(sid, {"a": "1"}))
    before = await io.execute("ZSCORE", expiring(tag), f"{sid} u")
    (wait,) = await events.expire([tag])
    await io.script("erase", every_key(sid), [])
    after = await io.execute("ZSCORE", expiring(tag), f"{sid} u")

    assert (True, None) == (before is not None, after)
    assert isinstance(wait, int)
    assert 0 <= wait <= WEEK_MS


async def test_a_session_that_is_made_anew_is_told_from_its_own_first_version(
    telling: RedisStore, events: RedisEvents, io: RedisIO
) -> None:
    """What the one before under its id had not told yet is not told of it."""
    sid = session_id()
    tag = TAGS[bucket_of(sid)]
    for aside in (dirty(tag), f"et:{{{tag}}}"):
        for turn in range(5):
            await telling.call(write(sid, {"a": str(turn)}))
        await io.execute("UNLINK", dirty(tag))
        await io.execute("ZADD", aside, 4, sid)
        await io.script("erase", every_key(sid), [])
        await io.execute("UNLINK", outbox(tag))
        await telling.call(write(sid, {"a": "1"}))
        await telling.call(write(sid, {"a": "2"}))
        (one,) = await round_of(events, sid)
        await io.script("erase", every_key(sid), [])

        assert (1, 2) == (one["from_version"], one["to_version"])


async def test_who_notes_first_is_told(events: RedisEvents, io: RedisIO) -> None:
    """Whoever carries may be asleep then; what only changes wakes nobody."""
    await io.execute("UNLINK", NOTED, CHANGED)
    first = await events.note(["0"], [])
    second = await events.note(["1"], ["2"])
    taken = (await events.noted(), await events.changed(), await events.noted())
    changed = await events.note([], ["3"])
    third = await events.note(["4"], [])
    await io.execute("UNLINK", NOTED, CHANGED)

    assert (True, False, False, True) == (first, second, changed, third)
    assert ({"0", "1"}, {"2"}, set()) == taken


async def carry(events: RedisEvents, tag: str, place: Place, after: Place, *texts: bytes) -> Any:
    return (await events.carry([Load(tag, place, after, texts)]))[0][0]


async def test_a_part_is_carried_once(events: RedisEvents) -> None:
    """The place is compared; who comes with another one is told where it is."""
    one, two = Place("1-0", 1), Place("2-0", 2)
    assert None is await carry(events, "0", Place(), one, b"a", b"b")
    assert one == await carry(events, "0", Place(), one, b"a", b"b")
    assert None is await carry(events, "0", one, two, b"c")
    entries = await events.read(START, 100)

    assert [b"a", b"b", b"c"] == [text for _, text in entries]
    assert [1, 2, 3] == [place.number for place, _ in entries]
    assert two == (await events.places())["0"]
    assert entries[-1][0] == await events.last()
    assert [b"c"] == [text for _, text in await events.read(entries[1][0], 100)]


async def test_outboxes_are_carried_together(events: RedisEvents) -> None:
    """One whose place is another one does not keep the others back."""
    one, two = Place("1-0", 1), Place("2-0", 2)
    await carry(events, "1", Place(), two, b"before")
    loads = [Load("0", Place(), one, [b"a"]), Load("1", Place(), one, [b"b", b"c"])]
    places, dropped = await events.carry([*loads, Load("2", Place(), one, [b"d"])])
    entries = await events.read(START, 100)

    assert ([None, two, None], 0) == (places, dropped)
    assert [b"before", b"a", b"d"] == [text for _, text in entries]


async def test_the_log_is_bounded(events: RedisEvents, raw: redis.Redis) -> None:
    """By number and by bytes; numbers show what is missing."""
    dropped = 0
    place = Place()
    for turn in range(1, 8):
        after = Place(f"{turn}-0", turn)
        _, gone = await events.carry([Load("0", place, after, [b"x" * 10] * 3)])
        dropped, place = dropped + gone, after
    entries = await events.read(START, 100)
    _, gone = await events.carry([Load("0", place, Place("9-0", 9), [b"y" * 99_995])])
    after_large = await events.read(START, 100)

    assert (10, 11) == (len(entries), dropped)
    assert [*range(12, 22)] == [cursor.number for cursor, _ in entries]
    assert (10, [22]) == (gone, [cursor.number for cursor, _ in after_large])
    assert b"99995" == await events._io.execute("HGET", AT, "#b")


async def test_what_an_outbox_dropped_is_counted(
    telling: RedisStore, events: RedisEvents, io: RedisIO
) -> None:
    """The event that says so names how many, and the one before them."""
    sid = session_id()
    tag = TAGS[bucket_of(sid)]
    await io.execute("UNLINK", outbox(tag))
    await telling.call(write(sid, {"a": "1"}))
    first = await part_of(events, sid, most=1)
    place = place_after(Place(), first, 1)
    for turn in range(6):
        await telling.call(join(sid, f"d{turn}", "c"))
    whole = await part_of(events, sid)
    assert None is lost_of(tag, place, await part_of(events, sid, place))
    await events.trim([(tag, whole.entries[3][0].decode())])
    part = await part_of(events, sid, place)
    lost = lost_of(tag, place, part)

    assert Place(first.entries[0][0].decode(), 1) == place
    assert lost is not None
    assert (3, f"{tag}-{place.entry}") == (data(lost)["count"], data(lost)["after"])
    assert 4 == len(carried(tag, place, part))
    assert 7 == place_after(place, part, 100).number
    assert lost.id == lost_of(tag, place, part).id  # type: ignore[union-attr]


def in_one_bucket(count: int) -> list[str]:
    """Sessions that share an outbox."""
    first = session_id()
    found = [first]
    while len(found) < count:
        sid = session_id()
        if bucket_of(sid) == bucket_of(first):
            found.append(sid)
    return found


async def test_a_round_of_many_sessions_leaves_no_hole(
    telling: RedisStore, events: RedisEvents
) -> None:
    """One that changes while its round goes on is told up to then, and next time from there."""
    sids = in_one_bucket(TOLD_AT_ONCE + 1)
    tag = TAGS[bucket_of(sids[0])]
    for sid in sids:
        await telling.call(write(sid, {"a": "1"}))
        await telling.call(write(sid, {"a": "2"}))
    (part,) = await events.take([Want(tag, Place(), Round.BEGIN)], 1, values=False)
    assert isinstance(part, Part)
    for sid in sids:
        await telling.call(write(sid, {"a": "3"}))
    (rest,) = await events.take([Want(tag, Place(), Round.GO_ON)], 1, values=False)
    assert isinstance(rest, Part)
    last = [await round_of(events, sid) for sid in sids]

    ends = [[(one["from_version"], one["to_version"]) for one in each] for each in last]
    assert (1, 0, TOLD_AT_ONCE) == (part.left, rest.left, rest.waiting)
    assert [[(1, 2), (2, 3)]] * TOLD_AT_ONCE + [[(1, 3)]] == sorted(ends, key=len, reverse=True)


async def test_an_outbox_that_is_damaged_keeps_no_other_back(
    telling: RedisStore, events: RedisEvents, io: RedisIO
) -> None:
    """The answer has an error in its place; sessions of it are told once it is whole again."""
    good = session_id()
    bad = next(sid for sid in iter(session_id, "") if bucket_of(sid) != bucket_of(good))
    tags = [TAGS[bucket_of(sid)] for sid in (bad, good)]
    for sid in (bad, good):
        await telling.call(write(sid, {"a": "1"}))
        await telling.call(write(sid, {"a": "2"}))
    await io.execute("UNLINK", outbox(tags[0]))
    await io.execute("SET", outbox(tags[0]), "damaged")
    wanted = [Want(tag, Place(), Round.BEGIN) for tag in tags]
    damaged, whole = await events.take(wanted, 100, values=False)
    await io.execute("UNLINK", outbox(tags[0]))
    (later,) = await round_of(events, bad)

    assert isinstance(damaged, StoreError)
    assert isinstance(whole, Part)
    assert whole.entries
    assert (1, 2) == (later["from_version"], later["to_version"])


async def test_a_dead_letter_of_a_record_is_told(
    telling: RedisStore, events: RedisEvents, io: RedisIO
) -> None:
    """Each time, also where the keys of events are declared."""
    await io.execute("UNLINK", DEAD, outbox("inbox"))
    inbox = RedisInbox(io, None, "n1")  # type: ignore[arg-type]
    for _ in range(2):
        await inbox.keep("channel", "lobby", "damaged")
    (part,) = await events.take([Want("inbox", Place())], 100, values=False)
    assert isinstance(part, Part)
    found = [event_of("inbox", name, fields) for name, fields in part.entries]
    await io.execute("UNLINK", DEAD)

    assert [{"kind": "channel", "record": "lobby", "reason": "damaged"}] * 2 == list(
        map(data, found)
    )


async def test_what_was_carried_is_forgotten_but_for_its_last(
    telling: RedisStore, events: RedisEvents, io: RedisIO
) -> None:
    """While that is there, nothing is missing, and the outbox is not asked how much it ever had."""
    sid = session_id()
    tag = TAGS[bucket_of(sid)]
    await io.execute("UNLINK", outbox(tag))
    await telling.call(write(sid, {"a": "1"}))
    for turn in range(3):
        await telling.call(join(sid, f"d{turn}", "c"))
    first = await part_of(events, sid, most=2)
    place = place_after(Place(), first, 2)
    (part,) = await events.take([Want(tag, place, forget=place.entry)], 100, values=False)
    assert isinstance(part, Part)
    left = await io.execute("XLEN", outbox(tag))

    assert (2, 2, 3) == (len(first.entries), len(part.entries), left)
    assert (4, 0, b"") == (first.added, part.added, part.first)
    assert None is lost_of(tag, place, part)
    assert 4 == place_after(place, part, 100).number
