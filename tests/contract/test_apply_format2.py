"""`apply.lua`: random histories against the model, and the cases that a reader would ask for."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from support.contract.format2 import Scripts
from support.contract.histories import (
    BASE_LOST,
    GAP,
    UNKNOWN_STREAM,
    History,
    Numbered,
    Told,
    journal,
)
from support.contract.requests import session_id, write
from support.redis_servers import RedisServer
from syncbridge.limits import Limits
from syncbridge.records.sessions import Apply, Mode, Operation, Status
from syncbridge.slots import TAGS, bucket_of, session_key

LIMITS = Limits(state_bytes=400, state_keys=6, tombstones=4, value_bytes=80)
STREAMS = ["A" * 11, "B" * 11, "C" * 11]
NAMES = st.sampled_from([f"k{number}".encode() for number in range(7)])
TEXTS = [
    *(b"1", b"1.0", b"10e-1", b"-0", b"0", b"2", b"1e2", b"100", b"[]", b"[1]", b"[1.0]", b"null"),
    *('"caf\u00e9"'.encode(), b'"caf\\u00e9"', b'"\\/"', b'"/"', b'{"a":1,"b":2}'),
    *(b'{"b":2,"a":1}', b'"' + b"x" * 30 + b'"', b'"\\u0078' + b"x" * 29 + b'"'),
]
VALUES = st.sampled_from(TEXTS)
INTEGERS = st.sampled_from([b"0", b"1", b"-1", b"9223372036854775807", b"123456789012345678"])


@pytest.fixture(scope="module")
def server() -> Any:
    """The default server: format 2 needs Redis 7."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def raw(server: RedisServer) -> Any:
    """A plain client."""
    with server.client() as client:
        yield client


def numbered(sid: str, sets: dict[str, str] | None = None, **more: Any) -> Numbered:
    """A write with a random nonce; `stream`, `seq` and `base_lineage` are those of `Numbered`."""
    own = {name: more.pop(name) for name in ("stream", "seq", "base_lineage") if name in more}
    return Numbered(write(sid, sets, **more), os.urandom(8), **own)


def told(reply: list[Any]) -> tuple[int, int, str, str, int]:
    """Status, version, lineage, lineage before, last number."""
    full = [*reply, *[0, 0, b"", b"", b"", 0][len(reply) :]]
    return full[0], full[1], full[2].decode(), full[4].decode(), full[5]


def expected(answer: Told) -> tuple[int, int, str, str, int]:
    """The same of the model's answer."""
    return int(answer.status), answer.version, answer.lineage, answer.before, answer.last


@st.composite
def writes(draw: Callable[..., Any]) -> tuple[Apply, str, int, int]:
    """A write, its stream, its distance from the next number, and how its base is named."""
    operation = draw(st.sampled_from([Operation.SET, Operation.SET, Operation.SET, *Operation]))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    cut = draw(st.integers(0, len(names)) | st.just(len(names)))
    sets = [text for name in names[:cut] for text in (name, draw(VALUES))]
    request = Apply("", "u", draw(st.sampled_from(["d", "e:f"])), sets, names[cut:])
    request.create = draw(st.sampled_from([True, True, True, False]))
    request.base_version = draw(st.just(-1) | st.just(-1) | st.integers(0, 12))
    request.mode = draw(st.sampled_from(Mode))
    request.replace = draw(st.sampled_from([False, False, False, True]))
    request.mutation_id = draw(st.sampled_from(["", "m1", "m2"]))
    if operation is not Operation.SET:
        operand = draw(VALUES)
        if operation is Operation.INCR:
            operand = draw(INTEGERS)
        elif operation in (Operation.MAX, Operation.MIN):
            operand = draw(INTEGERS | st.sampled_from([b"1.0", b"1e2", b"-0", b"99.9"]))
        request.sets, request.deletes = [draw(NAMES), operand], []
        request.operation, request.replace = operation, False
        request.expected = draw(st.just(b"") | VALUES)
    stream = draw(st.sampled_from(["", "", *STREAMS]))
    return request, stream, draw(st.sampled_from([0, 0, 0, 0, -1, -2, 1])), draw(st.integers(0, 3))


