"""Real clients of LiveKit in a process of their own, led by lines of JSON on its standard input.

The SDK needs asyncio, and a process can be killed. Each line is `{"do": "join", "as": NAME, "url",
"token", "speak": bool}` or `{"do": "leave", "as": NAME}`. Each line of the output is `{"as",
"event"}` with `sid` or `reason`: `joined`, `failed`, `left`, `dropped`, `back`.
"""

import asyncio
import json
import os
import sys
from typing import Any

from livekit import rtc

RATE = 48_000


class Client:
    """One device of a user."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.room = rtc.Room()
        self.leaving = False
        self.room.on("disconnected", self._disconnected)
        self.room.on("reconnected", self._reconnected)

    async def join(self, url: str, token: str, speak: bool) -> None:
        """Be in the room; with a microphone that is open and silent."""
        try:
            options = rtc.RoomOptions(auto_subscribe=False)
            await self.room.connect(url, token, options)
            if speak:
                source = rtc.AudioSource(RATE, 1)
                track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
                told = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
                await self.room.local_participant.publish_track(track, told)
        except Exception as error:
            self.say("failed", reason=type(error).__name__)
            return
        self.say("joined", sid=self.room.local_participant.sid)

    async def leave(self) -> None:
        """Say goodbye."""
        self.leaving = True
        await self.room.disconnect()
        self.say("left")

    def say(self, event: str, **more: Any) -> None:
        """Tell the test."""
        print(json.dumps({"as": self.name, "event": event, **more}), flush=True)

    def _disconnected(self, reason: Any) -> None:
        if not self.leaving:
            self.say("dropped", reason=str(reason))

    def _reconnected(self, *_: Any) -> None:
        self.say("back", sid=self.room.local_participant.sid)


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
            clients[name] = Client(name)
            task = loop.create_task(clients[name].join(told["url"], told["token"], told["speak"]))
        else:
            task = loop.create_task(clients.pop(name).leave())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(lead())
