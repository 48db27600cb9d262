"""The Lua scripts as this server must be sent them, and their names by content (SHA-1).

A script is named by its content, so two releases with different scripts can share one Redis. On
Redis 7 the first line `#!lua` makes the server check that every key used was declared, which is
what Cluster needs; Redis 6.2 does not know that line, so it is taken off there.
"""

import hashlib
from importlib.resources import files

SHEBANG = b"#!lua"
SHEBANG_SINCE = (7, 0)


def _read_all() -> dict[str, bytes]:
    folders = (entry for entry in files(__package__).iterdir() if entry.is_dir())
    return {
        entry.name.removesuffix(".lua"): entry.read_bytes()
        for folder in folders
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }


class Scripts:
    """Sources and digests of all scripts for one server version.

    The digests change when `adapt` sees a server of the other kind; calls that were packed before
    that answer NOSCRIPT and are refused as not done.
    """

    def __init__(self) -> None:
        self._original = _read_all()
        self.sources: dict[str, bytes] = {}
        self.digests: dict[str, bytes] = {}
        self.adapt(SHEBANG_SINCE)

    def adapt(self, server: tuple[int, ...]) -> None:
        """Choose the text for a server version such as `(6, 2, 14)`."""
        sources = {name: _for_server(text, server) for name, text in self._original.items()}
        digests = {name: sha1(text) for name, text in sources.items()}
        self.sources, self.digests = sources, digests


def _for_server(text: bytes, server: tuple[int, ...]) -> bytes:
    if server >= SHEBANG_SINCE or not text.startswith(SHEBANG):
        return text
    return text.partition(b"\n")[2]


def sha1(text: bytes) -> bytes:
    """The name that Redis gives to a script; an identifier, not a protection."""
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
