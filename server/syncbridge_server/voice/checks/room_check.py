"""Whether the provider still has a room, where tokens for it are signed here.

A provider that is asked for a token says when it has lost the session. One that we sign ourselves
asks nobody, and comparisons look after calls with people in them: a room in which nobody is could
be lost for long, and everybody would be sent there. So before somebody is let into a room that
nobody is known to be in, or that the provider did not know the last time, we look at it; all who
come within a few seconds share one look. It is a poll like the others, with their budget, deadline
and breaker. Where it finds out nothing, the token is given out: to be let in comes first.
"""

from typing import Protocol

import trio

from syncbridge_server.voice.checks.state_check import CheckResult

SHARED_S = 3.0
"""For so long a look at a session holds."""


class Looks(Protocol):
    """Asks the provider who is in a call."""

    async def check(self, channel_id: str) -> CheckResult:
        """Ask the provider and apply the answer to the channel's call. Raises StoreError."""


class Look:
    """A look that was begun; `result` is None when nothing came of it."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.over = trio.Event()
        self.result: CheckResult | None = None


class RoomCheck:
    """Looks at rooms before somebody is let in."""

    def __init__(self, state_check: Looks) -> None:
        self._state_check = state_check
        self._looks: dict[str, Look] = {}

    async def lost(self, channel_id: str, session_id: str) -> bool:
        """Whether the provider says that it does not know the channel's session. O(1).

        Raises StoreError.
        """
        while True:
            self._forget()
            known = self._looks.get(session_id)
            if known is None:
                return await self._look(channel_id, session_id) is CheckResult.LOST
            await known.over.wait()
            if known.result is not None:
                return known.result is CheckResult.LOST

    async def _look(self, channel_id: str, session_id: str) -> CheckResult:
        """Look for those who wait; when we are cancelled, one of them does."""
        look = self._looks[session_id] = Look()
        try:
            look.result = await self._state_check.check(channel_id)
            return look.result
        finally:
            if look.result is None and self._looks.get(session_id) is look:
                del self._looks[session_id]
            look.over.set()

    def _forget(self) -> None:
        """Looks that are too old; they are in the order in which they began."""
        oldest = trio.current_time() - SHARED_S
        while self._looks:
            session_id, look = next(iter(self._looks.items()))
            if look.began > oldest:
                return
            del self._looks[session_id]
