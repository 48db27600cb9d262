"""Voice calls as this device knows them, and what it says of itself, without a socket.

Theory of operation. The server tells whole calls (`voice_state`, the welcome) and changes of them;
here they become `calls`. What the program has joined is reported again and again, so that the
server knows that the media is alive: at once on a new connection, then at the interval that the
server names. While the program says that the user speaks, that is repeated too, more often than the
server takes silence for the end. The device that has lost a call to another one reports no more;
nor does one whose user is told to be out of it for a reason that no report changes, or who is not
shown in two answers in a row to what this device reported: the news may have been missed.

Times are seconds of the caller's clock.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from syncbridge_client import wire
from syncbridge_client.events import Event, VoiceEvent, VoiceLost

KINDS = frozenset(
    {
        "voice_state",
        "voice_state_update",
        "speaking_update",
        "session_migration",
        "session_ended",
        "recording_ready",
        "recording_failed",
        "transcript_ready",
        "summary_ready",
    }
)
"""Types of what the server says about calls."""

SPEAKING_SECONDS = 0.8
REPORT_SECONDS = 30.0
FINAL = frozenset({"migration", "verified"})
"""Reasons for which a user is out of a call whatever its devices report as before."""
UNSHOWN = 2
"""Answers to reports without the user in the call, in a row, after which it is lost."""
MAX_CALLS = 64
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in a call. `joined_at`: Unix ms. `device_id`: known of the own user only."""

    user_id: str
    joined_at: int = 0
    state: str = "connected"
    muted: bool = False
    video: bool = False
    speaking: bool = False
    device_id: str = ""


@dataclass(frozen=True, slots=True)
class VoiceCall:
    """A call of a channel.

    `session_id`: the provider's session; `phase`: `ended` without one. `waddle_id`: the channel's.
    """

    channel_id: str
    session_id: str = ""
    phase: str = "ended"
    participants: Mapping[str, Participant] = field(default_factory=dict)
    waddle_id: str = ""


class _Joined:
    """A call that the program has joined."""

    __slots__ = ("body", "next_at", "speaking", "speaking_at", "unshown")

    def __init__(self, body: Body) -> None:
        self.body = body
        self.next_at = math.inf
        self.speaking = False
        self.speaking_at = math.inf
        self.unshown = 0


