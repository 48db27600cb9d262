"""Tells the provider where to report to, once for all nodes, and again from time to time.

Nothing waits for it: calls work without webhooks, by polls and clients' reports. A node that finds
no note of a registration takes the lock, registers and leaves the note, which outlives the node and
is gone after `RENEW_SECONDS`; so a registration that somebody has deleted at the provider comes
back. Registering the same address twice is one registration.
"""

from collections.abc import Awaitable
from typing import Protocol

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.provider import errors
from syncbridge_server.ports.channels import Channels
from syncbridge_server.ports.provider import VoiceProvider

log = structlog.get_logger("voice")

PATH = "/rtk-webhook"
RENEW_SECONDS = 3600.0
PAUSES = (1.0, 300.0)
"""Seconds after a failure that may pass: the first time, and at most."""
LOCK_MS = 60_000
NO_CHANNEL = ""
"""The lock is of no channel."""
LASTING = (errors.PermissionDenied, errors.InvalidRequest, errors.SessionNotFound)
"""What does not pass by itself; it is tried again when a registration would be renewed."""


class Notes(Protocol):
    """What nodes leave for each other about registrations. Both raise StoreError."""

    def registered(self, url: str) -> Awaitable[bool]:
        """Whether `url` is registered, as far as anybody has noted."""

    def note(self, url: str, seconds: float) -> Awaitable[None]:
        """It is; forget it after `seconds`."""


class Registration:
    """Keeps our webhook registered. `url`: our public base URL."""

    def __init__(self, provider: VoiceProvider, channels: Channels, notes: Notes, url: str) -> None:
        self._provider = provider
        self._channels = channels
        self._notes = notes
        self.url = url.rstrip("/") + PATH

    async def run(self) -> None:
        """See to it, for ever."""
        pause, longest = PAUSES
        while True:
            if await self._attempt():
                pause = PAUSES[0]
                await trio.sleep(RENEW_SECONDS)
            else:
                await trio.sleep(pause)
                pause = min(2 * pause, longest)

    async def _attempt(self) -> bool:
        """Register unless that was done; False: try again soon."""
        try:
            return await self.once()
        except StoreError as error:
            log.info("webhook_registration_waits", reason=error.detail)
        except LASTING as error:
            log.error("webhook_not_registered", url=self.url, reason=error.detail)
            return True
        except errors.ProviderError as error:
            log.warning("webhook_registration_waits", reason=error.detail)
        return False

    async def done(self) -> bool:
        """Whether the provider has been told, by any node. Raises StoreError."""
        return await self._notes.registered(self.url)

    async def once(self) -> bool:
        """Register if nobody has; False: somebody is about to.

        Raises StoreError, ProviderError.
        """
        if await self.done():
            return True
        async with self._channels.lock(NO_CHANNEL, "webhook", LOCK_MS, 0) as got:
            if not got:
                return False
            if not await self.done():
                registration = await self._provider.register_webhook(self.url)
                await self._notes.note(self.url, RENEW_SECONDS)
                log.info("webhook_registered", url=self.url, registration=registration.id)
        return True
