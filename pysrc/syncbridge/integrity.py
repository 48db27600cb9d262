"""Checks that answers of the store can be the result of our own writes.

Another program, another release or a broken disk can leave anything in the store. A state's bytes
and the marks of its place in the history go on the wire as they are, so that odd ones would be
malformed messages there, or numbers that no client can hold. The store itself takes any bytes for
keys and values; that they are UTF-8 and JSON is what this server relies on.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from syncbridge.kernels import compact, render_pairs, split
from syncbridge.records.devices import DeviceList, Peeked, Redeemed
from syncbridge.records.sessions import (
    Answer,
    Compared,
    Device,
    Outcome,
    Resumed,
    Reviewed,
    Snapshot,
    Status,
    Touched,
    Welcome,
)
from syncbridge.session import UNLIMITED

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of the codec for a stored text that is not a record, such as endless nesting."""
VERSION_MOST = 2**53
"""Greatest version that every client can hold exactly."""
TIME_MOST = 253_402_300_799_999
"""The last millisecond of the year 9999, Unix ms."""
SHOWN = frozenset({Status.OK, Status.CONFLICT, Status.PRECONDITION})
"""With these a client is shown the values that it met; with others they are cut off."""


def check(answer: Answer) -> None:
    """Raise ValueError for an answer about a session that is damaged. O(bytes of its state)."""
    checked = _CHECKS.get(type(answer))
    if checked is not None:
        checked(answer)


def _count(number: int) -> None:
    """Number of a stream's update, -1 when it is not known."""
    if not -1 <= number <= VERSION_MOST:
        raise ValueError("a number is out of range")


def check_state(flat: Sequence[bytes]) -> None:
    """`[key, value, ...]`: keys are UTF-8, values are JSON, one each. Raises ValueError."""
    if flat:
        check_keys(flat[::2])
        if 2 * len(split(render_pairs(flat), UNLIMITED)) != len(flat):
            raise ValueError("a value holds more than one JSON text")


def check_keys(keys: Sequence[bytes]) -> None:
    """Keys are UTF-8. Raises UnicodeDecodeError."""
    b"\0".join(keys).decode()


def check_time(ms: int) -> None:
    """A moment in Unix ms that can be written as text. Raises ValueError."""
    if not 0 <= ms <= TIME_MOST:
        raise ValueError("a time is out of range")


def _version(number: int) -> None:
    if not 0 <= number <= VERSION_MOST:
        raise ValueError("a version is out of range")


def _place(version: int, epoch: str, lineage: str) -> None:
    if not 0 <= version <= VERSION_MOST:
        raise ValueError("a version is out of range")
    _epoch(epoch)
    _token(lineage)


def _token(text: str) -> None:
    """A mark of a place in a history; it stands in JSON between quotes as it is."""
    if text.isalnum() and len(text) <= 64:  # as ours are
        return
    if len(text) > 64 or not text.isprintable() or '"' in text or "\\" in text:
        raise ValueError("an unknown status")


_epoch = lru_cache(4_096)(_token)


def _changes(sets: Sequence[bytes], deletes: Sequence[bytes]) -> None:
    check_state(sets)
    check_keys(deletes)


def _outcome(answer: Outcome) -> None:
    _place(answer.version, answer.epoch, answer.lineage)
    _token(answer.prev_lineage)
    _count(answer.last)
    if answer.result:
        compact(answer.result, UNLIMITED)
    if answer.conflicts:
        _shown(answer)


def _shown(answer: Outcome) -> None:
    check_keys(answer.conflicts[::2])
    if answer.status in SHOWN:
        for value in filter(None, answer.conflicts[1::2]):
            compact(value, UNLIMITED)


def _welcome(answer: Welcome) -> None:
    _place(answer.version, answer.epoch, answer.lineage)
    for number in (answer.fence, answer.newest, answer.online):
        _version(number)
    _count(answer.applied)
    check_state(answer.full or ())
    _changes(answer.sets, answer.deletes)
    _devices(answer.devices)


def _resumed(answer: Resumed) -> None:
    _place(answer.version, answer.epoch, answer.lineage)
    check_state(answer.full or ())
    _changes(answer.sets, answer.deletes)


def _snapshot(answer: Snapshot) -> None:
    _place(answer.version, answer.epoch, answer.lineage)
    for moment in (answer.created_at, answer.updated_at, answer.expires_at):
        check_time(moment)
    check_state(answer.flat or ())


def _reviewed(answer: Reviewed) -> None:
    _place(answer.version, answer.epoch, answer.lineage)
    _version(answer.floor)
    check_state(answer.flat)
    check_keys(answer.changed)


def _touched(answer: Touched) -> None:
    _place(answer.version, answer.epoch, answer.lineage)
    _version(answer.newest)


def _compared(answer: Compared) -> None:
    _place(answer.place.version, answer.place.epoch, answer.place.lineage)
    _version(answer.newest)


def _device_list(answer: DeviceList) -> None:
    _version(answer.fence)
    _devices(answer.devices)


def _devices(devices: Sequence[Device]) -> None:
    for device in devices:
        _version(device.fence)


def _peeked(answer: Peeked) -> None:
    _place(answer.version, answer.epoch, answer.lineage)
    check_time(answer.updated_at)


def _redeemed(answer: Redeemed) -> None:
    _place(answer.version, answer.epoch, answer.lineage)
    _version(answer.fence)
    check_state(answer.flat)


_CHECKS: dict[type, Callable[[Any], None]] = {
    Outcome: _outcome,
    Welcome: _welcome,
    Resumed: _resumed,
    Snapshot: _snapshot,
    Reviewed: _reviewed,
    Touched: _touched,
    Compared: _compared,
    DeviceList: _device_list,
    Peeked: _peeked,
    Redeemed: _redeemed,
}
