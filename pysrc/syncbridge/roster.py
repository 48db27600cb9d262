"""Who is online in a session, as one node has told its devices: JOINED and LEFT always pair up.

Theory of operation. Redis gives every connection of a session a greater number than the one
before, its fence, and the script that takes a device online or offline says which connection it
was. A node hears of these changes from several sides: answers to what it asked itself, messages of
scripts that other nodes ran, lists read from the store. Each side is in order; together they are
not, and messages can be lost. So a node keeps, for each device, the newest fence it has heard of
and whether that connection is online, and takes a change by three rules:

* an older fence than the known one: it is late, and dropped;
* a device joins that is online here already: the old connection must have ended, and the devices
  are told that it was replaced before they are told that it joined;
* a device leaves: its devices are told only if they were told that it is there. If the departure
  overtook its own arrival, the arrival will be late, and dropped: nobody saw either.

So what the devices of a node are told is a true history with, at most, blinks left out, whatever
the order of arrival; and it ends in the truth when the newest change has arrived. O(1) a change.

A newcomer's own list may be newer than what the others were told: a device is gone in it whose
departure is still under way to this node. The others wait for that news, because only it has the
reason; the newcomer, who never saw the device, is `unaware` of it and must not be told.
"""

from collections.abc import Iterable
from enum import Enum

from syncbridge.records.sessions import Device

MAX_OFFLINE = 256
"""Devices that have left and are remembered, so that what is late is known to be; the oldest go."""

MAX_UNAWARE = 256
"""Newcomers that are spared the news of one device; more are told of one they never saw."""


class News(Enum):
    """What the devices must be told."""

    NOTHING = 0
    JOINED = 1
    LEFT = 2
    REPLACED = 3
    """First that the device left, then that it joined."""


class Roster:
    """One session's devices; see the module's text."""

    __slots__ = ("_known", "_unaware")

    def __init__(self) -> None:
        # device id -> 2 * fence + online; in the order of the last change.
        self._known: dict[str, int] = {}
        # device id -> those who never saw it online. None: nobody, as nearly always.
        self._unaware: dict[str, set[int]] | None = None

    def joined(self, device_id: str, fence: int) -> News:
        """A connection is online."""
        known = self._known.get(device_id, 0)
        if fence <= known >> 1:
            return News.NOTHING
        self._note(device_id, 2 * fence + 1)
        return News.REPLACED if known & 1 else News.JOINED

    def left(self, device_id: str, fence: int) -> News:
        """A connection is not online any more."""
        known = self._known.get(device_id, 0)
        if fence < known >> 1:
            return News.NOTHING
        self._note(device_id, 2 * fence)
        return News.LEFT if known & 1 else News.NOTHING

    def is_online(self, device_id: str) -> bool:
        """Whether the devices here were told that this one is there."""
        return bool(self._known.get(device_id, 0) & 1)

    def begin(self, devices: Iterable[Device]) -> None:
        """Take a list as what the first device here is told when it joins."""
        for device in devices:
            if device.online and device.fence:
                self.joined(device.device_id, device.fence)

    def missing(self, devices: Iterable[Device], newest: int) -> list[tuple[str, int]]:
        """(device, fence) of those that are online here and not in a list from the store.

        `newest`: the newest fence when the list was read; whoever has a greater one came later.
        """
        online = {device.device_id for device in devices if device.online and device.fence}
        return [
            (device_id, known >> 1)
            for device_id, known in self._known.items()
            if known & 1 and device_id not in online and known >> 1 <= newest
        ]

    def newcomer(self, cid: int, devices: Iterable[Device], newest: int) -> None:
        """Note whom a newcomer's list does not show any more, see `missing`."""
        for device_id, _ in self.missing(devices, newest):
            self._unaware = self._unaware or {}
            known = self._unaware.setdefault(device_id, set())
            if len(known) < MAX_UNAWARE:
                known.add(cid)

    def unaware(self, device_id: str) -> set[int]:
        """Connections that must not be told that a device left. Asked once a departure."""
        if self._unaware is None:
            return set()
        found = self._unaware.pop(device_id, set())
        self._unaware = self._unaware or None
        return found

    def _note(self, device_id: str, known: int) -> None:
        self._known.pop(device_id, None)
        self._known[device_id] = known
        if len(self._known) > MAX_OFFLINE:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = next((d for d, known in self._known.items() if not known & 1), None)
        if oldest is not None:
            del self._known[oldest]
