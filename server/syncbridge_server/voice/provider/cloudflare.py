"""Cloudflare RealTimeKit, API version 4.

It has meetings (permanent rooms) and sessions (one occupancy of a meeting, from its first peer on).
A call is one meeting, so a meeting id is our session id. Differences from the port:

* There are no idempotency keys: before a meeting is created, it is searched by its title, which is
  our key. Two concurrent creations with one key can still make two meetings, so hold a lock.
* Permissions are presets, found by name and created when first needed (`presets`).
* A session records who left it and when, even after its end: that is proof.
* Tokens are valid for 100 days. An ended call is made inactive, so its tokens are useless.
* There are no live metrics and no limit of participants.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import structlog
import trio

from syncbridge.voice.provider import errors, webhooks
from syncbridge.voice.provider.capabilities import Capabilities, RecordingKind, RegisteredBy
from syncbridge.voice.provider.events import Event, UnreadableWebhook
from syncbridge.voice.provider.features import Feature
from syncbridge.voice.provider.records import (
    ActivePage,
    ActiveSession,
    CannotVerify,
    GoneConnection,
    IssuedToken,
    Metrics,
    Permissions,
    Present,
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
from syncbridge_server.voice.provider.answers import count, entries, text
from syncbridge_server.voice.provider.calling import ProviderAnswer, ProviderCalls, doubt_of
from syncbridge_server.voice.provider.presets import (
    PresetRequest,
    is_missing,
    preset_body,
    preset_name,
)
from syncbridge_server.voice.provider.rsa_signatures import RsaSignatures

log = structlog.get_logger("voice")

API_URL = "https://api.cloudflare.com/client/v4"
TOKEN_SECONDS = 100 * 86_400
PAGE = 100
RECENT = 10
"""Number of a meeting's sessions among which the latest is searched."""
MAX_PAGES = 20
DUPLICATE = (400, 409, 422)
"""Possible statuses for an enrolled user; the actual one is not documented."""
REFUSED = (*DUPLICATE, 404)
EVENTS = (
    "meeting.started",
    "meeting.ended",
    "meeting.participantJoined",
    "meeting.participantLeft",
    "recording.statusUpdate",
    "meeting.transcript",
    "meeting.summary",
)


CAPABILITIES = Capabilities(
    left_record=True,
    connection_ids=True,
    token_revocable=True,
    end_is_final=True,
    features=(Feature.RECORDING, Feature.TRANSCRIPTION),
    recording_kinds=(RecordingKind.AUDIO,),
    recording_stop=True,
    webhooks_registered_by=RegisteredBy.API,
)


def base_url(account_id: str, app_id: str, api_url: str = API_URL) -> str:
    """Where an application's calls go."""
    account, app = quote(account_id, safe=""), quote(app_id, safe="")
    return f"{api_url.rstrip('/')}/accounts/{account}/realtime/kit/{app}"


