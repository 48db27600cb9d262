"""Voice channels that are set aside, and how they come back.

A channel on which a chore fails again and again is neither due nor live any more: no node opens,
compares or measures anything of it. Whatever writes it, such as somebody who asks for a token,
brings it back; so does an operator who replays its letter.
"""

from syncbridge_server.isolation import KeepsLetters
from syncbridge_server.ports.channels import Channels


class ChannelsAside:
    """Implements `isolation.Aside` for voice channels."""

    kind = "channel"

    def __init__(self, channels: Channels, letters: KeepsLetters) -> None:
        self._channels = channels
        self._letters = letters

    async def set_aside(self, record: str, reason: str) -> bool:
        """See `Aside`. A node that dies in between leaves a channel that others set aside.

        A channel that is found without the indexes, by its session, was set aside before, or has
        nothing left to be done.
        """
        if not await self._channels.indexed(record):
            return False
        stored = await self._channels.shown(record)
        await self._letters.keep(self.kind, record, reason, stored)
        await self._channels.withdraw(record)
        return True

    async def replay(self, record: str) -> None:
        """See `Aside`: it is live as well, until the next look says otherwise."""
        await self._channels.bring_back(record)

    async def discard(self, record: str) -> None:
        """See `Aside`: what is stored of the channel goes, unless it was written meanwhile."""
        await self._channels.erase(record)
