"""Faults of the stand-in provider, switched on by `POST /sim/faults`.

One set of faults holds at a time and a new one replaces it. Faults of requests hit the next
`count` requests to the provider (0: all); faults of webhooks hit all webhooks until replaced.
"""

from typing import Literal

import msgspec
import trio

MAX_HANG = 60.0

Lists = Literal["", "empty", "partial"]
ErrorForm = Literal["error", "text", "errors", "message"]
HookFault = Literal["lost", "repeated", "reordered", "late", "forged"]


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong.

    `latency_ms` before a request is done; `hang`: it is not done, and there is no answer;
    `rate_limit`: 429 with so many seconds in `Retry-After`; `status`: that 5xx; `create_lost`: a
    session is created, but there is no answer; `lists`: 200 with an empty list and count, or with
    a part of the list. `webhook_delay_ms` is for `late`.

    What RealTimeKit's reference leaves open may be varied, too: the status for a user who is
    enrolled already, for a room that is full and for a preset that is not there, and where an
    error's message is.
    """

    latency_ms: int = msgspec.field(default=0)
    hang: bool = False
    rate_limit: int = 0
    status: int = 0
    create_lost: bool = False
    lists: Lists = ""
    webhooks: tuple[HookFault, ...] = ()
    webhook_delay_ms: int = 200
    duplicate: Literal[400, 409, 422] = 409
    full: Literal[400, 409, 422] = 409
    no_preset: Literal[400, 404, 422] = 400
    error_form: ErrorForm = "error"
    count: int = 0

    def __post_init__(self) -> None:
        limits = (
            (self.latency_ms, 60_000),
            (self.rate_limit, 3600),
            (self.webhook_delay_ms, 60_000),
        )
        if any(not 0 <= value <= most for value, most in limits) or self.count < 0:
            raise ValueError("a number is out of range")
        if self.status and not 500 <= self.status <= 599:
            raise ValueError("status must be 5xx")


class FaultSwitch:
    """The faults that hold now. `released` wakes whoever hangs when they change."""

    def __init__(self) -> None:
        self.now = Faults()
        self._left = 0
        self._released = trio.Event()

    def set(self, faults: Faults) -> None:
        """Replace the faults, and let go of requests that hang."""
        self.now, self._left = faults, faults.count
        self._released.set()
        self._released = trio.Event()

    def hit(self) -> Faults:
        """The faults of one request."""
        if self.now.count == 0:
            return self.now
        if self._left == 0:
            return Faults()
        self._left -= 1
        return self.now

    async def hang(self) -> None:
        """Until the faults change, at most a minute."""
        with trio.move_on_after(MAX_HANG):
            await self._released.wait()
