"""Real clients of LiveKit that measure what they hear, in a process of their own.

Led by lines of JSON, as `livekit_client`. `{"do": "join", "as", "url", "token", "speak",
"listen"}`: who speaks sends a tone, and a packet every 20 ms; who listens subscribes to tones, and
all hear packets. `{"do": "move", "as", "url", "token"}`: another room is joined before the one
before is left, with the first packet of it; who speaks stays in both until `{"do": "part", "as"}`.
`{"do": "tell", "as"}`: what was heard. The longest silence is that between two packets, from either
room.
"""

import asyncio
import json
import math
import os
import sys
import time
from typing import Any

from livekit import rtc

RATE = 48_000
FRAME_S = 0.02
SAMPLES = int(RATE * FRAME_S)
TONE = bytes(bytearray(b"\x10\x20" * SAMPLES))


class Heard:
    """What has come to a client. Times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.packets = 0
        self.frames = 0
        self.last_at = 0.0
        self.silence = 0.0

    def packet(self) -> None:
        now = time.monotonic()
        if self.packets:
            self.silence = max(self.silence, now - self.last_at)
        self.packets, self.last_at = self.packets + 1, now


class Place:
    """One room that a client is in. `first`: set with its first packet."""

    def __init__(self, heard: Heard) -> None:
        self.room = rtc.Room()
        self.first = asyncio.Event()
        self.first_at = math.inf
        self._heard = heard
        self._tasks: set[asyncio.Task[None]] = set()
        self.room.on("data_received", self._packet)
        self.room.on("track_subscribed", self._subscribed)

    async def enter(self, url: str, token: str, *, speak: bool, listen: bool) -> None:
        await self.room.connect(url, token, rtc.RoomOptions(auto_subscribe=listen))
        if speak:
            source = rtc.AudioSource(RATE, 1)
            track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
            told = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
            await self.room.local_participant.publish_track(track, told)
            self._start(self._speak(source))

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.room.disconnect()

    async def _speak(self, source: rtc.AudioSource) -> None:
        frame = rtc.AudioFrame(TONE, RATE, 1, SAMPLES)
        due = time.monotonic()
        while True:
            await source.capture_frame(frame)
            await self.room.local_participant.publish_data(b"x", reliable=False)
            due += FRAME_S
            await asyncio.sleep(max(due - time.monotonic(), 0.0))

    def _packet(self, *_: Any) -> None:
        self._heard.packet()
        self.first_at = min(self.first_at, time.monotonic())
        self.first.set()

    def _subscribed(self, track: Any, *_: Any) -> None:
        self._start(self._count(rtc.AudioStream(track)))

    async def _count(self, stream: rtc.AudioStream) -> None:
        async for _ in stream:
            self._heard.frames += 1

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Client:
    """One device of a user, in one room or in two."""

    def __init__(self, name: str, told: dict[str, Any]) -> None:
        self.name = name
        self.heard = Heard()
        self._rights = {"speak": told["speak"], "listen": told["listen"]}
        self._places: list[Place] = []

    async def join(self, told: dict[str, Any]) -> None:
        place = Place(self.heard)
        await place.enter(told["url"], told["token"], **self._rights)
        self._places.append(place)
        self.say("joined", sid=place.room.local_participant.sid)

    async def move(self, told: dict[str, Any]) -> None:
        place = Place(self.heard)
        await place.enter(told["url"], told["token"], **self._rights)
        await place.first.wait()
        self._places.append(place)
        if self._rights["speak"]:
            self.say("moved")
        else:
            await self.part(told)

    async def part(self, told: dict[str, Any]) -> None:
        """Leave the room before."""
        left_at = time.monotonic()
        await self._places.pop(0).leave()
        event = {"move": "moved", "part": "parted"}[told["do"]]
        self.say(event, heard_before_left=self._places[0].first_at <= left_at)

    async def tell(self, told: dict[str, Any]) -> None:
        heard = self.heard
        self.say(
            "heard", packets=heard.packets, frames=heard.frames, silence_ms=heard.silence * 1000
        )
        heard.silence = 0.0

    def say(self, event: str, **more: Any) -> None:
        print(json.dumps({"as": self.name, "event": event, **more}), flush=True)


async def carry_out(client: Client, told: dict[str, Any]) -> None:
    """One line; failures are reported."""
    try:
        await getattr(client, told["do"])(told)
    except Exception as error:
        client.say("failed", reason=f"{type(error).__name__}: {error}")


async def lead() -> None:
    """Follow the lines until there are no more."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    clients: dict[str, Client] = {}
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        told = json.loads(line)
        name = told["as"]
        if told["do"] == "join":
            clients[name] = Client(name, told)
        task = loop.create_task(carry_out(clients[name], told))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(lead())
