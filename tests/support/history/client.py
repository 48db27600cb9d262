"""A device that writes without pause and never gives a write up.

Whatever happens to its connection, it resumes where it was, on any node that lives, and sends what
has no answer again with the same id. It follows docs/protocol.md and keeps a copy of the state.
"""

import itertools
import json
import random
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from wsproto.utilities import RemoteProtocolError

from support.history.recorder import (
    AUTH_SUCCESS,
    SNAPSHOT_RESPONSE,
    STATE_UPDATE,
    Message,
    Recorder,
    position,
)
from support.history.records import Call, Place
from support.server_kit import mint
from support.ws_client import Closed, Device, Refused

PATIENCE = 3.0
"""Seconds without an answer after which a device takes its connection for dead."""

PAUSE = 0.02
BROKEN = (
    *(OSError, Closed, Refused, RemoteProtocolError),
    *(trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError),
)
"""How a connection can end, or a handshake."""

connections = itertools.count(1)


class Feed(Device):
    """A connection that reads whole frames of a server quickly; no fragments, no compression."""

    buffer = b""

    async def frames(self) -> list[bytes]:
        """Text messages that have come in; Closed at the end."""
        found: list[bytes] = []
        while not found:
            try:
                data = await self._stream.receive_some(262_144)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                raise Closed(1006, "")
            self.buffer += data
            found = self._cut()
        return found

    def _cut(self) -> list[bytes]:
        found, at, buffer = [], 0, self.buffer
        while len(buffer) >= at + 2:
            size, start = buffer[at + 1], at + 2
            if size >= 126:
                form, width = ("!H", 2) if size == 126 else ("!Q", 8)
                if len(buffer) < start + width:
                    break
                (size,) = struct.unpack_from(form, buffer, start)
                start += width
            if len(buffer) < start + size:
                break
            opcode, at = buffer[at], start + size
            if opcode == 0x88:
                raise Closed(int.from_bytes(buffer[start : start + 2], "big"), "")
            if opcode == 0x81:
                found.append(buffer[start:at])
        self.buffer = buffer[at:]
        return found


