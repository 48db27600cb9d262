"""A whole server with the speaking rule that a benchmark chooses.

`speaking.py kernel|naive|drop_only`, configured by the environment as `syncbridge serve` is. The
rules have the interface of `syncbridge_core.throttle.Throttle`; only `kernel` is the product's.

* `naive`: every report is a message of its own to everybody.
* `drop_only`: a report is a message unless one of that participant went out less than 250 ms ago;
  what it drops is lost. This is the sketch of the specification.
"""

import sys

from syncbridge_core.throttle import Throttle
from syncbridge_server.cli import app
from syncbridge_server.voice.sockets import speaking

Batch = list[tuple[int, list[tuple[str | bytes, bool]]]]


class Naive:
    """Passes every report on."""

    refused = held = channels = 0

    def __init__(self) -> None:
        self._waiting: Batch = []
        self._speaking: dict[int, set[str | bytes]] = {}

    def report(self, channel: int, participant: str | bytes, speaks: bool, now: int) -> bool:
        self._waiting.append((channel, [(participant, speaks)]))
        here = self._speaking.setdefault(channel, set())
        (here.add if speaks else here.discard)(participant)
        return True

    def collect(self, now: int) -> Batch:
        waiting, self._waiting = self._waiting, []
        return waiting

    def next_due(self) -> int | None:
        return None

    def drop(self, channel: int, participant: str | bytes | None = None) -> int:
        if participant is None:
            self._speaking.pop(channel, None)
        else:
            self._speaking.get(channel, set()).discard(participant)
        return 0

    def snapshot(self, channel: int) -> list[str | bytes]:
        return list(self._speaking.get(channel, ()))


class DropOnly(Naive):
    """Forgets what comes less than 250 ms after the message before."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[int, str | bytes], int] = {}

    def report(self, channel: int, participant: str | bytes, speaks: bool, now: int) -> bool:
        if now - self._last.get((channel, participant), -250) < 250:
            return False
        self._last[channel, participant] = now
        return super().report(channel, participant, speaks, now)


RULES = {"kernel": Throttle, "naive": Naive, "drop_only": DropOnly}

if __name__ == "__main__":
    rule = RULES[sys.argv[1]]
    speaking.Throttle = rule  # type: ignore[assignment, misc]
    if rule is not Throttle:
        # The baselines know no pauses either.
        speaking.FIRST_PER_MS = speaking.FOLLOW_PER_MS = 1 << 60
    app(["serve"], prog_name="syncbridge")
