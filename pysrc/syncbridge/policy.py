"""The state policy: who may write a key of a session's state, and what its value may be.

A policy is a list of rules; the first one with a pattern that fits a key decides, and a key that no
rule names is free. Reading is not filtered.

Patterns are those of shells (`*`, `?`, `[abc]`). `{device}` in one, after plain text, stands for
the writing device: up to the character that follows it, and without that character in it, so that
no device id can be chosen to reach into another's keys.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity, Role
from syncbridge.operations import MERGE
from syncbridge.records.sessions import Apply
from syncbridge.resolve import Strategy

DEVICE = "{device}"
MAX_REMEMBERED = 16_384
"""Keys whose rule is remembered; then all are forgotten."""

Writer = Literal["user", "device", "service", "admin"]
_ALLOWED = {
    "user": frozenset({Role.USER, Role.SERVICE, Role.ADMIN}),
    "device": frozenset({Role.SERVICE, Role.ADMIN}),
    "service": frozenset({Role.SERVICE, Role.ADMIN}),
    "admin": frozenset({Role.ADMIN}),
}
_WHO = {
    "user": "users, services and admins",
    "device": "the device that it names, services and admins",
    "service": "services and admins",
    "admin": "admins",
}
_WILD = re.compile(r"[*?\[]")
_GROWING = frozenset({"INCR", "APPEND"})
"""Operations whose result only the store knows."""


class Rule(msgspec.Struct, frozen=True):
    """What holds for the keys that its patterns name.

    Attributes:
        name: what refusals say. keys: its patterns.
        write: who may write such keys; services and admins also where `device` may.
        max_bytes: largest value, as compact JSON; 0: no bound of its own.
        create: whether a user's device may make such a key that is not there.
        strategy: what is done about an update from an older version that names none.
        invalid: what is wrong with a value; "" for a good one. None: any value is good.
    """

    name: str
    keys: tuple[str, ...]
    write: Writer = "user"
    max_bytes: int = 0
    create: bool = True
    strategy: Strategy | None = None
    invalid: Callable[[bytes], str] | None = None


class Fit(NamedTuple):
    """A rule and, when its pattern has `{device}`, the device that the key names."""

    rule: Rule
    device: str = ""


class Policy:
    """Rules, in order. Raises ValueError for a pattern that cannot be."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._patterns = [
            (re.compile(expression(key, rule)), rule) for rule in self.rules for key in rule.keys
        ]
        self._fits: dict[bytes, Fit | None] = {}

    def fit(self, key: bytes) -> Fit | None:
        """The rule for a key; None for a free one. O(patterns) once, then one look-up."""
        try:
            return self._fits[key]
        except KeyError:
            found = self._search(key.decode(errors="replace"))
        if len(self._fits) >= MAX_REMEMBERED:
            self._fits.clear()
        self._fits[key] = found
        return found

    def _search(self, key: str) -> Fit | None:
        for pattern, rule in self._patterns:
            match = pattern.match(key)
            if match is not None:
                return Fit(rule, match.groupdict().get("device") or "")
        return None

    def denies(self, key: bytes, identity: Identity, device_id: str) -> Rule | None:
        """The rule that keeps a caller from writing a key; None when it may."""
        fit = self.fit(key)
        if fit is None or identity.role in _ALLOWED[fit.rule.write]:
            return None
        own = fit.rule.write == "device" and fit.device == device_id != ""
        return None if own else fit.rule

    def hold(self, identity: Identity, request: Apply, operation: str = "SET") -> None:
        """Check a write of some keys against the rules, before it goes to the store.

        Keys that its device may not create become a condition of the write.

        Args:
            operation: its name, as clients send it. What MERGE makes is held by `hold_value`.

        Raises:
            SyncBridgeError: FORBIDDEN, TOO_LARGE or INVALID_FIELD, with `key` and `rule`.
        """
        sets = request.sets
        for index in range(0, len(sets), 2):
            key = sets[index]
            fit = self._writable(key, identity, request.device_id)
            if fit is None:
                continue
            if operation != MERGE:
                _check_value(key, sets[index + 1], fit.rule, operation)
            if not fit.rule.create and not identity.privileged:
                request.must_exist = [*request.must_exist, key]
        for key in request.deletes:
            self._writable(key, identity, request.device_id)

    def hold_value(self, key: bytes, value: bytes) -> None:
        """Check a computed value against the rules. Raises TOO_LARGE or INVALID_FIELD."""
        fit = self.fit(key)
        if fit is not None:
            _check_value(key, value, fit.rule, MERGE)

    def _writable(self, key: bytes, identity: Identity, device_id: str) -> Fit | None:
        if self.denies(key, identity, device_id) is not None:
            raise self.forbidden(key)
        return self.fit(key)

    def forbidden(self, key: bytes) -> SyncBridgeError:
        """Why a key may not be written by its caller."""
        fit = self.fit(key)
        who = _WHO[fit.rule.write] if fit is not None else "others"
        return _refused(ErrorCode.FORBIDDEN, key, fit, f"written by {who} only")

    def absent(self, key: bytes) -> SyncBridgeError:
        """The reason why a missing key may not be created."""
        detail = "a device may change it, and not create it"
        return _refused(ErrorCode.FORBIDDEN, key, self.fit(key), detail)

    def strategy(self, keys: Iterable[bytes]) -> Strategy | None:
        """What becomes of an update that names no strategy; None unless all its keys agree."""
        found = {fit.rule.strategy if fit else None for fit in map(self.fit, keys)}
        return found.pop() if len(found) == 1 else None

    def spare(self, identity: Identity, request: Apply, there: Sequence[bytes]) -> list[bytes]:
        """Restrict a write of a whole state, or of its differences, to the allowed keys.

        Args:
            request: with `replace`, forbidden keys keep their value in `there`; else they are
                removed from it. there: the stored state, flat.

        Returns:
            The keys that were left.

        Raises:
            SyncBridgeError: TOO_LARGE or INVALID_FIELD for a value that is changed.
        """
        state = dict(zip(there[::2], there[1::2], strict=True))
        wanted = dict(zip(request.sets[::2], request.sets[1::2], strict=True))
        gone = [key for key in state if key not in wanted] if request.replace else request.deletes
        kept = [key for key in gone if self._spares(identity, request.device_id, key, state)]
        for key, value in wanted.items():
            if state.get(key) == value:
                continue
            if self._spares(identity, request.device_id, key, state):
                kept.append(key)
                continue
            fit = self.fit(key)
            if fit is not None:
                _check_value(key, value, fit.rule, "SET")
        if kept:
            _leave(request, kept, wanted, state)
        return kept

    def _spares(
        self, identity: Identity, device_id: str, key: bytes, state: Mapping[bytes, bytes]
    ) -> bool:
        if self.denies(key, identity, device_id) is not None:
            return True
        fit = self.fit(key)
        created = fit is not None and not fit.rule.create and key not in state
        return created and not identity.privileged


