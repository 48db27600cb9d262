"""Chores over stored records: no record stops the work on others.

Every chore that goes through records of the store (channels, sessions) does each of them within an
`Isolation`. A record on which a task fails is skipped for a while, longer each time, and after some
failures in a row it is set aside: it leaves the indexes by which chores find it and becomes a dead
letter, with one line in the log. What an operator does with the letter is the matter of `Aside`.
Trouble of the store is nobody's fault: it is raised, and counts against no record.

Failures are counted on each node for itself, so several nodes together try as many times more.
"""

from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Final, Protocol, TypeVar

import structlog
import trio
from prometheus_client import CollectorRegistry, Counter

from syncbridge.errors import ErrorCode, StoreError, StoreRejected
from syncbridge.rates.attempts import Attempts

log = structlog.get_logger("chores")

T = TypeVar("T")
R = TypeVar("R")
REASON_MOST = 200


class Busy(Enum):
    """What work answers that somebody else is at: it has neither worked nor failed."""

    BUSY = "busy"


BUSY: Final = Busy.BUSY


class Aside(Protocol):
    """Where records of one kind go that are set aside, and how they come back."""

    @property
    def kind(self) -> str:
        """Names the kind in letters and metrics."""

    def set_aside(self, record: str, reason: str) -> Awaitable[bool]:
        """Keep a dead letter of the record, and let no chore find it. Raises StoreError.

        False: that was done before, on whichever node, and there is nothing to tell.
        """

    def replay(self, record: str) -> Awaitable[None]:
        """Let chores find it again, now. Raises StoreError."""

    def discard(self, record: str) -> Awaitable[None]:
        """Forget what makes it fail, as far as that is nobody's data. Raises StoreError."""


class KeepsLetters(Protocol):
    """Keeps dead letters of records."""

    def keep(self, kind: str, record: str, reason: str, body: bytes = b"") -> Awaitable[None]: ...


class IsolationMetrics:
    """What is counted. Once for each registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.failures = Counter(
            "syncbridge_chore_failures",
            "Chores that failed on a record.",
            ["kind", "chore"],
            registry=registry,
        )
        self.aside = Counter(
            "syncbridge_records_set_aside",
            "Records that became dead letters.",
            ["kind"],
            registry=registry,
        )


class Isolation:
    """Does chores on records of one kind.

    Args:
        aside: None: records that fail are left alone for a while, again and again.
        clock: seconds.
        kind: names the kind in metrics and log lines where there is no `aside`.
    """

    def __init__(
        self,
        aside: Aside | None = None,
        metrics: IsolationMetrics | None = None,
        attempts: Attempts | None = None,
        clock: Callable[[], float] = trio.current_time,
        kind: str = "record",
    ) -> None:
        self._aside = aside
        self._kind = aside.kind if aside is not None else kind
        self._metrics = metrics or IsolationMetrics(CollectorRegistry())
        self._attempts = attempts or Attempts()
        self._clock = clock
        self._leaving: set[str] = set()

    def ready(self, chore: str, record: str) -> bool:
        """Whether a chore may be done on a record now."""
        return self._attempts.ready((chore, record), self._clock())

    async def run(
        self, chore: str, record: str, work: Callable[[], Awaitable[T]], otherwise: T
    ) -> T:
        """Do a chore on a record; `otherwise` when it failed, or has failed a moment ago.

        Raises StoreError when it is the store that is in trouble.
        """
        if not self.ready(chore, record):
            return otherwise
        try:
            answer = await work()
        except Exception as error:
            await self.failed(chore, record, error)
            return otherwise
        if answer is not BUSY:
            self.worked(chore, record)
        return answer

    async def each(
        self,
        chore: str,
        found: Iterable[tuple[str, T | Exception]],
        work: Callable[[T], R],
    ) -> list[R]:
        """What `work` makes of each record that was found; without those that fail. As `run`."""
        made: list[R] = []
        for record, value in found:
            try:
                if isinstance(value, Exception):
                    raise value
                made.append(work(value))
            except Exception as error:
                if self.ready(chore, record):
                    await self.failed(chore, record, error)
            else:
                self.worked(chore, record)
        return made

    async def failed(self, chore: str, record: str, error: Exception) -> float | None:
        """A chore failed on a record: seconds to leave it alone; None: it is set aside.

        Raises the error when it is trouble of the store.
        """
        if not of_record(error):
            raise error
        self._metrics.failures.labels(self._kind, chore).inc()
        key = chore, record
        pause = self._attempts.failed(key, self._clock())
        if self._attempts.count(key) == 1:
            log.info("chore_failed", kind=self._kind, record=record, chore=chore, why=why(error))
        if pause is not None or self._aside is None:
            return pause or 0.0
        return await self._set_aside(self._aside, chore, record, error)

    async def _set_aside(
        self, aside: Aside, chore: str, record: str, error: Exception
    ) -> float | None:
        """Set a record aside; while the store is in trouble it waits for that."""
        if record in self._leaving:
            return None
        self._leaving.add(record)
        try:
            with trio.CancelScope(shield=True):  # done by halves it would be told twice, or never
                new = await aside.set_aside(record, f"{chore}: {why(error)}")
        except StoreError as trouble:
            log.info("set_aside_later", record=record, reason=trouble.detail)
            return 0.0
        finally:
            self._leaving.discard(record)
        if not new:
            return None
        self._attempts.worked((chore, record))
        self._metrics.aside.labels(self._kind).inc()
        log.error(
            "record_set_aside",
            kind=self._kind,
            record=record,
            chore=chore,
            why=why(error),
            exc_info=None if isinstance(error, StoreError) else error,
        )
        return None

    def worked(self, chore: str, record: str) -> None:
        """A chore was done on a record."""
        self._attempts.worked((chore, record))


def of_record(error: Exception) -> bool:
    """Whether an error is about the record that was worked on, and not trouble of the store."""
    rejected = isinstance(error, StoreRejected)
    return not isinstance(error, StoreError) or rejected or error.code is ErrorCode.STATE_DAMAGED


def why(error: Exception) -> str:
    """An error in a few words that quote nothing of what is stored."""
    detail = error.detail if isinstance(error, StoreError) else type(error).__name__
    return detail[:REASON_MOST]
