"""The state of the simulated provider in memory: rooms, participants and webhook registrations.

Both dialects use the same rooms. A room is a session of the specification or a meeting of
RealTimeKit; an occupancy begins with its first peer and ends with its last one. All collections are
bounded: the oldest ended room is dropped for a new one, and without an ended room, a new one is
refused.
"""

import uuid
from dataclasses import dataclass, field
from typing import Any

MAX_ROOMS = 1000
MAX_PEERS = 1000
MAX_HOOKS = 16
MAX_PAST = 8


class WorldError(Exception):
    """An error with the HTTP status, the specification's code, and a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Peer:
    """One connection of a user. Times in Unix seconds."""

    user_id: str
    joined_at: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    left_at: float | None = None


@dataclass(frozen=True)
class Past:
    """An ended occupancy."""

    id: str
    peers: list[Peer]
    ended_at: float


@dataclass
class SimRoom:
    """A room. `occupancy`: empty without participants. `past`: the latest ended occupancies.

    `features`, `metadata` and `tokens` (the latest by user) are the requested ones.
    """

    id: str
    title: str
    created_at: float
    max_participants: int = 100
    ended: bool = False
    occupancy: str = ""
    peers: list[Peer] = field(default_factory=list)
    past: list[Past] = field(default_factory=list)
    enrolled: dict[str, tuple[str, str]] = field(default_factory=dict)
    hooks: dict[str, str] = field(default_factory=dict)
    recording: str = ""
    recordings: int = 0
    storage: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def present(self) -> list[Peer]:
        """The peers of this occupancy that have not left."""
        return [peer for peer in self.peers if peer.left_at is None]


@dataclass(frozen=True)
class Hook:
    """A registration: `dialect` is `spec` or `cloudflare`, whose registrations name `events`."""

    id: str
    url: str
    dialect: str
    events: tuple[str, ...] = ()
    enabled: bool = True


@dataclass(frozen=True)
class Preset:
    """Permissions under a name."""

    id: str
    permissions: dict[str, Any]


@dataclass(frozen=True)
class Happening:
    """An event for webhooks."""

    kind: str
    room: SimRoom
    occupancy: str
    at: float
    peer: Peer | None = None
    recording: str = ""
    speaking: bool = False
    failed: bool = False
    text_url: str = ""


class World:
    """All rooms and registrations."""

    def __init__(self) -> None:
        self.rooms: dict[str, SimRoom] = {}
        self.hooks: dict[str, Hook] = {}
        self.presets: dict[str, Preset] = {}
        self.created = 0

    def create(self, room_id: str, title: str, now: float, max_participants: int) -> SimRoom:
        """Create a room, or return the existing one."""
        if room_id in self.rooms:
            return self.rooms[room_id]
        if len(self.rooms) >= MAX_ROOMS:
            gone = next((r.id for r in self.rooms.values() if r.ended), None)
            if gone is None:
                raise WorldError(503, "SERVICE_UNAVAILABLE", "no place for another session")
            del self.rooms[gone]
        self.created += 1
        room = self.rooms[room_id] = SimRoom(room_id, title, now, max_participants)
        return room

    def find(self, room_id: str) -> SimRoom:
        """A room that has not ended."""
        room = self.rooms.get(room_id)
        if room is None or room.ended:
            raise WorldError(404, "SESSION_NOT_FOUND", "no such session")
        return room

    def occupied(self) -> list[SimRoom]:
        """The rooms with participants."""
        return [room for room in self.rooms.values() if room.occupancy]

    def enrol(self, room: SimRoom, user_id: str, preset: str = "") -> str:
        """Enrol a user, who may then join; returns the participant id. An enrolment uses a seat."""
        if user_id not in room.enrolled and len(room.enrolled) >= room.max_participants:
            raise WorldError(409, "session_full", "the session is full")
        known, _ = room.enrolled.get(user_id, (str(uuid.uuid4()), ""))
        room.enrolled[user_id] = (known, preset)
        return known

    def join(self, room: SimRoom, user_id: str, now: float) -> list[Happening]:
        """A user connects."""
        if len(room.present) >= room.max_participants or len(room.peers) >= MAX_PEERS:
            raise WorldError(409, "session_full", "the session is full")
        happened = []
        if not room.occupancy:
            room.occupancy, room.peers = str(uuid.uuid4()), []
            happened.append(Happening("started", room, room.occupancy, now))
        peer = Peer(user_id, now)
        room.peers.append(peer)
        return [*happened, Happening("joined", room, room.occupancy, now, peer)]

    def leave(self, room: SimRoom, user_id: str, now: float) -> list[Happening]:
        """End all connections of a user, and the occupancy with the room's last one."""
        happened = []
        for peer in room.present:
            if peer.user_id == user_id:
                peer.left_at = now
                happened.append(Happening("left", room, room.occupancy, now, peer))
        return [*happened, *self._vacate(room, now)] if happened else []

    def part(self, room: SimRoom, peer: Peer, now: float) -> list[Happening]:
        """End one connection; no event for an ended one."""
        if peer.left_at is not None:
            return []
        peer.left_at = now
        return [Happening("left", room, room.occupancy, now, peer), *self._vacate(room, now)]

    def speak(self, room: SimRoom, user_id: str, now: float, speaking: bool) -> list[Happening]:
        """A user starts or stops speaking; no event for an absent user."""
        peer = next((peer for peer in room.present if peer.user_id == user_id), None)
        if peer is None:
            return []
        return [Happening("speaking", room, room.occupancy, now, peer, speaking=speaking)]

    def clear(self, room: SimRoom, now: float) -> list[Happening]:
        """Remove everybody, without leave events, as the real provider does."""
        for peer in room.present:
            peer.left_at = now
        return self._vacate(room, now)

    def end(self, room: SimRoom, now: float) -> list[Happening]:
        """Close the room permanently."""
        room.ended = True
        return self.clear(room, now) or [Happening("ended", room, room.occupancy, now)]

    def record(self, room: SimRoom) -> str:
        """Start to record; one recording at a time."""
        if not room.recording:
            room.recordings += 1
            room.recording = str(uuid.uuid4())
        return room.recording

    def stop_recording(self, room: SimRoom, now: float, *, failed: bool = False) -> list[Happening]:
        """Stop the recording. The specification's dialect has no event for `failed`."""
        recording, room.recording = room.recording, ""
        if not recording:
            return []
        return [
            Happening("recording", room, room.occupancy, now, recording=recording, failed=failed)
        ]

    def register(
        self, url: str, dialect: str, events: tuple[str, ...] = (), enabled: bool = True
    ) -> Hook:
        """Register a URL; the same URL again returns the same registration."""
        for hook in self.hooks.values():
            if (hook.url, hook.dialect) == (url, dialect):
                return hook
        if len(self.hooks) >= MAX_HOOKS:
            raise WorldError(409, "invalid_request", "too many registrations")
        hook = Hook(str(uuid.uuid4()), url, dialect, events, enabled)
        self.hooks[hook.id] = hook
        return hook

    def truth(self) -> dict[str, Any]:
        """The complete state, for tests."""
        rooms = {
            room.id: {
                "title": room.title,
                "ended": room.ended,
                "occupancy": room.occupancy,
                "participants": [peer.user_id for peer in room.present],
                "enrolled": sorted(room.enrolled),
                "recording": room.recording,
                "storage": room.storage,
                "max_participants": room.max_participants,
                "features": room.features,
                "metadata": room.metadata,
                "tokens": room.tokens,
            }
            for room in self.rooms.values()
        }
        hooks = [
            {"url": hook.url, "dialect": hook.dialect, "enabled": hook.enabled}
            for hook in self.hooks.values()
        ]
        presets = {name: preset.permissions for name, preset in self.presets.items()}
        return {"created": self.created, "rooms": rooms, "webhooks": hooks, "presets": presets}

    def _vacate(self, room: SimRoom, now: float) -> list[Happening]:
        if room.present or not room.occupancy:
            return []
        happened = [
            *self.stop_recording(room, now),
            Happening("ended", room, room.occupancy, now),
        ]
        room.past = [*room.past, Past(room.occupancy, room.peers, now)][-MAX_PAST:]
        room.occupancy = ""
        return happened
