"""The small parts of the client: waiting, pacing, values, the queue's bounds, the iterators."""

import json
import random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.client_model import Client
from syncbridge_client import Change, EventsLost, InvalidUpdate, QueueFull, RequestFailed, wire
from syncbridge_client.backoff import Backoff, Pacer
from syncbridge_client.dialogue import MAX_REQUESTS
from syncbridge_client.events import Closed, Draining, ServerError, TokenExpiring
from syncbridge_client.feeds import ChangeFeed, EventFeed
from syncbridge_client.operations import Edit
from syncbridge_client.options import Options
from syncbridge_client.replica import Step
from syncbridge_client.session import connect
from syncbridge_client.tokens import NoToken, TokenKeeper
from syncbridge_client.transport import retry_after
from syncbridge_client.values import copied, merge_patch, same

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


def test_backoff_is_full_jitter_under_a_cap() -> None:
    """Each wait lies in [0, min(cap, base * 2^n)]; what the server asks for is added."""
    most = Backoff(0.25, 30.0, lambda: 1.0)
    least = Backoff(0.25, 30.0, lambda: 0.0)

    assert [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] == [most.next() for _ in range(9)]
    assert [0.0, 5.0, 0.0] == [least.next(), least.next(5.0), least.next(-1.0)]
    most.reset()
    assert 0.25 == most.next()


def test_no_wait_is_longer_than_a_quarter_of_the_outage() -> None:
    """But for the first one, however often it was tried; what the server asks for is added."""
    most = Backoff(0.25, 30.0, lambda: 1.0)
    outages = [0.0, 0.5, 2.0, 4.0, 20.0, 100.0, 40.0, 1e9]

    assert [0.25, 0.25, 0.5, 1.0, 4.0, 8.0, 10.0, 30.0] == [most.next(0.0, o) for o in outages]
    assert 12.0 == most.next(7.0, 20.0)


async def test_fixed_token_is_given_until_the_server_refuses_it() -> None:
    """Shortly before its end nothing better can be had, so it is no reason to end a session."""
    keeper = TokenKeeper("fixed", 1.0)
    keeper.expire_at(anyio.current_time() - 1.0)
    assert "fixed" == await keeper.current()
    keeper.spent()
    with pytest.raises(NoToken):
        await keeper.current()


@given(st.integers(0, 2**32), st.floats(1, 100), st.floats(1, 200))
def test_pacer_never_exceeds_the_servers_bucket(seed: int, rate: float, burst: float) -> None:
    """Whatever the pauses, a bucket of the full rate and burst would have let everything through;
    after `wait` seconds one more message may go.
    """
    draw = random.Random(seed)
    pacer, now = Pacer(rate, burst, 0.0), 0.0
    tokens, at = burst, 0.0
    for _ in range(200):
        now += draw.choice([0.0, 0.0, 0.01, 0.5])
        if pacer.take(now):
            tokens = min(burst, tokens + (now - at) * rate) - 1
            at = now
            assert tokens > -1e-6
        else:
            assert pacer.take(now + pacer.wait(now) + 1e-9)
            return


def test_pacer_keeps_still_when_asked_to() -> None:
    """After `pause` nothing goes for so long."""
    pacer = Pacer(10, 10, 0.0, share=1.0)
    pacer.pause(2.0, 0.0)

    assert (False, False, True) == (pacer.take(0.0), pacer.take(1.9), pacer.take(2.01))


def test_pacer_holds_nothing_back_for_a_server_without_a_bound() -> None:
    """A rate of 0 says that there is none; a pause that was asked for is kept all the same."""
    pacer = Pacer(0, 0, 0.0)

    assert all(pacer.take(0.0) for _ in range(10_000))
    pacer.pause(2.0, 0.0)
    assert (False, True) == (pacer.take(1.9), pacer.take(2.01))


