"""From a client's STATE_UPDATE to the keys it sets and deletes, validated.

A change set is `(sets, deletes)`: a flat `[key, value, ...]` list of bytes and a list of keys.
"""

from collections.abc import Iterable, Sequence

import msgspec

from syncbridge import kernels, operations
from syncbridge.errors import BY_WIRE, ErrorCode, SyncBridgeError
from syncbridge.limits import Limits
from syncbridge.messages import Position, UpdatePayload
from syncbridge.records.sessions import Place

ChangeSet = tuple[list[bytes], list[bytes]]

MAX_VERSION = 2**53 - 1
"""Largest integer that every JSON implementation keeps exactly (RFC 7493 section 2.2)."""

MAX_TOKEN = 64
"""Characters of an epoch or lineage that a client gives back."""

RESERVED = frozenset({b"__proto__"})


def document_limits(limits: Limits) -> kernels.DocumentLimits:
    """The kernel's bounds for a server's limits."""
    return kernels.DocumentLimits(
        max_bytes=limits.state_bytes,
        max_keys=limits.state_keys,
        max_key_bytes=limits.key_bytes,
        max_value_bytes=limits.value_bytes,
        max_depth=limits.depth,
        max_number_bytes=limits.number_bytes,
    )


class UpdateParser:
    """Turns update payloads into change sets under one set of limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._document = document_limits(limits)
        # A value is one level deeper once it is in the document.
        self._value = document_limits(msgspec.structs.replace(limits, depth=limits.depth - 1))
        self._element = document_limits(msgspec.structs.replace(limits, depth=limits.depth - 2))

    def parse(self, payload: UpdatePayload) -> ChangeSet:
        """Validate one STATE_UPDATE. Of an operation, `sets` is the key and its operand.

        Raises:
            SyncBridgeError: what is wrong, where, and what would be accepted.
        """
        check_version("base_version", payload.base_version)
        if payload.expected is not msgspec.UNSET and payload.operation != "CAS":
            raise SyncBridgeError(ErrorCode.INVALID_MESSAGE, "expected: allowed only with CAS")
        if payload.key is None:
            return self._several(payload)
        if payload.changes is not msgspec.UNSET or payload.deleted_keys:
            raise SyncBridgeError(
                ErrorCode.INVALID_MESSAGE,
                "payload: either key, value and operation, or changes and deleted_keys",
            )
        return self._single(payload, self.key(payload.key))

    def split(self, data: bytes | msgspec.Raw, field: str) -> kernels.Split:
        """Take a JSON object apart; errors name `field`."""
        try:
            return kernels.split(memoryview(data), self._document)
        except kernels.DocumentError as error:
            raise document_error(error, field) from None

    def several(self, changes: bytes | msgspec.Raw | None, deleted: Sequence[str]) -> ChangeSet:
        """A change set from a `changes` object and a list of deleted keys."""
        sets = [] if changes is None else self.split(changes, "changes").flat()
        deletes = self.deleted(deleted) if deleted else []
        if len(sets) // 2 + len(deletes) > self._limits.changes:
            raise SyncBridgeError(
                ErrorCode.TOO_MANY_CHANGES,
                f"changes: at most {self._limits.changes} keys in one update",
            )
        if deletes:
            check_overlap(sets[::2], deletes)
        return sets, deletes

    def key(self, text: str) -> bytes:
        """A state key as bytes.

        Raises:
            SyncBridgeError: INVALID_KEY or RESERVED_KEY.
        """
        key = text.encode()
        if not key or len(key) > self._limits.key_bytes or b"\0" in key:
            raise SyncBridgeError(
                ErrorCode.INVALID_KEY,
                f"key: 1 to {self._limits.key_bytes} bytes without NUL are expected",
            )
        if key in RESERVED:
            raise SyncBridgeError(ErrorCode.RESERVED_KEY, f"key: {text} is reserved")
        return key

    def expected(self, payload: UpdatePayload) -> bytes:
        """The value that CAS expects as compact JSON, b"" when the key must not exist."""
        if payload.expected is msgspec.UNSET:
            return b""
        return self._compact(payload.expected, self._value, "expected")

    def merged(self, value: bytes, patch: bytes) -> bytes:
        """A stored value, b"" for none, after a JSON Merge Patch (RFC 7396)."""
        try:
            return kernels.merge_patch(value, patch, self._value)
        except kernels.DocumentError as error:
            raise document_error(error, "value") from None

    def deleted(self, keys: Iterable[str]) -> list[bytes]:
        """Deleted keys as bytes, each once."""
        return list(dict.fromkeys(self.key(key) for key in keys))

    def _several(self, payload: UpdatePayload) -> ChangeSet:
        if payload.changes is msgspec.UNSET and not payload.deleted_keys:
            raise SyncBridgeError(
                ErrorCode.INVALID_MESSAGE, "payload: expected key, changes or deleted_keys"
            )
        if payload.operation != "SET":
            raise SyncBridgeError(
                ErrorCode.INVALID_MESSAGE, "operation: allowed only with a single key"
            )
        changes = None if payload.changes is msgspec.UNSET else payload.changes
        return self.several(changes, payload.deleted_keys)

    def _single(self, payload: UpdatePayload, key: bytes) -> ChangeSet:
        if payload.operation == "DELETE":
            return [], [key]
        name = payload.operation
        if name not in operations.NAMES:
            raise SyncBridgeError(
                ErrorCode.UNKNOWN_OPERATION,
                f"operation: one of {', '.join(operations.NAMES)} is expected, not {name[:32]!r}",
            )
        if payload.value is msgspec.UNSET:
            raise SyncBridgeError(ErrorCode.INVALID_MESSAGE, f"value: {name} needs one")
        limits = self._element if name == "APPEND" else self._value
        return [key, operations.operand(name, self._compact(payload.value, limits, "value"))], []

    def _compact(self, value: msgspec.Raw, limits: kernels.DocumentLimits, field: str) -> bytes:
        try:
            return kernels.compact(memoryview(value), limits)
        except kernels.DocumentError as error:
            raise document_error(error, field) from None


def check_version(field: str, version: int | None) -> None:
    """Refuse a version that is negative or beyond 2^53-1."""
    if version is not None and not 0 <= version <= MAX_VERSION:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, f"{field}: an integer from 0 to {MAX_VERSION} is expected"
        )


def check_stream(stream: str, seq: int) -> None:
    """Refuse a number without a stream, a stream without a number, and either beyond its bounds."""
    if len(stream) > MAX_TOKEN:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, f"stream: at most {MAX_TOKEN} characters", field="stream"
        )
    if not (1 if stream else 0) <= seq <= (MAX_VERSION if stream else 0):
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD,
            "seq: expected an integer of at least 1, together with stream",
            field="seq",
        )


def check_acked(stream: str, acked: int) -> None:
    """Refuse what AUTH says of a stream, when it cannot be."""
    check_stream(stream, 1 if stream else 0)
    if not 0 <= acked <= (MAX_VERSION if stream else 0):
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD,
            "acked: expected the last acknowledged seq of stream",
            field="acked",
        )


def check_lineage(field: str, lineage: str) -> None:
    """Refuse a lineage that is longer than any of ours."""
    if len(lineage) > MAX_TOKEN:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, f"{field}: at most {MAX_TOKEN} characters", field=field
        )


def place_of(field: str, position: Position) -> Place:
    """A client's place in a history, checked; errors name `field`."""
    check_version(f"{field}.version", position.version)
    check_lineage(f"{field}.lineage", position.lineage)
    if len(position.epoch) > MAX_TOKEN:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, f"{field}.epoch: at most {MAX_TOKEN} characters"
        )
    return Place(position.epoch, position.version, position.lineage)


def check_overlap(changed: Iterable[bytes], deleted: Sequence[bytes]) -> None:
    """Refuse a key that is both changed and deleted."""
    if not deleted:
        return
    both = set(deleted).intersection(changed)
    if both:
        name = min(both).decode(errors="replace")
        raise SyncBridgeError(ErrorCode.KEY_OVERLAP, f"key {name!r} is both changed and deleted")


def document_error(error: kernels.DocumentError, field: str) -> SyncBridgeError:
    """A kernel's complaint as an error for the client."""
    where = f"{field}.{error.where}" if error.where else field
    return SyncBridgeError(BY_WIRE[error.code], f"{where}: {error}", field=where)
