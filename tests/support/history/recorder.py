"""Writes a history down while it happens: calls with their times, and what each device receives.

Devices of one node are sent the same bytes, so a message is decoded once, however many receive it.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from support.history.records import ABSENT, Answer, Call, History, Place, State, Step, Stream

SNAPSHOT_RESPONSE, STATE_UPDATE, ERROR, AUTH_SUCCESS = 4, 5, 6, 8
WAIT = frozenset({"store_unavailable", "overloaded", "draining", "internal_error", "fenced"})
"""Errors that leave open whether the write was done, or that ask to send it again, elsewhere."""

_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Message:
    """A message that came in, decoded."""

    kind: int | str
    payload: dict[str, Any]
    correlation_id: str | None
    step: Step | None = None
    answer: Answer | None = None


@dataclass
class Recorder:
    """One session's history in the making."""

    history: History = field(default_factory=History)
    _seen: dict[bytes, Message] = field(default_factory=dict)

    def call(self, device: str, correlation_id: str, payload: dict[str, Any]) -> Call:
        """A write that is about to be sent for the first time."""
        call = Call((device, correlation_id), payload, time.monotonic_ns())
        self.history.calls.append(call)
        return call

    def answered(self, call: Call, answer: Answer) -> None:
        """An answer that settles a write, or another one after that."""
        if not call.answers:
            call.returned = time.monotonic_ns()
        call.answers.append(answer)

    def stream(self, device: str) -> Stream:
        """The expected view of a device."""
        stream = Stream(device)
        self.history.streams.append(stream)
        return stream

    def message(self, frame: bytes) -> Message:
        """Decode a frame, or find that it has been."""
        known = self._seen.get(frame)
        if known is None:
            known = self._seen[frame] = _message(frame)
        return known

    def received(self, stream: Stream, step: Step) -> None:
        """A step that the device has taken, by the client rule of docs/protocol.md."""
        stream.steps.append(step)
        if step.full is not None:
            stream.copy = dict(step.full)
        for key, value in step.changes.items():
            if value is ABSENT:
                stream.copy.pop(key, None)
            else:
                stream.copy[key] = value
        stream.version, stream.lineage = step.version, step.lineage


def _message(frame: bytes) -> Message:
    raw = _decode(frame)
    message = Message(raw["type"], raw.get("payload") or {}, raw.get("correlation_id"))
    if message.kind == STATE_UPDATE:
        _update(message)
    elif message.kind == ERROR and message.payload["code"] not in WAIT:
        message.answer = _refusal(message.payload)
    return message


def _update(message: Message) -> None:
    payload, mid = message.payload, message.correlation_id
    version, prev = payload["version"], payload["prev_version"]
    if version == prev:
        message.answer = Answer(version)
        return
    changes = delta(payload)
    writer = (payload["device_id"], mid) if mid else None
    lineages = payload["lineage"], payload["prev_lineage"]
    message.step = Step(prev, version, payload["epoch"], changes, writer, None, *lineages)
    if mid:
        message.answer = Answer(version, changes, lineage=payload["lineage"])


def delta(payload: dict[str, Any]) -> State:
    """`changes` and `deleted_keys` as one map."""
    changes: State = payload["changes"]
    return changes | dict.fromkeys(payload["deleted_keys"], ABSENT)


def position(payload: dict[str, Any], since: Place) -> Step:
    """AUTH_SUCCESS or SNAPSHOT_RESPONSE as a step; `since`: the place that was asked from."""
    version, epoch, lineage = payload["version"], payload["epoch"], payload["lineage"]
    if payload["resumed"]:
        prev, before = since
        return Step(prev, version, epoch, delta(payload), None, None, lineage, before)
    return Step(0, version, epoch, full=payload["state_data"], lineage=lineage)


def _refusal(error: dict[str, Any]) -> Answer:
    details = error.get("details") or {}
    found: State = {}
    for conflict in details.get("conflicts", ()):
        found[conflict["key"]] = conflict.get("server_value", ABSENT)
    if error["code"] == "precondition_failed":
        found[details["key"]] = details["server_value"] if details["exists"] else ABSENT
    return Answer(details.get("current_version", 0), None, error["code"], found)
