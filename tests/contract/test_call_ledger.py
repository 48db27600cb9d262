"""Events, leases, links and the ledger of calls in Redis: each end is recorded, and once."""

import itertools
import uuid
from typing import Any, ClassVar

import pytest
import redis
import trio

from support.redis_servers import RedisServer, until
from syncbridge.call_rules.billing import check_run
from syncbridge.call_rules.events import MOST_EVENTS, RULES, EventKind
from syncbridge.call_rules.listing import CallFilter, tag_of
from syncbridge.calls import Call, CallState, CallType, NewCall
from syncbridge.records.calls import CallReply, CallResult
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.call_codec import (
    bucket_of,
    due_key,
    keys_of,
    ledger_key,
    relation_keys,
)
from syncbridge_server.redis.stores.call_ledger import RedisLedger
from syncbridge_server.redis.stores.calls import MARGIN_MS, PAST_CALLS, RedisCalls

DAY = 86_400.0
LEASE = 0.1


@pytest.fixture
def calls(io: RedisIO) -> RedisCalls:
    return RedisCalls(io, DAY, 1_000, lease=LEASE)


@pytest.fixture
def ledger(io: RedisIO) -> RedisLedger:
    return RedisLedger(io, DAY, 30 * DAY)


async def made(
    calls: RedisCalls, state: CallState = CallState.PENDING, call_id: str = "", **members: str
) -> str:
    call_id = call_id or uuid.uuid4().hex
    await calls.create(call_id, NewCall(CallType.SIP, [b"a", b'"1"'], **members), "gw", "")
    if state is not CallState.PENDING:
        await calls.set_state(call_id, state, "gw")
    return call_id


async def tell(
    calls: RedisCalls, call_id: str, kind: EventKind, value: str = "", key: str = ""
) -> CallReply:
    return await calls.note_event(call_id, kind, value, "gw", key, "")


async def records(ledger: RedisLedger, call_id: str) -> list[Call]:
    """What the ledger has of an id; its numbers have no gap."""
    parts = await ledger.read([None] * ledger.parts, 100_000)
    for part in parts:
        assert part.last == check_run(None, part.last, [n for n, _ in part.records])
    kept = parts[bucket_of(call_id)].records
    return [call for _, call in kept if call is not None and call.id == call_id]


@pytest.mark.parametrize("state", CallState)
@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind is not EventKind.HANGUP])
async def test_the_script_does_what_the_rules_say(
    calls: RedisCalls, state: CallState, kind: EventKind
) -> None:
    """Each kind in each state, in a call on hold and in one that is not."""
    rule = RULES[kind]
    for on_hold in (False, True):
        call_id = await made(calls)
        if state is not CallState.PENDING:
            await calls.set_state(call_id, CallState.ACTIVE, "gw")
            if on_hold:
                await tell(calls, call_id, EventKind.HOLD)
        if state is CallState.TERMINATED:
            await calls.set_state(call_id, state, "gw")
        before = await calls.read(call_id)
        assert before is not None
        reply = await tell(calls, call_id, kind, "v" if rule.member else "")
        after = await calls.read(call_id)

        fits = state in rule.states and rule.held in ("", "1" if before.held else "0")
        assert (CallResult.DONE if fits else CallResult.LATE) is reply.result
        assert after == reply.call
        assert after is not None
        assert fits or after == before
        if fits:
            assert (kind, "gw", "v" if rule.member else "") == (
                after.events[-1].kind, after.events[-1].by, after.events[-1].value
            )  # fmt: skip
            assert after.updated_at == after.events[-1].at >= before.updated_at
            assert before.version + 1 == after.version
            assert after.held is (before.held if rule.changes != "held" else kind is EventKind.HOLD)


async def test_an_event_is_noted_once_and_at_most_so_many(calls: RedisCalls) -> None:
    """The key of its maker tells a repetition; the bound holds, and a repetition is still known."""
    call_id = await made(calls)
    first = await tell(calls, call_id, EventKind.RING, key="k")
    again = await tell(calls, call_id, EventKind.RING, key="k")
    for n in range(MOST_EVENTS - 1):
        await tell(calls, call_id, EventKind.TRANSFER, str(n))
    over = await tell(calls, call_id, EventKind.RING)
    known = await tell(calls, call_id, EventKind.RING, key="k")

    assert (CallResult.DONE, CallResult.UNCHANGED) == (first.result, again.result)
    assert first.call == again.call
    assert (CallResult.LATE, CallResult.UNCHANGED) == (over.result, known.result)
    assert known.call is not None
    assert MOST_EVENTS == len(known.call.events)


