"""Header fields of a request, looked up by name.

Starlette's `Headers` encodes the name and walks the list for each question. Several parts of a
request ask, so the list is walked once for all of them: here, unless the listener has done so.
"""

from starlette.types import Scope

from syncbridge_server.listener.contract import FIELDS


def list_field(scope: Scope, name: bytes) -> str:
    """The value of a field that is a list, however many lines it comes in; "" without one."""
    if name not in first_fields(scope):
        return ""
    return b", ".join(value for key, value in scope["headers"] if key == name).decode("latin-1")


def first_fields(scope: Scope) -> dict[bytes, bytes]:
    """The first value of each header field; names are in lower case, as ASGI has them."""
    fields: dict[bytes, bytes] | None = scope.get(FIELDS)
    if fields is None:
        fields = scope[FIELDS] = dict(reversed(scope["headers"]))
    return fields
