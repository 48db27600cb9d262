"""Devices that watch all channels, one on each node, and record every reported departure.

A watcher reconnects when its node dies, and learns from the new state what it missed: a user who is
no longer in it counts as reported gone.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import trio

from support.voice.voice_kit import voice_mint
from support.voice_random.place import Nodes
from support.voice_random.truth import Removal
from support.ws_client import Closed, Device, Refused
from syncbridge.identity import Role

HEARTBEAT, AUTH, AUTH_SUCCESS = 1, 7, 8
BEAT_S = 5.0
Told = Callable[[str, str], None]
"""(channel, the session that its call is in)"""
PAUSE_S = 0.1
AGAIN = ("store_unavailable", "token_expiring")
"""Errors after which a watcher reconnects with a new token."""
BROKEN = (OSError, Closed, Refused, trio.BrokenResourceError, trio.ClosedResourceError)


class Watcher:
    """Watches through one node. `session` is told in which session each call is.

    Attributes:
        told: number of messages about users. connected: number of connections.
    """

    def __init__(self, servers: Nodes, node: int, channels: Sequence[str], session: Told) -> None:
        self.removals: list[Removal] = []
        self.told = 0
        self.connected = 0
        self._session = session
        self._latest: dict[tuple[str, str], Removal] = {}
        self._servers = servers
        self._node = node
        self._channels = channels
        self._shown: dict[str, set[str]] = defaultdict(set)

    async def run(self) -> None:
        """Watch, for ever."""
        while True:
            process = self._servers.nodes[self._node]
            if process is not None:
                try:
                    async with await Device.open(process.port) as device:
                        await self._watch(device)
                except BROKEN:
                    pass
                except BaseExceptionGroup as group:
                    if group.split(BROKEN)[1] is not None:
                        raise
            await trio.sleep(PAUSE_S)

    async def _watch(self, device: Device) -> None:
        token = voice_mint("watcher", Role.SERVICE)
        payload = {"token": token, "device_id": f"watcher-{self._node}"}
        if (await device.request(AUTH, payload))["type"] != AUTH_SUCCESS:
            return  # Redis is away
        self.connected += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat, device)
            for channel in self._channels:
                await device.send("voice_watch", {"channelId": channel}, channel)
            while True:
                with trio.move_on_after(BEAT_S):
                    self._hear(await device.receive())
                device.raw.clear()

    async def _beat(self, device: Device) -> None:
        while True:
            await trio.sleep(BEAT_S)
            await device.send(HEARTBEAT, {"client_time": 0})

    def _hear(self, message: dict[str, Any]) -> None:
        channel = message.get("channelId", "")
        match message["type"]:
            case "voice_state":
                people = {person["userId"] for person in message["participants"]}
                if message["sessionId"]:
                    self._session(channel, message["sessionId"])
                for user in people - self._shown[channel]:
                    self._back(channel, user)
                for user in self._shown[channel] - people:
                    self._gone(channel, user, "not shown any more")
                self._shown[channel] = people
            case "voice_state_update" if message["state"] == "connected":
                self._back(channel, message["userId"])
                self.told += 1
            case "voice_state_update" if message["state"] == "disconnected":
                self._gone(channel, message["userId"], message["reason"])
                self._shown[channel].discard(message["userId"])
                self.told += 1
            case "session_migration":
                self._session(channel, message["newSessionId"])
            case 6:
                assert message["payload"]["code"] in AGAIN, message
                raise Closed(1013, "the node does not know the calls yet, or the token is over")

    def _gone(self, channel: str, user: str, reason: str) -> None:
        removal = Removal(time.time(), channel, user, reason, f"node {self._node}")
        self.removals.append(removal)
        self._latest[channel, user] = removal

    def _back(self, channel: str, user: str) -> None:
        self._shown[channel].add(user)
        removal = self._latest.pop((channel, user), None)
        if removal is not None:
            removal.back_at = time.time()
