"""Ids in paths that may have any character, a slash too: `%2F` within a segment is no separator.

ASGI gives routes a path that is decoded already, in which `a%2Fb` and `a/b` are the same. So below
`OPEN` a path with an encoded slash is matched as it came, and `segment_after` decodes the segment
itself, from the bytes of the request: strictly, so that two ids are never taken for one.
"""

from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.types import Scope

from syncbridge.errors import ErrorCode, SyncBridgeError

OPEN = "/voice/channels/"
"""What stands behind it is an id of any characters."""


def keep_slashes(scope: Scope) -> None:
    """Have routes see encoded slashes as a part of their segment; for paths with `OPEN` in them."""
    raw: bytes = scope["raw_path"]
    if b"%2f" in raw.lower():
        scope["path"] = raw.decode("ascii")


def segment_after(request: Request, prefix: str, name: str) -> str:
    """The segment of the path behind `prefix`, decoded. `name`: of the path's parameter.

    Raises INVALID_FIELD for one that is not percent-encoded UTF-8.
    """
    _, found, rest = request.scope["raw_path"].partition(prefix.encode())
    if not found:  # the prefix itself is percent-encoded, for no reason
        return str(request.path_params[name])
    try:
        return unquote_to_bytes(rest.partition(b"/")[0]).decode()
    except UnicodeDecodeError:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, f"{name}: percent-encoded UTF-8 is expected", field=name
        ) from None
