"""The order of requests around a frozen session, with a Redis that answers when it is told to."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from syncbridge.errors import StoreError, StoreOverloaded, StoreUnavailable
from syncbridge.records.sessions import Apply, Hello, Leave, Request, Touch
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.stores import frozen_queue
from syncbridge_server.redis.stores.cold import Packed, StateDamaged, pack_state
from syncbridge_server.redis.stores.frozen_queue import FROZEN, OLD, ROUNDS, FrozenQueue

BLOB = pack_state(Packed(b"1", b"e", b"l", [b"k", b"1"], [b"k", b"1"], []))
OK = [0, 1]


class SlowRedis:
    """Keeps what is submitted; the test answers it, oldest first."""

    def __init__(self) -> None:
        self.jobs: list[tuple[list[str], Callable[[list[Any]], None]]] = []
        self.full = False

    def submit(self, commands: Sequence[Command], deliver: Callable[[list[Any]], None]) -> None:
        if self.full:
            raise StoreOverloaded("full")
        self.jobs.append(([command.packed.decode() for command in commands], deliver))

    def script_command(self, name: str, keys: Any, args: Any, repeatable: bool) -> Command:
        return Command(name.encode())

    def answer(self, *replies: Any) -> list[str]:
        """Answer the oldest job; returns its commands."""
        commands, deliver = self.jobs.pop(0)
        assert len(commands) == len(replies), commands
        deliver(list(replies))
        return commands


class Bench:
    """A FrozenQueue on a slow Redis; answers are collected as (number of the batch, replies)."""

    def __init__(self) -> None:
        self.redis = SlowRedis()
        self.thawed: list[str] = []
        self.delivered: list[tuple[int, list[Any]]] = []
        self.frozen_queue = FrozenQueue(
            self.redis,  # type: ignore[arg-type]
            lambda request: Command(name(request).encode()),
            nonce=lambda: b"n",
            most_bytes=1 << 20,
            on_thaw=self.thawed.extend,
        )
        self._count = 0

    def submit(self, *requests: Request) -> None:
        self._count += 1
        number = self._count
        self.frozen_queue.submit(requests, lambda replies: self.delivered.append((number, replies)))


def name(request: Any) -> str:
    """A command that tells its request."""
    return f"{type(request).__name__}:{request.sid}:{getattr(request, 'device_id', '')}"


def write(sid: str, device: str = "d") -> Apply:
    return Apply(sid, "u", device, [], [])


def hello(sid: str, device: str = "d") -> Hello:
    return Hello(sid, "u", device, "c", b"{}", "n")


def is_get(commands: list[str]) -> bool:
    return all("GET" in command for command in commands)


def test_without_frozen_sessions_it_is_a_pass_through() -> None:
    """Replies are delivered as they come."""
    bench = Bench()
    bench.submit(write("a"))
    bench.submit()
    bench.redis.answer(OK)
    bench.redis.answer()

    assert [(1, [OK]), (2, [])] == bench.delivered


def test_a_frozen_session_is_unpacked_and_asked_again() -> None:
    """Read the packed state; then, in one pipeline, unpack and repeat in order."""
    bench = Bench()
    bench.submit(write("a", "1"), write("b"), write("a", "2"))
    bench.redis.answer(FROZEN, OK, FROZEN)
    assert is_get(bench.redis.answer(BLOB))
    assert ["thaw", "Apply:a:1", "Apply:a:2"] == bench.redis.answer(1, [0, 2], [0, 3])

    assert [(1, [[0, 2], OK, [0, 3]])] == bench.delivered
    assert (["a"], 1) == (bench.thawed, bench.frozen_queue.thawed)


def test_a_session_of_format_1_is_moved_and_asked_again() -> None:
    """As a frozen one; when it is frozen besides, it is unpacked in the next round."""
    bench = Bench()
    bench.submit(write("a", "1"), write("b"))
    bench.redis.answer(OLD, OK)
    assert is_get(bench.redis.answer(None))
    assert ["move", "Apply:a:1"] == bench.redis.answer(1, FROZEN)
    assert is_get(bench.redis.answer(BLOB))
    assert ["thaw", "Apply:a:1"] == bench.redis.answer(1, [0, 2])

    assert [(1, [[0, 2], OK])] == bench.delivered


def test_later_requests_of_the_session_are_parked() -> None:
    """From FROZEN until the repetition is sent they are not sent, then behind it, once; requests of
    other sessions go on, and everything is delivered in the order of submission."""
    bench = Bench()
    bench.submit(write("a", "1"))
    bench.submit(write("a", "under way"))
    bench.redis.answer(FROZEN)
    bench.submit(write("b"), write("a", "parked"), write("c"))
    bench.submit(write("a", "parked too"))
    assert [] == bench.delivered
    bench.redis.answer(FROZEN)
    assert is_get(bench.redis.answer(BLOB))
    assert ["Apply:b:d", "Apply:c:d"] == bench.redis.answer([0, "b"], [0, "c"])
    bench.submit(write("a", "not parked any more"))
    assert [] == bench.delivered
    commands = bench.redis.answer(1, [0, 1], [0, 2], [0, 3], [0, 4])
    assert ["thaw", "Apply:a:1", "Apply:a:under way", "Apply:a:parked"] == commands[:4]
    bench.redis.answer([0, 5])

    assert [
        (1, [[0, 1]]),
        (2, [[0, 2]]),
        (3, [[0, "b"], [0, 3], [0, "c"]]),
        (4, [[0, 4]]),
        (5, [[0, 5]]),
    ] == bench.delivered


def test_parked_requests_are_asked_again_before_the_rest_of_their_batch_is_answered() -> None:
    """The part of a batch that was sent may be answered after the repetition."""
    bench = Bench()
    bench.submit(write("a"))
    bench.redis.answer(FROZEN)
    gets, later = bench.redis.jobs.pop(0), write("b")
    bench.submit(later, write("a", "parked"))
    slow = bench.redis.jobs.pop(0)
    gets[1]([BLOB])
    bench.redis.answer(1, [0, 1], [0, 2])
    assert [(1, [[0, 1]])] == bench.delivered
    slow[1]([[0, "b"]])

    assert [(1, [[0, 1]]), (2, [[0, "b"], [0, 2]])] == bench.delivered


def test_a_write_that_was_overtaken_is_refused() -> None:
    """Another node unpacked in between: the device's later write is done, so the earlier one, which
    would undo it, says that nothing was done. A refused write, and one of another device, overtake
    nobody."""
    bench = Bench()
    bench.submit(write("a"), write("b"), write("a", "other"))
    bench.submit(write("a"), write("b"))
    bench.redis.answer(FROZEN, FROZEN, FROZEN)
    bench.redis.answer([0, 2], [2, 1])
    assert is_get(bench.redis.answer(None, None))
    assert ["Apply:b:d", "Apply:a:other"] == bench.redis.answer([0, 3], [0, 4])

    (_, first), (_, second) = bench.delivered
    assert isinstance(first[0], StoreUnavailable)
    assert ([[0, 3], [0, 4]], [[0, 2], [2, 1]]) == (first[1:], second)


def test_a_device_that_has_left_does_not_join_afterwards() -> None:
    """Its hello met a frozen session, its leave did not: the hello is refused; other devices' and
    touches are not in the way."""
    bench = Bench()
    bench.submit(hello("a", "gone"), hello("a", "here"))
    bench.submit(Leave("a", "gone", "c", "n"))
    bench.submit(Touch("b", "n", []))
    bench.redis.answer(FROZEN, FROZEN)
    bench.redis.answer([0, 1, 0, 0])
    bench.redis.answer([1, b"e", []])
    bench.redis.answer(BLOB)
    assert ["thaw", "Hello:a:here"] == bench.redis.answer(1, OK)

    replies = bench.delivered[0][1]
    assert isinstance(replies[0], StoreUnavailable)
    assert OK == replies[1]


@pytest.mark.parametrize("blob", [StoreUnavailable("gone"), b"junk"])
def test_what_cannot_be_unpacked_fails_alone(blob: Any) -> None:
    """The session's requests get the error, parked ones too; the others their answers."""
    bench = Bench()
    bench.submit(write("a"), write("b"))
    bench.redis.answer(FROZEN, FROZEN)
    bench.submit(write("a", "parked"))
    bench.redis.answer(blob, BLOB)
    assert ["thaw", "Apply:b:d"] == bench.redis.answer(1, OK)

    (_, first), (_, second) = bench.delivered
    assert isinstance(first[0], StateDamaged if blob == b"junk" else StoreUnavailable)
    assert (OK, type(first[0])) == (first[1], type(second[0]))
    bench.submit(write("a"))
    assert ["Apply:a:d"] == bench.redis.answer(OK)


