"""The devices of a session as one node has announced them: JOINED and LEFT always pair up.

Theory of operation. Redis gives every connection of a session a greater number than the one before,
its fence, and the script that takes a device online or offline says which connection it was. A node
reads the list of devices once, when the first of them joins here, and then learns of changes from
several sources: answers to its own requests, messages of scripts that other nodes ran, and lists
read after a break. Each side is in order; together they are not, and messages can be lost. So a
node keeps, for each device, the newest fence it has heard of and whether that connection is online,
and takes a change by three rules:

* an older fence than the known one: it is late, and dropped;
* a device joins that is online here already: the old connection must have ended, and the devices
  are told that it was replaced before they are told that it joined;
* a device leaves: its devices are told only if they were told that it is there. If the departure
  overtook its own arrival, the arrival will be late, and dropped: nobody saw either.

So the devices of a node see a true history, whatever the order of arrival; at most, short changes
are left out. It is correct once the newest change has arrived. O(1) a change.

A list may be newer than what the devices here know: it may lack a device whose departure is still
on its way to this node. The others wait for that message, because only it has the reason. A
newcomer that gets the list never saw the device, is `unaware` of it, and must not be told.

Summaries. With single notices, n devices that join cost n² messages. So while more devices are
online than a bound, changes are collected and sent at most once a second: joins and departures
since the last time, each device once, without short changes. Too many changes are sent as a window:
the devices that have been online for longest, which replaces all earlier lists. The cost of a
summary grows with the number of receivers, so `RATE` delays the next one. Below half the bound
single notices begin again.
"""

from collections.abc import Container, Iterable, Iterator
from enum import Enum
from itertools import islice

import msgspec

from syncbridge.records.sessions import Device

MAX_OFFLINE = 256
"""Most departed devices that are remembered, to recognise late messages; the oldest go."""

MAX_UNAWARE = 256
"""Most newcomers that are not told of one device; more get a DEVICE_LEFT for one they never saw."""

PERIOD = 1.0
"""Seconds between two summaries, at least."""

NAMED = 64
"""Changes that a summary names, or as many as a window has when that is more."""

RATE = 65_536
"""Devices named per second, counted once for each receiver: about 11 MB."""


class News(Enum):
    """The messages that a change causes."""

    NOTHING = 0
    JOINED = 1
    LEFT = 2
    REPLACED = 3
    """First that the device left, then that it joined."""


class Entry(msgspec.Struct, gc=False):
    """A device: the newest fence heard of, and its info (JSON) as it is stored.

    `info` is None when only the fence is known: the device is in no list.
    """

    fence: int
    info: bytes | None


