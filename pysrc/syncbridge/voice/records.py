"""The stored data of a voice channel.

A channel outlives its rooms. A *room* is one session at the provider. A channel has one room at a
time, or two during a migration, and each room has a generation. Times are Unix ms.
"""

import msgspec

from syncbridge.voice.call_records import Record as CallRecord
from syncbridge.voice.naming import id_of_key
from syncbridge.voice.provider.records import Permissions


class ChannelConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The configuration of a channel's rooms. `features`: by the names in `features.Feature`."""

    max_participants: int = 100
    recording: bool = False
    transcription: bool = False
    features: dict[str, bool] = {}


class Room(msgspec.Struct, frozen=True, omit_defaults=True):
    """One session at the provider.

    Attributes:
        key: our idempotency key, the same for each attempt to open this room.
        session_id: the provider's id; empty until the room is known to be open.
        reason: why it replaced the previous room; empty for the first.
    """

    generation: int
    key: str
    asked_at: int
    session_id: str = ""
    opened_at: int = 0
    reason: str = ""


class Arrival(msgspec.Struct, frozen=True, omit_defaults=True):
    """A move to another device that was completed only by the provider's evidence.

    Attributes:
        connection_id: the new connection that was attributed to the new device.
        device_id, sid: the device that held the call before. until: deadline of the move.
    """

    connection_id: str
    device_id: str
    sid: str = ""
    until: int = 0


class Participant(msgspec.Struct, omit_defaults=True):
    """The data about a user besides the connections.

    Attributes:
        permissions: those of the latest token; without a token, to listen.
        seat_until: expiry of the seat that a token reserved.
        device_id: the device that holds the call, in session `sid`; empty if unknown.
        guessed: `device_id` is the device that got the token, and it has not reported yet.
        moving_to: the device that is taking over the call.
        logins: token id and login with which the latest voice token was requested.
        lost_at: during a move, the time at which a connection went without a replacement.
        arrival: how the move was completed, until one of the two devices reports.
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
        participants: users in the call when they were asked to rejoin.
        migrated: users who came over. stranded: users who did not.
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
        channel_id: the channel's key (`naming`); `public_id` is what clients know.
        room: the room for which tokens are issued; it has a session id by then.
        coming: the room that a migration is opening, until `coming_until` at the latest; after a
            failure, no migration begins by itself before that time.
        previous: the room that a migration leaves, while participants come over.
        retired: rooms that must be ended at the provider.
        retry_at: earliest time of the next work at the provider, after a failure.
        failures: number of consecutive failures.
        pooled_until: the call has ended, and its room is kept for the next call until then.
        waddle_id: the channel's waddle; it does not change. Empty: it was only configured.
        warm_from: start of a prewarmed event, from which the room is open.
        warm_until: end of the time for which a prewarmed room is kept.
        warm_config: configuration of the prewarmed room.
        texts: ids of transcripts and summaries to fetch from the provider.
        texts_at: time of the next attempt to fetch them.
        standing: the channel's configuration of rooms; None: the default.
        uses: start times of the latest calls, for pooling. migrations: number of migrations.
        lost: number of polls in a row in which the provider did not know the room.
        vacated: the latest occupancies that have ended.
        move: the latest migration, of this call or the previous one.
        removed: removed users, and until when (ms) their tokens may still be valid.
        unwelcome: users who must be removed at the provider, such as removed ones who came back.
        ignored: users with ignored evidence, and when that was noted.
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

    @property
    def public_id(self) -> str:
        """The channel's id within its waddle."""
        return id_of_key(self.channel_id)


class Final(msgspec.Struct, frozen=True, omit_defaults=True):
    """The stored figures of an ended call."""

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
