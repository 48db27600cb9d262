"""Registers the webhook URL at the provider, once for all nodes, and renews it periodically.

Nothing waits for it: calls also work without webhooks, by polls and clients' reports. A node that
finds no note of a registration takes the lock, registers and writes the note, which expires after
`RENEW_SECONDS`. So a registration that was deleted at the provider comes back. Registering the same
URL twice makes one registration.
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
"""Pause after a temporary failure in seconds: initial and maximum."""
LOCK_MS = 60_000
NO_CHANNEL = ""
"""The lock does not belong to a channel."""
LASTING = (errors.PermissionDenied, errors.InvalidRequest, errors.SessionNotFound)
"""Permanent failures; they are retried when a registration would be renewed."""


class Notes(Protocol):
    """Shared notes about registrations. Both methods raise StoreError."""

    def registered(self, url: str) -> Awaitable[bool]:
        """Whether any node has noted `url` as registered."""

    def note(self, url: str, seconds: float) -> Awaitable[None]:
        """Note that it is registered, for `seconds`."""


class Registration:
    """Keeps our webhook registered. `url`: our public base URL."""

    def __init__(self, provider: VoiceProvider, channels: Channels, notes: Notes, url: str) -> None:
        self._provider = provider
        self._channels = channels
        self._notes = notes
        self.url = url.rstrip("/") + PATH

    async def run(self) -> None:
        """Register and renew for ever."""
        pause, longest = PAUSES
        while True:
            if await self._attempt():
                pause = PAUSES[0]
                await trio.sleep(RENEW_SECONDS)
            else:
                await trio.sleep(pause)
                pause = min(2 * pause, longest)

    async def _attempt(self) -> bool:
        """Register if necessary; False: retry soon."""
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
        """Whether any node has registered the URL. Raises StoreError."""
        return await self._notes.registered(self.url)

    async def once(self) -> bool:
        """Register if no node has; False: another node is registering.

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
