"""Call sessions in Redis: every write is whole, and the indexes say what the hashes say."""

import uuid

import pytest
import redis
import trio

from support.redis_cluster import RedisCluster
from support.redis_servers import RedisServer, until
from syncbridge.call_rules.listing import CallFilter
from syncbridge.calls import FOLLOWERS, CallState, CallType, NewCall, cursor_of, parse_cursor
from syncbridge.records.calls import CallPage, CallReply, CallResult
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.call_codec import index_keys, indexes, keys_of, past_key
from syncbridge_server.redis.stores.calls import RedisCalls

BOUND = 100
DAY = 86_400.0


@pytest.fixture
def calls(io: RedisIO) -> RedisCalls:
    return RedisCalls(io, DAY, BOUND)


def new_id() -> str:
    return f"{uuid.uuid4().hex[:12]}@host"


async def made(calls: RedisCalls, call_id: str, kind: CallType = CallType.SIP) -> CallReply:
    return await calls.create(call_id, NewCall(kind, [b"b", b'"2"', b"a", b'"1"']), "gw", "")


def places(raw: redis.Redis, call_id: str) -> list[int]:
    """Numbers of the indexes that hold a call; -1 for the times of forgetting."""
    keys = keys_of(call_id)[1:8]
    return [n - 1 for n, key in enumerate(keys) if raw.zscore(key, call_id) is not None]


async def bring(calls: RedisCalls, call_id: str, state: CallState) -> None:
    """A new call in a state."""
    await made(calls, call_id)
    if state is not CallState.PENDING:
        await calls.set_state(call_id, state, "gw")


@pytest.mark.parametrize("before", CallState)
@pytest.mark.parametrize("target", CallState)
async def test_the_script_does_what_the_table_says(
    calls: RedisCalls, raw: redis.Redis, before: CallState, target: CallState
) -> None:
    """All nine pairs: done, nothing to do, or refused with nothing changed; one index holds it."""
    call_id = new_id()
    await bring(calls, call_id, before)
    held = await calls.read(call_id)
    reply = await calls.set_state(call_id, target, "other")
    after = await calls.read(call_id)

    allowed = target in FOLLOWERS[before]
    same = CallResult.UNCHANGED if target is before else CallResult.REFUSED
    assert (CallResult.DONE if allowed else same) is reply.result
    assert before is reply.previous
    assert after == reply.call
    assert after is not None
    assert (target if allowed else before) is after.state
    assert allowed or after == held
    assert [-1, list(CallState).index(after.state)] == places(raw, call_id)
    assert after.state is after.history[-1].state
    assert after.history[-1].by == ("other" if allowed else "gw")


async def test_a_call_is_made_once(calls: RedisCalls) -> None:
    """The same request again is known by its key and its maker; anything else is another one."""
    call_id, details = new_id(), [b"a", b'"1"', b"b", b'"2"']
    first = await calls.create(call_id, NewCall(CallType.SIP, details), "gw", "k")
    turned = [*details[2:], *details[:2]]
    again = await calls.create(call_id, NewCall(CallType.SIP, turned), "gw", "k")
    others = [
        await calls.create(call_id, NewCall(CallType.SIP, details), "gw", ""),
        await calls.create(call_id, NewCall(CallType.SIP, details), "gw", "l"),
        await calls.create(call_id, NewCall(CallType.SIP, details), "gx", "k"),
        await calls.create(call_id, NewCall(CallType.WEBRTC, details), "gw", "k"),
        await calls.create(call_id, NewCall(CallType.SIP, details[:2]), "gw", "k"),
    ]

    assert (CallResult.DONE, CallResult.UNCHANGED) == (first.result, again.result)
    assert first.call == again.call
    assert [CallResult.EXISTS] * 5 == [other.result for other in others]


async def test_details_are_merged_within_their_bound(calls: RedisCalls) -> None:
    """Sorted by name; exactly at the bound is good, one byte more changes nothing."""
    call_id = new_id()
    await made(calls, call_id)  # 2 * (1 + 3 + 4) = 16 bytes
    fits = await calls.merge_details(call_id, [b"c", b'"' + b"x" * (BOUND - 16 - 7) + b'"'])
    over = await calls.merge_details(call_id, [b"a", b'"11"'])
    less = await calls.merge_details(call_id, [b"c", b'""', b"a", b'"11"'])
    nothing = await calls.merge_details(call_id, [])

    assert [CallResult.DONE, CallResult.TOO_LARGE, CallResult.DONE, CallResult.DONE] == [
        reply.result for reply in (fits, over, less, nothing)
    ]
    assert less.call is not None
    assert [b"a", b'"11"', b"b", b'"2"', b"c", b'""'] == less.call.details
    assert nothing.call is not None
    assert less.call.details == nothing.call.details


async def test_what_is_not_there(calls: RedisCalls, raw: redis.Redis) -> None:
    """NOT_FOUND, and nothing is left behind; a deleted call leaves no entry."""
    call_id = new_id()
    replies = [
        await calls.set_state(call_id, CallState.ACTIVE, "gw"),
        await calls.merge_details(call_id, [b"a", b'"1"']),
        await calls.delete(call_id, "gw"),
    ]
    never = await calls.read_deleted(call_id)
    await made(calls, call_id)
    deleted = await calls.delete(call_id, "gw")

    assert [] == never
    assert [CallResult.NOT_FOUND] * 3 == [reply.result for reply in replies]
    assert deleted.call is not None
    assert (call_id, CallState.PENDING) == (deleted.call.id, deleted.call.state)
    assert None is await calls.read(call_id)
    assert [] == places(raw, call_id)


