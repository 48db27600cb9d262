"""What SyncBridge asks of a voice provider.

Three rules shape this port. First: **what was not seen is not gone.** A list that is empty, cut
short or could not be read answers `CannotVerify`, a value beside the answer that no caller can
overlook; only a list that is whole and names somebody is a statement. Second: **what differs is
data.** What else follows from an answer, and what a provider does not offer, is said by its
`capabilities`; no caller asks which provider it is. Third: **nothing is repeated here.** Every call
is one attempt with a deadline, out of one budget of requests; the caller, who knows what the call
was for, decides whether to repeat it.

Times are Unix seconds unless a name says otherwise.
"""

from collections.abc import Awaitable, Mapping
from typing import Protocol

from syncbridge.voice.provider.capabilities import Capabilities
from syncbridge.voice.provider.events import Event, UnreadableWebhook
from syncbridge.voice.provider.records import (
    ActivePage,
    CannotVerify,
    IssuedToken,
    Metrics,
    Permissions,
    ProviderSession,
    Recording,
    SessionRequest,
    SessionState,
    TokenHolder,
    Vacated,
    Verified,
    WebhookRefused,
    WebhookRegistration,
)


class VoiceProvider(Protocol):
    """A provider of calls. `capabilities` do not change.

    Methods that change something raise `ProviderError`; those that look answer `CannotVerify`
    instead. None of them repeats a request, waits for the budget, or outlives its deadline. What
    the capabilities exclude raises `Unsupported`.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this provider can do, and what its answers mean."""

    def create_session(
        self, request: SessionRequest, idempotency_key: str
    ) -> Awaitable[ProviderSession]:
        """Open a call; the same key answers the same call, also after an answer that was lost."""

    def issue_token(
        self, session_id: str, participant: TokenHolder, permissions: Permissions
    ) -> Awaitable[IssuedToken]:
        """Issue a token to a user. Raises SessionNotFound, SessionFull, PermissionDenied."""

    def end_session(self, session_id: str) -> Awaitable[None]:
        """End a call and keep it ended. One that is not there has ended: no error."""

    def list_active(
        self, cursor: str = "", limit: int = 100
    ) -> Awaitable[ActivePage | CannotVerify]:
        """One page of the calls under way. Follow `cursor` until it is empty."""

    def fetch_state(self, session_id: str) -> Awaitable[SessionState | Vacated | CannotVerify]:
        """Who is in a call now; `Vacated` only where a record says who has left."""

    def fetch_metrics(self, session_id: str) -> Awaitable[Metrics | CannotVerify]:
        """How good a call is now."""

    def kick(self, session_id: str, user_id: str) -> Awaitable[bool]:
        """Remove a user with all connections. False when the user was not in it."""

    def mute(self, session_id: str, user_id: str) -> Awaitable[bool]:
        """Silence the microphones of a user, who may switch them on again. False: not in it."""

    def set_permissions(
        self, session_id: str, user_id: str, permissions: Permissions
    ) -> Awaitable[bool]:
        """Change what a user may do from now on. False when the user was not in it."""

    def start_recording(self, session_id: str) -> Awaitable[Recording]:
        """Record a call; one that is being recorded goes on, and that recording is the answer."""

    def stop_recording(self, session_id: str) -> Awaitable[bool]:
        """Stop what is being recorded of a call. False when nothing was."""

    def register_webhook(self, url: str) -> Awaitable[WebhookRegistration]:
        """Have events sent to `url`; the same URL again answers the same registration."""

    def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Awaitable[Verified | WebhookRefused]:
        """Whether the provider sent this. Header names in lower case."""

    def parse_webhook(self, body: bytes) -> list[Event] | UnreadableWebhook:
        """What a believed webhook says. Any bytes have an answer; nothing is raised."""
