"""A provider wrapped with circuit breakers and retries; it is itself a `VoiceProvider`.

Each request passes a breaker. Changes, for which users wait, and reads, which are polls, have one
each, so that a failing list does not block joins. While a breaker is open, nothing is sent: a
change raises ProviderUnavailable with a retry time, a read answers `CannotVerify`, and active calls
continue. Only server errors and missing answers count as failures. A refusal is an answer; a 429
and a cancelled request say nothing about the provider's health.

A request without an answer is retried if it is idempotent: rooms (by their key), ends, tokens,
removals, permissions and registrations. Reads are not retried, because polls repeat anyway. The
start of a recording is not, because a second one might begin. Pauses have full jitter and respect
the caller's deadline.

Locally signed tokens need no request and bypass the breaker, so users can join active calls while
the provider's API is down.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from random import SystemRandom
from typing import TypeVar

import msgspec
import stamina
import structlog
import trio

from syncbridge.voice.provider import errors
from syncbridge.voice.provider.breaker import Breaker, BreakerState, Ticket, Wait
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
    VerifyFailure,
    WebhookRefused,
    WebhookRegistration,
)
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.figures.metrics import ProviderMetrics
from syncbridge_server.voice.provider.recent_errors import RecentErrors

log = structlog.get_logger("voice")

T = TypeVar("T")
_chance = SystemRandom().random
FAILURES = frozenset({"network_error", "service_unavailable", "unreachable"})
SILENT = frozenset({"rate_limited", "cancelled"})
"""Outcomes that say nothing about the provider's health."""


class Repetition(msgspec.Struct, frozen=True):
    """Maximum number of attempts, and the pauses between them in seconds."""

    attempts: int = 3
    first_s: float = 0.2
    most_s: float = 2.0
    patience_s: float = 15.0


