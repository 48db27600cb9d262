"""Putting changes together, in plain Python: the twin of syncbridge_core.merge.

Same names, same results, checked by one test suite. It shares no idea with the C code: a patch is
applied by rebuilding objects as dicts of member texts, level by level. Correct before fast.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain

from syncbridge.kernels._canonical_py import UNKNOWN, imprint
from syncbridge.kernels._document_py import (
    DEFAULT_LIMITS,
    Doc,
    DocumentError,
    DocumentLimits,
    Split,
    compact,
)

__all__ = ["compose", "merge3", "merge_patch"]

ChangeSet = tuple[Sequence[bytes], Sequence[bytes]]

STORED = DocumentLimits(
    max_bytes=2**31 - 1, max_value_bytes=2**31 - 1, max_depth=512, max_number_bytes=2**31 - 1
)
"""Stored text was held to narrower limits when it came in."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^{}\[\],:"]++')


def merge_patch(
    value: bytes, patch: bytes | memoryview, limits: DocumentLimits = DEFAULT_LIMITS
) -> bytes:
    """Apply a JSON Merge Patch (RFC 7396) to one JSON value.

    `value` is stored text, b"" for none; it only has to be JSON. `patch` is held to `limits`, and
    so is the size of the result (`max_value_bytes`). Members keep their place and spelling, new
    ones follow in the order of the patch. Raises DocumentError.
    """
    change = compact(patch, limits)
    result = _patched(compact(value, STORED) if value else b"", change)
    if len(result) > limits.max_value_bytes:
        raise DocumentError("too_large", 413, "value is too large")
    return result


def _patched(value: bytes, patch: bytes) -> bytes:
    if not patch.startswith(b"{"):
        return patch
    members = _members(value) if value.startswith(b"{") else {}
    for name, (token, change) in _members(patch).items():
        if change == b"null":
            members.pop(name, None)
        else:
            token, old = members.get(name, (token, b""))
            members[name] = (token, _patched(old, change))
    return b"{" + b",".join([token + b":" + text for token, text in members.values()]) + b"}"


def _members(text: bytes) -> dict[str, tuple[bytes, bytes]]:
    """The members of a compact object: name -> (its token, text of the value)."""
    parts: list[list[bytes]] = [[]]
    depth = 0
    for token in _TOKEN.findall(text[1:-1]):
        depth += (token in (b"{", b"[")) - (token in (b"}", b"]"))
        if token == b"," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    # A part is: name, colon, tokens of the value.
    return {json.loads(p[0].decode()): (p[0], b"".join(p[2:])) for p in parts if p}


def compose(first: ChangeSet, second: ChangeSet) -> tuple[list[bytes], list[bytes]]:
    """One change set that does what `first` and then `second` do; keys stand where they stood."""
    merged: dict[bytes, bytes | None] = {}
    for sets, deletes in (first, second):
        merged |= dict.fromkeys(deletes)
        merged |= zip(sets[::2], sets[1::2], strict=True)
    pairs = [(key, value) for key, value in merged.items() if value is not None]
    return list(chain.from_iterable(pairs)), [key for key, value in merged.items() if value is None]


def merge3(
    server: Doc, client: Split, base: Mapping[bytes, bytes], complete: bool = False
) -> tuple[list[bytes], list[bytes], list[bytes], list[bytes]]:
    """The changes of a client since its base that differ from the server's current state.

    `base` has an imprint of the old value of each key that the server has changed since. Keys that
    the client does not have count as deleted only if `complete` says that it sent everything.

    Returns `(sets, deletes, contested, unknown)`: the client's changes, which of these keys the
    server changed too, and for which of those nothing is known of the base.
    """
    differing, absent = server.diff(client)
    proposed: dict[bytes, bytes | None] = dict(zip(differing[::2], differing[1::2], strict=True))
    if complete:
        proposed |= dict.fromkeys(absent)
    changed = {
        key: value
        for key, value in proposed.items()
        if base.get(key, UNKNOWN) == UNKNOWN or base[key] != imprint(value)
    }
    sets: list[bytes] = []
    deletes: list[bytes] = []
    for key, value in changed.items():
        if value is None:
            deletes.append(key)
        else:
            sets += (key, value)
    contested = [key for key in changed if key in base]
    return sets, deletes, contested, [key for key in contested if base[key] == UNKNOWN]
