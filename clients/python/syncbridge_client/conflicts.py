"""What becomes of an update when somebody else has changed one of its keys meanwhile."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from syncbridge_client.operations import Edit
from syncbridge_client.queue import Pending
from syncbridge_client.values import MISSING, copied, same

Resolver = Callable[[str, Any, Any], Any]
"""(key, mine, theirs) -> the value to write; MISSING for a key that is not to be there."""

Policy = Literal["server_wins", "client_wins"] | Resolver
MAX_ROUNDS = 8
"""Conflicts of one update after which it is refused; the keys are then fought over."""


class Resolution(NamedTuple):
    """One key of one update. `written`: what goes to the server now; None of it if `dropped`."""

    key: str
    mine: Any
    theirs: Any
    written: Any
    dropped: bool


def rebased(pending: Pending, policy: Policy) -> tuple[dict[str, Edit], list[Resolution]]:
    """The edits of an update after its contested keys were settled, and what was decided.

    An update that loses all of its keys comes back without edits: it is dropped.
    """
    edits: dict[str, Edit] = {}
    decided: list[Resolution] = []
    for key, edit in pending.edits.items():
        if key not in pending.contested:
            edits[key] = edit
            continue
        resolution = decide(key, edit, pending.contested[key], policy)
        decided.append(resolution)
        if not resolution.dropped:
            edits[key] = _edit(resolution.written)
    return edits, decided


def decide(key: str, edit: Edit, theirs: Any, policy: Policy) -> Resolution:
    """Settle one key."""
    mine = edit.value
    if policy == "client_wins":
        return Resolution(key, mine, theirs, mine, False)
    if policy == "server_wins":
        return Resolution(key, mine, theirs, theirs, True)
    assert callable(policy)
    chosen = policy(key, mine, theirs)
    written = chosen if chosen is MISSING else copied(chosen)
    return Resolution(key, mine, theirs, written, same(written, theirs))


def _edit(value: Any) -> Edit:
    return Edit("DELETE") if value is MISSING else Edit("SET", value)