def test_a_session_that_stays_frozen_is_damaged() -> None:
    """The packed state never fits: a few rounds, then a typed error."""
    bench = Bench()
    bench.submit(write("a"))
    bench.redis.answer(FROZEN)
    for _ in range(ROUNDS):
        bench.redis.answer(BLOB)
        bench.redis.answer(2, FROZEN)

    assert isinstance(bench.delivered[0][1][0], StateDamaged)
    assert ([], []) == (bench.redis.jobs, bench.thawed)


@pytest.mark.parametrize("step", [1, 2])
def test_a_full_queue_during_a_round(step: int) -> None:
    """What waits is told that nothing was done, and the next request is served."""
    bench = Bench()
    bench.submit(write("a"))
    bench.redis.full = step == 1
    bench.redis.answer(FROZEN)
    bench.redis.full = True
    if step == 2:
        bench.redis.answer(BLOB)
    bench.redis.full = False

    assert isinstance(bench.delivered[0][1][0], StoreOverloaded)
    bench.submit(write("a"))
    bench.redis.answer(OK)
    assert (2, [OK]) == bench.delivered[1]


def test_errors_of_the_repetition_are_answers() -> None:
    """The connection broke between: each request has its own StoreError."""
    bench = Bench()
    bench.submit(write("a"))
    bench.redis.answer(FROZEN)
    bench.redis.answer(BLOB)
    broken: StoreError = StoreUnavailable("broken")
    bench.redis.answer(broken, broken)

    assert [(1, [broken])] == bench.delivered


