"""The JSON of a body that the provider has signed, read as far as it can be.

What a client sends is refused when it is odd. A signed webhook is not sent again after a refusal,
so here one odd member costs nothing but itself: half of a surrogate pair, bytes that are not UTF-8,
a number beyond every range, NaN, a line break or another control character that is not escaped, a
value nested without end, a byte order mark. What is left is judged by whoever needs it (`text_of`).
Of members with one name the last counts.
"""

import codecs
import json
import math
import re
from typing import Any

import msgspec

DEPTH = 64
"""Levels that are read; what is nested deeper is taken for empty."""
DIGITS = 32
"""Longest whole number that is read; longer ones are null."""
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def read_document(body: bytes) -> Any:
    """The document of a body. O(bytes). Raises ValueError when it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _decoder.decode(_shallow(_decoded(body)))


def text_of(value: Any, longest: int) -> str:
    """A text of 1 to `longest` characters without half of a surrogate pair; else empty."""
    if not isinstance(value, str) or len(value) > longest:
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    return value


def _decoded(body: bytes) -> str:
    """Bytes that are not UTF-8 become halves of surrogate pairs, which no text may have."""
    return body.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")


def _shallow(text: str) -> str:
    """The same without what is nested too deeply. O(characters), no recursion."""
    if text.count("[") + text.count("{") <= DEPTH:
        return text
    kept: list[str] = []
    depth = start = 0
    for part in _PARTS.finditer(text):
        sign = text[part.start()]
        if sign in "[{":
            depth += 1
            if depth == DEPTH + 1:
                kept.append(text[start : part.end()])
        elif sign in "]}":
            depth -= 1
            if depth == DEPTH:
                start = part.start()
    return "".join((*kept, text[start:]))


def _whole_number(digits: str) -> int | None:
    return int(digits) if len(digits) <= DIGITS else None


def _real_number(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


_decoder = json.JSONDecoder(
    parse_int=_whole_number,
    parse_float=_real_number,
    parse_constant=lambda _: None,
    strict=False,
)
