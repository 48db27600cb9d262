"""The contents of a `Hello`, and the meaning of its answer for the joining device."""

import msgspec

from syncbridge import ids
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.messages import AuthPayload
from syncbridge.records.sessions import DeviceInfo, Hello, Place, Status, Welcome

NAME_MOST = 128

REGISTERED = frozenset({ErrorCode.STATE_DAMAGED, ErrorCode.INTERNAL})
"""After these the store may have registered the device: what it answered could not be used. So it
may have without an answer."""


def info_of(payload: AuthPayload, now: int) -> bytes:
    """What AUTH says of its device, as it is stored. `now`: Unix ms. Raises INVALID_FIELD."""
    for name in ("device_type", "device_name", "os_version", "app_version"):
        text = getattr(payload, name)
        if text:
            ids.short_id(name, text, NAME_MOST)
    return msgspec.json.encode(
        DeviceInfo(
            payload.device_type,
            payload.device_name,
            payload.os_version,
            payload.app_version,
            connected_at=now,
        )
    )


def place_welcomed(answer: Welcome) -> Place:
    """Where the session was when the device joined."""
    return Place(answer.epoch, answer.version, answer.lineage)


def reset_of(answer: Welcome, hello: Hello) -> str:
    """Why a device that wanted a difference gets a whole state; "" when it has nothing yet."""
    since = hello.since
    if since is None or not since.version:
        return ""
    return answer.reason or ("resync" if since.epoch == answer.epoch else "epoch")


def refusal_of(answer: Welcome | StoreError) -> SyncBridgeError | None:
    """The error in an answer, if it is one."""
    if isinstance(answer, StoreError):
        return answer
    if answer.status is Status.OK:
        return None
    if answer.status is Status.FORBIDDEN:
        return SyncBridgeError(ErrorCode.FORBIDDEN, "this session belongs to another user")
    if answer.status is Status.TOO_MANY_DEVICES:
        return SyncBridgeError(ErrorCode.TOO_MANY_DEVICES, "the session has too many devices")
    return SyncBridgeError(ErrorCode.INTERNAL, f"unexpected answer {answer.status.name}")