def place(history: History, request: Apply, how: int) -> str:
    """The lineage beside a base: none, the right one, that of another history."""
    if request.base_version < 0 or how < 2:
        return ""
    return history.tokens.get(request.base_version, "f" * 12) if how == 2 else "e" * 12


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(writes(), max_size=30), every_key=st.booleans())
def test_script_does_what_the_model_does(
    server: RedisServer, steps: list[tuple[Apply, str, int, int]], every_key: bool
) -> None:
    """Numbers, places, equality, conflicts, sizes; and what is stored fits to what was told."""
    history = History(LIMITS.tombstones, LIMITS.state_bytes, LIMITS.state_keys, LIMITS.value_bytes)
    sid = session_id()
    imprints: list[dict[bytes, bytes] | None] = []
    with server.client() as raw:
        scripts = Scripts(raw, LIMITS)
        for request, stream, offset, how in steps:
            request.sid = sid
            known = {name: last for name, last, _ in history.streams.get(request.device_id, [])}
            seq = max(1, known.get(stream, 0) + 1 + offset) if stream else 0
            one = Numbered(request, os.urandom(8), stream, seq, place(history, request, how))
            marks = {key: history.known_imprint(key) for key in history.values}
            answer = history.take(one)
            reply = scripts.apply(one, every_key=every_key)
            assert told(reply) == expected(answer)
            check_effects(reply, answer, request)
            if answer.before:
                assert answer.result is not None
                changed = [*answer.result.sets, *answer.result.deletes]
                imprints.append({key: marks.get(key, b"") for key in changed})
        check_stored(raw, sid, history, imprints)


def check_effects(reply: list[Any], answer: Told, request: Apply) -> None:
    """What changed, what stood in the way, and what came of an operation."""
    result = answer.result
    if result is None or reply[0] not in (Status.OK, Status.CONFLICT, *range(16, 20)):
        return
    full = [*reply, 0, 0, 0, 1, [], [], []] if len(reply) == 7 else reply
    sets, deletes = full[11], full[12]
    if full[10]:
        sets, deletes = request.sets, request.deletes
    assert dict(zip(sets[::2], sets[1::2], strict=True)) == result.sets
    assert set(deletes) == result.deletes
    assert dict(zip(full[13][::2], full[13][1::2], strict=True)) == result.conflicts
    if reply[0] == Status.OK and request.operation is not Operation.SET:
        assert full[14] == result.result


def check_stored(
    raw: redis.Redis, sid: str, history: History, imprints: list[dict[bytes, bytes] | None]
) -> None:
    """Values, versions, marks, places and expiries in Redis are those of the model."""
    assert raw.hgetall(session_key(sid, "d")) == history.values
    assert {k: int(v) for k, v in raw.zrange(session_key(sid, "k"), 0, -1, withscores=True)} == (
        history.changed
    )
    assert raw.hgetall(session_key(sid, "c")) == history.entries
    entries = journal(raw.lrange(session_key(sid, "j"), 0, -1))
    assert [token for token, _ in entries] == [history.tokens[v] for v in sorted(history.tokens)]
    assert [keys for _, keys in entries] == imprints
    if history.exists:
        meta = raw.hgetall(session_key(sid, "m"))
        size = sum(len(k) + len(v) for k, v in history.values.items())
        assert (int(meta[b"v"]), int(meta[b"n"])) == (history.version, size)
        assert meta[b"e"].decode() == history.epoch
    for letter in "mdkjc":
        assert raw.pttl(session_key(sid, letter)) != -1