@given(JSON)
def test_values_are_copied_as_json(value: Any) -> None:
    """A copy is the same JSON and shares nothing that can change."""
    copy = copied(value)

    assert same(value, copy)
    assert not isinstance(value, list | dict) or copy is not value


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, True, False),
        (0.0, False, False),
        ([1], [True], False),
        ({"a": [{"b": 1}]}, {"a": [{"b": True}]}, False),
        (None, 0, False),
        (2**53, float(2**53), True),
        (2**53 + 1, float(2**53), False),
        (1, 1.0, True),
        (0, -0.0, True),
        ([1, {"a": 2.0}], [1.0, {"a": 2}], True),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([1, 2], [2, 1], False),
        (True, True, True),
    ],
)
def test_sameness_is_that_of_json(one: Any, other: Any, expected: bool) -> None:
    """Numbers by value and objects without order, as at the server; true is no number."""
    assert same(one, other) is expected
    assert same(other, one) is expected


def test_merge_patch_follows_the_rfc() -> None:
    """The cases of RFC 7396, appendix A."""
    cases = [
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('["a","b"]', '["c","d"]', '["c","d"]'),
        ('{"a":"b"}', '["c"]', '["c"]'),
        ('{"a":"foo"}', "null", "null"),
        ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
        ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    ]

    for target, patch, expected in cases:
        assert json.loads(expected) == merge_patch(json.loads(target), json.loads(patch))


def test_queue_is_bounded_in_updates_and_bytes() -> None:
    """The one too many is refused and leaves no trace; room comes back with acknowledgements."""
    client = Client(queue_updates=3, queue_bytes=200)
    for n in range(3):
        client.dialogue.submit({f"k{n}": Edit("SET", n)})
    with pytest.raises(QueueFull):
        client.dialogue.submit({"more": Edit("SET", 1)})
    client.settle()
    with pytest.raises(QueueFull):
        client.dialogue.submit({"big": Edit("SET", "x" * 200)})

    assert (0, 0) == (len(client.replica.queue), client.replica.queue.bytes)
    assert {"k0": 0, "k1": 1, "k2": 2} == client.replica.view


def test_a_key_has_as_many_bytes_as_its_text() -> None:
    """However long it is once it is escaped in JSON."""
    client = Client()
    client.dialogue.submit({'"' * 256: Edit("SET", 1)})

    assert {'"' * 256: 1} == client.replica.view


@pytest.mark.parametrize("key", ["", "x" * 257, "a\0b", "__proto__", 1, "half \ud800"])
def test_bad_keys_are_refused(key: Any) -> None:
    """Nothing is queued for a key that no server takes."""
    client = Client()
    with pytest.raises(InvalidUpdate):
        client.dialogue.submit({key: Edit("SET", 1)})

    assert 0 == len(client.replica.queue)


def test_a_newer_value_takes_the_place_of_one_that_has_not_left() -> None:
    """Not of one that was sent, not past a later update of the key, and not of an operation."""
    client = Client()
    submit = client.dialogue.submit
    first = submit({"a": Edit("SET", 1)})

    assert first is submit({"a": Edit("SET", 2)})
    assert first is submit({"a": Edit("DELETE")})
    assert first is submit({"a": Edit("SET", 3)})
    assert {"a": 3} == client.replica.view
    counted = submit({"a": Edit("INCR", 1)})
    last = submit({"a": Edit("SET", 9)})
    last.sent = True

    assert last is not submit({"a": Edit("SET", 10)})
    assert 4 == len({first.id, counted.id, last.id, submit({"a": Edit("SET", 11)}).id})
    assert 4 == len(client.replica.queue)
    with pytest.raises(InvalidUpdate):
        submit({"a": Edit("SET", "x" * 70_000)})
    assert {"a": 11} == client.replica.view


def test_long_queue_keeps_under_the_servers_rate() -> None:
    """300 updates leave at once only up to the burst, then at the rate."""
    client = Client(window=1000)
    for n in range(300):
        client.dialogue.submit({f"k{n}": Edit("SET", n)})
    client.connect()
    client.server.read()
    client.deliver()
    sent = 0
    while client.send():
        sent += 1
    client.now += 1.0
    later = 0
    while client.send():
        later += 1

    assert (80, 40) == (sent, later)
    client.settle()
    assert 300 == client.server.version


