"""Checks that the provider still has a room before a locally signed token is issued.

A provider that is asked for a token says when it has lost the session. One that we sign ourselves
asks nobody, and comparisons check after calls with people in them: a room in which nobody is could
be lost for long, and everybody would be sent there. So before somebody is let into a room that
nobody is known to be in, or that the provider did not know the last time, we look at it; all who
come within a few seconds share one check. It is a poll like the others, with their budget, deadline
and breaker. Where it finds out nothing, the token is given out: to be let in comes first.
"""

from typing import Protocol

import trio

from syncbridge_server.voice.checks.state_check import CheckResult

SHARED_S = 3.0
"""For so long a look at a session holds."""


class ChecksState(Protocol):
    """Asks the provider who is in a call."""

    async def check(self, channel_id: str) -> CheckResult:
        """Ask the provider and apply the answer to the channel's call. Raises StoreError."""


class SharedCheck:
    """A check that was begun; `result` is None when nothing came of it."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.over = trio.Event()
        self.result: CheckResult | None = None


class RoomCheck:
    """Looks at rooms before somebody is let in."""

    def __init__(self, state_check: ChecksState) -> None:
        self._state_check = state_check
        self._checks: dict[str, SharedCheck] = {}

    async def lost(self, channel_id: str, session_id: str) -> bool:
        """Whether the provider says that it does not know the channel's session. O(1).

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
        """Look for those who wait; when we are cancelled, one of them does."""
        check = self._checks[session_id] = SharedCheck()
        try:
            check.result = await self._state_check.check(channel_id)
            return check.result
        finally:
            if check.result is None and self._checks.get(session_id) is check:
                del self._checks[session_id]
            check.over.set()

    def _forget(self) -> None:
        """Looks that are too old; they are in the order in which they began."""
        oldest = trio.current_time() - SHARED_S
        while self._checks:
            session_id, check = next(iter(self._checks.items()))
            if check.began > oldest:
                return
            del self._checks[session_id]
