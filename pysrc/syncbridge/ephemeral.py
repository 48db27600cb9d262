"""Ephemeral values of a device (`me`), valid while it is online: a cursor, typing, a position.

Theory of operation. Every device of a session may say some keys of itself. A node keeps, for each
device that did, the whole map as JSON text, with the fence of the connection that said it and a
number that grows with each change. Devices and other nodes always get the whole map. So only the
newest map of a device matters, skipped ones cost nothing, and a message may be lost or repeated.

Changes are not sent one by one. `changed` are the devices whose newest map the devices here have
not been told, `unshared` those of this node that the other nodes have not; each is told at most
once an interval, and a session's devices together in one message.

A map goes with the connection that said it. Values of a connection that is known to have ended are
late, and dropped.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from syncbridge import kernels
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.roster import Roster

NULL = b"null"
EMPTY = b"{}"

Values = Mapping[bytes, bytes]
"""Key -> value as compact JSON, in the order in which the keys came."""

_shared = msgspec.json.Decoder(dict[str, tuple[int, int, msgspec.Raw]])


class Said(msgspec.Struct, gc=False):
    """The values of one device, as a JSON object. `number`: of the change, of its fence."""

    fence: int
    number: int
    text: bytes


class Ephemeral:
    """The ephemeral values of the devices of one session.

    Attributes:
        changed: devices whose map must be sent here. unshared: those for the other nodes.
        due: when the devices here may be told again, in ms of the caller's clock.
    """

    __slots__ = ("_said", "changed", "due", "unshared")

    def __init__(self) -> None:
        self._said: dict[str, Said] = {}
        self.changed: set[str] = set()
        self.unshared: set[str] = set()
        self.due = 0

    def __bool__(self) -> bool:
        return bool(self._said)

    def text(self, device_id: str) -> bytes:
        """The whole map of a device as JSON; empty when it has no values."""
        said = self._said.get(device_id)
        return said.text if said is not None and said.text != EMPTY else b""

    def own(self, device_id: str, fence: int, text: bytes) -> None:
        """A device of this node says `text`, or says it on another connection. O(1)."""
        known = self._said.get(device_id)
        if known is not None and (known.fence, known.text) == (fence, text):
            return
        number = known.number + 1 if known is not None and known.fence == fence else 1
        self._said[device_id] = Said(fence, number, text)
        self.changed.add(device_id)
        self.unshared.add(device_id)

    def heard(self, data: bytes, roster: Roster, most: int) -> None:
        """Another node tells what devices there say; `most`: devices that are kept.

        Raises:
            ValueError: it is not what `shared` makes.
        """
        try:
            told = _shared.decode(data)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from None
        for device_id, (fence, number, text) in told.items():
            known = self._said.get(device_id)
            if known is None and (len(self._said) >= most or roster.has_ended(device_id, fence)):
                continue
            if known is None or (fence, number) > (known.fence, known.number):
                self._said[device_id] = Said(fence, number, bytes(text))
                self.changed.add(device_id)

    def joined(self, device_id: str, fence: int) -> None:
        """A device has a new connection: drop the values of an older one."""
        known = self._said.get(device_id)
        if known is not None and known.fence < fence:
            self.left(device_id)
        elif known is not None:
            self.changed.add(device_id)

    def left(self, device_id: str) -> None:
        """A device has left: drop its values."""
        self._said.pop(device_id, None)
        self.changed.discard(device_id)
        self.unshared.discard(device_id)

    def silence(self) -> bool:
        """Drop all values, and announce it to the devices here. False: there were none."""
        saying = [device_id for device_id, said in self._said.items() if said.text != EMPTY]
        for device_id in saying:
            self._said[device_id].text = EMPTY
        self.changed.update(saying)
        return bool(saying)

    def share(self, device_ids: Iterable[str]) -> None:
        """Mark all values of this node to be sent to the other nodes again."""
        self.unshared.update(self._said.keys() & device_ids)

    def take_changed(self) -> bytes:
        """By device, as JSON, the values that the devices here do not have yet."""
        changed, self.changed = self.changed, set()
        return self._object(changed)

    def everything(self) -> bytes:
        """The same of every device: for one that may have missed something."""
        return self._object(self._said)

    def take_unshared(self) -> bytes:
        """By device, as JSON, the values to send to the other nodes."""
        unshared, self.unshared = self.unshared, set()
        members = [
            b"%b:[%d,%d,%b]" % (kernels.quote(name.encode()), said.fence, said.number, said.text)
            for name in sorted(unshared)
            if (said := self._said.get(name)) is not None
        ]
        return b"{%b}" % b",".join(members) if members else b""

    def _object(self, names: Iterable[str]) -> bytes:
        members = [
            b"%b:%b" % (kernels.quote(name.encode()), said.text)
            for name in sorted(names)
            if (said := self._said.get(name)) is not None
        ]
        return b"{%b}" % b",".join(members)


def merged(values: Values, changes: Sequence[bytes], *, keys: int, size: int) -> dict[bytes, bytes]:
    """A device's map after changes: `[key, value, ...]`, where null takes a key back.

    Args:
        keys, size: most keys, and most bytes as JSON.

    Raises:
        SyncBridgeError: TOO_MANY_KEYS or TOO_LARGE; nothing has changed.
    """
    after = dict(values)
    for key, value in zip(changes[::2], changes[1::2], strict=True):
        if value == NULL:
            after.pop(key, None)
        else:
            after[key] = value
    if len(after) > keys:
        raise SyncBridgeError(ErrorCode.TOO_MANY_KEYS, f"me: at most {keys} keys")
    if len(rendered(after)) > size:
        raise SyncBridgeError(ErrorCode.TOO_LARGE, f"me: at most {size} bytes as JSON")
    return after


def rendered(values: Values) -> bytes:
    """A device's map as a JSON object."""
    return kernels.render_pairs([part for pair in values.items() for part in pair])
