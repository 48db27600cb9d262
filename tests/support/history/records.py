"""The records of a run: requests with their times, answers, and what each device saw.

A `Call` is one write with its id, however often it was sent. A `Step` is what one message did to a
device's copy. Devices of one node are sent equal bytes, so equal steps are one object.
"""

from dataclasses import dataclass, field
from typing import Any, Final


class Absent:
    """The value of a key that does not exist."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()

State = dict[str, Any]
Writer = tuple[str, str]
"""Device and correlation id."""

Place = tuple[int, str]
"""Version and lineage."""


@dataclass(slots=True, frozen=True)
class Answer:
    """The answer to a write.

    Attributes:
        version: the version it made, or the one that the answer speaks of.
        changes: what it did, keys to values or ABSENT; None for an answer that only tells a
            version: nothing changed, or it had been done before.
        code: why it was refused; "" when it was not.
        conflicts: with a refusal: the values that stood in the way.
        lineage: of the version that it made; "" when it is not told.
    """

    version: int
    changes: State | None = None
    code: str = ""
    conflicts: State | None = None
    lineage: str = ""

    @property
    def committed(self) -> bool:
        """Whether this is the commit's own acknowledgement."""
        return self.changes is not None


@dataclass(slots=True)
class Call:
    """One write.

    Attributes:
        payload: of its STATE_UPDATE.
        invoked, returned: before the first sending and after the first answer, ns; 0: never.
        answers: all of them, in the order of arrival.
        place: `(connection, number)` of its first sending.
        attempts: how often it was sent because no answer had come.
    """

    writer: Writer
    payload: dict[str, Any]
    invoked: int = 0
    returned: int = 0
    answers: list[Answer] = field(default_factory=list)
    place: tuple[int, int] = (0, 0)
    attempts: int = 0

    @property
    def refused(self) -> bool:
        """Whether the answer says that it was not executed."""
        return bool(self.answers) and bool(self.answers[0].code)


@dataclass(slots=True, frozen=True, eq=False)
class Step:
    """From `prev` to `version`; `full` is the whole state of a message that carries one.

    `lineage` and `prev_lineage` are the tokens of both; "" is any.
    """

    prev: int
    version: int
    epoch: str
    changes: State = field(default_factory=dict)
    writer: Writer | None = None
    full: State | None = None
    lineage: str = ""
    prev_lineage: str = ""


@dataclass(slots=True)
class Stream:
    """What one device was sent, over all its connections, and the copy that it made of it."""

    device: str
    steps: list[Step] = field(default_factory=list)
    copy: State = field(default_factory=dict)
    version: int = 0
    lineage: str = ""


@dataclass(slots=True)
class History:
    """Everything that is known of one session's life, from version 0 on.

    `lost`: where devices were in a history that was lost, see the file `lost`.
    """

    calls: list[Call] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    final: State = field(default_factory=dict)
    final_version: int = 0
    final_lineage: str = ""
    lost: set[Place] = field(default_factory=set)
