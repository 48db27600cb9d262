"""Faults of the simulated provider, set by `POST /sim/faults`.

One set of faults is active at a time. Faults of requests affect the next `count` requests to the
provider (0: all); faults of webhooks affect all webhooks until the set is replaced.
"""

from typing import Literal

import msgspec
import trio

MAX_HANG = 60.0

Lists = Literal["", "empty", "partial"]
ErrorForm = Literal["error", "text", "errors", "message"]
HookFault = Literal["lost", "repeated", "reordered", "late", "forged"]


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set of faults.

    `latency_ms`: delay before a request; `hang`: the request has no effect and no answer;
    `rate_limit`: 429 with this `Retry-After` in seconds; `status`: this 5xx status; `create_lost`:
    a session is created without an answer; `lists`: 200 with an empty list and count, or with a
    part of the list. `webhook_delay_ms`: delay for `late`.

    Details that RealTimeKit's reference leaves open can be varied as well: the status for an
    enrolled user, for a full room and for a missing preset, and the place of an error's message.
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
    """The active faults. `released` wakes hanging requests when the faults change."""

    def __init__(self) -> None:
        self.now = Faults()
        self._left = 0
        self._released = trio.Event()

    def set(self, faults: Faults) -> None:
        """Replace the faults and release hanging requests."""
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
        """Wait until the faults change, at most a minute."""
        with trio.move_on_after(MAX_HANG):
            await self._released.wait()
