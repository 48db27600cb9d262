"""Parses pending webhooks and sorts their events by channel.

A delivery has one event or several. Permanent errors are noted at once; an unknown session may
become known later.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import structlog
import trio

from syncbridge import ids
from syncbridge.errors import StoreError
from syncbridge.voice.intake import WebhookReport
from syncbridge.voice.provider import events
from syncbridge.voice.provider.events import Event, UnreadableWebhook
from syncbridge.voice.stored import WebhookDelivery
from syncbridge_server.isolation import of_record
from syncbridge_server.ports.channels import Channels
from syncbridge_server.ports.provider import VoiceProvider

log = structlog.get_logger("voice")

KNOWN_SESSIONS = 4096
UNKNOWN_SESSION = "unknown session"
UNREADABLE = "unreadable"
BAD_USER = "user id not acceptable"

Reports = list[WebhookReport]


class Outcome(StrEnum):
    """The outcome of a delivery."""

    DONE = "done"
    AGAIN = "again"
    WAIT = "wait"
    BURY = "bury"


@dataclass
class SortedDelivery:
    """A delivery in progress.

    Attributes:
        reason: why it is retried or becomes a dead letter.
        reports: its events by channel.
        kept: ids of recordings that it added.
    """

    delivery: WebhookDelivery
    fate: Outcome = Outcome.DONE
    reason: str = ""
    reports: dict[str, Reports] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)

    def fail(self, fate: Outcome, reason: str = "") -> None:
        """Note a failure. The worst outcome counts: BURY, then WAIT (store errors), then AGAIN."""
        worst = (Outcome.DONE, Outcome.AGAIN, Outcome.WAIT, Outcome.BURY)
        if worst.index(fate) > worst.index(self.fate):
            self.fate, self.reason = fate, reason


class Sorter:
    """Sorts deliveries by channel. `id_bytes`: maximum length of a user id."""

    def __init__(self, provider: VoiceProvider, channels: Channels, id_bytes: int) -> None:
        self._provider = provider
        self._channels = channels
        self._id_bytes = id_bytes
        self._known: dict[str, str] = {}

    async def sort(self, items: Sequence[SortedDelivery]) -> StoreError | None:
        """Set the reports of each delivery; returns the store error that prevented some, if any."""
        told = [(item, event) for item in items for event in self._events(item)]
        wanted = {event.session_id for _, event in told}
        channels, trouble = await self._find(wanted)
        for item, event in told:
            channel_id = channels.get(event.session_id)
            if channel_id is None:
                fate = Outcome.WAIT if trouble is not None else Outcome.AGAIN
                item.fail(fate, UNKNOWN_SESSION)
                continue
            report = WebhookReport(event, item.delivery.received_at, item.delivery.delivery_id)
            item.reports.setdefault(channel_id, []).append(report)
        return trouble

    def _events(self, item: SortedDelivery) -> list[Event]:
        """The relevant events of a delivery."""
        if item.delivery.reason:
            item.fail(Outcome.BURY, item.delivery.reason)
            return []
        found = self._provider.parse_webhook(item.delivery.body)
        if isinstance(found, UnreadableWebhook):
            item.fail(Outcome.BURY, f"{UNREADABLE}: {found.detail}")
            found = list(found.events)
        return [event for event in found if self._meaningful(item, event)]

    def _meaningful(self, item: SortedDelivery, event: Event) -> bool:
        match event:
            case events.OtherEvent():
                return False
            case (
                events.ParticipantJoined(user_id=user_id)
                | events.ParticipantLeft(user_id=user_id)
                | events.ParticipantSpeaking(user_id=user_id)
            ):
                return self._acceptable(item, user_id)
        return True

    def _acceptable(self, item: SortedDelivery, user_id: str) -> bool:
        if not user_id:
            log.info("webhook_without_user", delivery_id=item.delivery.delivery_id)
            return False
        if not ids.is_short_id(user_id, self._id_bytes):
            item.fail(Outcome.BURY, BAD_USER)
            return False
        return True

    async def _find(self, sessions: Iterable[str]) -> tuple[dict[str, str], StoreError | None]:
        """The channels of sessions, as far as they are known. Results are cached."""
        found: dict[str, str] = {}
        trouble: list[StoreError] = []

        async def look(session_id: str) -> None:
            try:
                channel_id = await self._channels.channel_of(session_id)
            except StoreError as error:
                if of_record(error):
                    log.warning("webhook_session_damaged", reason=error.detail)
                else:
                    trouble.append(error)
                return
            if channel_id is not None:
                found[session_id] = channel_id

        async with trio.open_nursery() as nursery:
            for session_id in sessions:
                if session_id in self._known:
                    found[session_id] = self._known[session_id]
                else:
                    nursery.start_soon(look, session_id)
        self._remember(found)
        return found, trouble[0] if trouble else None

    def _remember(self, found: dict[str, str]) -> None:
        self._known |= found
        while len(self._known) > KNOWN_SESSIONS:
            del self._known[next(iter(self._known))]
