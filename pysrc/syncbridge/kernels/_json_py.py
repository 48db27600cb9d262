"""JSON text as bytes, in plain Python: the profile that `_document_py` holds its input to.

The twin of core_ext/syncbridge_core/json_scan.h, and its oracle: the same grammar (RFC 8259 held to
I-JSON, RFC 7493), limits and error codes, and the same order of checks, so both report the first
violation in reading order. It shares no idea with the C code: tokens are regular expressions,
strings are decoded by the standard library, numbers are compared by `float`. Correct before fast.
"""

import json
import math
import re
from dataclasses import dataclass, field, fields
from typing import NoReturn

MAX_DEPTH = 512
MAX_TEXT = 2**31 - 1

_SPACE = re.compile(rb"[ \n\r\t]*")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9+\-.eE])")
_WORD = re.compile(rb"true|false|null")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(rb'["\\\x00-\x1f]')
_SHORT = {8: rb"\b", 9: rb"\t", 10: rb"\n", 12: rb"\f", 13: rb"\r", 34: rb"\"", 92: rb"\\"}
_KINDS = {b"[": "array", b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null"}


class DocumentError(ValueError):
    """Invalid input.

    `code` is a catalogue code, `status` an HTTP status hint, `where` names the byte offset and, if
    there is one, the top-level key.
    """

    def __init__(self, code: str, status: int, message: str, where: str = "") -> None:
        super().__init__(f"{message} ({where})" if where else message)
        self.code = code
        self.status = status
        self.where = where


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """Bounds for one document, in bytes. Immutable.

    Raises ValueError for a bound below 1, a depth above 512 or a size above 2^31 - 1.
    """

    max_bytes: int = 1048576
    max_keys: int = 2000
    max_key_bytes: int = 256
    max_value_bytes: int = 262144
    max_depth: int = 64
    max_number_bytes: int = 64

    def __post_init__(self) -> None:
        if self.max_depth > MAX_DEPTH or max(self.max_bytes, self.max_keys) > MAX_TEXT:
            raise ValueError("limit is too large")
        for bound in fields(self):
            value = getattr(self, bound.name)
            if value < 0:
                raise OverflowError("limit is negative")
            if value == 0:
                raise ValueError("limit is zero")


DEFAULT_LIMITS = DocumentLimits()


def escape(raw: bytes) -> bytes:
    """What stands between the quotes of the JSON string; bytes that are not UTF-8 stay."""
    return _ESCAPED.sub(lambda m: _SHORT.get(m[0][0]) or b"\\u%04x" % m[0][0], raw)


def quote(text: bytes) -> bytes:
    """UTF-8 bytes as a JSON string, quotes included; what is not UTF-8 becomes U+FFFD."""
    return b'"' + escape(text.decode("utf-8", "replace").encode()) + b'"'


@dataclass(slots=True)
class _Open:
    """An open container; `names` is None in an array."""

    names: set[str] | None


@dataclass(slots=True)
class Scanner:
    """One pass over `data`. `members` collects the outermost object if `split` is set."""

    data: bytes
    limits: DocumentLimits
    split: bool
    at: int = 0
    members: dict[bytes, bytes] = field(default_factory=dict)
    out: list[bytes] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    key: bytes | None = None
    value_from: int = 0

    def scan(self) -> bytes:
        """The compact text. Raises DocumentError."""
        if len(self.data) > self.limits.max_bytes:
            self.fail("too_large", 413, "text is too large")
        self.space()
        start, wrong_kind = self.at, self.split and self.peek() not in (b"{", b"")
        self.split = self.split and not wrong_kind
        while not self.value():
            pass
        self.space()
        if self.at < len(self.data):
            self.unexpected("more text after the value")
        if wrong_kind:
            kind = _KINDS.get(self.data[start : start + 1], "number")
            self.at = start
            self.fail("invalid_field", 422, f"an object is expected, got {kind}")
        return b"".join(self.out)

    # ### Errors and tokens ###

    def fail(self, code: str, status: int, message: str) -> NoReturn:
        where = f"byte {self.at}"
        if self.key is not None:
            where = f'key "{self.key[:64].decode("utf-8", "replace")}", {where}'
        raise DocumentError(code, status, message, where)

    def unexpected(self, message: str = "unexpected character") -> NoReturn:
        self.fail("invalid_json", 400, message if self.peek() else "unexpected end of text")

    def peek(self) -> bytes:
        return self.data[self.at : self.at + 1]

    def space(self) -> None:
        match = _SPACE.match(self.data, self.at)
        assert match is not None
        self.at = match.end()

    def take(self, pattern: re.Pattern[bytes]) -> bytes:
        """The token of that pattern at the current position; an error if there is none."""
        match = pattern.match(self.data, self.at)
        if match is None:
            self.unexpected()
        self.at = match.end()
        return match[0]

    def put(self, token: bytes) -> None:
        self.out.append(token)

    # ### Scalars and keys ###

    def string(self) -> tuple[bytes, str]:
        """A string token, and its text."""
        start, token = self.at, self.take(_STRING)
        try:
            text: str = json.loads(token.decode("utf-8"))
        except ValueError:
            self.at = start
            self.unexpected("not UTF-8")
        if _SURROGATE.search(text):
            self.at = start
            self.unexpected("half of a surrogate pair")
        return token, text

    def number(self) -> bytes:
        start, token = self.at, self.take(_NUMBER)
        if len(token) > self.limits.max_number_bytes or math.isinf(float(token)):
            self.at = start
            self.fail("number_range", 422, "number is beyond a double or has too many digits")
        return token

    def scalar(self) -> bytes:
        first = self.peek()
        if first == b'"':
            return self.string()[0]
        return self.number() if first and first in b"-0123456789" else self.take(_WORD)

    def member_key(self, text: str) -> bytes:
        """Checks a key of the outermost object; its canonical token is returned."""
        raw = text.encode()
        if not raw or len(raw) > self.limits.max_key_bytes or b"\0" in raw:
            self.fail("invalid_key", 422, "key is empty, too long or holds U+0000")
        if raw == b"__proto__":
            self.fail("reserved_key", 422, "key is reserved")
        if raw in self.members:
            self.fail("duplicate_key", 422, "key appears twice")
        if len(self.members) >= self.limits.max_keys:
            self.fail("too_many_keys", 413, "too many keys")
        self.members[raw] = b""
        return quote(raw)

    def name(self) -> None:
        """A name and its colon."""
        if self.peek() != b'"':
            self.unexpected("a key is expected")
        start = self.at
        token, text = self.string()
        names = self.stack[-1].names
        assert names is not None
        if self.in_members():
            self.key = token[1:-1]
            end, self.at = self.at, start
            token = self.member_key(text)
            self.at = end
            self.key = text.encode()
        elif text in names:
            self.fail("duplicate_key", 422, "key appears twice in a nested object")
        names.add(text)
        self.put(token)
        self.space()
        if self.peek() != b":":
            self.unexpected("a colon is expected")
        self.at += 1
        self.put(b":")
        self.value_from = len(self.out) if self.in_members() else self.value_from
        self.space()

    # ### Containers ###

    def in_members(self) -> bool:
        return self.split and len(self.stack) == 1

    def value(self) -> bool:
        """One value, or the beginning of one; True when the outermost one has ended."""
        opening = self.peek()
        if opening not in (b"{", b"["):
            self.put(self.scalar())
            return self.after_value()
        if len(self.stack) >= self.limits.max_depth:
            self.fail("too_deep", 400, "nested too deeply")
        self.stack.append(_Open(set() if opening == b"{" else None))
        self.put(opening)
        self.at += 1
        self.space()
        if self.peek() == (b"}" if opening == b"{" else b"]"):
            self.close()
            return self.after_value()
        if opening == b"{":
            self.name()
        return False

    def close(self) -> None:
        self.put(self.peek())
        self.at += 1
        self.stack.pop()

    def member_end(self) -> None:
        """Stores the value that has ended under its key."""
        value = b"".join(self.out[self.value_from :])
        if len(value) > self.limits.max_value_bytes:
            self.fail("too_large", 413, "value is too large")
        assert self.key is not None
        self.members[self.key] = value
        self.key = None

    def after_value(self) -> bool:
        """Closes what closes here. True when the outermost value has ended."""
        while self.stack:
            if self.in_members():
                self.member_end()
            names = self.stack[-1].names
            self.space()
            if self.peek() == b",":
                self.put(b",")
                self.at += 1
                self.space()
                if names is not None:
                    self.name()
                return False
            if self.peek() != (b"]" if names is None else b"}"):
                self.unexpected("a comma or a closing bracket is expected")
            self.close()
        return True