async def test_a_key_is_that_of_one_event(calls: RedisCalls) -> None:
    """Another event with the same key is noted: a call does not stay on hold unnoticed."""
    call_id = await made(calls, CallState.ACTIVE)
    results = [
        (await tell(calls, call_id, kind, key="k")).result
        for kind in (EventKind.HOLD, EventKind.RESUME, EventKind.HOLD)
    ]
    for to in "ab":
        await tell(calls, call_id, EventKind.TRANSFER, to, key="k")
    call = await calls.read(call_id)

    assert [CallResult.DONE, CallResult.DONE, CallResult.UNCHANGED] == results
    assert call is not None
    assert ["hold", "resume", "transfer", "transfer"] == [event.kind for event in call.events]


async def test_what_writes_to_another_call_than_was_read_is_refused(calls: RedisCalls) -> None:
    """Each write with the tag of before; with that of now it is done. A heartbeat is no write."""
    call_id = await made(calls)
    read = await calls.read(call_id)
    assert read is not None
    old = tag_of(read)
    await tell(calls, call_id, EventKind.RING)
    await calls.beat(call_id)
    refused = [
        await calls.set_state(call_id, CallState.ACTIVE, "gw", "", old),
        await calls.merge_details(call_id, [b"a", b'"2"'], old),
        await calls.note_event(call_id, EventKind.RING, "", "gw", "", old),
        await calls.delete(call_id, "gw", old),
    ]
    held = await calls.read(call_id)
    assert held is not None
    done = await calls.merge_details(call_id, [b"a", b"null"], tag_of(held))

    assert [CallResult.CHANGED] * 4 == [reply.result for reply in refused]
    assert [held] * 4 == [reply.call for reply in refused]
    assert CallResult.DONE is done.result
    assert done.call is not None
    assert [] == list(done.call.details)


async def test_removed_details_make_room(io: RedisIO, raw: redis.Redis) -> None:
    """What is removed counts no more, and removing what is not there counts nothing."""
    calls = RedisCalls(io, DAY, 8)
    call_id = await made(calls)
    full = await calls.merge_details(call_id, [b"b", b'"2"'])
    swapped = await calls.merge_details(call_id, [b"a", b"null", b"b", b'"2"', b"zzz", b"null"])
    assert (CallResult.TOO_LARGE, CallResult.DONE) == (full.result, swapped.result)
    assert b"8" == raw.hget(keys_of(call_id)[0], "n")


@pytest.mark.parametrize("end", ["state", "delete", "both", "lease"])
async def test_each_end_is_recorded_once(
    calls: RedisCalls, ledger: RedisLedger, raw: redis.Redis, end: str
) -> None:
    """Whoever ends it, and however often that is asked; without details."""
    call_id = await made(calls, CallState.ACTIVE)
    await tell(calls, call_id, EventKind.HOLD)
    assert [] == await records(ledger, call_id)
    if end == "lease":
        await calls.beat(call_id)
        await end_of_lease(ledger, calls, call_id)
    if end in ("state", "both"):
        for _ in range(2):
            await calls.set_state(call_id, CallState.TERMINATED, "gw", "busy")
    if end in ("delete", "both"):
        await calls.delete(call_id, "gw")
        await calls.delete(call_id, "gw")
    await ledger.sweep()
    (record,) = await records(ledger, call_id)

    causes = {"state": "busy", "both": "busy", "delete": "", "lease": "lease_expired"}
    assert causes[end] == record.cause
    assert (end == "delete") is bool(record.deleted_at)
    assert ["hold"] == [event.kind for event in record.events]
    assert [] == list(record.details)
    assert raw.zscore(due_key(bucket_of(call_id)), call_id) is None


async def end_of_lease(ledger: RedisLedger, calls: RedisCalls, call_id: str) -> Call:
    """Sweep until a call has ended."""
    with trio.fail_after(10):
        while True:
            await ledger.sweep()
            call = await calls.read(call_id)
            assert call is not None
            if call.state is CallState.TERMINATED:
                return call
            await trio.sleep(0.01)


async def test_a_lease_ends_a_call_at_its_last_sign_of_life(
    calls: RedisCalls, ledger: RedisLedger
) -> None:
    """Not when it was noticed. A call without heartbeats stays, and an ended one has no lease."""
    silent, beating = await made(calls, CallState.ACTIVE), await made(calls, CallState.ACTIVE)
    beat = (await calls.beat(beating)).call
    assert beat is not None
    ended = await end_of_lease(ledger, calls, beating)
    again = await calls.beat(beating)
    still = await calls.read(silent)

    assert round(LEASE * 1000) == beat.lease_until - ended.updated_at
    assert ("syncbridge", "lease_expired", 0) == (
        ended.history[-1].by, ended.cause, ended.lease_until
    )  # fmt: skip
    assert CallResult.REFUSED is again.result
    assert still is not None
    assert CallState.ACTIVE is still.state


