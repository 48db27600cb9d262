"""Equality of JSON values by value, in plain Python: canonical form, imprint and spelling.

The reference for scripts and kernels; docs/decisions/0009-the-layout-of-redis.md states the rules.
"""

import json
from decimal import Decimal
from hashlib import sha1
from typing import Any

SHORT_BYTES = 24
HASHED_BYTES = 2048
_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def canonical(text: bytes) -> bytes:
    """The canonical form of a JSON text."""
    return _render(json.loads(text, parse_float=Decimal, parse_int=Decimal)).encode()


def _render(value: Any) -> str:
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return f"[{','.join(map(_render, value))}]"
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode())
        return f"{{{','.join(_string(name) + ':' + _render(inner) for name, inner in members)}}}"
    return json.dumps(value)


def _number(value: Decimal) -> str:
    """As ECMAScript's Number::toString lays it out, with all digits."""
    sign, places, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, places)).lstrip("0")
    stripped = digits.rstrip("0")
    if not stripped:
        return "0"
    point = len(digits) + exponent
    size, minus = len(stripped), "-" * sign
    if size <= point <= 21:
        return minus + stripped + "0" * (point - size)
    if 0 < point <= 21:
        return f"{minus}{stripped[:point]}.{stripped[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{stripped}"
    fraction = f".{stripped[1:]}" if size > 1 else ""
    return f"{minus}{stripped[0]}{fraction}e{point - 1:+d}"


def _string(text: str) -> str:
    escaped = (_ESCAPES.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 0x20 else c) for c in text)
    return f'"{"".join(escaped)}"'


def imprint(text: bytes | None) -> bytes:
    """What stands for a value in a comparison."""
    if text is None:
        return b""
    form = canonical(text)
    if len(form) <= SHORT_BYTES:
        return b"=" + form
    return sha1(form).hexdigest()[:16].encode()


def spelling(text: bytes) -> bytes:
    """What is stored beside a value: nothing if the text is sufficient."""
    plain = canonical(text) == text and len(text) <= HASHED_BYTES
    return b"" if plain else imprint(text)