class GuardedProvider:
    """`VoiceProvider` around another one.

    Args:
        changes, reads: the breakers.
        clock: monotonic seconds. chance: numbers in [0, 1).
    """

    def __init__(
        self,
        provider: VoiceProvider,
        changes: Breaker,
        reads: Breaker,
        metrics: ProviderMetrics,
        *,
        repetition: Repetition | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = _chance,
    ) -> None:
        self._provider = provider
        self._changes = changes
        self._reads = reads
        self._metrics = metrics
        self._repetition = repetition or Repetition()
        self._clock = clock
        self._chance = chance
        self._recent_errors = RecentErrors()

    @property
    def failing(self) -> bool:
        """Whether any kind of request currently fails; see `RecentErrors`."""
        return self._recent_errors.failing(self._clock())

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the wrapped provider."""
        return self._provider.capabilities

    @property
    def changes(self) -> BreakerState:
        """The state of the breaker for changes."""
        return self._changes.state(self._clock())

    @property
    def reads(self) -> BreakerState:
        """The state of the breaker for reads."""
        return self._reads.state(self._clock())

    async def create_session(
        self, request: SessionRequest, idempotency_key: str
    ) -> ProviderSession:
        """See `VoiceProvider`."""
        return await self._again(
            "create_session", lambda: self._provider.create_session(request, idempotency_key)
        )

    async def issue_token(
        self, session_id: str, participant: TokenHolder, permissions: Permissions
    ) -> IssuedToken:
        """See `VoiceProvider`. A locally signed token bypasses the breaker."""
        if self.capabilities.token_local:
            return await self._provider.issue_token(session_id, participant, permissions)
        return await self._again(
            "issue_token",
            lambda: self._provider.issue_token(session_id, participant, permissions),
        )

    async def end_session(self, session_id: str) -> None:
        """See `VoiceProvider`."""
        await self._again("end_session", lambda: self._provider.end_session(session_id))

    async def list_active(self, cursor: str = "", limit: int = 100) -> ActivePage | CannotVerify:
        """See `VoiceProvider`."""
        return await self._look("list_active", lambda: self._provider.list_active(cursor, limit))

    async def fetch_state(self, session_id: str) -> SessionState | Vacated | CannotVerify:
        """See `VoiceProvider`."""
        return await self._look("fetch_state", lambda: self._provider.fetch_state(session_id))

    async def fetch_metrics(self, session_id: str) -> Metrics | CannotVerify:
        """See `VoiceProvider`."""
        return await self._look("fetch_metrics", lambda: self._provider.fetch_metrics(session_id))

    async def kick(self, session_id: str, user_id: str) -> bool:
        """See `VoiceProvider`."""
        return await self._again("kick", lambda: self._provider.kick(session_id, user_id))

    async def mute(self, session_id: str, user_id: str) -> bool:
        """See `VoiceProvider`."""
        return await self._again("mute", lambda: self._provider.mute(session_id, user_id))

    async def set_permissions(
        self, session_id: str, user_id: str, permissions: Permissions
    ) -> bool:
        """See `VoiceProvider`."""
        return await self._again(
            "set_permissions",
            lambda: self._provider.set_permissions(session_id, user_id, permissions),
        )

    async def start_recording(self, session_id: str) -> Recording:
        """See `VoiceProvider`. Not retried."""
        return await self._once(
            self._changes, "start_recording", lambda: self._provider.start_recording(session_id)
        )

    async def stop_recording(self, session_id: str) -> bool:
        """See `VoiceProvider`."""
        return await self._again(
            "stop_recording", lambda: self._provider.stop_recording(session_id)
        )

    async def register_webhook(self, url: str) -> WebhookRegistration:
        """See `VoiceProvider`."""
        return await self._again("register_webhook", lambda: self._provider.register_webhook(url))

    async def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Verified | WebhookRefused:
        """See `VoiceProvider`. Bypasses the breaker."""
        return await self._provider.verify_webhook(headers, body, now)

    def parse_webhook(self, body: bytes) -> list[Event] | UnreadableWebhook:
        """See `VoiceProvider`."""
        return self._provider.parse_webhook(body)

    async def _look(
        self, call: str, send: Callable[[], Awaitable[T | CannotVerify]]
    ) -> T | CannotVerify:
        """Make a read in one attempt; CannotVerify while the breaker is open."""
        try:
            return await self._once(self._reads, call, send)
        except errors.ProviderUnavailable as error:
            return CannotVerify(VerifyFailure.UNREACHABLE, error.detail, error.retry_after)

    async def _again(self, call: str, send: Callable[[], Awaitable[T]]) -> T:
        """Make a change, with retries after missing answers."""
        lost = False
        pauses = self._pauses(call)
        limits = self._repetition
        async for attempt in stamina.retry_context(
            pauses, attempts=limits.attempts, timeout=limits.patience_s
        ):
            with attempt:
                try:
                    return await self._once(self._changes, call, send)
                except errors.ProviderError as error:
                    lost = error.outcome_unknown = lost or error.outcome_unknown
                    raise
        raise AssertionError("the last attempt answers or raises")

    def _pauses(self, call: str) -> Callable[[Exception], bool | float]:
        """A function of an error: the pause before a retry, or False for none."""
        limits, made = self._repetition, 0

        def pause_after(error: Exception) -> bool | float:
            nonlocal made
            if not isinstance(error, errors.NetworkFailed):
                return False
            pause = self._chance() * min(limits.first_s * 2.0**made, limits.most_s)
            made += 1
            if trio.current_time() + pause >= trio.current_effective_deadline():
                return False
            if made < limits.attempts:
                self._metrics.retries.labels(call).inc()
            return pause

        return pause_after

    async def _once(self, breaker: Breaker, call: str, send: Callable[[], Awaitable[T]]) -> T:
        """Make one attempt through a breaker. Raises ProviderUnavailable while it is open."""
        ticket = breaker.admit(self._clock())
        if isinstance(ticket, Wait):
            self._metrics.requests.labels(call, "breaker_open").inc()
            raise errors.ProviderUnavailable(
                "the provider is failing and is not asked for a while",
                retry_after=ticket.seconds,
            )
        began, outcome = self._clock(), "cancelled"
        try:
            answer = await send()
            outcome = str(answer.doubt) if isinstance(answer, CannotVerify) else "ok"
            return answer
        except errors.ProviderError as error:
            outcome = error.code.value.lower()
            raise
        finally:
            self._note(breaker, call, ticket, outcome)
            self._metrics.requests.labels(call, outcome).inc()
            self._metrics.seconds.labels(call).observe(self._clock() - began)

    def _note(self, breaker: Breaker, call: str, ticket: Ticket, outcome: str) -> None:
        """Report the outcome to the breaker, and log a change of its state."""
        now = self._clock()
        self._recent_errors.note(call, outcome, now)
        before = breaker.state(now)
        if outcome in FAILURES:
            breaker.failed(ticket, now)
        elif outcome in SILENT:
            breaker.given_up(ticket, now)
        else:
            breaker.succeeded(ticket)
        after = breaker.state(now)
        if after is not before:
            log.warning("voice_breaker", state=str(after), call=call, outcome=outcome)
