"""A lenient JSON reader for bodies that the provider signed.

Malformed input of clients is refused. A signed webhook, however, is not sent again after a refusal,
so here a malformed member does not affect the others: a lone surrogate, bytes that are not UTF-8, a
number out of range, NaN, an unescaped control character, very deep nesting, a byte order mark. The
callers check what is left (`text_of`). The last of several members with one name counts.
"""

import codecs
import json
import math
import re
from typing import Any

import msgspec

DEPTH = 64
"""Maximum depth; deeper values are read as empty."""
DIGITS = 32
"""Maximum digits of an integer; longer ones are null."""
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def read_document(body: bytes) -> Any:
    """The document of a body. O(bytes). Raises ValueError if it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _decoder.decode(_shallow(_decoded(body)))


def text_of(value: Any, longest: int) -> str:
    """A text of 1 to `longest` characters without lone surrogates; otherwise empty."""
    if not isinstance(value, str) or len(value) > longest:
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    return value


def _decoded(body: bytes) -> str:
    """Decode; bytes that are not UTF-8 become lone surrogates, which `text_of` rejects."""
    return body.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")


def _shallow(text: str) -> str:
    """The text without values that are nested too deeply. O(characters), no recursion."""
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
