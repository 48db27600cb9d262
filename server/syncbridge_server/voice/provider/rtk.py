"""The provider API of the project's specification: sessions under `/sessions`.

SyncBridge chooses a session's id: the idempotency key. A second creation returns the existing
session, so a request whose answer was lost can be repeated. With `RTK_SECRET_KEY`, SyncBridge signs
participants' tokens without a request; without it, the provider issues them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import jwt
import msgspec

from syncbridge.voice.provider import errors, signatures, webhooks
from syncbridge.voice.provider.capabilities import (
    Capabilities,
    EmptyList,
    RecordingKind,
    RegisteredBy,
)
from syncbridge.voice.provider.events import Event, UnreadableWebhook
from syncbridge.voice.provider.features import Feature
from syncbridge.voice.provider.records import (
    ActivePage,
    ActiveSession,
    CannotVerify,
    IssuedToken,
    Metrics,
    Permissions,
    Present,
    ProviderSession,
    Recording,
    SessionRequest,
    SessionState,
    TokenHolder,
    Verified,
    VerifyFailure,
    WebhookRefused,
    WebhookRegistration,
)
from syncbridge_server.voice.provider.answers import count, entries, figure, text
from syncbridge_server.voice.provider.calling import ProviderCalls, doubt_of
from syncbridge_server.voice.provider.registration import PATH

TOKEN_SECONDS = 3600
MAX_BITRATE = 128_000
"""Maximum total bit rate of a participant in locally signed tokens; the provider's have none."""
HOOKS = {
    "participantJoined": "/rtk/participant-joined",
    "participantLeft": "/rtk/participant-left",
    "sessionEnded": "/rtk/session-ended",
    "recordingReady": "/rtk/recording-ready",
}
"""Webhook paths of these events below our public base URL; all others use `PATH`."""


CAPABILITIES = Capabilities(
    empty_list=EmptyList.NEGATIVE,
    end_is_final=True,
    features=tuple(Feature),
    speaking_seen=True,
    metrics=True,
    recording_kinds=(RecordingKind.AUDIO,),
    webhooks_registered_by=RegisteredBy.SESSION,
)
WITH_SECRET = msgspec.structs.replace(CAPABILITIES, token_local=True)


class RtkProvider:
    """`VoiceProvider` over the specification's REST API.

    Args:
        secret: signs participants' tokens; empty: the provider issues them.
        webhook_secrets: accepted secrets of webhooks. tolerance: seconds.
        public_url: our base URL for the webhooks of each session; empty: none are requested.
        clock: Unix seconds. token_seconds: lifetime of participants' tokens.
    """

    def __init__(
        self,
        calls: ProviderCalls,
        secret: str = "",
        webhook_secrets: Sequence[str] = (),
        public_url: str = "",
        tolerance: float = signatures.TOLERANCE,
        clock: Callable[[], float] = time.time,
        token_seconds: int = TOKEN_SECONDS,
    ) -> None:
        self._calls = calls
        self._secret = secret
        self._keys = [signatures.secret_bytes(text) for text in webhook_secrets]
        self._public_url = public_url.rstrip("/")
        self._tolerance = tolerance
        self._clock = clock
        self._token_seconds = token_seconds
        self.capabilities = WITH_SECRET if secret else CAPABILITIES

    async def create_session(
        self, request: SessionRequest, idempotency_key: str
    ) -> ProviderSession:
        """`POST /sessions`, with the key as the session's id."""
        answer = await self._calls.ask(
            "POST",
            "/sessions",
            _session_body(request, idempotency_key, self._public_url),
            headers={"idempotency-key": quote(idempotency_key)},
        )
        return ProviderSession(text(answer.body, "sessionId"), idempotency_key)

    async def issue_token(
        self, session_id: str, participant: TokenHolder, permissions: Permissions
    ) -> IssuedToken:
        """Signed locally with a secret, otherwise `POST /sessions/{id}/tokens`."""
        if self._secret:
            return mint_token(
                self._secret,
                session_id,
                participant,
                permissions,
                self._clock(),
                self._token_seconds,
            )
        now = self._clock()
        body = _token_body(session_id, participant, permissions, now, self._token_seconds)
        answer = await self._calls.ask("POST", _path(session_id, "tokens"), body)
        expires_at = now + self._token_seconds
        return IssuedToken(text(answer.body, "token"), expires_at, participant.user_id)

    async def end_session(self, session_id: str) -> None:
        """`POST /sessions/{id}/end`."""
        await self._calls.ask("POST", _path(session_id, "end"), accept=(404,))

    async def list_active(self, cursor: str = "", limit: int = 100) -> ActivePage | CannotVerify:
        """`GET /sessions?state=active`."""
        query: dict[str, str | int] = {"state": "active", "limit": limit}
        if cursor:
            query["cursor"] = cursor
        try:
            answer = await self._calls.ask("GET", "/sessions", query=query, poll=True)
            return _active_page(answer.body)
        except errors.ProviderError as error:
            return doubt_of(error)

    async def fetch_state(self, session_id: str) -> SessionState | CannotVerify:
        """`GET /sessions/{id}/state`. The number of names must equal the count."""
        try:
            answer = await self._calls.ask("GET", _path(session_id, "state"), poll=True)
            return _state(session_id, answer.body)
        except errors.ProviderError as error:
            return doubt_of(error)

    async def fetch_metrics(self, session_id: str) -> Metrics | CannotVerify:
        """`GET /sessions/{id}/metrics`."""
        try:
            answer = await self._calls.ask("GET", _path(session_id, "metrics"), poll=True)
        except errors.ProviderError as error:
            return doubt_of(error)
        names = ("packetsLost", "jitter", "latency", "bandwidth")
        values = [figure(answer.body, name) for name in names]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return CannotVerify(VerifyFailure.UNREADABLE, "a value is missing")
        return Metrics(*known)

    async def kick(self, session_id: str, user_id: str) -> bool:
        """`DELETE /sessions/{id}/participants/{user}`."""
        path = _path(session_id, "participants", user_id)
        return (await self._calls.ask("DELETE", path, accept=(404,))).status != 404

    async def mute(self, session_id: str, user_id: str) -> bool:
        """Not in the specification."""
        raise errors.Unsupported("this provider cannot mute participants")

    async def set_permissions(
        self, session_id: str, user_id: str, permissions: Permissions
    ) -> bool:
        """Not in the specification: the next token has them."""
        raise errors.Unsupported("this provider cannot change permissions during a call")

    async def start_recording(self, session_id: str) -> Recording:
        """`POST /sessions/{id}/recordings`."""
        body = (await self._calls.ask("POST", _path(session_id, "recordings"), {})).body
        return Recording(text(body, "recordingId"), str(body.get("status", "")))

    async def stop_recording(self, session_id: str) -> bool:
        """Not in the specification: it stops when the session ends."""
        raise errors.Unsupported("this provider cannot stop a recording before the call ends")

    async def register_webhook(self, url: str) -> WebhookRegistration:
        """`POST /webhooks`, for the events of all sessions."""
        answer = await self._calls.ask("POST", "/webhooks", {"url": url})
        return WebhookRegistration(text(answer.body, "id"), url)

    async def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Verified | WebhookRefused:
        """Standard Webhooks, with any of our secrets."""
        return signatures.verify(headers, body, now, self._keys, self._tolerance)

    def parse_webhook(self, body: bytes) -> list[Event] | UnreadableWebhook:
        """The specification's events."""
        return webhooks.parse_webhook(body)


