"""A device that checks the promises of docs/protocol.md at every message it receives."""

import os
from typing import Any

from support.history.records import State
from support.server_kit import Node, mint
from support.ws_client import Device

HEARTBEAT, SNAPSHOT_REQUEST, SNAPSHOT_RESPONSE, STATE_UPDATE, ERROR, AUTH = 1, 3, 4, 5, 6, 7
JOINED, LEFT = 10, 11


class Member:
    """One connection of a device.

    Attributes:
        copy, version, epoch: what it makes of what it is told.
        others: the online devices, as far as it knows; itself left out.
    """

    def __init__(self, device: Device, name: str, node: int) -> None:
        self.device = device
        self.name = name
        self.node = node
        self.copy: State = {}
        self.version = 0
        self.epoch = ""
        self.others: set[str] = set()

    @classmethod
    async def join(
        cls, nodes: list[Node], node: int, session: str, name: str, known: "Member | None" = None
    ) -> "Member":
        """Connect; resume from what an earlier connection had, if there is one."""
        device = await Device.open(nodes[node].port)
        self = cls(device, name, node)
        extra: dict[str, Any] = {}
        if known is not None:
            self.copy, self.version, self.epoch = dict(known.copy), known.version, known.epoch
            extra["resume"] = {"epoch": known.epoch, "version": known.version}
        welcome = await device.auth(mint("ann"), name, session_id=session, **extra)
        assert not (known is None and welcome["resumed"])
        self.position(welcome)
        listed = {d["device_id"] for d in welcome["devices"] if d["status"] == "online"}
        self.others = listed - {name}
        return self

    def position(self, payload: dict[str, Any]) -> None:
        """AUTH_SUCCESS or SNAPSHOT_RESPONSE: never a partial answer, never back."""
        assert payload["version"] >= self.version
        if payload["resumed"]:
            assert payload["epoch"] == self.epoch
            self.merge(payload)
        else:
            self.copy = payload["state_data"]
        self.version, self.epoch = payload["version"], payload["epoch"]

    def merge(self, payload: dict[str, Any]) -> None:
        assert not {*payload["changes"]} & {*payload["deleted_keys"]}
        self.copy |= payload["changes"]
        for key in payload["deleted_keys"]:
            self.copy.pop(key, None)

    async def ask(self, kind: int, payload: Any = None, mid: str | None = None) -> dict[str, Any]:
        """Send a request; everything up to its answer is taken in."""
        mid = mid or os.urandom(8).hex()
        await self.device.send(kind, payload, mid)
        while True:
            message = await self.device.receive()
            self.take(message)
            if message["correlation_id"] == mid and not self._foreign(message):
                return message

    def _foreign(self, message: dict[str, Any]) -> bool:
        """Another device may use the same correlation id."""
        device: str = message["payload"].get("device_id", self.name)
        return message["type"] == STATE_UPDATE and device != self.name

    def take(self, message: dict[str, Any]) -> None:
        """One message; versions come in order, once, without a hole."""
        kind, payload = message["type"], message["payload"]
        if kind == STATE_UPDATE and payload["version"] != payload["prev_version"]:
            assert self.version == payload["prev_version"]
            assert self.epoch in ("", payload["epoch"])
            self.merge(payload)
            self.version, self.epoch = payload["version"], payload["epoch"]
        elif kind == JOINED:
            assert payload["device_id"] not in self.others
            self.others.add(payload["device_id"])
        elif kind == LEFT and payload["device_id"] != self.name:
            assert payload["device_id"] in self.others
            self.others.remove(payload["device_id"])

    async def refresh(self) -> None:
        """Take in all that was sent up to now."""
        await self.ask(HEARTBEAT)
