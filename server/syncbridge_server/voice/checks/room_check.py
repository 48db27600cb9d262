"""Checks that the provider still has a room before a locally signed token is issued.

A provider that issues a token reports a lost session. Local signing asks nobody, and passes check
calls with participants only, so an empty room could stay lost and receive every user. So the room
is checked before a token for it is issued if it is empty, or if the provider did not know it at the
latest check. Requests within a few seconds share one check. The check is a poll with the usual
budget, deadline and breaker. If it verifies nothing, the token is issued: admission comes first.
"""

from typing import Protocol

import trio

from syncbridge_server.voice.checks.state_check import CheckResult

SHARED_S = 3.0
"""Seconds for which a check of a session is shared."""


class ChecksState(Protocol):
    """Asks the provider who is in a call."""

    async def check(self, channel_id: str) -> CheckResult:
        """Ask the provider and apply the answer to the channel's call. Raises StoreError."""


class SharedCheck:
    """A check in progress or done; `result` is None if it failed."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.over = trio.Event()
        self.result: CheckResult | None = None


class RoomCheck:
    """Checks rooms before tokens are issued."""

    def __init__(self, state_check: ChecksState) -> None:
        self._state_check = state_check
        self._checks: dict[str, SharedCheck] = {}

    async def lost(self, channel_id: str, session_id: str) -> bool:
        """Whether the provider does not know the channel's session. O(1).

        Raises StoreError.
        """
        while True:
            self._forget()
            known = self._checks.get(session_id)
            if known is None:
                return await self._run(channel_id, session_id) is CheckResult.LOST
            await known.over.wait()
            if known.result is not None:
                return known.result is CheckResult.LOST

    async def _run(self, channel_id: str, session_id: str) -> CheckResult:
        """Make the check for all waiting callers; when cancelled, one of them makes it."""
        check = self._checks[session_id] = SharedCheck()
        try:
            check.result = await self._state_check.check(channel_id)
            return check.result
        finally:
            if check.result is None and self._checks.get(session_id) is check:
                del self._checks[session_id]
            check.over.set()

    def _forget(self) -> None:
        """Drop checks that are too old; the table is in order of their start."""
        oldest = trio.current_time() - SHARED_S
        while self._checks:
            session_id, check = next(iter(self._checks.items()))
            if check.began > oldest:
                return
            del self._checks[session_id]
