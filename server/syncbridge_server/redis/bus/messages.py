"""Messages between nodes over pub/sub: commits and presence (written by scripts), and notices.

Each node has a channel in every bucket, `T:<node>`, and there are a few channels for all nodes. The
scripts publish to the nodes that are registered for a session, so nobody subscribes to sessions.
All channels are sharded. A classic PUBLISH travels over the links between a cluster's servers; when
such a link reconnects, messages on it are lost, and no client notices. A message begins with a
letter, the digit of the format, a space, and the session or `-`; see
docs/decisions/0010-nodes-presence-bus.md. Values are opaque bytes, and lengths are of bytes. `E2 -
<number>` is an echo: a node publishes it to itself, to see that the bus works.
"""

from syncbridge.records.sessions import Commit, Notice, PresenceChange
from syncbridge.slots import TAGS

ECHO = b"E"
COMMON_TAGS = (TAGS[0], "inbox", *map(str, range(16)))
"""Tags whose slots have a channel of all nodes: notices, arriving webhooks, voice channels by
bucket."""


def encode_echo(number: int) -> bytes:
    """An echo as it is published."""
    return b"E2 - %d\n" % number


def node_channels(node: str) -> list[str]:
    """The channels of one node, one for each bucket; the scripts build the same names."""
    return [f"{{{tag}}}:{node}" for tag in TAGS]


def notice_channel(node: str) -> str:
    """The channel for notices to one node."""
    return f"{{{TAGS[0]}}}:{node}"


def common_channel(tag: str, database: int) -> str:
    """The channel of all nodes in the slot of a tag, one of `COMMON_TAGS`.

    Pub/sub ignores the database number, so the name contains it.
    """
    return f"n2:{{{tag}}}*{database}"


def common_channels(database: int) -> list[str]:
    """All channels of all nodes."""
    return [common_channel(tag, database) for tag in COMMON_TAGS]


def encode_notice(notice: Notice) -> bytes:
    """A notice as it is published."""
    kind = notice.kind.encode()
    return b"N2 %b %d\n%b%b" % (notice.sid.encode() or b"-", len(kind), kind, notice.data)


def decode(payload: bytes) -> Commit | Notice | PresenceChange:
    """Any of the messages. Raises ValueError for anything else. O(length)."""
    tag = payload[:3]
    if tag == b"C2 ":
        return decode_commit(payload)
    if tag == b"P2 ":
        return decode_presence(payload)
    if tag == b"N2 ":
        return decode_notice(payload)
    raise ValueError("not a message of format 2")


def session_of(payload: bytes) -> str:
    """The session of an unreadable message; "" if that is unreadable too."""
    parts = payload[:64].split(maxsplit=2)
    sid = parts[1] if len(parts) == 3 and len(parts[0]) == 2 else b""
    return sid.decode("ascii", "replace") if len(sid) == 36 else ""


def decode_notice(payload: bytes) -> Notice:
    """What `encode_notice` made. Raises ValueError when it is not well formed."""
    header, _, texts = payload.partition(b"\n")
    sid, size = header[3:].decode().split(" ")
    kind = texts[: int(size)].decode()
    return Notice(kind, "" if sid == "-" else sid, texts[int(size) :])


def decode_presence(payload: bytes) -> PresenceChange:
    """A device that came or went. Raises ValueError when it is not well formed."""
    header, _, texts = payload.partition(b"\n")
    sid, event, fence, version, online, newest, size = header[3:].decode().split(" ")
    device, detail = texts[: int(size)], texts[int(size) :]
    place = (sid, event, int(fence), int(version))
    return PresenceChange(*place, device.decode(), detail, int(online), int(newest))


def decode_commit(payload: bytes) -> Commit:
    """A commit that apply.lua published. Raises ValueError when it is not well formed."""
    try:
        return _commit(payload)
    except IndexError as error:
        raise ValueError("numbers are missing") from error


def _commit(payload: bytes) -> Commit:
    at = payload.index(b"\n") + 1
    sid, version, epoch, lineage, before, *numbers = payload[3 : at - 1].split()
    texts = []
    for size in (*map(int, numbers[:3]), *map(int, numbers[4:])):
        texts.append(payload[at : at + size])
        at += size
    if at != len(payload):
        raise ValueError("lengths do not match")
    last = 3 + 2 * int(numbers[3])
    return Commit(
        sid.decode(),
        int(version),
        int(version) - 1,
        epoch.decode(),
        texts[0].decode(),
        texts[1].decode(),
        texts[3:last],
        texts[last:],
        lineage.decode(),
        "" if before == b"-" else before.decode(),
        texts[2].decode(),
    )