async def test_a_deleted_call_stays_beside_as_long_as_it_would_have(
    calls: RedisCalls, raw: redis.Redis
) -> None:
    """Its states and their times, who deleted it and when, and no detail."""
    call_id = new_id()
    await bring(calls, call_id, CallState.ACTIVE)
    held = await calls.read(call_id)
    left = raw.pttl(keys_of(call_id)[0])
    await calls.delete(call_id, "biller")
    (gone,) = await calls.read_deleted(call_id)

    assert held is not None
    assert (held.history, held.state, held.created_at) == (
        gone.history,
        gone.state,
        gone.created_at,
    )
    assert ("biller", []) == (gone.deleted_by, list(gone.details))
    assert held.updated_at <= gone.deleted_at
    assert 0 < raw.pttl(past_key(call_id)) <= left
    ((_, kept),) = raw.xrange(past_key(call_id))
    assert not [name for name in kept if name.startswith(b".")]


async def test_pages_are_the_list(calls: RedisCalls) -> None:
    """Any page size walks through the same calls in the same order, filtered or not."""
    ids = [new_id() for _ in range(40)]
    for n, call_id in enumerate(ids):
        await made(calls, call_id, list(CallType)[n % 2])
        if n % 3:
            await calls.set_state(call_id, list(CallState)[n % 3], "gw")
    for state, kind in [(None, None), (CallState.ACTIVE, None), (None, CallType.WEBRTC)]:
        walks = []
        for limit in (1, 7, 100):
            seen, after = [], None
            while True:
                page: CallPage = await calls.page(limit, after, CallFilter(state, kind))
                assert len(page.calls) <= limit
                seen += [call for call in page.calls if call.id in ids]
                if page.following is None:
                    break
                after = parse_cursor(cursor_of(page.following))
            walks.append(seen)
        expected = {
            call_id
            for n, call_id in enumerate(ids)
            if state in (None, list(CallState)[n % 3]) and kind in (None, list(CallType)[n % 2])
        }
        assert expected == {call.id for call in walks[0]}
        assert len(expected) == len(walks[0])
        assert walks[0] == walks[1] == walks[2]
        places = [(call.created_at, call.id) for call in walks[0]]
        assert sorted(places, reverse=True) == places


async def test_calls_are_forgotten_with_their_entries(
    io: RedisIO, raw: redis.Redis, server: RedisServer
) -> None:
    """After the TTL there is no call, and the next page of the list takes its entries out."""
    brief = RedisCalls(io, 0.05, BOUND)
    call_id = new_id()
    await made(brief, call_id)
    assert 0 < raw.pttl(keys_of(call_id)[0]) <= 50
    await until(lambda: not raw.exists(keys_of(call_id)[0]))
    page = await brief.page(100, None, CallFilter())

    assert call_id not in {call.id for call in page.calls}
    assert [] == places(raw, call_id)


async def test_an_id_comes_back_after_its_call_was_forgotten(
    io: RedisIO, calls: RedisCalls, raw: redis.Redis
) -> None:
    """Old entries of the same id do not stay beside the new one, nor take it out."""
    call_id = new_id()
    await bring(calls, call_id, CallState.ACTIVE)
    raw.delete(keys_of(call_id)[0])
    await made(calls, call_id, CallType.WEBRTC)
    await calls.page(100, None, CallFilter())

    assert [-1, *indexes(CallState.PENDING, CallType.WEBRTC)] == places(raw, call_id)


async def test_every_write_renews_the_life(calls: RedisCalls, raw: redis.Redis) -> None:
    """Of the hash and of its entry, to the same moment."""
    call_id = new_id()
    await made(calls, call_id)
    key, forget = keys_of(call_id)[:2]
    for write in (
        calls.merge_details(call_id, [b"a", b'""']),
        calls.set_state(call_id, CallState.ACTIVE, "gw"),
    ):
        raw.pexpire(key, 10_000)
        await write
        now = int(raw.time()[0]) * 1000
        score = raw.zscore(forget, call_id)
        assert score is not None
        assert abs(raw.pttl(key) - DAY * 1000) < 5_000
        assert abs(int(score) - now - raw.pttl(key)) < 5_000


async def test_keys_of_a_call_share_a_slot(server: RedisServer, raw: redis.Redis) -> None:
    """Whatever the id holds: its bucket is the hash tag."""
    for call_id in ("a", "{b}", "}{", "{}", "x{y}z"):
        keys = keys_of(call_id)
        assert index_keys(int(keys[0].partition("{")[2].partition("}")[0])) == keys[1:8]
        keys = [*keys, past_key(call_id)]
        if isinstance(server, RedisCluster):
            assert 1 == len({raw.execute_command("CLUSTER KEYSLOT", key) for key in keys})


async def test_two_nodes_write_one_state(calls: RedisCalls, server: RedisServer) -> None:
    """Of two that bring a call into the same state, one has done it and the other finds it so."""
    async with RedisIO(server.url, deadline=8.0).running() as other_io:
        other = RedisCalls(other_io, DAY, BOUND)
        for _ in range(20):
            call_id = new_id()
            results: list[CallResult] = []

            async def write(store: RedisCalls, call_id: str, results: list[CallResult]) -> None:
                results.append((await store.set_state(call_id, CallState.ACTIVE, "gw")).result)

            await made(calls, call_id)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, calls, call_id, results)
                nursery.start_soon(write, other, call_id, results)
            assert {CallResult.DONE, CallResult.UNCHANGED} == set(results)
