"""The Lua scripts and their names by content (SHA-1).

A script is named by its content, so two releases with different scripts can share one Redis. The
first line `#!lua` makes the server check that every key used was declared, which is what Cluster
needs.
"""

import hashlib
from importlib.resources import files


class Scripts:
    """Sources and digests of all scripts, by name."""

    def __init__(self) -> None:
        self.sources: dict[str, bytes] = {
            entry.name.removesuffix(".lua"): entry.read_bytes()
            for entry in files(__package__).joinpath("scripts").iterdir()
            if entry.name.endswith(".lua")
        }
        self.digests: dict[str, bytes] = {name: sha1(text) for name, text in self.sources.items()}


def sha1(text: bytes) -> bytes:
    """The name that Redis gives to a script; an identifier, not a protection."""
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
