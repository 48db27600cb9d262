"""What SyncBridge asks of a voice provider.

Two rules shape this port. First: **what was not seen is not gone.** A list that is empty, cut short
or could not be read answers `CannotVerify`, a value beside the answer that no caller can overlook;
only a list that is whole and names somebody is a statement. Second: **nothing is repeated here.**
Every call is one attempt with a deadline, out of one budget of requests; the caller, who knows
what the call was for, decides whether to repeat it.

Times are Unix seconds unless a name says otherwise.
"""

from collections.abc import Awaitable, Mapping
from typing import Protocol

from syncbridge.voice.provider.events import Event, Unreadable
from syncbridge.voice.provider.records import (
    ActivePage,
    CannotVerify,
    IssuedToken,
    Metrics,
    Participant,
    Permissions,
    ProviderSession,
    Recording,
    Refused,
    SessionRequest,
    SessionState,
    Verified,
    WebhookRegistration,
)


class VoiceProvider(Protocol):
    """A provider of calls.

    Methods that change something raise `ProviderError`; those that look answer `CannotVerify`
    instead. None of them repeats a request, waits for the budget, or outlives its deadline.
    """

    def create_session(
        self, request: SessionRequest, idempotency_key: str
    ) -> Awaitable[ProviderSession]:
        """Open a call; the same key answers the same call, also after an answer that was lost."""

    def issue_token(
        self, session_id: str, participant: Participant, permissions: Permissions
    ) -> Awaitable[IssuedToken]:
        """Let somebody in. Raises SessionNotFound, SessionFull, PermissionDenied."""

    def end_session(self, session_id: str) -> Awaitable[None]:
        """End a call and keep it ended. One that is not there has ended: no error."""

    def list_active(
        self, cursor: str = "", limit: int = 100
    ) -> Awaitable[ActivePage | CannotVerify]:
        """One page of the calls under way. Follow `cursor` until it is empty."""

    def fetch_state(self, session_id: str) -> Awaitable[SessionState | CannotVerify]:
        """Who is in a call now."""

    def fetch_metrics(self, session_id: str) -> Awaitable[Metrics | CannotVerify]:
        """How good a call is now."""

    def kick(self, session_id: str, user_id: str) -> Awaitable[bool]:
        """Remove a user with all connections. False when the user was not in it."""

    def start_recording(self, session_id: str) -> Awaitable[Recording]:
        """Record a call."""

    def register_webhook(self, url: str) -> Awaitable[WebhookRegistration]:
        """Have events sent to `url`; the same URL again answers the same registration."""

    def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Awaitable[Verified | Refused]:
        """Whether the provider sent this. Header names in lower case."""

    def parse_webhook(self, body: bytes) -> list[Event] | Unreadable:
        """What a believed webhook says. Any bytes have an answer; nothing is raised."""