async def test_two_nodes_that_look_at_once_end_a_call_once(
    calls: RedisCalls, ledger: RedisLedger, server: RedisServer
) -> None:
    """Of all that ended it, one is told that it did."""
    told: list[str] = []
    async with RedisIO(server.url, deadline=8.0).running() as other_io:
        other = RedisLedger(other_io, DAY, 30 * DAY)
        ids = [await made(calls, CallState.ACTIVE) for _ in range(10)]
        for call_id in ids:
            await calls.beat(call_id)
        await trio.sleep(LEASE)

        async def sweep(store: RedisLedger) -> None:
            told.extend(reply.call.id for reply in await store.sweep() if reply.call)

        with trio.fail_after(10):
            while len(set(told) & set(ids)) < len(ids):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sweep, ledger)
                    nursery.start_soon(sweep, other)
    assert sorted(ids) == sorted(set(ids) & set(told)) == sorted(i for i in told if i in ids)
    assert [1] * 10 == [len(await records(ledger, call_id)) for call_id in ids]


async def test_a_call_that_nobody_ends_is_recorded_before_it_is_forgotten(
    io: RedisIO, raw: redis.Redis, ledger: RedisLedger
) -> None:
    """At its last write; its time to be forgotten stays as it was."""
    calls = RedisCalls(io, 30.0, 1_000)
    call_id = await made(calls, CallState.ACTIVE)
    key, forget = keys_of(call_id)[:2]
    due = raw.zscore(due_key(bucket_of(call_id)), call_id)
    expiry = raw.pexpiretime(key)
    assert due == expiry - min(MARGIN_MS, 30_000 // 8)
    raw.zadd(due_key(bucket_of(call_id)), {call_id: 1})
    await ledger.sweep()
    (record,) = await records(ledger, call_id)

    assert "forgotten" == record.cause
    assert record.history[-1].at == record.history[-2].at
    assert (expiry, expiry) == (raw.pexpiretime(key), raw.zscore(forget, call_id))


async def test_a_due_entry_without_a_call_goes(ledger: RedisLedger, raw: redis.Redis) -> None:
    """It is looked at once."""
    call_id = uuid.uuid4().hex
    raw.zadd(due_key(bucket_of(call_id)), {call_id: 1})
    await ledger.sweep()
    assert raw.zscore(due_key(bucket_of(call_id)), call_id) is None


async def test_numbers_go_on_after_old_records_went(
    io: RedisIO, calls: RedisCalls, ledger: RedisLedger
) -> None:
    """A reader that was behind is told; one that was not goes on."""
    call_id = await made(calls)
    await calls.delete(call_id, "gw")
    bucket = bucket_of(call_id)
    before = (await ledger.read([None] * 16, 100_000))[bucket]
    brief = RedisLedger(io, DAY, 0.001)
    await trio.sleep(0.005)
    with trio.fail_after(10):
        while (await ledger.read([None] * 16, 1))[bucket].records:
            await brief.sweep()
    emptied = (await ledger.read([None] * 16, 1))[bucket]
    for _ in range(2):
        await made(calls, call_id=call_id)
        await calls.delete(call_id, "gw")
    after = (await ledger.read([before.last] * 16, 100))[bucket]

    assert (before.last, []) == (emptied.last, emptied.records)
    assert [before.last + 1, before.last + 2] == [number for number, _ in after.records]


async def test_a_clock_that_was_wrong_keeps_no_record_for_ever(
    io: RedisIO, calls: RedisCalls, raw: redis.Redis
) -> None:
    """A record from the future goes with the next one that is old; without one it stays."""
    brief = RedisLedger(io, DAY, 0.001)
    call_id = await made(calls)
    key = ledger_key(bucket_of(call_id))
    raw.delete(key)
    future = {"r": 9_999_999_999_999, "id": "x"}
    for number in (1, 2):
        raw.xadd(key, future, id=f"{number}-0")
    await brief.sweep()
    kept = raw.xlen(key)
    await calls.delete(call_id, "gw")
    raw.xadd(key, future, id="4-0")
    await trio.sleep(0.005)
    await brief.sweep()
    left = raw.xrange(key)
    raw.delete(key)

    assert 2 == kept
    assert [b"4-0"] == [name for name, _ in left]


async def test_what_is_written_during_a_look_is_looked_at_next() -> None:
    """A look reads each bucket's times; a call that begins meanwhile does not wait two minutes."""
    touched = {1, 2}

    class Link:
        asked: ClassVar[list[int]] = []

        async def request(self, commands: list[Any]) -> list[Any]:
            self.asked.append(len(commands))
            touched.add(3)
            return [b == 2 for b in range(16)] + [0] * 16 if len(commands) == 32 else []

    link: Any = Link()
    ledger = RedisLedger(link, DAY, DAY, touched=touched, clock=lambda: 1.0)
    await ledger._busy()

    assert {2, 3} == await ledger._busy() == touched
    assert [32] == Link.asked


async def test_a_record_that_is_damaged_keeps_its_number(
    calls: RedisCalls, ledger: RedisLedger, raw: redis.Redis
) -> None:
    """Those around it are read."""
    call_id = await made(calls, CallState.TERMINATED)
    bucket = bucket_of(call_id)
    last = (await ledger.read([None] * 16, 100_000))[bucket].last
    raw.xadd(ledger_key(bucket), {"r": 9_999_999_999_999, "id": call_id}, id=f"{last + 1}-0")
    await made(calls, CallState.TERMINATED, (call_id := same_bucket(bucket)))
    part = (await ledger.read([last] * 16, 10))[bucket]
    raw.xdel(ledger_key(bucket), f"{last + 1}-0")
    raw.delete(ledger_key(bucket))

    assert [(last + 1, None), (last + 2, call_id)] == [
        (number, call and call.id) for number, call in part.records
    ]


def same_bucket(bucket: int) -> str:
    """An id of a bucket."""
    return next(i for i in (uuid.uuid4().hex for _ in itertools.count()) if bucket_of(i) == bucket)


async def test_the_calls_that_had_an_id(calls: RedisCalls) -> None:
    """Each deletion leaves one, the latest first, at most so many."""
    call_id = await made(calls)
    for _ in range(PAST_CALLS + 2):
        await calls.delete(call_id, "gw")
        await made(calls, CallState.ACTIVE, call_id)
    past = await calls.read_deleted(call_id)
    assert PAST_CALLS == len(past)
    assert sorted((call.deleted_at for call in past), reverse=True) == [c.deleted_at for c in past]


async def test_lists_by_relation_time_and_text(calls: RedisCalls, raw: redis.Redis) -> None:
    """Any page size walks through the same calls, those of the filter, newest first."""
    parent, channel = uuid.uuid4().hex, uuid.uuid4().hex
    legs = [await made(calls, parent=parent, channel=channel) for _ in range(9)]
    moved, ended = legs[0], legs[1]
    await tell(calls, moved, EventKind.PARENT, "another")
    await tell(calls, moved, EventKind.UNLINK)
    await calls.set_state(ended, CallState.TERMINATED, "gw")
    await calls.delete(legs[2], "gw")
    found = [await calls.read(call_id) for call_id in legs[3:]]
    times = sorted(call.created_at for call in found if call is not None)
    await calls.merge_details(legs[4], [b"tel", b'"+49 ' + parent.encode() + b'"'])

    left = {*legs[1:2], *legs[3:]}
    assert left == set(await walk(calls, CallFilter(parent=parent)))
    assert left == set(await walk(calls, CallFilter(channel=channel)))
    assert {ended} == set(await walk(calls, CallFilter(CallState.TERMINATED, parent=parent)))
    assert moved in await walk(calls, CallFilter(parent="another"))
    assert [legs[4]] == await walk(calls, CallFilter(q=f"49 {parent.upper()}"))
    span = CallFilter(since=times[0], until=times[-1] + 1)
    assert set(legs[3:]) <= set(await walk(calls, span))
    assert legs[-1] not in await walk(calls, CallFilter(until=times[-1], parent=parent))
    assert legs[1] not in await walk(calls, CallFilter(since=times[-1] + 1))
    bucket = bucket_of(legs[2])
    assert not [m for m in raw.zrange(relation_keys(bucket)[0], 0, -1) if legs[2].encode() in m]


async def walk(calls: RedisCalls, wanted: CallFilter) -> list[str]:
    """The ids of a list, the same at each page size."""
    walks = []
    for limit in (2, 200):
        seen: list[tuple[int, str]] = []
        after = None
        while True:
            page = await calls.page(limit, after, wanted)
            seen += [(call.created_at, call.id) for call in page.calls]
            after = page.following
            if after is None:
                break
        assert sorted(seen, reverse=True) == seen
        walks.append([call_id for _, call_id in seen])
    assert walks[0] == walks[1]
    return walks[0]


async def test_relations_are_forgotten_with_their_call(io: RedisIO, raw: redis.Redis) -> None:
    """The next page takes out what the index has of it."""
    brief = RedisCalls(io, 0.05, 1_000)
    parent = uuid.uuid4().hex
    call_id = await made(brief, parent=parent)
    await until(lambda: not raw.exists(keys_of(call_id)[0]))
    await brief.page(10, None, CallFilter())
    rel, relof = relation_keys(bucket_of(call_id))
    assert not [m for m in raw.zrange(rel, 0, -1) if call_id.encode() in m]
    assert not raw.hexists(relof, f"parent\0{call_id}")
