"""What is stored about a voice channel: the shapes, and what of them others are shown.

A channel outlives its rooms. A *room* is one session at the provider; a channel has one at a time,
two while it migrates, and each has a generation. Times are Unix ms.
"""

from typing import Any

import msgspec

from syncbridge.voice.call_records import Record as CallRecord
from syncbridge.voice.provider.records import Permissions


class ChannelConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """How rooms of a channel are opened. `features`: further ones, as `features.Feature` names."""

    max_participants: int = 100
    recording: bool = False
    transcription: bool = False
    features: dict[str, bool] = {}


class Room(msgspec.Struct, frozen=True, omit_defaults=True):
    """One session at the provider.

    Attributes:
        key: our idempotency key; the same for every attempt to open this room.
        session_id: the provider's id; empty until the provider is known to have opened it.
        reason: why it took the place of the one before; empty for the first.
    """

    generation: int
    key: str
    asked_at: int
    session_id: str = ""
    opened_at: int = 0
    reason: str = ""


class Arrival(msgspec.Struct, frozen=True, omit_defaults=True):
    """A move to another device that the provider's word alone completed.

    Attributes:
        connection_id: the one that came, and was taken for the other device's.
        device_id, sid: the device that held the call before. until: how long the other one had.
    """

    connection_id: str
    device_id: str
    sid: str = ""
    until: int = 0


class Participant(msgspec.Struct, omit_defaults=True):
    """What is known of a user beside the connections.

    Attributes:
        permissions: those of the latest token; of who is known by the provider's word, to listen.
        seat_until: a token was issued; until then the seat is kept.
        device_id: the device that holds the call, in session `sid`; empty when not told.
        guessed: it is the one that got the token, and has not said yet that it holds the call.
        moving_to: the device that takes the call over, until it is in the media.
        logins: token id and login of the token with which the latest voice token was got.
        lost_at: meanwhile a connection has gone for which none has come yet.
        arrival: how it was completed, until one of the two devices reports.
    """

    permissions: Permissions = Permissions(can_speak=False)
    token_at: int = 0
    seat_until: int = 0
    device_id: str = ""
    sid: str = ""
    guessed: bool = False
    moving_to: str = ""
    moving_sid: str = ""
    moving_until: int = 0
    logins: tuple[str, ...] = ()
    lost_at: int = 0
    arrival: Arrival | None = None
    muted: bool = False
    video: bool = False


class Move(msgspec.Struct, frozen=True, omit_defaults=True):
    """The latest migration of a call.

    Attributes:
        result: opening, moving; then moved, stranded (nobody came), failed (no room), or ended.
        participants: users in the call when they were asked to come over.
        migrated: users who had come over at the end. stranded: users who had not.
    """

    reason: str
    began_at: int
    result: str = "opening"
    participants: int = 0
    migrated: int = 0
    stranded: int = 0
    ended_at: int = 0


class ChannelRecord(msgspec.Struct, omit_defaults=True):
    """A channel as it is stored.

    Attributes:
        room: where people are let in. It has a session id before anybody is.
        coming: the room that a migration is opening, at the latest until `coming_until`; after
            one that failed, no other one begins by itself before then.
        previous: the room that a migration leaves, while participants come over.
        retired: rooms that are to be ended at the provider, and have not been yet.
        retry_at: the provider failed: what is to be done there waits until then.
        failures: how often in a row it did.
        pooled_until: the call has ended, and its room is kept for the next one until then.
        waddle_id: the one for which it was opened first; it stays.
        warm_from: a scheduled event: the room is to be open from then on.
        warm_until: a room that was opened ahead is kept until then.
        warm_config: how the room of that event is to be opened.
        texts: transcripts and summaries that are to be fetched from the provider, by id.
        texts_at: when that is tried again.
        standing: how rooms are opened about which nobody says anything; None: as by default.
        uses: when the latest calls began, for pooling. migrations: how many there were.
        lost: how many polls in a row the provider did not know the room.
        vacated: the latest occupancies of rooms that are known to be over.
        move: the latest migration of the call, or of the one before.
        removed: users who were sent away, and until when (ms) their tokens may open the room.
        unwelcome: those of them who came back all the same, and are to be sent away again.
        ignored: users of whom something was said that does not count, and when that was noted.
    """

    channel_id: str
    waddle_id: str = ""
    config: ChannelConfig = ChannelConfig()
    generation: int = 0
    room: Room | None = None
    coming: Room | None = None
    coming_until: int = 0
    previous: Room | None = None
    retired: list[Room] = []
    call: CallRecord | None = None
    participants: dict[str, Participant] = msgspec.field(default_factory=dict, name="guests")
    created_at: int = 0
    last_activity: int = 0
    last_sync_at: int = 0
    last_error: str = ""
    recording: str = ""
    retry_at: int = 0
    failures: int = 0
    pooled_until: int = 0
    warm_from: int = 0
    warm_until: int = 0
    warm_config: ChannelConfig | None = None
    standing: ChannelConfig | None = None
    texts: list[str] = []
    texts_at: int = 0
    texts_failed: int = 0
    uses: list[int] = []
    migrations: int = 0
    lost: int = 0
    move: Move | None = None
    vacated: list[str] = []
    removed: dict[str, int] = {}
    unwelcome: list[str] = []
    ignored: dict[str, int] = {}


class Final(msgspec.Struct, frozen=True, omit_defaults=True):
    """Figures of a call that has ended, as they are kept."""

    channel_id: str
    waddle_id: str
    session_id: str
    generation: int
    created_at: int
    ended_at: int
    reason: str
    peak_participants: int = 0
    total_participant_ms: int = 0
    migrations: int = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ChannelRecord)


def encode_record(record: ChannelRecord) -> bytes:
    """A channel as bytes. O(size)."""
    return _encoder.encode(record)


def decode_record(stored: bytes) -> ChannelRecord:
    """The channel that was stored. Raises msgspec.DecodeError for anything else."""
    return _decoder.decode(stored)


def public_room(room: Room | None) -> dict[str, Any]:
    """A room as clients see it; empty when there is none."""
    if room is None or not room.session_id:
        return {}
    return {"sessionId": room.session_id, "generation": room.generation}
