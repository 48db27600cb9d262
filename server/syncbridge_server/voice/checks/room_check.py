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

from syncbridge_server.voice.checks.looking import Sight

SHARED_S = 3.0
"""For so long a look at a session holds."""


class Looks(Protocol):
    """Asks the provider who is in a call."""

    async def look(self, channel_id: str) -> Sight:
        """Let a channel's call hear who is in it. Raises StoreError."""


class Look:
    """A look that was begun; `sight` is None when nothing came of it."""

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.over = trio.Event()
        self.sight: Sight | None = None


class RoomCheck:
    """Looks at rooms before somebody is let in."""

    def __init__(self, looker: Looks) -> None:
        self._looker = looker
        self._looks: dict[str, Look] = {}

    async def lost(self, channel_id: str, session_id: str) -> bool:
        """Whether the provider says that it does not know the channel's session. O(1).

        Raises StoreError.
        """
        while True:
            self._forget()
            known = self._looks.get(session_id)
            if known is None:
                return await self._look(channel_id, session_id) is Sight.LOST
            await known.over.wait()
            if known.sight is not None:
                return known.sight is Sight.LOST

    async def _look(self, channel_id: str, session_id: str) -> Sight:
        """Look for those who wait; when we are cancelled, one of them does."""
        look = self._looks[session_id] = Look()
        try:
            look.sight = await self._looker.look(channel_id)
            return look.sight
        finally:
            if look.sight is None and self._looks.get(session_id) is look:
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