def mint_token(
    secret: str,
    session_id: str,
    who: TokenHolder,
    permissions: Permissions,
    now: float,
    seconds: int = TOKEN_SECONDS,
) -> IssuedToken:
    """A participant's token, HS256, valid for `seconds`. `now` in Unix seconds."""
    expires_at = int(now) + seconds
    claims = {
        "sub": who.user_id,
        "room": session_id,
        "permissions": {**_rights(permissions), "maxBitrate": MAX_BITRATE},
        "exp": expires_at,
    }
    token = jwt.encode(claims, secret, algorithm="HS256")
    return IssuedToken(token, float(expires_at), who.user_id)


def _path(session_id: str, *parts: str) -> str:
    return "/".join(["/sessions", *(quote(part, safe="") for part in (session_id, *parts))])


def _session_body(request: SessionRequest, key: str, public_url: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "sessionId": key,
        "maxParticipants": request.max_participants,
        "features": {
            "recording": request.recording,
            "transcription": request.transcription,
            "noiseSupression": True,
            "echoCancellation": True,
            "automaticGainControl": True,
            **request.features,
        },
        "metadata": _metadata(request),
    }
    if public_url:
        body["webhooks"] = {name: public_url + path for name, path in HOOKS.items()}
        body["webhookUrl"] = public_url + PATH
    return body


def _metadata(request: SessionRequest) -> dict[str, Any]:
    """A session's metadata by the specification; for a replacement, also what it replaces."""
    told: dict[str, Any] = {"channelId": request.channel_id, "waddleId": request.waddle_id}
    if request.asked_at_ms:
        told["createdAt"] = request.asked_at_ms
    if request.migrated_from:
        told["migratedFrom"] = request.migrated_from
        told["migrationReason"] = request.migration_reason
        told["migratedAt"] = request.asked_at_ms
    return told


def _token_body(
    session_id: str, who: TokenHolder, permissions: Permissions, now: float, seconds: int
) -> dict[str, Any]:
    return {
        "sessionId": session_id,
        "participantId": who.user_id,
        "permissions": _rights(permissions),
        "metadata": {"userId": who.user_id, "username": who.name, "joinedAt": round(now * 1000)},
        "expiresIn": seconds,
    }


def _rights(permissions: Permissions) -> dict[str, Any]:
    return {
        "canPublish": permissions.can_speak,
        "canSubscribe": True,
        "canRecord": permissions.can_record,
        "canScreenShare": permissions.can_stream,
        "maxVideoBitrate": permissions.max_video_bitrate if permissions.can_use_video else 0,
        "maxAudioBitrate": permissions.max_audio_bitrate,
    }


def _active_page(body: dict[str, Any]) -> ActivePage | CannotVerify:
    listed = entries(body, "sessions")
    if count(body, "count") != len(listed):
        return CannotVerify(VerifyFailure.PARTIAL, "the list does not match its count")
    if not listed:
        return CannotVerify(VerifyFailure.EMPTY, "the list of sessions is empty")
    sessions = tuple(
        ActiveSession(text(entry, "sessionId"), count(entry, "participantCount") or 0)
        for entry in listed
    )
    cursor = body.get("nextCursor")
    return ActivePage(sessions, cursor if isinstance(cursor, str) else "")


def _state(session_id: str, body: dict[str, Any]) -> SessionState | CannotVerify:
    users = tuple(Present(text(entry, "id")) for entry in entries(body, "participants"))
    told = count(body, "participantCount")
    if told is not None and told != len(users):
        return CannotVerify(VerifyFailure.PARTIAL, "the participants do not match their count")
    if told is None:
        return CannotVerify(VerifyFailure.PARTIAL, "the participant count is missing")
    if not users:
        return CannotVerify(VerifyFailure.EMPTY, "the session has no participants")
    return SessionState(session_id, users)
