"""What a check found: one line of it."""

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How bad a finding is. FAILED: the server would not start, or not work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(NamedTuple):
    """One thing that was looked at. `check`: its name. `text`: one line without secrets."""

    check: str
    level: Level
    text: str
