"""The kinds of events, and what each says. docs/events.schema.json is made from these types.

A kind's number grows when a member changes its meaning or goes away; new members do not change it.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class SessionCreated(msgspec.Struct):
    """A session has its first version."""

    version: int
    epoch: str
    lineage: str
    device_id: str
    app_version: str = ""


class SessionUpdated(msgspec.Struct):
    """The state of a session has changed; at most one event a session and second.

    `keys` changed after `from_version`, up to `to_version`. `keys_complete` false: some changed
    that are not named here. `values` are those of `to_version`, null for a deleted key; they are
    left out unless the reader asks for them, and where they are too much.
    """

    from_version: int
    to_version: int
    epoch: str
    lineage: str
    device_id: str
    keys: list[str]
    keys_complete: bool = True
    values: dict[str, Raw] | UnsetType = UNSET


class SessionExpired(msgspec.Struct):
    """A session was not used for its whole life, and is gone."""


class SessionRolledBack(msgspec.Struct):
    """Redis came back older: the session goes on from this place. `reason`: rolled_back, epoch."""

    version: int
    epoch: str
    lineage: str
    reason: str


class DeviceJoined(msgspec.Struct):
    """A device is online. `user_id`: whose token it has. `replaced`: it had another connection."""

    device_id: str
    user_id: str
    devices_online: int
    replaced: bool = False


class DeviceLeft(msgspec.Struct):
    """A device is offline. `reason`: closed, timeout, disconnected, handoff, removed."""

    device_id: str
    reason: str
    devices_online: int


class HandoffCreated(msgspec.Struct):
    """A token was made with which another device may take the session over."""

    source_device: str
    target_device: str
    expires_at: Time


class HandoffRedeemed(msgspec.Struct):
    """The other device has taken the session over, at this version."""

    source_device: str
    target_device: str
    version: int


class CallStarted(msgspec.Struct):
    """The first participant is in the call of a voice channel."""

    provider_session_id: str
    generation: int


class CallEnded(msgspec.Struct):
    """The call of a voice channel is over."""

    provider_session_id: str
    reason: str


class CallMigrating(msgspec.Struct):
    """The participants of a call are asked to come over to another session of the provider."""

    old_provider_session_id: str
    new_provider_session_id: str
    cause: str
    deadline_ms: int


class ParticipantJoined(msgspec.Struct):
    """A user is in the call."""

    user_id: str


class ParticipantLeft(msgspec.Struct):
    """A user is not in the call any more. `reason`: left, verified, expired, migration, ended."""

    user_id: str
    reason: str


class RecordingReady(msgspec.Struct):
    """A recording can be fetched: `GET /voice/channels/{id}/recordings` has its address."""

    recording_id: str
    duration: float | None = None


class RecordingFailed(msgspec.Struct):
    """There will be no recording. An empty id: it was not even begun."""

    recording_id: str


class TextReady(msgspec.Struct):
    """What was said in a call can be read: `GET /voice/channels/{id}/recordings`."""

    recording_id: str


class CallSessionCreated(msgspec.Struct):
    """A call session was made. `type`: SIP or WebRTC."""

    call_id: str
    type: str
    by: str


class CallSessionChanged(msgspec.Struct):
    """A call session has another state; `cause` says why it ended, where that is known."""

    call_id: str
    state: str
    previous: str
    by: str
    cause: str = ""


class CallSessionDeleted(msgspec.Struct):
    """A call session was deleted."""

    call_id: str
    by: str


class TokensRevoked(msgspec.Struct):
    """Tokens were taken back: those of a user or device, one by its id, or one login's."""

    kind: str
    value: str
    user_id: str


class DeadLetterKept(msgspec.Struct):
    """Something could not be taken in: `GET /admin/voice/dead-letters` has it."""

    kind: str
    record: str
    reason: str


class EventsLost(msgspec.Struct):
    """Events were dropped, because a bound was reached before they were carried or read.

    `outbox`: of which part of the sessions; empty: of all. `after` is the event before them, empty
    where that is not known.
    """

    count: int
    outbox: str
    after: str
    since: Time
    until: Time


class EndpointDisabled(msgspec.Struct):
    """An endpoint is not tried any more, because everything has failed there for too long."""

    endpoint_id: str
    url: str
    reason: str


class EndpointTest(msgspec.Struct):
    """Somebody tries an endpoint. It goes to that one only, and is not in the log."""

    endpoint_id: str


KINDS: dict[str, tuple[int, type[msgspec.Struct]]] = {
    "session.created": (1, SessionCreated),
    "session.updated": (1, SessionUpdated),
    "session.expired": (1, SessionExpired),
    "session.rolled_back": (1, SessionRolledBack),
    "device.joined": (1, DeviceJoined),
    "device.left": (1, DeviceLeft),
    "handoff.created": (1, HandoffCreated),
    "handoff.redeemed": (1, HandoffRedeemed),
    "call.started": (1, CallStarted),
    "call.ended": (1, CallEnded),
    "call.migrating": (1, CallMigrating),
    "participant.joined": (1, ParticipantJoined),
    "participant.left": (1, ParticipantLeft),
    "recording.ready": (1, RecordingReady),
    "recording.failed": (1, RecordingFailed),
    "transcript.ready": (1, TextReady),
    "summary.ready": (1, TextReady),
    "call_session.created": (1, CallSessionCreated),
    "call_session.changed": (1, CallSessionChanged),
    "call_session.deleted": (1, CallSessionDeleted),
    "tokens.revoked": (1, TokensRevoked),
    "dead_letter.kept": (1, DeadLetterKept),
    "events.lost": (1, EventsLost),
    "endpoint.disabled": (1, EndpointDisabled),
    "endpoint.test": (1, EndpointTest),
}
"""Name of a kind -> its number, and the type of its data."""


class Event(msgspec.Struct, omit_defaults=True):
    """An event as it is read, stored and pushed.

    Attributes:
        id: the same however often it is told.
        type: one of `KINDS`. type_version: the kind's number.
        timestamp: when it happened, RFC 3339 in UTC.
        session_id, user_id, channel_id: what it is about; empty where it is about none.
            `user_id` is the owner of the session, or who is in the call.
        waddle_id: the channel's waddle.
        data: what the kind says.
    """

    id: str
    type: str
    type_version: int
    timestamp: str
    data: Raw
    session_id: str = ""
    user_id: str = ""
    channel_id: str = ""
    waddle_id: str = ""
