"""Random histories: the scripts must do what the reference model does, answer by answer."""

from collections.abc import Callable
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.contract.histories import History
from support.contract.model import Result
from support.contract.requests import pairs, read, resume, session_id
from support.redis_servers import RedisServer
from syncbridge.limits import Limits
from syncbridge.records.sessions import Apply, Mode, Operation, Outcome, Status
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.store import RedisStore

LIMITS = Limits(state_bytes=60, state_keys=6, tombstones=4)
KEYS = st.sampled_from([f"k{number}".encode() for number in range(9)])
VALUES = st.sampled_from([b"1", b"2", b"[]", b'"' + b"x" * 20 + b'"'])


@st.composite
def writes(draw: Callable[..., Any]) -> Apply:
    """A write of up to four keys, any base, mode and flags; few mutation ids, to repeat them."""
    names = draw(st.lists(KEYS, max_size=4, unique=True))
    cut = draw(st.integers(0, len(names)))
    return Apply(
        sid="",
        user_id="u",
        device_id=draw(st.sampled_from(["d", "e"])),
        sets=[text for name in names[:cut] for text in (name, draw(VALUES))],
        deletes=names[cut:],
        mutation_id=draw(st.sampled_from(["", "", "", "m1", "m2"])),
        base_version=draw(st.integers(-1, 12)),
        mode=draw(st.sampled_from(Mode)),
        create=draw(st.sampled_from([True, True, True, False])),
        replace=draw(st.sampled_from([False, False, False, True])),
    )


ODD_NUMBERS = [
    *("0", "-1", "5", "7.5", "1e2", "1E+2", "100", "99.999", "-0", "0.000", "-1e-3", "1e-400"),
    *("9007199254740993", str(2**63 - 1), str(-(2**63)), "9" * 20),
]
NUMBERS = st.sampled_from(ODD_NUMBERS) | st.integers(-(2**63), 2**63 - 1).map(str)
STORED = NUMBERS.map(str.encode) | st.sampled_from([b"[]", b"[1]", b'["]"]', b'"5"', b"null"])
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20)


@st.composite
def steps(draw: Callable[..., Any]) -> Apply:
    """A plain write or an operation on one of three keys, with values that suit operations."""
    operation = draw(st.sampled_from(Operation))
    operand = draw(STORED)
    if operation is Operation.INCR:
        operand = str(draw(INTEGERS)).encode()
    elif operation in (Operation.MAX, Operation.MIN):
        operand = draw(NUMBERS).encode()
    return Apply(
        sid="",
        user_id="u",
        device_id="d",
        sets=[draw(st.sampled_from([b"x", b"y", b"z"])), operand],
        deletes=[],
        mutation_id=draw(st.sampled_from(["", "", "m1", "m2"])),
        base_version=draw(st.sampled_from([-1, -1, -1, 0, 1, 5])),
        mode=draw(st.sampled_from([Mode.OVERWRITE, Mode.REJECT])),
        operation=operation,
        expected=draw(st.just(b"") | STORED),
    )


def as_result(outcome: Outcome) -> Result:
    """An answer in the terms of the model."""
    return Result(
        outcome.status,
        outcome.version,
        outcome.prev_version,
        pairs(outcome.sets),
        set(outcome.deletes),
        pairs(outcome.conflicts),
        outcome.created,
        outcome.result,
    )


async def compare(url: str, history: list[Apply], limits: Limits = LIMITS) -> None:
    """Run a history on both; compare each answer, then the state and every possible delta."""
    model = History(
        limits.tombstones,
        limits.state_bytes,
        limits.state_keys,
        limits.value_bytes,
        sealed=True,
    )
    async with RedisIO(url, deadline=8.0).running() as io:
        store = RedisStore(io, "n1", limits)
        sid, epoch = session_id(), ""
        for request in history:
            request.sid = sid
            outcome = await store.call(request)
            assert as_result(outcome) == model.answer(request)
            epoch = epoch or outcome.epoch
        snapshot = await store.call(read(sid))
        assert snapshot.status is (Status.OK if model.exists else Status.NOT_FOUND)
        if not model.exists:
            return
        assert (snapshot.version, pairs(snapshot.flat)) == (model.version, model.values)
        for version in range(model.version + 1):
            resumed = await store.call(resume(sid, epoch, version))
            expected = model.since(version)
            if expected is None:
                assert pairs(resumed.full) == model.values
            else:
                assert resumed.full is None
                assert (pairs(resumed.sets), set(resumed.deletes)) == expected


@settings(max_examples=60, deadline=None)
@given(history=st.lists(writes(), max_size=25))
def test_store_does_what_the_model_does(server: RedisServer, history: list[Apply]) -> None:
    """Versions, effects, conflicts, duplicates, caps, tombstones and deltas are the model's."""
    trio.run(compare, server.url, history)


@settings(max_examples=120, deadline=None)
@given(history=st.lists(steps(), max_size=20))
def test_operations_do_what_the_model_does(server: RedisServer, history: list[Apply]) -> None:
    """Exact sums and comparisons, refusals with what stands in the way, results, repetitions."""
    trio.run(compare, server.url, history, Limits(value_bytes=80))


@settings(max_examples=40, deadline=None)
@given(history=st.lists(writes(), max_size=25))
def test_pipelined_writes_take_effect_in_order(server: RedisServer, history: list[Apply]) -> None:
    """One submit of many writes gives the same answers as one write after another."""

    async def run() -> list[Outcome]:
        async with RedisIO(server.url, deadline=8.0).running() as io:
            store = RedisStore(io, "n1", LIMITS)
            sid = session_id()
            for request in history:
                request.sid = sid
            answers: list[Outcome] = []
            store.submit(history, answers.extend)  # type: ignore[arg-type]
            await store.call(read(sid))
            return answers

    model = History(LIMITS.tombstones, LIMITS.state_bytes, LIMITS.state_keys, sealed=True)
    answers = trio.run(run)
    assert [as_result(outcome) for outcome in answers] == [model.answer(r) for r in history]