@dataclass
class Client:
    """One device of a session.

    Args:
        port: the port to connect to, asked before each attempt.
        invent: makes the payload of the next write, None when it was the last.
        window: writes under way at the same time.
        echo: part of the writes that are sent twice at once.
    """

    device: str
    session: str
    recorder: Recorder
    port: Callable[[], int]
    invent: Callable[["Client"], Awaitable[dict[str, Any] | None]]
    random: random.Random
    window: int = 2
    echo: float = 0.05
    reconnects: int = 0
    asked: int = 0
    epoch: str = ""
    waiting: dict[str, tuple[Call, trio.Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stream = self.recorder.stream(self.device)
        self.calls: dict[str, Call] = {}
        self._feed: Feed | None = None
        self._joined = trio.Event()
        self._number = self._sent = self._leapt = 0
        self._sending = trio.Lock()
        self._moved = trio.Event()

    async def run(self, finish: Callable[[], Awaitable[tuple[int, str]]]) -> None:
        """Write everything, then stay until the copy is where `finish` tells: version, lineage."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stay_connected)
            async with trio.open_nursery() as writers:
                for _ in range(self.window):
                    writers.start_soon(self._write)
            last = await finish()
            while (self.stream.version, self.stream.lineage) != last:
                await self._moved.wait()
            nursery.cancel_scope.cancel()

    # Connection

    async def _stay_connected(self) -> None:
        while True:
            try:
                with trio.fail_after(PATIENCE):
                    feed = await self._join()
                async with feed:
                    await self._read(feed)
            except BROKEN:
                self._lost()
                await trio.sleep(PAUSE * self.random.random())

    async def _join(self) -> Feed:
        """Connect and resume; the answer is the first message."""
        feed = await Feed.open(self.port())
        try:
            since = self.stream.version, self.stream.lineage
            payload = {
                "token": mint("ann"),
                "device_id": self.device,
                "session_id": self.session,
                "resume": self._place(),
            }
            await feed.send(7, payload, "join")
            frames: list[bytes] = []
            while not frames:
                frames = await feed.frames()
            welcome = self.recorder.message(frames[0])
            if welcome.kind != AUTH_SUCCESS:
                raise Closed(0, str(welcome.payload))
        except BaseException:
            await feed.kill()
            raise
        self.reconnects += 1
        self._leapt = 0
        self._position(welcome.payload, since)
        self._take(frames[1:])
        self._feed, self._connection = feed, next(connections)
        self._joined.set()
        return feed

    def _place(self) -> dict[str, Any]:
        """Where the copy is."""
        place = {"epoch": self.epoch, "version": self.stream.version}
        return place | ({"lineage": self.stream.lineage} if self.stream.lineage else {})

    async def _read(self, feed: Feed) -> None:
        while True:
            want = self._take(await feed.frames())
            if want:
                self.asked += 1
                async with self._sending:
                    since = f"since {self.stream.version} {self.stream.lineage}"
                    await feed.send(3, {"since": self._place()}, since)

    def _lost(self) -> None:
        self._feed = None
        if self._joined.is_set():
            self._joined = trio.Event()
        for _, event in self.waiting.values():
            event.set()

    # What comes in

    def _take(self, frames: list[bytes]) -> bool:
        """Act on messages; whether something is missing."""
        missing = False
        for frame in frames:
            message = self.recorder.message(frame)
            mid = message.correlation_id
            if message.kind == STATE_UPDATE:
                missing |= self._step(message)
            elif message.kind == SNAPSHOT_RESPONSE:
                version, lineage = (mid or "since 0 ").split(" ")[1:]
                self._position(message.payload, (int(version), lineage))
                self._leapt = self.stream.version
            if mid in self.calls and self._mine(message):
                self._answered(self.calls[mid], message)
        if frames:
            self._moved.set()
            self._moved = trio.Event()
        return missing

    def _mine(self, message: Message) -> bool:
        return message.kind != STATE_UPDATE or message.payload["device_id"] == self.device

    def _step(self, message: Message) -> bool:
        """The client rule; True for a hole.

        What is known already may come only after an answer from Redis that was ahead of it; else
        it is taken, for the checker to complain.
        """
        step = message.step
        if step is not None and step.version <= self._leapt:
            return False
        if step is not None and step.prev <= self.stream.version:
            self.recorder.received(self.stream, step)
            return False
        return bool(message.payload["version"] > self.stream.version)

    def _position(self, payload: dict[str, Any], since: Place) -> None:
        step = position(payload, since)
        self.epoch = payload["epoch"]
        if step.version > self.stream.version or step.full is not None:
            self.recorder.received(self.stream, step)

    def _answered(self, call: Call, message: Message) -> None:
        if message.answer is not None:
            self.recorder.answered(call, message.answer)
        if call.writer[1] in self.waiting:
            self.waiting[call.writer[1]][1].set()

    # What goes out

    async def _write(self) -> None:
        while (payload := await self.invent(self)) is not None:
            self._number += 1
            mid = f"{self.device}.{self._number}"
            call = self.calls[mid] = self.recorder.call(self.device, mid, payload)
            while not call.answers:
                await self._attempt(call)
            self.waiting.pop(mid, None)

    async def _attempt(self, call: Call) -> None:
        """Send once and wait for an answer, the end of the connection, or the end of patience."""
        while (feed := self._feed) is None:
            await self._joined.wait()
        event = trio.Event()
        self.waiting[call.writer[1]] = (call, event)
        self._sent += 1
        call.attempts += 1
        call.place = (self._connection, self._sent)
        try:
            await self._send(feed, call)
            with trio.fail_after(PATIENCE):
                await event.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            event.set()
        except trio.TooSlowError:
            await feed.kill()
        if not call.answers:
            await trio.sleep(PAUSE)

    async def _send(self, feed: Feed, call: Call) -> None:
        text = json.dumps({"type": 5, "correlation_id": call.writer[1], "payload": call.payload})
        copies = 2 if self.random.random() < self.echo else 1
        async with self._sending:
            await feed.send_many([text] * copies)
