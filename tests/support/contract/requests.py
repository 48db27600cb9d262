"""Short ways to write the requests of a test, on a session id that no other test uses."""

import uuid
from typing import Any

from syncbridge.records.sessions import Apply, Hello, Leave, Mode, Place, Read, Resume, Touch

MODES = Mode


def session_id() -> str:
    """A fresh session id."""
    return str(uuid.uuid4())


def write(sid: str, sets: dict[str, str] | None = None, deletes: str = "", **more: Any) -> Apply:
    """A write by user `u`, device `d`; `deletes` names keys of one letter each."""
    flat = [text.encode() for pair in (sets or {}).items() for text in pair]
    fields: dict[str, Any] = {"user_id": "u", "device_id": "d"} | more
    return Apply(sid=sid, sets=flat, deletes=[key.encode() for key in deletes], **fields)


def join(sid: str, device: str = "d", conn: str = "c1", node: str = "n1", **more: Any) -> Hello:
    """A device of user `u` that joins."""
    fields: dict[str, Any] = {"user_id": "u", "info": b"{}"} | more
    return Hello(sid=sid, device_id=device, conn=conn, node=node, **fields)


def leave(sid: str, device: str = "d", conn: str = "c1", node: str = "n1", **more: Any) -> Leave:
    """A connection's end."""
    return Leave(sid, device, conn, node, **more)


def read(sid: str, **more: Any) -> Read:
    """A read by user `u`."""
    fields: dict[str, Any] = {"user_id": "u"} | more
    return Read(sid, **fields)


def touch(sid: str, *devices: str, node: str = "n1") -> Touch:
    """A node enters a session again."""
    return Touch(sid, node, [(device, "c1") for device in devices])


def resume(sid: str, epoch: str, version: int, **more: Any) -> Resume:
    """A read of what changed since a version."""
    return Resume(sid, Place(epoch, version), **more)


def pairs(flat: list[bytes] | None) -> dict[bytes, bytes]:
    """A flat list as a dict; AssertionError when it is None."""
    assert flat is not None
    return dict(zip(flat[::2], flat[1::2], strict=True))
