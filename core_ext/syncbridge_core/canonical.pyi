"""Compares JSON values: canonical form, spelling and imprint of a JSON text. See canonical.pyx.

Two values are equal when their canonical forms are the same bytes. Texts are trusted to be JSON;
what is not is its own canonical form.
"""

from collections.abc import Sequence

IMPRINT_SHORT: int
IMPRINT_LONG: int
UNKNOWN: bytes

def canonical(text: bytes) -> bytes:
    """The canonical form of a JSON text. O(n log n)."""

def imprint(text: bytes | None) -> bytes:
    """What stands for a value where values are compared; b"" for None, which is no value."""

def spelling(text: bytes) -> bytes:
    """What has to stand beside a stored text: its imprint, unless a script can tell that (b"")."""

def spellings(flat: Sequence[bytes]) -> list[bytes]:
    """The spelling of each value of `[key, value, ...]`; [] when all of them are b""."""
