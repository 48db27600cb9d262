"""Write what the Python client shares with the server, from the server's catalogues.

    python scripts/client_catalogue.py > clients/python/syncbridge_client/catalogue.py

The client is a distribution of its own and imports nothing of the server; a test holds the file to
what this prints.
"""

import json

import msgspec

from syncbridge.close_codes import CloseCode
from syncbridge.errors import ErrorCode
from syncbridge.limits import Limits
from syncbridge.messages import MessageType

HEAD = '''"""Codes, message types and bounds of the protocol.

Those of the server for which this client was made; a server may know more. Generated, by
scripts/client_catalogue.py.
"""

from enum import Enum, IntEnum

import msgspec


class ErrorCode(Enum):
    """code = (wire name, HTTP status, retryable, title)."""
'''
ERRORS_END = '''
    def __init__(self, wire: str, status: int, retryable: bool, title: str) -> None:
        self.wire = wire
        self.status = status
        self.retryable = retryable
        self.title = title


BY_WIRE: dict[str, ErrorCode] = {code.wire: code for code in ErrorCode}


class CloseCode(IntEnum):
    """code = (number, reason, whether connecting again is expected to work)."""

    reason: str
    should_reconnect: bool

    def __new__(cls, code: int, reason: str, should_reconnect: bool) -> "CloseCode":
        self = int.__new__(cls, code)
        self._value_ = code
        self.reason = reason
        self.should_reconnect = should_reconnect
        return self
'''
MESSAGES = '''

class MessageType(IntEnum):
    """The integer `type` of an envelope."""
'''
LIMITS = '''

class Limits(msgspec.Struct, frozen=True):
    """Bounds that a server reports in AUTH_SUCCESS, and their defaults.

    Sizes in bytes, times in seconds unless the name says otherwise; 0: no bound.
    """
'''


def literal(value: object) -> str:
    """A constant as ruff writes it."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def entries() -> dict[str, list[str]]:
    """The lines of each class."""
    return {
        "errors": [f"{c.name} = ({', '.join(map(literal, c.value))})" for c in ErrorCode],
        "closes": [
            f"{c.name} = ({int(c)}, {literal(c.reason)}, {c.should_reconnect})" for c in CloseCode
        ],
        "messages": [f"{m.name} = {int(m)}" for m in MessageType],
        "limits": [
            f"{f.name}: {f.type.__name__} = {f.default:_}" for f in msgspec.structs.fields(Limits)
        ],
    }


def catalogue() -> str:
    """The text of the module."""
    lines = {name: "".join(f"    {line}\n" for line in part) for name, part in entries().items()}
    return "".join(
        (
            f"{HEAD}\n{lines['errors']}{ERRORS_END}\n{lines['closes']}",
            f"{MESSAGES}\n{lines['messages']}{LIMITS}\n{lines['limits']}",
        )
    )


if __name__ == "__main__":
    print(catalogue(), end="")
