"""The devices of the session, and what is true of each only while it is there (`me`)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from syncbridge_client import wire
from syncbridge_client.backoff import Pacer
from syncbridge_client.catalogue import Limits
from syncbridge_client.errors import InvalidUpdate
from syncbridge_client.events import (
    NOTHING,
    Device,
    DeviceJoined,
    DeviceLeft,
    DeviceSaid,
    Event,
)
from syncbridge_client.values import check_key, copied, same, to_text


class Presence:
    """Devices by id, and what this one says of itself.

    Attributes:
        devices: device id -> device; of a large session some. total: how many there are.
        mine: what this device says of itself.
    """

    def __init__(self, me_rate: int) -> None:
        self.devices: dict[str, Device] = {}
        self.total = 0
        self.mine: dict[str, Any] = {}
        self._own = ""
        self._online = 0  # of a large session; beyond the bound what is said is taken back
        self._limits = Limits()
        self._unsaid: dict[str, Any] = {}
        self._pacer = Pacer(me_rate, me_rate, 0.0)

    # What the server says

    def connected(self, welcome: wire.Welcome, now: float) -> None:
        """AUTH was accepted: who is there; all that this device says is to be said again."""
        self._own = welcome.device_id
        self._limits = welcome.limits
        self._online = (welcome.devices_total or 0) if welcome.devices_partial else 0
        self.devices = {entry.device_id: entry.device() for entry in welcome.devices}
        self._count(welcome.devices_total)
        me_rate = welcome.limits.ephemeral_per_second
        self._pacer = Pacer(me_rate, me_rate, now)
        self._unsaid = dict(self.mine)

    def listed(self, listing: wire.DeviceList) -> list[Event]:
        """A whole list, some devices of a large session, or with `delta` what has changed."""
        if not listing.delta:
            own = self.devices.get(self._own)
            self.devices = {own.device_id: own} if own is not None else {}
            self.devices |= {entry.device_id: entry.device() for entry in listing.devices}
            self._count(listing.total)
            self._note_online((listing.total or 0) if listing.partial else 0)
            return []
        events: list[Event] = [DeviceJoined(self.joined(entry)) for entry in listing.joined]
        for left in listing.left:
            if self.devices.pop(left.device_id, None) is not None:
                events.append(DeviceLeft(left.device_id, left.reason))
        if self._said(listing.me):
            events.append(DeviceSaid(tuple(listing.me)))
        self._count(self.total if listing.total is None else listing.total)
        if listing.total is not None:
            self._note_online(listing.total)
        return events

    def joined(self, entry: wire.DeviceEntry) -> Device:
        """A device is there."""
        device = self.devices[entry.device_id] = entry.device()
        self._count()
        return device

    def left(self, device_id: str, reason: str) -> None:
        """A device is gone, and what it said."""
        known = self.devices.get(device_id)
        if reason == "removed":
            self.devices.pop(device_id, None)
        elif known is not None and reason != "replaced":
            self.devices[device_id] = replace(known, status="offline", me=NOTHING)
        self._count()

    def _said(self, me: Mapping[str, dict[str, Any]]) -> bool:
        """Whether what a known device says has changed."""
        changed = False
        for device_id, values in me.items():
            known = self.devices.get(device_id)
            if known is not None and not same(dict(known.me), values):
                self.devices[device_id] = replace(known, me=MappingProxyType(values))
                changed = True
        return changed

    def _note_online(self, online: int) -> None:
        """How many are online of a large session; of one that is small enough again all is said."""
        if self._online > self._limits.presence_list >= online:
            self._unsaid = self.mine | self._unsaid
        self._online = online

    def _count(self, total: int | None = None) -> None:
        self.total = max(total or 0, len(self.devices))

    # What this device says

    def say(self, changes: Mapping[str, Any]) -> None:
        """Say something of this device; None takes a key back.

        Raises:
            InvalidUpdate: the server would refuse it, now and with all else on each connection.
        """
        taken = {key: copied(value) for key, value in changes.items()}
        mine = {k: value for k, value in (self.mine | taken).items() if value is not None}
        self._check(taken, mine)
        for key, value in taken.items():
            if value is None or key not in self.mine or not same(self.mine[key], value):
                self._unsaid[key] = value
        self.mine = mine

    def _check(self, keys: Iterable[str], mine: dict[str, Any]) -> None:
        limits = self._limits
        for key in keys:
            check_key(key, limits.key_bytes)
        most, size = limits.ephemeral_keys, limits.ephemeral_bytes
        if len(mine) > most or len(to_text(mine)) > size:
            raise InvalidUpdate(f"me: at most {most} keys and {size} bytes")

    def ready(self, now: float) -> bool:
        """Whether something is to be said now."""
        return bool(self._unsaid) and self._pacer.wait(now) <= 0

    def due(self, now: float) -> float:
        """When something is to be said."""
        return now + self._pacer.wait(now) if self._unsaid else math.inf

    def take(self, now: float) -> dict[str, Any]:
        """What is to be said."""
        self._pacer.take(now)
        unsaid, self._unsaid = self._unsaid, {}
        return unsaid
