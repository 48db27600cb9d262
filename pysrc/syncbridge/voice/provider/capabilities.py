"""What a voice provider can do, and what its answers mean: data, so that no rule asks for its name.

The defaults are those of a provider of which nothing is known: its lists prove nothing, and it does
not offer what is optional.
"""

from enum import StrEnum

import msgspec


class EmptyList(StrEnum):
    """What it means that nobody is listed in a call. NEGATIVE: one word against everybody in it.

    Never proof: the second word must come `EMPTY_APART_S` later.
    """

    NOTHING = "nothing"
    NEGATIVE = "negative"


EMPTY_APART_S = 20.0
"""Two empty lists are two negatives only if the second began so much later."""


class RegisteredBy(StrEnum):
    """Who tells the provider where its webhooks go.

    API: `register_webhook`. SESSION: each call that is opened. CONFIGURATION: its operator.
    """

    API = "api"
    SESSION = "session"
    CONFIGURATION = "configuration"


class ConnectionIdentity(StrEnum):
    """Whose connections the provider tells apart by their names."""

    USER = "user"
    DEVICE = "user and device"


class RecordingKind(StrEnum):
    """What a recording has."""

    AUDIO = "audio"


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """One provider.

    Attributes:
        empty_list: see `EmptyList`.
        second_look_s: two looks are two negatives only if the second began so much later, and the
            provider has not restarted between them (`life` of the answers).
        left_record: answers record which connections are over (`Gone`), which is proof.
        identity: of a connection. With `DEVICE` a second one of the same device replaces the first.
        leave_reason: whether `ParticipantLeft.reason` is told.
        connection_ids: whether lists name connections, and not users alone.
        token_local: tokens are made without asking the provider.
        token_revocable: whether who was removed can be kept out although the token is still good.
        end_is_final: an ended call stays closed for who still has a token.
        permissions_live: `set_permissions` works in the middle of a call.
        server_mute: `mute` works.
        mute_seen: `Present.muted` is told.
        features: what can be switched on and off for a call, by the names in `Feature`.
        speaking_seen: webhooks say who speaks.
        metrics: `fetch_metrics` has figures while a call is under way.
        recording_kinds: what can be recorded. recording_stop: before the call ends.
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
