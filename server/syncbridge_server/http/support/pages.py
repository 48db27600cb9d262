"""Queries and pages of lists, as routes take and describe them."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request

from syncbridge.errors import ErrorCode, SyncBridgeError

PageSize = Annotated[int, Meta(ge=1, le=500)]
Cursor = Annotated[str, Meta(max_length=128, description="`next_cursor` of the page before.")]


def query_of(request: Request, kind: type[Any]) -> Any:
    """The query string as a `kind`.

    Raises INVALID_FIELD, also for a parameter that it has not, and for one that is given twice.
    """
    known = kind.__struct_encode_fields__
    for name in request.query_params:
        if len(request.query_params.getlist(name)) > 1:
            detail = f"{name[:64]}: one value is expected"
            raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail, field=name[:64])
        if name not in known:
            detail = f"{name[:64]}: no such parameter; there are {', '.join(known) or 'none'}"
            raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail, field=name[:64])
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").removeprefix(".")
        detail = f"{field}: {text}" if field else text
        raise SyncBridgeError(ErrorCode.INVALID_FIELD, detail, field=field) from None