class VoiceCalls:
    """Calls by channel. `device_id`: this device; `new_id`: makes correlation ids.

    Of an id, the call of one waddle is kept: the one that was named with it, if any.
    """

    def __init__(self, device_id: str, new_id: Callable[[], str]) -> None:
        self._device_id = device_id
        self._new_id = new_id
        self._user_id = ""
        self._interval = REPORT_SECONDS
        self._calls: dict[str, VoiceCall] = {}
        self._waddles: dict[str, str] = {}
        self._joined: dict[str, _Joined] = {}
        self._reports: dict[str, str] = {}
        self.calls: Mapping[str, VoiceCall] = MappingProxyType(self._calls)

    # The program's side

    def keep(self, body: Body, now: float) -> None:
        """The server has taken a voice_join: from here on it is repeated."""
        channel_id = body["channelId"]
        if channel_id not in self._joined and len(self._joined) >= MAX_CALLS:
            return
        joined = _Joined(body)
        old = self._joined.get(channel_id)
        if old is not None:
            joined.speaking, joined.speaking_at = old.speaking, old.speaking_at
        joined.next_at = now + self._interval
        self._joined[channel_id] = joined

    def choose(self, channel_id: str, waddle_id: str) -> None:
        """The program means the channel of this waddle."""
        self._waddles.pop(channel_id, None)
        self._waddles[channel_id] = waddle_id
        while len(self._waddles) > MAX_CALLS:
            del self._waddles[next(iter(self._waddles))]

    def said(self, channel_id: str) -> Body:
        """What was reported of a call that was joined; empty for any other."""
        joined = self._joined.get(channel_id)
        return joined.body if joined is not None else {}

    def drop(self, channel_id: str) -> None:
        """The program is not in this call any more."""
        self._joined.pop(channel_id, None)

    def speaking(self, channel_id: str, speaking: bool, now: float) -> None:
        """The user begins or ends to speak. It is said with the next `due`."""
        joined = self._joined.get(channel_id)
        if joined is not None:
            joined.speaking, joined.speaking_at = speaking, now

    # The connection's side

    def due(self, now: float) -> Iterable[bytes]:
        """Messages that are to be sent now."""
        for channel_id, joined in self._joined.items():
            if joined.next_at <= now:
                joined.next_at = now + self._interval
                report_id = self._new_id()
                self._reports[report_id] = channel_id
                while len(self._reports) > MAX_CALLS:
                    del self._reports[next(iter(self._reports))]
                yield wire.write("voice_join", joined.body, report_id)
            if joined.speaking_at <= now:
                joined.speaking_at = now + SPEAKING_SECONDS if joined.speaking else math.inf
                body = {"channelId": channel_id, "isSpeaking": joined.speaking}
                if waddle_id := joined.body.get("waddleId"):
                    body["waddleId"] = waddle_id
                yield wire.write("speaking", body)

    def next_due(self) -> float:
        """When `due` has something next."""
        times = [min(joined.next_at, joined.speaking_at) for joined in self._joined.values()]
        return min(times, default=math.inf)

    def connected(self, calls: Iterable[Body] | None, now: float, user_id: str = "") -> None:
        """A new connection of this user; ours are reported at once.

        Args:
            calls: those that the user is in. None: the server does not know them yet; what was
                known goes on until it tells.
        """
        self._reports.clear()
        self._user_id = user_id
        if calls is not None:
            self._calls.clear()
        for body in calls or ():
            self._take(body)
        for joined in self._joined.values():
            joined.next_at, joined.unshown = now, 0

    def failed(
        self, report_id: str | None, code: str, retry_after: float, retryable: bool, now: float
    ) -> Event | None:
        """An ERROR that answers a report of ours: what the program is told of it, if anything."""
        channel_id = self._reports.pop(report_id or "", "")
        joined = self._joined.get(channel_id)
        if joined is None:
            return None
        if retryable:
            joined.next_at = now + max(retry_after, 1.0)
            return None
        self.drop(channel_id)
        return VoiceLost(channel_id, code)

    def owns(self, report_id: str | None) -> bool:
        """Whether a correlation id is that of a report of ours."""
        return report_id is not None and report_id in self._reports

    def hear(self, kind: str, body: Body) -> list[Event]:
        """A message about calls: what the program is told."""
        channel_id = str(body.get("channelId", ""))
        reported = self._reports.pop(str(body.get("correlation_id") or ""), None) is not None
        if self._other(channel_id, body):
            return [VoiceEvent(kind, channel_id, body)]
        before = self._calls.get(channel_id)
        events: list[Event] = []
        match kind:
            case "voice_state":
                self._take(body)
                events += self._believed(channel_id) if reported else ()
            case "voice_state_update":
                events += self._update(channel_id, body)
            case "speaking_update":
                self._speak(channel_id, body.get("updates") or [body])
            case "session_migration" if before is not None:
                session_id, phase = str(body["newSessionId"]), "migrating"
                self._calls[channel_id] = replace(before, session_id=session_id, phase=phase)
            case "session_ended":
                self._calls.pop(channel_id, None)
                events += self._lose(channel_id, str(body.get("reason", "ended")))
        return [VoiceEvent(kind, channel_id, body), *events]

    # Parts

    def _other(self, channel_id: str, body: Body) -> bool:
        """Whether a message is about the channel of another waddle than the named one."""
        meant, told = self._waddles.get(channel_id, ""), body.get("waddleId") or ""
        return bool(meant and told) and meant != told

    def _take(self, body: Body) -> None:
        """A whole call."""
        if self._other(body["channelId"], body):
            return
        call = VoiceCall(
            body["channelId"],
            body["sessionId"],
            body["phase"],
            {person["userId"]: participant(person) for person in body["participants"]},
            body.get("waddleId", ""),
        )
        if "reportIntervalMs" in body:
            self._interval = body["reportIntervalMs"] / 1000
        if call.phase == "ended":
            self._calls.pop(call.channel_id, None)
        else:
            self._calls[call.channel_id] = call

    def _update(self, channel_id: str, body: Body) -> list[Event]:
        user_id, state = str(body["userId"]), str(body["state"])
        device_id = str(body.get("deviceId", ""))
        call = self._calls.get(channel_id, VoiceCall(channel_id, "", "active"))
        people = dict(call.participants)
        person = people.get(user_id, Participant(user_id))
        if state == "disconnected":
            people.pop(user_id, None)
        elif state != "released":
            people[user_id] = moved(person, state, device_id)
        self._calls[channel_id] = replace(call, participants=people)
        reason = str(body.get("reason", state))
        out = state == "disconnected" and user_id == self._user_id and reason in FINAL
        if out or (state == "released" and device_id == self._device_id):
            return self._lose(channel_id, reason)
        return []

    def _believed(self, channel_id: str) -> list[Event]:
        """A report was answered with the call: whether the user is in it."""
        joined, call = self._joined.get(channel_id), self._calls.get(channel_id)
        if joined is None or not self._user_id:
            return []
        shown = call is not None and self._user_id in call.participants
        joined.unshown = 0 if shown else joined.unshown + 1
        return self._lose(channel_id, "verified") if joined.unshown >= UNSHOWN else []

    def _lose(self, channel_id: str, reason: str) -> list[Event]:
        """This device is not in a call any more; nothing if it never was."""
        if channel_id not in self._joined:
            return []
        self.drop(channel_id)
        return [VoiceLost(channel_id, reason)]

    def _speak(self, channel_id: str, updates: Iterable[Body]) -> None:
        call = self._calls.get(channel_id)
        if call is None:
            return
        people = dict(call.participants)
        for update in updates:
            person = people.get(update["userId"])
            if person is not None:
                people[person.user_id] = replace(person, speaking=update["isSpeaking"])
        self._calls[channel_id] = replace(call, participants=people)


def participant(body: Body) -> Participant:
    """A participant as the server shows it."""
    return Participant(
        body["userId"],
        body.get("joinedAt", 0),
        body.get("state", "connected"),
        body.get("muted", False),
        body.get("video", False),
        body.get("speaking", False),
        body.get("deviceId", ""),
    )


def moved(person: Participant, state: str, device_id: str) -> Participant:
    """A participant after a voice_state_update other than disconnected and released."""
    match state:
        case "muted":
            return replace(person, muted=True, speaking=False)
        case "unmuted":
            return replace(person, muted=False)
        case "held":
            return replace(person, state="connected", device_id=device_id)
        case "moving":
            return replace(person, state="moving")
    return person
