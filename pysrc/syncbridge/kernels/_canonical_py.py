"""Canonical forms of JSON values, in plain Python: the twin of syncbridge_core.canonical.

Same names, same results on any bytes, checked by one test suite. It shares no idea with the C code:
the standard library says whether a text is JSON and decodes its strings, tokens are a regular
expression, exponents are `Decimal`. Correct before fast.
"""

import json
import re
from collections.abc import Sequence
from decimal import Context, Decimal
from hashlib import sha1
from typing import Any

from syncbridge.kernels._json_py import MAX_DEPTH, quote

__all__ = ["canonical", "imprint", "spelling", "spellings"]

IMPRINT_SHORT = 24
IMPRINT_LONG = 2048
UNKNOWN = b"?"

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]]|[^{}\[\],:"\s]++')
_NUMBER = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


def canonical(text: bytes) -> bytes:
    """The canonical form of a JSON text: equal values, and only they, have the same.

    What is not JSON is its own canonical form.
    """
    tokens = _TOKEN.findall(text)
    try:
        _check(text, tokens)
        return _built(tokens)
    except ValueError:
        return text


def _check(text: bytes, tokens: Sequence[bytes]) -> None:
    """ValueError unless the text is JSON and not nested too deeply."""
    depth = 0
    for token in tokens:
        depth += (token in (b"{", b"[")) - (token in (b"}", b"]"))
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
    json.loads(text.decode(), parse_int=str, parse_float=str, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _built(tokens: Sequence[bytes]) -> bytes:
    """The canonical form of the tokens of a valid text, without commas and colons.

    Raises ValueError for a lone surrogate, or a name that occurs twice.
    """
    stack: list[list[bytes]] = [[]]
    for token in tokens:
        if token in (b"{", b"["):
            stack.append([])
        elif token in (b"}", b"]"):
            parts = stack.pop()
            stack[-1].append(_object(parts) if token == b"}" else b"[" + b",".join(parts) + b"]")
        else:
            stack[-1].append(_scalar(token))
    return stack[0][0]


def _object(parts: list[bytes]) -> bytes:
    """`[name, value, ...]` as an object, its names sorted by their UTF-8 bytes."""
    pairs = sorted((json.loads(parts[i]).encode(), i) for i in range(0, len(parts), 2))
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name occurs twice")
    return b"{" + b",".join([parts[i] + b":" + parts[i + 1] for _, i in pairs]) + b"}"


def _scalar(token: bytes) -> bytes:
    if token.startswith(b'"'):
        return quote(json.loads(token.decode()).encode())
    number = _NUMBER.fullmatch(token)
    return token if number is None else _number(*number.groups(b""))


def _number(sign: bytes, whole: bytes, fraction: bytes, exponent: bytes) -> bytes:
    """A number as ECMAScript's Number::toString would write its exact value."""
    digits = (whole + fraction).lstrip(b"0")
    if not digits:
        return b"0"
    # 0.digits * 10^n
    n = _sum(exponent or b"0", len(digits) - len(fraction))
    digits = digits.rstrip(b"0")
    k = len(digits)
    if k <= n <= 21:
        return sign + digits + b"0" * (int(n) - k)
    if 0 < n <= 21:
        return sign + digits[: int(n)] + b"." + digits[int(n) :]
    if -6 < n <= 0:
        return sign + b"0." + b"0" * -int(n) + digits
    point = b"." if k > 1 else b""
    return sign + digits[:1] + point + digits[1:] + b"e" + f"{_sum(n, -1):+f}".encode()


def _sum(exponent: bytes | Decimal, more: int) -> Decimal:
    """Exact, whatever the length of the exponent (`int` reads 4,300 digits at most)."""
    number = Decimal(exponent.decode()) if isinstance(exponent, bytes) else exponent
    return Context(prec=len(number.as_tuple().digits) + 20).add(number, Decimal(more))


def imprint(text: bytes | None) -> bytes:
    """What stands for a value where values are compared; None for no value.

    b"" for no value; else "=" and the canonical form up to 24 bytes, the first 16 hexadecimal
    digits of its SHA-1 above.
    """
    return b"" if text is None else _imprint(canonical(text))


def _imprint(form: bytes) -> bytes:
    if len(form) <= IMPRINT_SHORT:
        return b"=" + form
    return sha1(form, usedforsecurity=False).hexdigest()[:16].encode()


def spelling(text: bytes) -> bytes:
    """The imprint to store beside a text, or b"".

    b"" when the text is canonical and at most 2,048 bytes, so that a script can tell the imprint.
    """
    form = canonical(text)
    return b"" if form == text and len(text) <= IMPRINT_LONG else _imprint(form)


def spellings(flat: Sequence[bytes]) -> list[bytes]:
    """The spelling of each value of `[key, value, ...]`; [] when all of them are b"".

    Raises ValueError for a list of odd length, TypeError for a value that is not bytes.
    """
    if len(flat) % 2:
        raise ValueError("a flat list of keys and values has an even length")
    for text in flat[1::2]:
        if not isinstance(text, bytes):
            raise TypeError(f"bytes are expected, got {type(text).__name__}")
    found = [spelling(text) for text in flat[1::2]]
    return found if any(found) else []
