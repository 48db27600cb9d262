"""The Lua scripts and their names by content (SHA-1).

A script is named by its content, so two releases with different scripts can share one Redis. The
limits are constants in their text: the statement that begins with `local TTL` is written anew with
those of this server.

A script that changes something others may want to be told of has a second text, which also writes
events: lines that begin with `--@ ` are part of it, behind `events/prelude.lua`. While nobody reads
events, the first text runs, and it does not have those lines at all. Likewise lines that begin with
`--w `, behind `sessions/writers.lua`, note who wrote each key, where that is wanted.
"""

import hashlib
import re
from importlib.resources import files

from syncbridge.limits import Limits

WAITING_TTL_MS = 3_600_000
"""Seconds for which devices of a session without a write are remembered."""

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
"""Reports which updates were applied, and is answered in any case."""

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
        "voice_name",
        "voice_recording",
        "voice_write",
    }
)
"""Scripts whose effect must be confirmed: docs/decisions/0011-durability.md."""

PUT = "event_put"
"""Writes an event of its own."""

TELLING = "+events"
"""Suffix of the name of a script's text that also writes events."""

_EVENTS = re.compile(rb"^--@ (.*\n)", re.MULTILINE)
_WRITERS = re.compile(rb"^--w (.*\n)", re.MULTILINE)
_FIRST_LINE = re.compile(rb"^#!lua.*\n")
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

    Attributes:
        sources: all texts by name, those that write events too (`TELLING`).
        digests: which text runs for a name now.
        telling: names of the scripts that write events, while they do.
    """

    def __init__(self) -> None:
        scripts = _read_all()
        events, writers = scripts.pop("prelude"), scripts.pop("writers")
        self._original = _both_texts(scripts, events)
        self._writers = writers
        self.sources: dict[str, bytes] = {}
        self.digests: dict[str, bytes] = {}
        self.telling: frozenset[str] = frozenset()
        self.limit(Limits())

    def limit(self, limits: Limits, writers: bool = False) -> None:
        """Write limits into the texts, and whether they note who wrote each key."""
        prelude = self._writers if writers else b""
        self.sources = {
            name: limited(_chosen(text, _WRITERS, prelude), limits)
            for name, text in self._original.items()
        }
        self.tell(bool(self.telling))

    def tell(self, on: bool) -> None:
        """Switch the writing of events on or off."""
        able = [name for name in self.sources if on and name + TELLING in self.sources]
        texts = self.sources | {name: self.sources[name + TELLING] for name in able}
        self.digests = {name: sha1(text) for name, text in texts.items()}
        self.telling = frozenset([*able, PUT]) if on else frozenset()


def _both_texts(scripts: dict[str, bytes], prelude: bytes) -> dict[str, bytes]:
    """The scripts without events, and those that have any with them, under another name."""
    texts = {name: _chosen(text, _EVENTS, b"") for name, text in scripts.items()}
    for name, text in scripts.items():
        if texts[name] != text:
            texts[name + TELLING] = _chosen(text, _EVENTS, prelude)
    return texts


def _chosen(text: bytes, lines: re.Pattern[bytes], prelude: bytes) -> bytes:
    """A script with such lines, behind what they need of a prelude; with an empty one without."""
    if not prelude or not lines.search(text):
        return lines.sub(b"", text)
    head = _FIRST_LINE.match(text)
    at = head.end() if head else 0
    whole = lines.sub(rb"\1", text[at:])
    return text[:at] + _named_in(prelude, whole) + whole


def _named_in(prelude: bytes, text: bytes) -> bytes:
    """The functions of the prelude that a script calls; unused ones would cost time."""
    needed, found = text, b""
    for part in reversed(prelude.split(b"\n\n")):
        name = re.search(rb"^local function (\w+)", part, re.MULTILINE)
        if name is not None and re.search(rb"\b%b\(" % name[1], needed):
            needed += part
            found = part + b"\n\n" + found
    return found


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
    """The name that Redis gives to a script; an identifier, not a security measure."""
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