def test_numbers_are_taken_once_and_in_order(raw: redis.Redis) -> None:
    """The next number is applied; an older one is a repetition, a later one shows the gap."""
    scripts, sid = Scripts(raw), session_id()
    more: dict[str, Any] = {"stream": STREAMS[0]}
    assert told(scripts.apply(numbered(sid, {"a": "1"}, seq=1, **more)))[:2] == (0, 1)
    assert told(scripts.apply(numbered(sid, {"a": "2"}, seq=3, **more)))[::4] == (GAP, 1)
    assert told(scripts.apply(numbered(sid, {"a": "3"}, seq=1, **more)))[::4] == (1, 1)
    assert told(scripts.apply(numbered(sid, {"a": "4"}, seq=2, **more)))[:2] == (0, 2)
    assert raw.hget(session_key(sid, "d"), "a") == b"4"


def test_writes_of_others_do_not_push_a_number_out(raw: redis.Redis) -> None:
    """600 foreign writes between an INCR and its repetition: it counts once."""
    scripts, sid = Scripts(raw), session_id()
    incr: dict[str, Any] = {"operation": Operation.INCR, "stream": STREAMS[0], "seq": 1}
    assert scripts.apply(numbered(sid, {"n": "5"}, **incr))[0] == Status.OK
    for turn in range(600):
        scripts.apply(numbered(sid, {"x": str(turn)}, device_id="e", mutation_id=f"m{turn}"))
    assert scripts.apply(numbered(sid, {"n": "5"}, **incr))[0] == Status.DUPLICATE
    assert raw.hget(session_key(sid, "d"), "n") == b"5"


def test_refused_update_uses_no_number(raw: redis.Redis) -> None:
    """What was refused may be sent again, changed, under the same number."""
    scripts, sid = Scripts(raw), session_id()
    scripts.apply(numbered(sid, {"a": "1"}, stream=STREAMS[0], seq=1))
    wrong = numbered(sid, {"a": "2"}, stream=STREAMS[0], seq=2, operation=Operation.SETNX)
    assert scripts.apply(wrong)[0] == Status.PRECONDITION
    assert scripts.apply(numbered(sid, {"a": "2"}, stream=STREAMS[0], seq=2))[0] == Status.OK


def test_operation_that_yields_to_a_deletion_has_no_result(raw: redis.Redis) -> None:
    """The key is not there: its maker is not told a value that nobody has."""
    scripts, sid = Scripts(raw), session_id()
    scripts.apply(numbered(sid, {"n": "5"}))
    scripts.apply(numbered(sid, {}, deletes="n"))
    late = numbered(sid, {"n": "0"}, operation=Operation.INCR, mode=Mode.YIELD, base_version=1)
    reply = scripts.apply(late)
    assert (Status.OK, [b"n", b""], b"") == (reply[0], reply[13], reply[14])


def test_stream_that_was_pushed_out_does_not_begin_again(raw: redis.Redis) -> None:
    """Number 1 of the third-newest stream, sent again late, is not taken for a new stream."""
    scripts, sid = Scripts(raw), session_id()
    for stream in STREAMS:
        assert scripts.apply(numbered(sid, {"a": "1"}, stream=stream, seq=1))[0] == Status.OK
    again = scripts.apply(numbered(sid, {"a": "1"}, stream=STREAMS[0], seq=1))
    assert again[0] == UNKNOWN_STREAM


def test_ids_without_a_stream_are_kept_by_device(raw: redis.Redis) -> None:
    """The last 64 of a device are known however many others write; those of ten minutes too."""
    scripts, sid = Scripts(raw), session_id()
    for turn in range(100):
        scripts.apply(numbered(sid, {"a": str(turn)}, mutation_id=f"d{turn}"))
    assert scripts.apply(numbered(sid, {"a": "9"}, mutation_id="d0"))[0] == Status.DUPLICATE
    key = session_key(sid, "f:d")
    raw.zadd(key, {f"d{turn}": 1_000_000 + turn for turn in range(100)}, xx=True)
    for turn in range(100, 132):
        scripts.apply(numbered(sid, {"a": str(turn)}, mutation_id=f"d{turn}"))
    assert 64 <= int(raw.zcard(key)) < 100
    assert raw.zscore(key, "d131") is not None


