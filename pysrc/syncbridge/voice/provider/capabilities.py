"""Capabilities of a voice provider as data, so that no rule depends on its name.

The defaults assume the least: lists prove nothing, and no optional feature is offered.
"""

from enum import StrEnum

import msgspec


class EmptyList(StrEnum):
    """The meaning of an empty participant list. NEGATIVE: one negative for each participant.

    It is never proof: the second negative must come `EMPTY_APART_S` later.
    """

    NOTHING = "nothing"
    NEGATIVE = "negative"


EMPTY_APART_S = 20.0
"""Minimum distance of two empty lists that count as two negatives."""


class RegisteredBy(StrEnum):
    """How the provider learns the webhook URL.

    API: by `register_webhook`. SESSION: in each request for a session. CONFIGURATION: from its
    operator.
    """

    API = "api"
    SESSION = "session"
    CONFIGURATION = "configuration"


class ConnectionIdentity(StrEnum):
    """What a connection's name at the provider identifies."""

    USER = "user"
    DEVICE = "user and device"


class RecordingKind(StrEnum):
    """The media of a recording."""

    AUDIO = "audio"


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """One provider.

    Attributes:
        empty_list: see `EmptyList`.
        second_look_s: minimum distance of two polls that count as two negatives; the provider must
            not have restarted between them (`life` of the answers).
        left_record: answers record ended connections (`GoneConnection`), which is proof.
        identity: of a connection; with `DEVICE`, a device's second connection ends its first.
        leave_reason: webhooks have `ParticipantLeft.reason`.
        connection_ids: lists name connections, not only users.
        token_local: tokens are made without a request to the provider.
        token_revocable: a removed user cannot come back with a valid token.
        end_is_final: an ended call stays closed for holders of tokens.
        permissions_live: `set_permissions` works during a call.
        server_mute: `mute` works.
        mute_seen: answers have `Present.muted`.
        features: what can be switched for a call, by the names in `Feature`.
        speaking_seen: webhooks report speaking.
        metrics: `fetch_metrics` has values during a call.
        recording_kinds: what can be recorded. recording_stop: a recording can be stopped.
        webhooks_registered_by: see `RegisteredBy`.
    """

    empty_list: EmptyList = EmptyList.NOTHING
    second_look_s: float = 0.0
    left_record: bool = False
    identity: ConnectionIdentity = ConnectionIdentity.USER
    leave_reason: bool = False
    connection_ids: bool = False
    token_local: bool = False
    token_revocable: bool = False
    end_is_final: bool = False
    permissions_live: bool = False
    server_mute: bool = False
    mute_seen: bool = False
    features: tuple[str, ...] = ()
    speaking_seen: bool = False
    metrics: bool = False
    recording_kinds: tuple[RecordingKind, ...] = ()
    recording_stop: bool = False
    webhooks_registered_by: RegisteredBy = RegisteredBy.CONFIGURATION
