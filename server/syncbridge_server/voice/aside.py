"""Voice channels that are set aside, and how they come back.

A channel on which work fails repeatedly leaves the indexes of due and live channels. Nodes then
open, compare and measure nothing for it. Any write to the channel, such as a token request, brings
it back. An operator can also bring it back by replaying its dead letter.
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
        """See `Aside`. If this node dies halfway, another node sets the channel aside.

        A channel outside the indexes was set aside before or has no work left.
        """
        if not await self._channels.indexed(record):
            return False
        stored = await self._channels.shown(record)
        await self._letters.keep(self.kind, record, reason, stored)
        await self._channels.withdraw(record)
        return True

    async def replay(self, record: str) -> None:
        """See `Aside`. The channel also counts as live until the next state check corrects that."""
        await self._channels.bring_back(record)

    async def discard(self, record: str) -> None:
        """See `Aside`. Erases the stored channel unless it was written meanwhile."""
        await self._channels.erase(record)
