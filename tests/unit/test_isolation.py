"""Chores within an isolation: what is a record's fault, what is not, and when it is enough."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from syncbridge.errors import StoreError, StoreRejected, StoreTimeout, StoreUnavailable
from syncbridge.rates.attempts import Attempts
from syncbridge_server.isolation import Isolation, IsolationMetrics
from syncbridge_server.redis.stores.cold import StateDamaged


class Shelf:
    """Where records go. `away`: the store is in trouble. `known`: records set aside before."""

    kind = "thing"

    def __init__(self) -> None:
        self.letters: list[tuple[str, str]] = []
        self.known: set[str] = set()
        self.away = False

    async def set_aside(self, record: str, reason: str) -> bool:
        if self.away:
            raise StoreUnavailable("away")
        new = record not in self.known
        self.letters += [(record, reason)] if new else []
        self.known.add(record)
        return new

    async def replay(self, record: str) -> None: ...

    async def discard(self, record: str) -> None: ...


class Rig:
    """An isolation whose clock is ours; two failures are enough."""

    def __init__(self) -> None:
        self.now = 0.0
        self.shelf = Shelf()
        self.registry = CollectorRegistry()
        self.calls: list[str] = []
        self.isolation = Isolation(
            self.shelf, IsolationMetrics(self.registry), Attempts(most=2), lambda: self.now
        )

    async def run(self, record: str, error: Exception | None = None) -> str:
        async def work() -> str:
            self.calls.append(record)
            if error is not None:
                raise error
            return "done"

        return await self.isolation.run("chore", record, work, "otherwise")

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"syncbridge_{name}_total", labels) or 0.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZeroDivisionError("secret"), "chore: ZeroDivisionError"),
        (StateDamaged("it is damaged"), "chore: it is damaged"),
        (StoreRejected("Redis refused: WRONGTYPE"), "chore: Redis refused: WRONGTYPE"),
    ],
)
async def test_a_record_that_fails_is_left_alone_and_then_set_aside(
    error: Exception, reason: str
) -> None:
    """Others go on meanwhile; the reason quotes nothing of what is stored; all of it is counted."""
    rig = Rig()
    answers = [await rig.run("bad", error), await rig.run("bad", error), await rig.run("good")]
    before = list(rig.shelf.letters)
    rig.now = 1.0
    answers.append(await rig.run("bad", error))

    assert ["otherwise", "otherwise", "done", "otherwise"] == answers
    assert ["bad", "good", "bad"] == rig.calls
    assert ([], [("bad", reason)]) == (before, rig.shelf.letters)
    assert (2.0, 1.0) == (
        rig.counted("chore_failures", kind="thing", chore="chore"),
        rig.counted("records_set_aside", kind="thing"),
    )


@pytest.mark.parametrize("trouble", [StoreUnavailable("away"), StoreTimeout("late")])
async def test_trouble_of_the_store_is_nobodys_fault(trouble: StoreError) -> None:
    """It is raised, however often, and counts against no record."""
    rig = Rig()
    for _ in range(5):
        with pytest.raises(StoreError):
            await rig.run("a", trouble)

    assert ("done", []) == (await rig.run("a"), rig.shelf.letters)


async def test_what_worked_in_between_begins_anew() -> None:
    """Only failures in a row count, each chore for itself."""
    rig = Rig()
    for now in (0.0, 1.0, 2.0):
        rig.now = now
        await rig.run("a", ZeroDivisionError())
        rig.now = now + 0.999
        await rig.isolation.failed("another chore", "b", ZeroDivisionError())
        rig.isolation.worked("another chore", "b")
        rig.isolation.worked("chore", "a")

    assert [] == rig.shelf.letters


async def test_while_the_store_is_away_nothing_is_set_aside() -> None:
    """The letter is kept as soon as it can be."""
    rig = Rig()
    rig.shelf.away = True
    for now in (0.0, 10.0, 20.0):
        rig.now = now
        assert "otherwise" == await rig.run("a", ZeroDivisionError())
    rig.shelf.away, rig.now = False, 30.0
    await rig.run("a", ZeroDivisionError())

    assert [("a", "chore: ZeroDivisionError")] == rig.shelf.letters


async def test_what_was_set_aside_elsewhere_is_left_alone() -> None:
    """No second letter, and it is tried no more often than before."""
    rig = Rig()
    rig.shelf.known = {"a"}
    for now in range(100):
        rig.now = float(now)
        await rig.run("a", ZeroDivisionError())

    assert [] == rig.shelf.letters
    assert len(rig.calls) <= 51


async def test_each_makes_something_of_all_that_can_be_read() -> None:
    """In order; an error in the place of a record, and one in the work, leave it out."""
    rig = Rig()
    found: list[tuple[str, Any]] = [("a", 1), ("b", StateDamaged("b")), ("c", 0), ("d", 2)]

    assert [1.0, 0.5] == await rig.isolation.each("chore", found, lambda value: 1 / value)
    assert not rig.isolation.ready("chore", "b")
    assert rig.isolation.ready("chore", "d")
