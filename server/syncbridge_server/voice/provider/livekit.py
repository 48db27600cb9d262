"""LiveKit, the open-source server, 1.13 or newer.

A call is one room, named by its idempotency key. Theory of operation:

* **Rooms are temporary.** LiveKit drops an empty room, and without Redis all rooms at a restart. So
  the room is created again under its name before each token is issued. A missing room therefore
  counts as empty, never as lost.
* **An identity has one connection**, so each of a user's devices has its own (`livekit_names`).
* **An empty list is one negative.** A room that never existed, one that has ended, and one whose
  participants are reconnecting after a restart are all listed as empty. Two such polls are proof if
  they are 20 seconds apart without a restart of the server between them. The run of the server is
  identified by the `sid` of an empty room of ours, `syncbridge`, which changes with a restart. It
  is read after the list, so a list is never attributed to a run that began after it was made.
* **With a Redis, a list may contain dead participants**: those of a killed node stay listed, unless
  LiveKit is configured to ask the node. `_blind` tests for that, and useless lists are ignored.
* **A token cannot be revoked**, and the server renews it while its holder is connected. `kick`
  removes a participant; one who comes back with the old token appears as a new join.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import structlog
import trio

from syncbridge.voice.provider import errors, livekit_webhooks
from syncbridge.voice.provider.capabilities import (
    Capabilities,
    ConnectionIdentity,
    EmptyList,
    RecordingKind,
)
from syncbridge.voice.provider.events import Event, UnreadableWebhook
from syncbridge.voice.provider.features import Feature
from syncbridge.voice.provider.livekit_names import Person, identity_of
from syncbridge.voice.provider.livekit_webhooks import milliseconds, telephone, whose
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
from syncbridge_server.voice.provider import livekit_signatures
from syncbridge_server.voice.provider.answers import count, entries, text
from syncbridge_server.voice.provider.calling import doubt_of
from syncbridge_server.voice.provider.livekit_api import LiveKitApi, Object

log = structlog.get_logger("voice")

TOKEN_SECONDS = 3600
ANCHOR = "syncbridge"
"""Name of the room whose `sid` identifies the run of the server."""
ANCHOR_SECONDS = 31_536_000
PROBE_S = 3600.0
"""Interval of the test whether lists are usable."""
CAPABILITIES = Capabilities(
    empty_list=EmptyList.NEGATIVE,
    second_look_s=20.0,
    identity=ConnectionIdentity.DEVICE,
    leave_reason=True,
    connection_ids=True,
    permissions_live=True,
    server_mute=True,
    mute_seen=True,
    features=(Feature.RECORDING,),
    recording_kinds=(RecordingKind.AUDIO,),
    recording_stop=True,
)
SOURCES = ("microphone", "camera", "screen_share", "screen_share_audio")


class LiveKitProvider:
    """`VoiceProvider` over one LiveKit server or cluster.

    Args:
        secrets: of webhooks, by API key. tolerance: maximum age of a webhook in seconds.
        empty_s: minimum lifetimes of a room that nobody joined and of one that everybody left.
        recordings: path in the Egress worker's storage, with LiveKit's placeholders `{...}`.
        clock: Unix seconds. token_seconds: lifetime of participants' tokens.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        api: LiveKitApi,
        secrets: Mapping[str, str],
        *,
        empty_s: tuple[float, float] = (960.0, 360.0),
        recordings: str = "{room_name}-{time}",
        tolerance: float = 300.0,
        clock: Callable[[], float] = time.time,
        token_seconds: int = TOKEN_SECONDS,
    ) -> None:
        self._api = api
        self._secrets = secrets
        self._times = {"empty_timeout": int(empty_s[0]), "departure_timeout": int(empty_s[1])}
        self._recordings = recordings
        self._tolerance = tolerance
        self._clock = clock
        self._token_seconds = token_seconds
        self._probing = trio.Lock()
        self._probed_at = 0.0
        self._worthless = ""

    async def create_session(
        self, request: SessionRequest, idempotency_key: str
    ) -> ProviderSession:
        """`CreateRoom`. SyncBridge counts seats: LiveKit counts devices and refuses with 500."""
        told = {"channelId": request.channel_id, "waddleId": request.waddle_id}
        if request.migrated_from:
            told |= {"migratedFrom": request.migrated_from, "reason": request.migration_reason}
        options = {**self._times, "metadata": json.dumps(told)}
        room = await self._api.create_room(idempotency_key, options)
        return ProviderSession(text(room, "name"), idempotency_key)

    async def issue_token(
        self, session_id: str, participant: TokenHolder, permissions: Permissions
    ) -> IssuedToken:
        """Sign a token locally, after creating the room again, which may have been dropped."""
        await self._api.create_room(session_id, self._times)
        person = Person(participant.user_id, participant.device_id)
        identity, attributes = identity_of(person)
        grant: Object = {"roomJoin": True, "room": session_id, **_rights(permissions)}
        claims: Object = {"sub": identity, "video": grant}
        if participant.name:
            claims["name"] = participant.name
        if attributes:
            claims["attributes"] = attributes
        expires_at = int(self._clock()) + self._token_seconds
        return IssuedToken(self._api.sign(claims, self._token_seconds), float(expires_at), identity)

    async def end_session(self, session_id: str) -> None:
        """`DeleteRoom`, which also ends the recording."""
        await self._api.delete_room(session_id)

    async def list_active(self, cursor: str = "", limit: int = 100) -> ActivePage | CannotVerify:
        """`ListRooms`: one page with all rooms. Its counts are up to five seconds old."""
        try:
            rooms = [
                ActiveSession(text(room, "name"), people, text(room, "sid"))
                for room in await self._api.rooms()
                if (people := count(room, "num_participants"))
            ]
        except errors.ProviderError as error:
            return doubt_of(error)
        if not rooms:
            return CannotVerify(VerifyFailure.EMPTY, "the list of rooms is empty")
        return ActivePage(tuple(rooms))

    async def fetch_state(self, session_id: str) -> SessionState | CannotVerify:
        """`ListParticipants`, then `ListRooms` of this room and the anchor."""
        try:
            if await self._blind():
                return CannotVerify(VerifyFailure.UNSUPPORTED, self._worthless)
            people = await self._api.people(session_id, poll=True)
            room, life = await self._room_and_life(session_id)
            present = tuple(_present(one) for one in people or () if one.get("state") == "ACTIVE")
            coming = [whose(one).user_id for one in people or () if _coming(one)]
        except errors.ProviderError as error:
            return doubt_of(error)
        except ValueError:
            return CannotVerify(VerifyFailure.UNREADABLE, "a participant cannot be read")
        if room is None or not (present or coming):
            return CannotVerify(VerifyFailure.EMPTY, "nobody is in the room", life=life)
        if not present:
            return CannotVerify(VerifyFailure.PARTIAL, "a participant is still joining")
        return SessionState(session_id, present, text(room, "sid"), tuple(coming), life)

    async def fetch_metrics(self, session_id: str) -> Metrics | CannotVerify:
        """Not offered by the server API."""
        return CannotVerify(
            VerifyFailure.UNSUPPORTED, "LiveKit does not report the quality of a call"
        )

    async def kick(self, session_id: str, user_id: str) -> bool:
        """`RemoveParticipant`, for each device of the user."""
        removed = [
            await self._api.remove(session_id, text(one, "identity"))
            for one in await self._devices(session_id, user_id)
        ]
        return any(removed)

    async def mute(self, session_id: str, user_id: str) -> bool:
        """`MutePublishedTrack`, for each unmuted microphone."""
        devices = await self._devices(session_id, user_id)
        for one in devices:
            for track in _microphones(one):
                if not track.get("muted"):
                    await self._api.mute(session_id, text(one, "identity"), text(track, "sid"))
        return bool(devices)

    async def set_permissions(
        self, session_id: str, user_id: str, permissions: Permissions
    ) -> bool:
        """`UpdateParticipant`, for each device; tracks that are no longer allowed end."""
        changed = [
            await self._api.update(session_id, text(one, "identity"), _permission(permissions))
            for one in await self._devices(session_id, user_id)
        ]
        return any(changed)

    async def start_recording(self, session_id: str) -> Recording:
        """The active recording, or `StartRoomCompositeEgress`, which is not idempotent."""
        for running in await self._api.egress(session_id):
            return Recording(text(running, "egress_id"), str(running.get("status", "")))
        return Recording(await self._api.start_egress(session_id, self._recordings))

    async def stop_recording(self, session_id: str) -> bool:
        """`StopEgress`, for each active recording."""
        running = await self._api.egress(session_id)
        for one in running:
            await self._api.stop_egress(text(one, "egress_id"))
        return bool(running)

    async def register_webhook(self, url: str) -> WebhookRegistration:
        """Not offered: `webhook.urls` is in LiveKit's configuration."""
        raise errors.Unsupported("LiveKit's webhooks are set in its own configuration")

    async def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Verified | WebhookRefused:
        """A JWT with the digest of the body, signed with any of our keys."""
        return livekit_signatures.verify(headers, body, now, self._secrets, self._tolerance)

    def parse_webhook(self, body: bytes) -> list[Event] | UnreadableWebhook:
        """LiveKit's events."""
        return livekit_webhooks.parse_webhook(body)

    async def _devices(self, session_id: str, user_id: str) -> list[Object]:
        """The participants of this user, one for each device."""
        try:
            people = await self._api.people(session_id) or []
            return [one for one in people if whose(one).user_id == user_id]
        except ValueError:
            raise errors.ProviderUnavailable("a participant cannot be read") from None

    async def _room_and_life(self, session_id: str) -> tuple[Object | None, str]:
        """A room, or None, and the run of the server that answered."""
        rooms = {text(room, "name"): room for room in await self._api.rooms(session_id, ANCHOR)}
        anchor = rooms.get(ANCHOR)
        if anchor is None:
            times = {"empty_timeout": ANCHOR_SECONDS, "departure_timeout": ANCHOR_SECONDS}
            anchor = await self._api.create_room(ANCHOR, times, poll=True)
        return rooms.get(session_id), text(anchor, "sid")

    async def _blind(self) -> bool:
        """Whether lists are useless here; tested from time to time.

        For a room that does not exist, a LiveKit that asks its nodes finds none. One that answers
        from its store lists the room as empty; such lists are usable only if no other node shares
        the store.
        """
        async with self._probing:
            now = self._clock()
            if not self._probed_at <= now < self._probed_at + PROBE_S:
                nowhere = f"{ANCHOR}-{uuid.uuid4().hex}"
                stored = await self._api.people(nowhere, poll=True) is not None
                self._worthless = WORTHLESS if stored and await self._api.has_redis() else ""
                self._probed_at = now
                if self._worthless:
                    log.warning("voice_lists_worthless", reason=self._worthless)
        return bool(self._worthless)