class CloudflareProvider:
    """`VoiceProvider` over RealTimeKit.

    `clock`: Unix seconds. `storage`: `storage_config` of recordings; without it, they are kept for
    7 days.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        calls: ProviderCalls,
        signatures: RsaSignatures,
        clock: Callable[[], float] = time.time,
        storage: Mapping[str, Any] | None = None,
    ) -> None:
        self._calls = calls
        self._signatures = signatures
        self._storage = storage
        self._clock = clock
        self._presets = trio.Lock()

    async def create_session(
        self, request: SessionRequest, idempotency_key: str
    ) -> ProviderSession:
        """Find the meeting with the key as its title, or create it."""
        query: dict[str, str | int] = {
            "search": idempotency_key,
            "status": "ACTIVE",
            "per_page": PAGE,
        }
        found = await self._calls.ask("GET", "/meetings", query=query)
        for meeting in entries(found.body, "data"):
            if meeting.get("title") == idempotency_key:
                return ProviderSession(text(meeting, "id"), idempotency_key)
        # `start_recording` starts the recording; both together would make two recordings.
        body = {
            "title": idempotency_key,
            "record_on_start": False,
            "transcribe_on_end": request.transcription,
        }
        made = await self._calls.ask("POST", "/meetings", body)
        return ProviderSession(text(_data(made.body), "id"), idempotency_key)

    async def issue_token(
        self, session_id: str, participant: TokenHolder, permissions: Permissions
    ) -> IssuedToken:
        """Enrol the user, or reuse the existing enrolment if that is refused."""
        wanted = PresetRequest(permissions, participant.transcribed)
        preset = {"preset_name": preset_name(wanted)}
        body = {"custom_participant_id": participant.user_id, **preset}
        if participant.name:
            body["name"] = participant.name
        path = _meeting(session_id, "participants")
        answer = await self._with_preset("POST", path, body, wanted)
        if answer.status in DUPLICATE and not is_missing(answer):
            enrolled = await self._enrolled(session_id, participant.user_id)
            if enrolled:
                path = _meeting(session_id, "participants", enrolled)
                answer = await self._with_preset("PATCH", path, preset, wanted)
        if not answer.ok:
            raise _refusal(answer)
        data = _data(answer.body)
        expires_at = self._clock() + TOKEN_SECONDS
        return IssuedToken(text(data, "token"), expires_at, text(data, "id"))

    async def end_session(self, session_id: str) -> None:
        """Stop the recording, close the meeting, and then remove its participants."""
        await self.stop_recording(session_id)
        await self._calls.ask("PATCH", _meeting(session_id), {"status": "INACTIVE"}, accept=(404,))
        await self._calls.ask(
            "POST", _meeting(session_id, "active-session", "kick-all"), {}, accept=(404,)
        )

    async def list_active(self, cursor: str = "", limit: int = PAGE) -> ActivePage | CannotVerify:
        """`GET /sessions?status=LIVE`; the cursor is a page number."""
        number = int(cursor) if cursor.isascii() and cursor.isdigit() else 1
        limit = min(limit, PAGE)
        query: dict[str, str | int] = {"status": "LIVE", "page_no": number, "per_page": limit}
        try:
            answer = await self._calls.ask("GET", "/sessions", query=query, poll=True)
            listed = entries(_data(answer.body), "sessions")
            total, whole = _paging(answer.body, len(listed))
            if not whole or (total and not listed):
                return CannotVerify(VerifyFailure.PARTIAL, "the list does not match its count")
            if not listed:
                return CannotVerify(VerifyFailure.EMPTY, "the list of sessions is empty")
            if any(session.get("status") != "LIVE" for session in listed):
                return CannotVerify(
                    VerifyFailure.UNREADABLE, "sessions that are not live are listed"
                )
            sessions = tuple(_active(session) for session in listed)
            return ActivePage(sessions, str(number + 1) if number * limit < total else "")
        except errors.ProviderError as error:
            return doubt_of(error)

    async def fetch_state(self, session_id: str) -> SessionState | Vacated | CannotVerify:
        """The live session's peers that have not left, if there are as many as are counted.

        Also returns users who have left, of the last session when none is live.
        """
        path = _meeting(session_id, "active-session")
        try:
            answer = await self._calls.ask("GET", path, poll=True, accept=(404,))
            if answer.status == 404:
                return await self._nobody_in(session_id)
            live = _data(answer.body)
            if live.get("associated_id") != session_id:
                return CannotVerify(VerifyFailure.UNREADABLE, "the answer is about another meeting")
            occupancy = text(live, "id")
            peers = await self._peers(occupancy)
        except errors.ProviderError as error:
            return doubt_of(error)
        people = tuple(_present(peer) for peer in peers or () if not peer.get("left_at"))
        gone = tuple(_gone(peer) for peer in peers or () if peer.get("left_at"))
        if peers is None or count(live, "live_participants") != len(people):
            return CannotVerify(VerifyFailure.PARTIAL, "the participants do not match their count")
        if people:
            return SessionState(session_id, people, occupancy, gone=gone)
        return _vacated(session_id, gone)

    async def fetch_metrics(self, session_id: str) -> Metrics | CannotVerify:
        """Not offered during a call."""
        return CannotVerify(
            VerifyFailure.UNSUPPORTED, "this provider tells the quality of a call later"
        )

    async def kick(self, session_id: str, user_id: str) -> bool:
        """Remove all peers of a user and delete the enrolment, which invalidates the tokens."""
        body = {"participant_ids": [], "custom_participant_ids": [user_id]}
        path = _meeting(session_id, "active-session", "kick")
        kicked = await self._calls.ask("POST", path, body, accept=(404,))
        enrolled = await self._enrolled(session_id, user_id)
        if enrolled:
            path = _meeting(session_id, "participants", enrolled)
            await self._calls.ask("DELETE", path, accept=(404,))
        return kicked.status != 404

    async def mute(self, session_id: str, user_id: str) -> bool:
        """Not offered to servers."""
        raise errors.Unsupported("this provider cannot mute participants")

    async def set_permissions(
        self, session_id: str, user_id: str, permissions: Permissions
    ) -> bool:
        """Not offered: the effect of a changed preset on participants is not documented."""
        raise errors.Unsupported("this provider cannot change permissions during a call")

    async def start_recording(self, session_id: str) -> Recording:
        """Start one audio file of all participants, or return the active recording."""
        running = await self._recorded(session_id)
        if running.status != 404:
            return _recording(running)
        body: dict[str, Any] = {
            "meeting_id": session_id,
            "audio_config": {"export_file": True},
            "video_config": {"export_file": False},
        }
        if self._storage:
            body["storage_config"] = dict(self._storage)
        return _recording(await self._calls.ask("POST", "/recordings", body))

    async def stop_recording(self, session_id: str) -> bool:
        """`PUT /recordings/{id}` for the active recording."""
        running = await self._recorded(session_id)
        if running.status == 404:
            return False
        path = "/recordings/" + quote(text(_data(running.body), "id"), safe="")
        await self._calls.ask("PUT", path, {"action": "stop"}, accept=(404,))
        return True

    async def register_webhook(self, url: str) -> WebhookRegistration:
        """Correct the existing registration of the URL, or create one for the application."""
        body = {"name": _webhook_name(url), "url": url, "events": list(EVENTS), "enabled": True}
        known = await self._registered(url)
        if known is None:
            made = await self._calls.ask("POST", "/webhooks", body, accept=(409,))
            if made.status != 409:
                return WebhookRegistration(text(_data(made.body), "id"), url)
            known = await self._registered(url)
            if known is None:
                raise _refusal(made)
        registration = WebhookRegistration(text(known, "id"), url)
        if not _tells_all(known):
            path = "/webhooks/" + quote(registration.id, safe="")
            await self._calls.ask("PATCH", path, body)
        return registration

    async def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Verified | WebhookRefused:
        """`rtk-signature`. No time is signed, so `now` is not used."""
        return await self._signatures.verify(headers, body)

    def parse_webhook(self, body: bytes) -> list[Event] | UnreadableWebhook:
        """RealTimeKit's events."""
        return webhooks.parse_webhook(body)

    async def _recorded(self, session_id: str) -> ProviderAnswer:
        """The active recording of a meeting; status 404 without one."""
        path = f"/recordings/active-recording/{quote(session_id, safe='')}"
        return await self._calls.ask("GET", path, accept=(404,))

    async def _with_preset(
        self, method: str, path: str, body: dict[str, str], wanted: PresetRequest
    ) -> ProviderAnswer:
        """Send a request that names a preset; create a missing preset and send it again."""
        answer = await self._calls.ask(method, path, body, accept=REFUSED)
        if is_missing(answer):
            await self._make_preset(wanted)
            answer = await self._calls.ask(method, path, body, accept=REFUSED)
        return answer

    async def _make_preset(self, wanted: PresetRequest) -> None:
        """Create a preset, unless it was just created."""
        async with self._presets:
            name = preset_name(wanted)
            for number in range(1, MAX_PAGES + 1):
                query = {"page_no": number, "per_page": PAGE}
                listed = await self._calls.ask("GET", "/presets", query=query)
                found = entries(listed.body, "data")
                if any(preset.get("name") == name for preset in found):
                    return
                if not found or number * PAGE >= _paging(listed.body, len(found))[0]:
                    break
            await self._calls.ask("POST", "/presets", preset_body(wanted), accept=(409,))
            log.info("voice_preset_made", preset=name)

    async def _registered(self, url: str) -> dict[str, Any] | None:
        """The registrations of a URL."""
        found = await self._calls.ask("GET", "/webhooks")
        same = (known for known in entries(found.body, "data") if known.get("url") == url)
        return next(same, None)

    async def _enrolled(self, session_id: str, user_id: str) -> str:
        """The participant id of a user; empty if the user is not enrolled."""
        path = _meeting(session_id, "participants")
        for number in range(1, MAX_PAGES + 1):
            query = {"page_no": number, "per_page": PAGE}
            answer = await self._calls.ask("GET", path, query=query, accept=(404,))
            if answer.status == 404:
                break
            body = answer.body
            listed = entries(body, "data")
            for person in listed:
                if person.get("custom_participant_id") == user_id:
                    return text(person, "id")
            if not listed or number * PAGE >= _paging(body, len(listed))[0]:
                break
        return ""

    async def _nobody_in(self, session_id: str) -> Vacated | CannotVerify:
        """Why there is no live session: a meeting without people answers 404 like no meeting.

        Its last session is over for everybody who was in it, once it says that it has ended.
        """
        meeting = _data((await self._calls.ask("GET", _meeting(session_id), poll=True)).body)
        if meeting.get("status") == "INACTIVE":
            return CannotVerify(VerifyFailure.NOT_FOUND, "the meeting is closed")
        last = await self._last_session(session_id)
        if last is None or last.get("status") != "ENDED":
            return CannotVerify(VerifyFailure.EMPTY, "nobody is in the meeting")
        peers = await self._peers(text(last, "id"))
        if peers is None:
            return CannotVerify(VerifyFailure.PARTIAL, "the participants do not match their count")
        ended_at = _unix(last.get("ended_at"))
        return _vacated(session_id, tuple(_gone(peer, ended_at) for peer in peers))

    async def _last_session(self, session_id: str) -> dict[str, Any] | None:
        """The latest session of a meeting; None if there was none."""
        query: dict[str, str | int] = {
            "associated_id": session_id,
            "sort_by": "createdAt",
            "sort_order": "DESC",
            "per_page": RECENT,
        }
        answer = await self._calls.ask("GET", "/sessions", query=query, poll=True)
        listed = entries(_data(answer.body), "sessions")
        ours = [one for one in listed if one.get("associated_id") == session_id]
        # The order is not guaranteed, so a live session wins, then the latest start.
        return max(ours, key=_recency, default=None)

    async def _peers(self, occupancy: str) -> list[dict[str, Any]] | None:
        """All past and present peers of a session; None if the pages do not match the count."""
        peers: list[dict[str, Any]] = []
        path = f"/sessions/{quote(occupancy, safe='')}/participants"
        for number in range(1, MAX_PAGES + 1):
            query = {"page_no": number, "per_page": PAGE}
            body = (await self._calls.ask("GET", path, query=query, poll=True)).body
            listed = entries(_data(body), "participants")
            total, whole = _paging(body, len(listed))
            if not whole:
                return None
            peers += listed
            if number * PAGE >= total:
                return peers
        return None