class Roster:
    """One session's devices; see the module's text.

    Attributes:
        begun: a list was read. asked: one is being read.
        newest: the greatest fence heard of, also of one that was given to bar a device.
    """

    __slots__ = ("_offline", "_online", "_unaware", "asked", "begun", "newest")

    def __init__(self) -> None:
        # Both in the order of the last change.
        self._online: dict[str, Entry] = {}
        self._offline: dict[str, Entry] = {}
        # device id -> those who never saw it online. None: nobody, as nearly always.
        self._unaware: dict[str, set[int]] | None = None
        self.begun = self.asked = False
        self.newest = 0

    @property
    def online(self) -> int:
        """How many devices are online."""
        return len(self._online)

    def ask(self) -> bool:
        """Whether the list must be read now; it then counts as requested."""
        wanted = not self.begun and not self.asked
        self.asked |= wanted
        return wanted

    def joined(self, device_id: str, fence: int, info: bytes = b"{}") -> News:
        """A connection is online."""
        self.heard_of(fence)
        known = self._online.get(device_id)
        before = known or self._offline.get(device_id)
        if before is not None and fence <= before.fence:
            return News.NOTHING
        self._offline.pop(device_id, None)
        self._online.pop(device_id, None)
        self._online[device_id] = Entry(fence, info)
        return News.JOINED if known is None else News.REPLACED

    def left(self, device_id: str, fence: int, *, removed: bool = False) -> News:
        """A connection has gone offline. `removed`: nor is the device remembered."""
        known = self._online.get(device_id)
        before = known or self._offline.get(device_id)
        if before is not None and fence < before.fence:
            return News.NOTHING
        self._online.pop(device_id, None)
        info = None if before is None or removed else before.info
        self._rest(device_id, Entry(fence, info))
        self.heard_of(fence)
        return News.NOTHING if known is None else News.LEFT

    def is_online(self, device_id: str) -> bool:
        """Whether the devices here know this one as online."""
        return device_id in self._online

    def fence(self, device_id: str) -> int:
        """Of the connection with which a device is online; 0 when it is not."""
        known = self._online.get(device_id)
        return known.fence if known is not None else 0

    def has_ended(self, device_id: str, fence: int) -> bool:
        """Whether a connection of a device is known to be over."""
        online = self.fence(device_id)
        if online:
            return fence < online
        known = self._offline.get(device_id)
        return known is not None and fence <= known.fence

    def reaches_beyond(self, here: Container[str]) -> bool:
        """Whether a device is online that is not one of those `here`."""
        return any(device_id not in here for device_id in self._online)

    def heard_of(self, fence: int) -> None:
        """Note a fence of the store."""
        self.newest = max(self.newest, fence)

    def fits(self, online: int, newest: int) -> bool:
        """Whether the store, with so many devices online and this newest fence, says the same.

        Each connection has a fence of its own, and those that have left are the only ones that
        change nothing but the number: so both are equal only where the same has happened. O(1).
        """
        return newest == self.newest and online == self.online

    def begin(self, devices: Iterable[Device], newest: int = 0) -> None:
        """Take the first list from the store.

        `newest`: the newest fence when it was read.
        """
        for device in devices:
            if device.online and device.fence:
                self.joined(device.device_id, device.fence, device.info)
            else:
                self.remember(device)
        self.listed_at(newest)

    def remember(self, device: Device) -> None:
        """A device that is offline in a list."""
        name = device.device_id
        known = self._offline.get(name)
        if name not in self._online and (known is None or known.info is None):
            self._rest(name, Entry(known.fence if known is not None else 0, device.info))

    def listed_at(self, newest: int) -> None:
        """A list was taken over, which was read when `newest` was the newest fence."""
        self.begun, self.asked = True, False
        self.heard_of(newest)

    def agrees(self, online: int, newest: int, newcomer: str = "") -> bool:
        """Whether this is what the store says: devices online, and the newest fence.

        `newcomer`: a device that is online there and may not be known here yet.
        """
        here = self.online + (newcomer != "" and newcomer not in self._online)
        return here == online and self.newest >= newest

    def missing(self, devices: Iterable[Device], newest: int) -> list[tuple[str, int]]:
        """(device, fence) of those that are online here and not in a list from the store.

        `newest`: the newest fence when the list was read; whoever has a greater one came later.
        """
        online = {device.device_id for device in devices if device.online and device.fence}
        return [
            (device_id, entry.fence)
            for device_id, entry in self._online.items()
            if device_id not in online and entry.fence <= newest
        ]

    def newcomer(self, cid: int, devices: Iterable[Device], newest: int) -> set[str]:
        """Devices that are online here but no longer in a newcomer's list: see `missing`."""
        gone = {device_id for device_id, _ in self.missing(devices, newest)}
        for device_id in gone:
            self._unaware = self._unaware or {}
            known = self._unaware.setdefault(device_id, set())
            if len(known) < MAX_UNAWARE:
                known.add(cid)
        return gone

    def unaware(self, device_id: str) -> set[int]:
        """Connections that must not be told that a device left. Asked once a departure."""
        if self._unaware is None:
            return set()
        found = self._unaware.pop(device_id, set())
        self._unaware = self._unaware or None
        return found

    def listed(self) -> Iterator[tuple[str, bytes, bool]]:
        """(device, info, online) of all that are known: who is online, then the newest to leave."""
        for device_id, entry in self._online.items():
            yield device_id, entry.info or b"", True
        for device_id, entry in reversed(self._offline.items()):
            if entry.info is not None:
                yield device_id, entry.info, False

    def window(self, size: int) -> Iterator[tuple[str, bytes]]:
        """(device, info) of those that have been online for longest."""
        for device_id, entry in islice(self._online.items(), size):
            yield device_id, entry.info or b""

    def info(self, device_id: str) -> bytes:
        """The `info` of an online device."""
        return self._online[device_id].info or b""

    def _rest(self, device_id: str, entry: Entry) -> None:
        self._offline.pop(device_id, None)
        self._offline[device_id] = entry
        if len(self._offline) > MAX_OFFLINE:
            del self._offline[next(iter(self._offline))]


class Summary:
    """The changes that the devices of one session here do not know yet.

    Attributes:
        window: cache of what newcomers are shown until the next summary, and whom it names.
        due: when the next one may be sent, in seconds of a monotonic clock.
    """

    __slots__ = ("_changes", "_named", "_too_many", "due", "window")

    def __init__(self, bound: int, now: float) -> None:
        self._named = max(NAMED, bound)
        # device id -> why it left, "" when it did not; and whether it was online as was told.
        self._changes: dict[str, tuple[bool, str]] = {}
        self._too_many = False
        self.window: tuple[bytes, frozenset[str]] | None = None
        self.due = now + PERIOD

    def joined(self, device_id: str, *, replaced: bool) -> None:
        """A device joined, or joined again. O(1)."""
        was_online, _ = self._changes.pop(device_id, (replaced, ""))
        self._note(device_id, was_online, "")

    def left(self, device_id: str, reason: str) -> None:
        """A device went. O(1)."""
        was_online, _ = self._changes.pop(device_id, (True, ""))
        if was_online:
            self._note(device_id, was_online, reason)

    def take(self, roster: Roster) -> tuple[list[str], list[tuple[str, str]]] | None:
        """(who joined, who left and why) since the last call; None when they are too many."""
        changes, self._changes = self._changes, {}
        too_many, self._too_many, self.window = self._too_many, False, None
        if too_many:
            return None
        joined = [device_id for device_id in changes if roster.is_online(device_id)]
        left = [(each, why) for each, (_, why) in changes.items() if not roster.is_online(each)]
        return joined, left

    def told(self, named: int, receivers: int, now: float) -> None:
        """Note a sent summary: its number of devices and of receivers."""
        self.due = now + max(PERIOD, named * receivers / RATE)

    def _note(self, device_id: str, was_online: bool, reason: str) -> None:
        if self._too_many:
            return
        self._changes[device_id] = (was_online, reason)
        if len(self._changes) > self._named:
            self._changes.clear()
            self._too_many = True


def is_large(online: int, bound: int, *, before: bool) -> bool:
    """Whether a session gets summaries. `before`: it has done so until now."""
    return online > bound or (before and 2 * online >= bound)