def test_ids_without_a_stream_live_on_with_each_hour(raw: redis.Redis) -> None:
    """Their life begins anew an hour after it last did, and where it had an end at all."""
    scripts, sid = Scripts(raw), session_id()
    scripts.apply(numbered(sid, {"a": "1"}, mutation_id="d1"))
    key = session_key(sid, "f:d")
    whole = int(raw.pttl(key))

    raw.pexpire(key, whole - 1_000_000)
    scripts.apply(numbered(sid, {"a": "2"}, mutation_id="d2"))
    assert 0 < int(raw.pttl(key)) <= whole - 1_000_000

    raw.pexpire(key, whole - 3_700_000)
    scripts.apply(numbered(sid, {"a": "3"}, mutation_id="d3"))
    assert int(raw.pttl(key)) > whole - 1_000_000

    raw.persist(key)
    scripts.apply(numbered(sid, {"a": "4"}, mutation_id="d4"))
    assert int(raw.pttl(key)) > 0


def test_base_of_a_lost_history_is_refused(raw: redis.Redis) -> None:
    """Version 2 of another history is not version 2 of this one."""
    scripts, sid = Scripts(raw), session_id()
    first = told(scripts.apply(numbered(sid, {"a": "1"})))
    lost = told(scripts.apply(numbered(sid, {"a": "2"})))
    dump = {x: raw.dump(session_key(sid, x)) for x in "mdkj"}
    raw.delete(*(session_key(sid, x) for x in "mdkj"))
    assert all(dump.values())
    for _ in range(3):
        scripts.apply(numbered(sid, {"a": "3"}))
        scripts.apply(numbered(sid, {"a": "4"}))
    for version, lineage in ((1, first[2]), (2, lost[2])):
        reply = scripts.apply(numbered(sid, {"b": "1"}, base_version=version, base_lineage=lineage))
        assert reply[0] == BASE_LOST
    assert raw.hexists(session_key(sid, "d"), "b") is False


def test_base_is_verified_for_256_versions(raw: redis.Redis) -> None:
    """The place 255 versions ago is known; one more is not."""
    scripts, sid = Scripts(raw), session_id()
    tokens = [told(scripts.apply(numbered(sid, {"a": str(n)})))[2] for n in range(300)]
    more: dict[str, Any] = {"mode": Mode.REJECT}
    for version, status in ((45, Status.OK), (44, BASE_LOST)):
        reply = scripts.apply(
            numbered(sid, {}, base_version=version, base_lineage=tokens[version - 1], **more)
        )
        assert reply[0] == status


def test_equal_value_makes_no_version_and_keeps_the_first_spelling(raw: redis.Redis) -> None:
    """1.0 and 1, escapes, order of members."""
    pairs = [("1.0", "1"), ('"caf\\u00e9"', '"caf\u00e9"'), ('{"b":1,"a":2}', '{"a":2,"b":1}')]
    scripts = Scripts(raw)
    for first, second in [*pairs, *[(b, a) for a, b in pairs]]:
        sid = session_id()
        scripts.apply(numbered(sid, {"a": first}))
        assert told(scripts.apply(numbered(sid, {"a": second})))[1] == 1
        assert raw.hget(session_key(sid, "d"), "a") == first.encode()
        cas = numbered(sid, {"a": "7"}, operation=Operation.CAS, expected=second.encode())
        assert scripts.apply(cas)[0] == Status.OK


def test_large_values_have_their_imprint_beside_them(raw: redis.Redis) -> None:
    """A script does not hash more than 2,048 bytes; larger values are compared all the same."""
    scripts, sid = Scripts(raw), session_id()
    scripts.apply(numbered(sid, {"a": '"' + "x" * 3000 + '"'}))
    assert told(scripts.apply(numbered(sid, {"a": '"\\u0078' + "x" * 2999 + '"'})))[1] == 1
    assert told(scripts.apply(numbered(sid, {"a": '"' + "y" * 3000 + '"'})))[1] == 2


