"""Resolving a conflict between a session and the whole state of one client: the pure rule.

Theory of operation. A client that was away holds a state that began as the server's version
`base` and was then changed on its own; the server went on as well. Of the base is known which keys
the server has changed since (exactly: each key has the version of its last change) and, from the
journal, for most of these an imprint of what they were before. `kernels.merge3` tells from that
which differences are the client's own changes and which are only its old values. With
`changed_keys` the client says so itself.

Three strategies then differ in what is written and in who is named as the loser:

* `server_wins` writes nothing; a conflict is each of the client's own changes;
* `client_wins` writes all that differs; a conflict is each difference on a key that the server has
  changed after `base`;
* `merge` writes the client's own changes and leaves the server's; a conflict is each key that both
  have changed, and there the client wins.

A key that the client does not have is a deletion only in a `complete` state.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.kernels import Doc, Split, merge3
from syncbridge.records.sessions import Reviewed

UNKNOWN = b"?"
"""Imprint of a value of which nothing is known."""


class Strategy(StrEnum):
    """The side that wins when both have changed a key."""

    SERVER_WINS = "server_wins"
    CLIENT_WINS = "client_wins"
    MERGE = "merge"


class Claim(msgspec.Struct):
    """The client's side of a conflict.

    Args:
        state: its keys and values. complete: it has no others.
        version, epoch, lineage: where it began; an empty epoch stands for the session's.
        changed_keys: the keys that it changed itself; None when it does not say.
    """

    state: Split
    version: int
    epoch: str = ""
    complete: bool = False
    changed_keys: frozenset[bytes] | None = None
    lineage: str = ""


class Conflict(msgspec.Struct):
    """A key on which one side lost. `value` won, None when the key's deletion did."""

    key: bytes
    winner: Literal["server", "client"]
    value: bytes | None


class Resolution(msgspec.Struct):
    """The changes to write, and the conflicts to report.

    `base` says how the client's own changes were known: by `changed_keys`, from the `journal`, or
    `unknown` when for some key it had to be assumed.
    """

    sets: list[bytes]
    deletes: list[bytes]
    conflicts: list[Conflict]
    base: Literal["changed_keys", "journal", "unknown"]


def resolve(strategy: Strategy, known: Reviewed, claim: Claim) -> Resolution:
    """Apply one strategy. O(size of both states).

    Raises:
        SyncBridgeError: INVALID_FIELD when `changed_keys` names a key without a value in a state
            that is not complete.
    """
    doc = Doc.from_flat(known.flat, known.version, known.epoch)
    imprints = base_imprints(known, claim)
    sets, deletes, contested, unknown = merge3(doc, claim.state, imprints, claim.complete)
    base: Literal["changed_keys", "journal", "unknown"] = "unknown" if unknown else "journal"
    if claim.changed_keys is not None:
        base = "changed_keys"
        sets, deletes = _named(doc, claim)
        contested = [key for key in (*sets[::2], *deletes) if key in imprints]
    if strategy is Strategy.SERVER_WINS:
        lost = [Conflict(key, "server", doc.get(key)) for key in (*sets[::2], *deletes)]
        return Resolution([], [], lost, base)
    if strategy is Strategy.CLIENT_WINS:
        sets, deletes = doc.diff(claim.state)
        deletes = deletes if claim.complete else []
        contested = [key for key in (*sets[::2], *deletes) if key in imprints]
    won = [Conflict(key, "client", claim.state.get(key)) for key in contested]
    return Resolution(sets, deletes, won, base)


def base_imprints(known: Reviewed, claim: Claim) -> dict[bytes, bytes]:
    """Imprint of the base value of each key that the server has, or may have, changed since."""
    lost = claim.version > known.version or not known.verified
    if lost or claim.epoch not in ("", known.epoch):
        # The client comes from another history: nothing in this one tells what it began with.
        return dict.fromkeys([*known.flat[::2], *claim.state], UNKNOWN)
    imprints = dict.fromkeys(known.changed, UNKNOWN)
    if claim.version < known.floor:
        # Deletions that old are forgotten, so an absent key may have been deleted meanwhile.
        here = set(known.flat[::2])
        imprints |= {key: UNKNOWN for key in claim.state if key not in here}
    if known.journal and claim.version >= journal_reach(known):
        for version, key, imprint in reversed(known.journal):
            if version > claim.version and key in imprints:
                imprints[key] = imprint
    return imprints


def journal_reach(known: Reviewed) -> int:
    """The oldest version after which the journal has every change."""
    return known.journal[0][0] - 1


def _named(doc: Doc, claim: Claim) -> tuple[list[bytes], list[bytes]]:
    """The change set of the keys that the client says it changed."""
    names = claim.changed_keys or frozenset()
    if not claim.complete:
        missing = sorted(key for key in names if key not in claim.state)
        if missing:
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                f"changed_keys: {missing[0].decode(errors='replace')!r} has no value in "
                "client_state; send complete: true if it was deleted",
                field="changed_keys",
            )
    differing, absent = doc.diff(claim.state)
    pairs = zip(differing[::2], differing[1::2], strict=True)
    sets = [part for key, value in pairs if key in names for part in (key, value)]
    return sets, [key for key in absent if key in names]