def _meeting(session_id: str, *parts: str) -> str:
    return "/".join(["/meetings", *(quote(part, safe="") for part in (session_id, *parts))])


def _refusal(answer: ProviderAnswer) -> errors.ProviderError:
    """The error of an answer in `REFUSED`. A missing preset does not mean a lost session."""
    gone = answer.status == 404 and not is_missing(answer)
    kind = errors.SessionNotFound if gone else errors.InvalidRequest
    return kind(f"the provider answered {answer.status}")


def _tells_all(known: dict[str, Any]) -> bool:
    """Whether a registration is enabled for all events that SyncBridge needs."""
    told = known.get("events")
    all_told = isinstance(told, list) and all(name in told for name in EVENTS)
    return all_told and known.get("enabled") is not False


def _recording(answer: ProviderAnswer) -> Recording:
    data = _data(answer.body)
    return Recording(text(data, "id"), str(data.get("status", "")))


def _webhook_name(url: str) -> str:
    return f"syncbridge {hashlib.sha256(url.encode()).hexdigest()[:12]}"


def _data(body: dict[str, Any]) -> dict[str, Any]:
    data = body.get("data")
    if not isinstance(data, dict):
        raise errors.ProviderUnavailable("the provider's answer has no data")
    return data


def _paging(body: dict[str, Any], length: int) -> tuple[int, bool]:
    """The total count, and whether the page has the length that it claims."""
    data = body.get("data")
    paging = body.get("paging") or (data.get("paging") if isinstance(data, dict) else None)
    if not isinstance(paging, dict):
        return length, False
    total, start, end = (count(paging, f) for f in ("total_count", "start_offset", "end_offset"))
    if total is None or start is None or end is None:
        return length, False
    expected = end - start + 1 if total and end >= start >= 1 else 0
    return total, length == expected


def _active(session: dict[str, Any]) -> ActiveSession:
    people = count(session, "live_participants") or 0
    return ActiveSession(text(session, "associated_id"), people, text(session, "id"))


def _present(peer: dict[str, Any]) -> Present:
    return Present(
        str(peer.get("custom_participant_id") or ""), text(peer, "id"), _unix(peer.get("joined_at"))
    )


def _gone(peer: dict[str, Any], ended_at: float | None = None) -> GoneConnection:
    user_id = str(peer.get("custom_participant_id") or "")
    left_at = _unix(peer.get("left_at"))
    return GoneConnection(user_id, text(peer, "id"), ended_at if left_at is None else left_at)


def _vacated(session_id: str, gone: tuple[GoneConnection, ...]) -> Vacated | CannotVerify:
    if not gone:
        return CannotVerify(VerifyFailure.EMPTY, "the list of participants is empty")
    return Vacated(session_id, gone)


def _recency(session: dict[str, Any]) -> tuple[bool, float]:
    return session.get("status") != "ENDED", _unix(session.get("started_at")) or 0.0


def _unix(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None