def test_commit_of_many_keys_keeps_the_journal_small(raw: redis.Redis) -> None:
    """Old entries give up their keys, never their tokens."""
    scripts, sid = Scripts(raw), session_id()
    for turn in range(20):
        sets = {f"{'k' * 200}{n}": f'"{turn}"' for n in range(40)}
        scripts.apply(numbered(sid, sets))
    entries = journal(raw.lrange(session_key(sid, "j"), 0, -1))
    assert len(entries) == 20
    assert all(len(token) == 12 for token, _ in entries)
    told_keys = [keys is not None for _, keys in entries]
    assert told_keys == sorted(told_keys)
    assert 0 < sum(told_keys) < 20


def test_fenced_connection_does_not_write(raw: redis.Redis) -> None:
    """The fence comes before the number, which is not used."""
    scripts, sid = Scripts(raw), session_id()
    scripts.apply(numbered(sid, {"a": "1"}, stream=STREAMS[0], seq=1))
    raw.hset(session_key(sid, "m"), "xd", 50)
    late = numbered(sid, {"a": "2"}, stream=STREAMS[0], seq=2, fence=49)
    assert scripts.apply(late)[0] == Status.FENCED
    late.request.fence = 50
    assert scripts.apply(late)[0] == Status.OK


def test_other_nodes_are_told_in_their_channels(raw: redis.Redis) -> None:
    """A commit goes to the sharded channel of each other node, with both places."""
    scripts, sid = Scripts(raw), session_id()
    first = scripts.apply(numbered(sid, {"a": "1"}))
    raw.hset(session_key(sid, "m"), "s", "n1 n2 n3")
    channel = f"{{{TAGS[bucket_of(sid)]}}}:n2"
    with raw.pubsub() as listener:
        listener.execute_command("SSUBSCRIBE", channel)
        assert listener.parse_response()[0] == b"ssubscribe"
        reply = scripts.apply(numbered(sid, {"a": "22", "b": "3"}, deletes="", mutation_id="m"))
        message = listener.parse_response()
    assert message[:2] == [b"smessage", channel.encode()]
    epoch, lineage, before = (part.decode() for part in (reply[3], reply[2], first[2]))
    header, _, texts = message[2].partition(b"\n")
    assert header.decode() == f"C2 {sid} 2 {epoch} {lineage} {before} 1 1 0 2 1 2 1 1"
    assert texts == b"dma22b3"


def test_publish_that_is_refused_does_not_undo_the_answer(raw: redis.Redis) -> None:
    """Without the right to publish, the write is stored and said to be."""
    sid = session_id()
    raw.acl_setuser("mute", enabled=True, nopass=True, categories=["+@all"], keys=["*"])
    raw.execute_command("ACL", "SETUSER", "mute", "-spublish")
    scripts = Scripts(raw)
    scripts.apply(numbered(sid, {"a": "1"}))
    raw.hset(session_key(sid, "m"), "s", "n1 n2")
    raw.execute_command("AUTH", "mute", "")
    try:
        assert scripts.apply(numbered(sid, {"a": "2"}))[:2] == [0, 2]
    finally:
        raw.execute_command("AUTH", "default", "")


def test_frozen_and_old_sessions_are_left_alone(raw: redis.Redis) -> None:
    """FROZEN and OLD say that nothing was done; with marks beside it a session is not frozen."""
    scripts, sid = Scripts(raw), session_id()
    scripts.apply(numbered(sid, {"a": "1.0"}))
    key = session_key(sid, "m")
    assert raw.hget(key, "z") == b"2"
    raw.hset(key, "z", "3")
    assert scripts.apply(numbered(sid, {"a": "2"})) == [Status.FROZEN]
    assert raw.hget(key, "v") == b"1"


def test_entry_beside_a_value_goes_with_it(raw: redis.Redis) -> None:
    """A canonical value in the place of another one leaves no imprint; the journal has the old."""
    scripts, sid = Scripts(raw), session_id()
    scripts.apply(numbered(sid, {"a": "1.0"}))
    assert raw.hgetall(session_key(sid, "c")) == {b"a": b"=1"}
    scripts.apply(numbered(sid, {"a": "2"}))
    assert raw.hgetall(session_key(sid, "c")) == {}
    assert journal(raw.lrange(session_key(sid, "j"), -1, -1))[0][1] == {b"a": b"=1"}
