"""What `session.events()` and `session.changes()` deliver, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from syncbridge_client.conflicts import Resolution
from syncbridge_client.errors import StorageError, UpdateRefused
from syncbridge_client.operations import Edit

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Device:
    """One device of the session. `connected_at`: Unix seconds.

    `me`: what it says of itself while it is there: a cursor, a position. `in_call`: the channel of
    `waddle_id` whose call it holds; empty: none.
    """

    device_id: str
    device_type: str = ""
    device_name: str = ""
    os_version: str = ""
    status: str = "online"
    connected_at: int = 0
    me: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False)
    in_call: str = ""
    waddle_id: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What has changed in `session.state` since the iterator's last answer.

    Attributes:
        changed: key -> newest value. deleted: keys that are gone.
        own: those of the keys whose newest change was made through this session object.
        version: of the session, when this was put together.
        reset: the iterator fell too far behind: `changed` is the whole state, drop everything else.
    """

    changed: Mapping[str, Any]
    deleted: frozenset[str]
    own: frozenset[str]
    version: int
    reset: bool = False


class Event:
    """Base of everything that `session.events()` delivers."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """The session is online. `resumed`: only what had changed meanwhile was sent."""

    version: int
    resumed: bool


@dataclass(frozen=True, slots=True)
class Disconnected(Event):
    """The connection is gone; the next attempt comes in `retry_in` seconds.

    `code`: close code, 1006 when there was none, 0 when no connection was made.
    """

    code: int
    reason: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """The session has ended and does not reconnect."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceJoined(Event):
    """Another device has connected."""

    device: Device


@dataclass(frozen=True, slots=True)
class DeviceLeft(Event):
    """Another device is offline."""

    device_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceSaid(Event):
    """Devices say something else of themselves: see `me` in `session.devices`."""

    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """The server will close the connection and asks to come back after `retry_after` seconds."""

    retry_after: float


@dataclass(frozen=True, slots=True)
class TokenExpiring(Event):
    """The token is about to expire; without a callable `token`, call `session.authenticate`."""

    expires_at: int


@dataclass(frozen=True, slots=True)
class TokenRenewed(Event):
    """The server has accepted a new token on the open connection."""

    expires_at: int


@dataclass(frozen=True, slots=True)
class TokenFailed(Event):
    """No new token could be had, or the server did not accept it. The text names no secret."""

    detail: str


@dataclass(frozen=True, slots=True)
class ServerError(Event):
    """An ERROR that answers none of our updates."""

    code: str
    message: str
    retryable: bool
    retry_after: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """An update was refused for good; its optimistic effect is taken back."""

    update_id: str
    keys: tuple[str, ...]
    error: UpdateRefused


@dataclass(frozen=True, slots=True)
class Conflict(Event):
    """Somebody else changed keys of an update of ours; how each was settled."""

    update_id: str
    resolutions: tuple[Resolution, ...]


@dataclass(frozen=True, slots=True)
class Reset(Event):
    """The server's state is not the continuation of what this device had.

    `reason`: rolled_back, epoch or resync. `version`: of the state that is now the truth.
    """

    reason: str
    version: int


@dataclass(frozen=True, slots=True)
class LostUpdate:
    """An update that was acknowledged, and that the server does not have any more.

    `operation`: empty for plain changes. `edits`: what `session.resend` makes again.
    """

    update_id: str
    changes: Mapping[str, Any]
    deleted: tuple[str, ...]
    operation: str
    edits: Mapping[str, Edit] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Lost(Event):
    """The server's store came back older: so many acknowledged updates of this device are gone.

    `updates`: those of them that are still known, oldest first; `session.resend` makes them again.
    """

    count: int
    updates: tuple[LostUpdate, ...]


@dataclass(frozen=True, slots=True)
class StorageFailed(Event):
    """What comes from here on is kept in memory only."""

    error: StorageError


@dataclass(frozen=True, slots=True)
class VoiceEvent(Event):
    """Something about a voice call: `type` and `data` as on the wire, see docs/protocol.md."""

    type: str
    channel_id: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VoiceLost(Event):
    """A call that was joined here goes on without this device, or not at all.

    `reason`: why it ended; handoff, replaced or left when another device has it; migration when
    this one did not come over; verified when the provider does not show the user; or an error code.
    """

    channel_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Any other message: BROADCAST, ADMIN_UPDATE. `type` as on the wire."""

    type: int | str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventsLost(Event):
    """The iterator was too slow; so many events before the next one were dropped."""

    count: int
