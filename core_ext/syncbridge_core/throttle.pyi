"""Types of the compiled throttle. `syncbridge.kernels._throttle_py` says how it works."""

from typing import final

__all__ = ["CHANGED", "RESTED", "REST_WINDOWS", "Throttle"]

CHANGED: int
RESTED: int
REST_WINDOWS: int

@final
class Throttle:
    """Speaking states of the participants of many channels. Times in integer ms."""

    interval_ms: int
    clear_ms: int
    max_participants: int
    max_channels: int
    refused: int
    held: int

    def __init__(
        self,
        interval_ms: int = 250,
        clear_ms: int = 2000,
        max_participants: int = 1024,
        max_channels: int = 65536,
    ) -> None: ...
    @property
    def channels(self) -> int:
        """Channels with held changes."""

    def report(self, channel: int, participant: str | bytes, speaking: bool, now: int) -> int:
        """Take in a report, O(1). Not 0: a change can be handed out, CHANGED or RESTED."""

    def collect(self, now: int) -> list[tuple[int, list[tuple[str | bytes, bool]]]]:
        """Return due changes: one batch for each channel, each participant at most once."""

    def next_due(self) -> int | None:
        """When `collect` next has work; None: time changes nothing."""

    def drop(self, channel: int, participant: str | bytes | None = None) -> int:
        """Forget a participant or a channel without a word. How many were held."""

    def snapshot(self, channel: int) -> list[str | bytes]:
        """The speakers, as last sent to listeners."""