class Current:
    """Returns the current policy; None: every key is free."""

    policy: Policy | None = None


def _leave(
    request: Apply,
    kept: Sequence[bytes],
    wanted: dict[bytes, bytes],
    state: Mapping[bytes, bytes],
) -> None:
    for key in kept:
        wanted.pop(key, None)
        if request.replace and key in state:
            wanted[key] = state[key]
    request.sets = [part for pair in wanted.items() for part in pair]
    left = set(kept)
    request.deletes = [key for key in request.deletes if key not in left]


def _check_value(key: bytes, value: bytes, rule: Rule, operation: str) -> None:
    """Raises TOO_LARGE or INVALID_FIELD."""
    if operation in _GROWING and (rule.invalid is not None or rule.max_bytes):
        detail = f"its value is bounded, which {operation} cannot be held to; use CAS or MERGE"
        raise _refused(ErrorCode.INVALID_FIELD, key, rule, detail)
    if 0 < rule.max_bytes < len(value):
        raise _refused(ErrorCode.TOO_LARGE, key, rule, f"at most {rule.max_bytes} bytes")
    problem = rule.invalid(value) if rule.invalid is not None else ""
    if problem:
        raise _refused(ErrorCode.INVALID_FIELD, key, rule, problem)


def _refused(code: ErrorCode, key: bytes, fit: Fit | Rule | None, detail: str) -> SyncBridgeError:
    rule = fit.rule if isinstance(fit, Fit) else fit
    text, named = key.decode(errors="replace"), rule.name if rule is not None else ""
    return SyncBridgeError(code, f"key {text!r}, rule {named!r}: {detail}", key=text, rule=named)


def expression(pattern: str, rule: Rule) -> str:
    """A pattern as a regular expression, which takes time linear in the key.

    Raises ValueError.
    """
    before, device, after = pattern.partition(DEVICE)
    if rule.write == "device" and not device:
        raise ValueError(
            f"rule {rule.name!r}: {pattern!r} needs {DEVICE} to be writable by a device"
        )
    if not device:
        return fnmatch.translate(pattern)
    if _WILD.search(before) or _WILD.match(after) or DEVICE in after:
        raise ValueError(f"rule {rule.name!r}: {DEVICE} must be one whole segment of {pattern!r}")
    text = f"[^{re.escape(after[0])}]+" if after else ".+"
    return rf"{re.escape(before)}(?P<device>(?s:{text})){fnmatch.translate(after)}"