WORTHLESS = (
    "LiveKit has a Redis and lists participants from it, including those of dead nodes:"
    " set api.enable_psrpc_for_get_list_participants"
)


def _rights(permissions: Permissions) -> Object:
    """The grant of a token, without recording, because that right covers all rooms."""
    sources = _sources(permissions)
    return {
        "canPublish": bool(sources),
        "canPublishSources": sources,
        "canSubscribe": True,
        "canPublishData": permissions.can_speak,
        "canUpdateOwnMetadata": False,
    }


def _permission(permissions: Permissions) -> Object:
    """The same for a connected participant. An omitted field would be false."""
    sources = _sources(permissions)
    return {
        "can_publish": bool(sources),
        "can_publish_sources": [source.upper() for source in sources],
        "can_subscribe": True,
        "can_publish_data": permissions.can_speak,
        "can_update_metadata": False,
        "hidden": False,
    }


def _sources(permissions: Permissions) -> list[str]:
    may = (permissions.can_speak, permissions.can_use_video, *[permissions.can_stream] * 2)
    return [source for source, allowed in zip(SOURCES, may, strict=True) if allowed]


def _coming(one: Object) -> bool:
    """Whether a participant is connected without media yet: neither present nor absent."""
    return one.get("state") in ("JOINING", "JOINED")


def _microphones(one: Object) -> list[dict[str, Any]]:
    return [track for track in entries(one, "tracks") if track.get("source") == "MICROPHONE"]


def _present(one: Object) -> Present:
    person, tracks = whose(one), _microphones(one)
    return Present(
        person.user_id,
        text(one, "sid"),
        milliseconds(one.get("joined_at_ms")),
        person.device_id,
        all(track.get("muted") is True for track in tracks) if tracks else None,
        telephone(one),
    )