def test_parked_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the bound: StoreOverloaded, and nothing of that submission was sent."""
    monkeypatch.setattr(frozen_queue, "PARKED_MOST", 2)
    bench = Bench()
    bench.submit(write("a"))
    bench.redis.answer(FROZEN)
    bench.submit(write("a"))
    with pytest.raises(StoreOverloaded):
        bench.submit(write("b"), write("a"))
    bench.submit(write("b"))

    assert ["Apply:b:d"] == bench.redis.jobs[-1][0]


def test_many_sessions_are_unpacked_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """No round is larger than its bound, and all are answered."""
    monkeypatch.setattr(frozen_queue, "ROUND_SESSIONS", 2)
    bench = Bench()
    bench.submit(*(write(sid) for sid in "abc"))
    bench.redis.answer(FROZEN, FROZEN, FROZEN)
    bench.redis.answer(BLOB, BLOB)
    bench.redis.answer(1, 1, OK, OK)
    bench.redis.answer(BLOB)
    bench.redis.answer(1, OK)

    assert [(1, [OK, OK, OK])] == bench.delivered


def test_a_receiver_that_fails_does_not_stop_the_others() -> None:
    """A bug in one deliver is logged; the next batch is delivered."""
    bench = Bench()
    bench.frozen_queue.submit([write("a")], lambda replies: 1 / 0)
    bench.submit(write("b"))
    bench.redis.answer(OK)
    bench.redis.answer(OK)

    assert [(1, [OK])] == bench.delivered


def test_what_is_barred_is_not_sent() -> None:
    """Writes and joins are refused in their places; what only takes away, and reads, are sent."""
    bench = Bench()
    bench.frozen_queue.barred = "a node of format 1 runs"
    bench.submit(write("s"), Leave("s", "d", "c", "n"), hello("s"))
    assert [] == bench.delivered
    assert ["Leave:s:d"] == bench.redis.answer(OK)
    ((number, replies),) = bench.delivered
    assert (1, OK) == (number, replies[1])
    assert [True, False, True] == [isinstance(reply, StoreUnavailable) for reply in replies]

    bench.submit(write("s"))
    assert [] == bench.redis.answer()
    assert isinstance(bench.delivered[1][1][0], StoreUnavailable)
    bench.frozen_queue.barred = ""
    bench.submit(write("s"))
    assert ["Apply:s:d"] == bench.redis.answer(OK)
    assert (3, [OK]) == bench.delivered[2]


def test_old_sessions_are_not_moved_while_that_is_barred() -> None:
    """Nodes of format 1 use them: who reads one is refused as well."""
    bench = Bench()
    bench.frozen_queue.barred = "a node of format 1 runs"
    bench.submit(Touch("s", "n", []))
    bench.redis.answer(OLD)
    assert is_get(bench.redis.answer(None))
    bench.redis.answer()
    assert isinstance(bench.delivered[0][1][0], StoreUnavailable)
    assert [] == bench.redis.jobs
