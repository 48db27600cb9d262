"""Putting changes together: RFC 7396 patches, three-way merge, composition. See merge.pyx."""

from collections.abc import Mapping, Sequence

from syncbridge_core.document import Doc, DocumentLimits, Split

STORED: DocumentLimits

def merge_patch(value: bytes, patch: bytes | memoryview, limits: DocumentLimits = ...) -> bytes:
    """Apply a JSON Merge Patch (RFC 7396) to one value; b"" for none. O(value + patch)."""

def compose(
    first: tuple[Sequence[bytes], Sequence[bytes]], second: tuple[Sequence[bytes], Sequence[bytes]]
) -> tuple[list[bytes], list[bytes]]:
    """The change set `(flat sets, deletes)` equal to `first` and then `second`."""

def merge3(
    server: Doc, client: Split, base: Mapping[bytes, bytes], complete: bool = False
) -> tuple[list[bytes], list[bytes], list[bytes], list[bytes]]:
    """`(flat sets, deletes, contested, unknown)`: what the client changed since its base.

    `base`: imprint of the old value of each key that the server has changed since.
    """
