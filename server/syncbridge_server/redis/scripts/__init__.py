"""The Lua scripts and their names by content (SHA-1).

A script is named by its content, so two releases with different scripts can share one Redis. The
limits are constants in their text: the statement that begins with `local TTL` is written anew with
those of this server.
"""

import hashlib
import re
from importlib.resources import files

from syncbridge.limits import Limits

WAITING_TTL_MS = 3_600_000
"""How long the devices of a session that does not exist yet are remembered."""

READING = frozenset(
    {
        "call_export",
        "chill",
        "devices",
        "inspect",
        "peek",
        "read",
        "resume",
        "review",
        "row",
    }
)
"""Scripts that change nothing."""

HELLO = "hello"
"""Tells which updates were applied, and is answered in any case."""

RELIED_ON = frozenset(
    {
        "apply",
        "call_beat",
        "call_create",
        "call_delete",
        "call_details",
        "call_event",
        "call_state",
        "erase",
        "expel",
        "handoff_create",
        "handoff_redeem",
        "inbox_put",
        "inbox_replay",
        "refresh",
        "voice_delete",
        "voice_erase",
        "voice_recording",
        "voice_write",
    }
)
"""Scripts whose effect somebody relies on: docs/decisions/0011-durability.md."""

_CONSTANTS = re.compile(rb"^local (TTL\b[A-Z_, ]*)=[\s\d,]+$", re.MULTILINE)


def _read_all() -> dict[str, bytes]:
    folders = (entry for entry in files(__package__).iterdir() if entry.is_dir())
    return {
        entry.name.removesuffix(".lua"): entry.read_bytes()
        for folder in folders
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }


class Scripts:
    """Sources and digests of all scripts under one set of limits.

    The digests change with `limit`; calls that were packed before that answer NOSCRIPT and are
    refused as not done.
    """

    def __init__(self) -> None:
        self._original = _read_all()
        self.sources: dict[str, bytes] = {}
        self.digests: dict[str, bytes] = {}
        self.limit(Limits())

    def limit(self, limits: Limits) -> None:
        """Write limits into the texts."""
        sources = {name: limited(text, limits) for name, text in self._original.items()}
        digests = {name: sha1(text) for name, text in sources.items()}
        self.sources, self.digests = sources, digests


def limited(text: bytes, limits: Limits) -> bytes:
    """A script with its constants."""
    values = {
        "TTL": limits.session_ttl * 1000,
        "WAITING_TTL": WAITING_TTL_MS,
        "MOST_BYTES": limits.state_bytes,
        "MOST_KEYS": limits.state_keys,
        "MOST_VALUE": limits.value_bytes,
        "TOMBSTONES": limits.tombstones,
        "MOST_STREAMS": max(512, 8 * limits.devices),
    }

    def rewritten(found: re.Match[bytes]) -> bytes:
        names = found[1].decode().replace(" ", "").split(",")
        numbers = ", ".join(str(values[name]) for name in names)
        return f"local {', '.join(names)} = {numbers}\n".encode().rstrip()

    return _CONSTANTS.sub(rewritten, text)


def sha1(text: bytes) -> bytes:
    """The name that Redis gives to a script; an identifier, not a protection."""
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
