"""The last writer of a key, as Redis keeps it beside the key.

An entry is `version epoch device`: the version that the write made, the first four digits of the
session's epoch, and the device. It tells of a key only while both are still those of the key. A
node that keeps no entries (an earlier release, or one without `SYNCBRIDGE_KEY_WRITERS`) changes a
key and leaves its entry alone; the entry then has an older version. When such a node ends a session
and begins it anew, what was left of it has another epoch.
"""

EPOCH_DIGITS = 4


def entry_of(version: int, epoch: str, device_id: str) -> bytes:
    """The entry of a key. Twin of `note_writer` in `writers.lua`."""
    return f"{version} {epoch[:EPOCH_DIGITS]} {device_id}".encode()


def writer_of(entry: bytes | None, version: int, epoch: str) -> str:
    """The device that wrote a key last; "" when the entry does not tell. O(bytes).

    Args:
        entry: what stands beside the key, or None.
        version: of the key's last change. epoch: of the session.
    """
    if entry is None:
        return ""
    device = entry.removeprefix(entry_of(version, epoch, ""))
    if len(device) == len(entry):
        return ""
    try:
        return device.decode()
    except UnicodeDecodeError:
        return ""
