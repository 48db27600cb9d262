"""The session id in a path, and the errors of requests about its devices."""

from starlette.requests import Request

from syncbridge import ids
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.records.sessions import Status


def path_session(request: Request) -> str:
    """The session id in the path; another text than a UUID is an unknown session. Raises
    SESSION_NOT_FOUND."""
    try:
        return ids.session_id(request.path_params["session_id"])
    except SyncBridgeError:
        raise SyncBridgeError(
            ErrorCode.SESSION_NOT_FOUND, "there is no such session; ids are UUIDs"
        ) from None


REFUSALS = {
    Status.NOT_FOUND: (ErrorCode.SESSION_NOT_FOUND, "there is no such session"),
    Status.FORBIDDEN: (ErrorCode.FORBIDDEN, "this session belongs to another user"),
    Status.NO_DEVICE: (ErrorCode.DEVICE_NOT_FOUND, "the session has no such device"),
    Status.NO_TOKEN: (ErrorCode.HANDOFF_NOT_FOUND, "there is no such handoff"),
    Status.SPENT: (ErrorCode.HANDOFF_USED, "this handoff token was used"),
    Status.EXPIRED: (ErrorCode.HANDOFF_EXPIRED, "this handoff token has expired"),
    Status.WRONG_DEVICE: (ErrorCode.WRONG_DEVICE, "this handoff token is for another device"),
}


def refuse(status: Status) -> None:
    """Raise the error of a refused request."""
    if status is not Status.OK:
        code, detail = REFUSALS[status]
        raise SyncBridgeError(code, detail)