def test_messages_of_the_server_on_its_own() -> None:
    """Draining, an expiring token and other errors become events; the delay is kept."""
    client = Client()
    client.settle()
    client.connect()
    client.settle()
    for code, extra in (
        ("draining", {"retry_after_ms": 1500}),
        ("token_expiring", {"details": {"expires_at": 7}}),
        ("overloaded", {"retryable": True}),
    ):
        client.server._say(6, {"code": code, "message": "m", **extra})
        client.deliver()

    assert [
        Draining(1.5),
        TokenExpiring(7),
        ServerError("overloaded", "m", True),
    ] == client.sink.events[-3:]
    assert (1.5, 1) == (client.dialogue.retry_after, client.sink.tokens_wanted)


def test_update_too_large_for_this_server_is_refused() -> None:
    """A server with smaller messages would end the connection; the update is refused instead."""
    client = Client()
    client.dialogue.submit({"big": Edit("SET", "x" * 5_000)})
    client.connect()
    client.server.read()
    client.server.outbox[0]["payload"]["limits"] = {"message_bytes": 4_000}
    client.deliver()
    [(_, error)] = client.sink.finishes

    assert error is not None
    assert "too_large" == error.code
    assert {} == client.replica.view


def test_unanswerable_option_is_refused() -> None:
    """A misspelt policy or option is an error at once."""
    with pytest.raises(ValueError, match="conflict"):
        Options(conflict="server_win")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        connect("ws://x/ws", token="t", device_id="d", colour="red")
    with pytest.raises(TypeError, match="store: offline"):
        connect("ws://x/ws", token="t", device_id="d", store="phone.db")  # type: ignore[arg-type]
    for token in (None, "", 5):
        with pytest.raises(TypeError, match="token: text or an async callable"):
            connect("ws://x/ws", token=token, device_id="d")  # type: ignore[arg-type]


async def test_failed_token_call_says_why() -> None:
    """A plain function is the usual mistake; what a call raises is told with its text."""

    def plain() -> str:
        return "token"

    async def away() -> str:
        raise RuntimeError("login is down")

    for source, why in ((plain, "await"), (away, "RuntimeError: login is down")):
        with pytest.raises(NoToken, match=why):
            await TokenKeeper(source, 1.0).renewed()  # type: ignore[arg-type]


async def test_change_feed_gives_the_newest_of_each_key() -> None:
    """Values in between are skipped, own keys are named, deletions are told."""
    view: dict[str, Any] = {}
    feed = ChangeFeed(view, lambda: 9, 10)
    for value, own in ((1, False), (2, True)):
        step = Step()
        step.changed = {"a": value, "b": value}
        view |= step.changed
        feed.push(step, own)
    step = Step()
    step.deleted = {"b"}
    del view["b"]
    feed.push(step, False)
    change = await anext(feed)
    feed.close()

    assert Change({"a": 2}, frozenset("b"), frozenset("a"), 9) == change
    assert [] == [change async for change in feed]


async def test_event_feed_drops_the_oldest_and_says_so() -> None:
    """Two of five are kept; the rest is a number."""
    feed = EventFeed(2)
    for n in range(5):
        feed.push(Closed(n, ""))
    feed.close()

    assert [EventsLost(3), Closed(3, ""), Closed(4, "")] == [event async for event in feed]


@pytest.mark.parametrize(
    ("said", "wait"), [(1.5, 1.5), (0, 0), (-3, 0), (1e9, 3_600), (1e400, 3_600)]
)
def test_a_wait_that_a_server_asks_for_is_bounded(said: float, wait: float) -> None:
    """No server makes a client wait for ever, in ERROR or in `Retry-After`."""
    told = retry_after([(b"Retry-After", str(said).encode())])

    assert wait == wire.Failure("busy", retry_after_ms=said * 1000).retry_after
    assert (wait if said < 1e300 else 0) == told


def test_a_request_that_timed_out_leaves_its_place() -> None:
    """64 may wait for an answer; those that nobody waits for any more do not count."""
    client = Client()
    client.connect()
    client.settle()
    for _ in range(MAX_REQUESTS):
        client.dialogue.forget(client.dialogue.ask_snapshot())
    kept = [client.dialogue.ask_snapshot() for _ in range(MAX_REQUESTS)]

    assert MAX_REQUESTS == len(set(kept))
    with pytest.raises(RequestFailed, match="64 requests wait"):
        client.dialogue.ask_snapshot()
