"""What travels between nodes over pub/sub: commits (written by apply.lua) and notices.

One channel a node, `n:<node>`, and one for all. The scripts publish a commit to the nodes that are
registered for its session, so nobody subscribes to sessions.

A commit is `C`, a line of numbers and lengths (see apply.lua), and the texts one after another:
values are opaque bytes, and Lua builds it with a few concatenations. A notice is `N` and a
MessagePack array of kind, session id and JSON text. A device that came or went is `P`, the
line `<sid> <event> <fence> <version> <#device>`, then device and detail; written by the scripts.
`E2 - <number>` is an echo: a node publishes it to itself, to see that the bus works.
"""

import msgspec

from syncbridge.records.sessions import Commit, Notice, PresenceChange

_notice_decoder = msgspec.msgpack.Decoder(tuple[str, str, bytes])
_encode = msgspec.msgpack.encode
ECHO = b"E"


def encode_echo(number: int) -> bytes:
    """An echo as it is published."""
    return b"E2 - %d\n" % number


def node_channel(node: str) -> str:
    """Channel of one node; apply.lua and tell.lua build the same name."""
    return f"n:{node}"


def common_channel(database: int) -> str:
    """Channel of all nodes. Pub/sub ignores the database number, so that it is in the name."""
    return f"n:*{database}"


def encode_notice(notice: Notice) -> bytes:
    """A notice as it is published."""
    return b"N" + _encode((notice.kind, notice.sid, notice.data))


def decode(payload: bytes) -> Commit | Notice | PresenceChange:
    """Any of the messages. Raises ValueError for anything else. O(length)."""
    tag = payload[:1]
    if tag == b"P":
        return decode_presence(payload)
    if tag == b"C":
        return decode_commit(payload)
    if tag == b"N":
        try:
            return Notice(*_notice_decoder.decode(memoryview(payload)[1:]))
        except msgspec.DecodeError as error:
            raise ValueError("not a notice") from error
    raise ValueError("neither a commit nor a notice")


def decode_presence(payload: bytes) -> PresenceChange:
    """A device that came or went. Raises ValueError when it is not well formed."""
    header, _, texts = payload.partition(b"\n")
    sid, event, fence, version, size = header[1:].decode().split(" ")
    device, detail = texts[: int(size)], texts[int(size) :]
    return PresenceChange(sid, event, int(fence), int(version), device.decode(), detail)


def decode_commit(payload: bytes) -> Commit:
    """A commit that apply.lua published. Raises ValueError when it is not well formed."""
    try:
        return _commit(payload)
    except IndexError as error:
        raise ValueError("numbers are missing") from error


def _commit(payload: bytes) -> Commit:
    at = payload.index(b"\n") + 1
    sid, version, prev_version, epoch, *numbers = payload[1 : at - 1].split()
    texts = []
    for size in (int(numbers[0]), int(numbers[1]), *map(int, numbers[3:])):
        texts.append(payload[at : at + size])
        at += size
    if at != len(payload):
        raise ValueError("lengths do not fit")
    last = 2 + int(numbers[2])
    return Commit(
        sid.decode(),
        int(version),
        int(prev_version),
        epoch.decode(),
        texts[0].decode(),
        texts[1].decode(),
        texts[2:last],
        texts[last:],
    )
