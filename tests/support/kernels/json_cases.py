"""Texts for the kernel tests: the table of bad input, and strategies for good and broken JSON."""

import json
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

LEAST_INFINITE = str(2**1024 - 2**970)
"""The least integer that rounds to infinity as a double."""

BAD_OBJECTS: dict[str, tuple[bytes, str, int]] = {
    "empty": (b"", "invalid_json", 400),
    "space only": (b" \n", "invalid_json", 400),
    "unclosed": (b'{"a":1', "invalid_json", 400),
    "unclosed string": (b'{"a":"x', "invalid_json", 400),
    "only a brace": (b"{", "invalid_json", 400),
    "wrong bracket": (b'{"a":[1}', "invalid_json", 400),
    "trailing comma": (b'{"a":1,}', "invalid_json", 400),
    "trailing comma in array": (b'{"a":[1,]}', "invalid_json", 400),
    "leading comma": (b'{,"a":1}', "invalid_json", 400),
    "trailing garbage": (b'{"a":1} x', "invalid_json", 400),
    "two texts": (b"{}{}", "invalid_json", 400),
    "NUL after the text": (b"{}\0", "invalid_json", 400),
    "comment": (b'{"a":1/* no */}', "invalid_json", 400),
    "line comment": (b'{"a":1} // no', "invalid_json", 400),
    "unquoted key": (b"{a:1}", "invalid_json", 400),
    "single quotes": (b"{'a':1}", "invalid_json", 400),
    "number as key": (b"{1:1}", "invalid_json", 400),
    "missing colon": (b'{"a" 1}', "invalid_json", 400),
    "missing value": (b'{"a":}', "invalid_json", 400),
    "NaN": (b'{"a":NaN}', "invalid_json", 400),
    "Infinity": (b'{"a":Infinity}', "invalid_json", 400),
    "-Infinity": (b'{"a":-Infinity}', "invalid_json", 400),
    "True": (b'{"a":True}', "invalid_json", 400),
    "half a word": (b'{"a":tru}', "invalid_json", 400),
    "long word": (b'{"a":nullx}', "invalid_json", 400),
    "01": (b'{"a":01}', "invalid_json", 400),
    "-01": (b'{"a":-01}', "invalid_json", 400),
    "+1": (b'{"a":+1}', "invalid_json", 400),
    "1.": (b'{"a":1.}', "invalid_json", 400),
    ".5": (b'{"a":.5}', "invalid_json", 400),
    "1e": (b'{"a":1e}', "invalid_json", 400),
    "1e+": (b'{"a":1e+}', "invalid_json", 400),
    "1.e5": (b'{"a":1.e5}', "invalid_json", 400),
    "minus alone": (b'{"a":-}', "invalid_json", 400),
    "hexadecimal": (b'{"a":0x10}', "invalid_json", 400),
    "1.2.3": (b'{"a":1.2.3}', "invalid_json", 400),
    "long and broken": (b'{"a":' + b"1" * 80 + b"e}", "invalid_json", 400),
    "byte order mark": (b"\xef\xbb\xbf{}", "invalid_json", 400),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "invalid_json", 400),
    "UTF-16 LE": ('{"a":1}'.encode("utf-16-le"), "invalid_json", 400),
    "other space": (b'{\x0b"a":1}', "invalid_json", 400),
    "no-break space": ('{"a":\u00a01}'.encode(), "invalid_json", 400),
    "raw newline": (b'{"a":"x\ny"}', "invalid_json", 400),
    "raw NUL": (b'{"a":"x\0y"}', "invalid_json", 400),
    "raw control in key": (b'{"a\x1f":1}', "invalid_json", 400),
    "bad escape": (b'{"a":"\\x41"}', "invalid_json", 400),
    "escape at the end": (b'{"a":"\\', "invalid_json", 400),
    "NUL escape": (b'{"a":"\\\0"}', "invalid_json", 400),
    "short escape": (b'{"a":"\\u12"}', "invalid_json", 400),
    "wrong digits": (b'{"a":"\\u12g4"}', "invalid_json", 400),
    "underscore digits": (b'{"a":"\\u1_23"}', "invalid_json", 400),
    "capital U": (b'{"a":"\\U0041"}', "invalid_json", 400),
    "lone high surrogate": (b'{"a":"\\ud83d"}', "invalid_json", 400),
    "lone low surrogate": (b'{"a":"\\ude00"}', "invalid_json", 400),
    "swapped surrogates": (b'{"a":"\\ude00\\ud83d"}', "invalid_json", 400),
    "high and letter": (b'{"a":"\\ud83d\\u0041"}', "invalid_json", 400),
    "high and high": (b'{"a":"\\ud83d\\ud83d\\ude00"}', "invalid_json", 400),
    "lone surrogate in key": (b'{"\\ud83d":1}', "invalid_json", 400),
    "lone surrogate in nested key": (b'{"a":{"\\ude00":1}}', "invalid_json", 400),
    "raw surrogate": (b'{"a":"\xed\xa0\x80"}', "invalid_json", 400),
    "overlong two": (b'{"a":"\xc0\xaf"}', "invalid_json", 400),
    "overlong three": (b'{"a":"\xe0\x80\xaf"}', "invalid_json", 400),
    "overlong four": (b'{"a":"\xf0\x80\x80\xaf"}', "invalid_json", 400),
    "beyond Unicode": (b'{"a":"\xf4\x90\x80\x80"}', "invalid_json", 400),
    "lone continuation": (b'{"a":"\x80"}', "invalid_json", 400),
    "cut sequence": (b'{"a":"\xe2\x82"}', "invalid_json", 400),
    "cut at the end": (b'{"a":"\xe2\x82', "invalid_json", 400),
    "Latin-1": ('{"a":"é"}'.encode("latin-1"), "invalid_json", 400),
    "not UTF-8 in key": (b'{"\xff":1}', "invalid_json", 400),
    "depth 65": (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "too_deep", 400),
    "depth 65, objects": (b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep", 400),
    "depth 100,000, unclosed": (b'{"a":' + b"[" * 100_000, "too_deep", 400),
    "1e999": (b'{"a":1e999}', "number_range", 422),
    "-1e309": (b'{"a":-1e309}', "number_range", 422),
    "1.8e308": (b'{"a":1.8e308}', "number_range", 422),
    "huge exponent": (b'{"a":1e99999999999999999999}', "number_range", 422),
    "small mantissa": (b'{"a":0.0000001e316}', "number_range", 422),
    "65 digits": (b'{"a":' + b"1" * 65 + b"}", "number_range", 422),
    "5,000 digits": (b'{"a":' + b"1" * 5000 + b"}", "number_range", 422),
    "nested number": (b'{"a":[{"b":1e999}]}', "number_range", 422),
    "duplicate": (b'{"a":1,"b":2,"a":1}', "duplicate_key", 422),
    "duplicate by escape": (b'{"a":1,"\\u0061":2}', "duplicate_key", 422),
    "duplicate by surrogates": ('{"😀":1,"\\ud83d\\ude00":2}'.encode(), "duplicate_key", 422),
    "duplicate by short escape": (b'{"\\n":1,"\\u000a":2}', "duplicate_key", 422),
    "duplicate by hex case": (b'{"\\u001F":1,"\\u001f":2}', "duplicate_key", 422),
    "duplicate after space": (b'{ "a" : 1 , "b" : 2 , "a" : 1 }', "duplicate_key", 422),
    "nested duplicate": (b'{"a":{"b":1,"b":2}}', "duplicate_key", 422),
    "nested duplicate by escape": (b'{"a":[{"b/":1,"\\u0062\\/":2}]}', "duplicate_key", 422),
    "duplicate after nesting": (b'{"a":{"b":{"c":1},"d":1,"b":2}}', "duplicate_key", 422),
    "empty key": (b'{"":1}', "invalid_key", 422),
    "NUL in key": (b'{"a\\u0000b":1}', "invalid_key", 422),
    "key of 257 bytes": (b'{"' + b"k" * 257 + b'":1}', "invalid_key", 422),
    "key of 1 MB": (b'{"' + b"k" * 1_000_000 + b'":1}', "invalid_key", 422),
    "__proto__": (b'{"__proto__":{}}', "reserved_key", 422),
    "__proto__ by escape": (b'{"\\u005f_proto__":{}}', "reserved_key", 422),
    "over 1 MiB": (b" " * 1_048_575 + b"{}", "too_large", 413),
    "value over 256 KiB": (b'{"a":"' + b"x" * 262_143 + b'"}', "too_large", 413),
    "2,001 keys": (json.dumps({str(n): n for n in range(2001)}).encode(), "too_many_keys", 413),
    "array": (b"[1]", "invalid_field", 422),
    "string": (b'"a"', "invalid_field", 422),
    "null": (b" null ", "invalid_field", 422),
    "number": (b"12", "invalid_field", 422),
    "broken array": (b"[1", "invalid_json", 400),
}
"""Name -> text, code, status of what `split` refuses under the default limits."""

NUMBERS = [
    "0", "-0", "0.0", "0e999", "-0.000e+99999", "1E5", "1e308", "1.7976931348623157e308",
    "1.7976931348623158e308", "17976931348623158079e289", "1e-999", "5e-324",
    "18446744073709551616", "123456789012345678901234567890", "0.1e309", "9" * 64,
]  # fmt: skip
"""Accepted as they are."""

# ### Strategies ###

_SPACE = st.sampled_from(["", "", "", " ", "\n", "\t\r", "  "])
_KEYS = st.sampled_from(["a", "b", "ab", "k1", "é", "😀", '"', "\\", "\n", "long" * 9]) | st.text(
    st.characters(codec="utf-8"), max_size=12
)
_NUMBERS = (
    st.sampled_from(NUMBERS)
    | st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)


@st.composite
def _string(draw: st.DrawFn, text: st.SearchStrategy[str]) -> str:
    """A string token with some characters escaped that need not be."""
    out = []
    for char in draw(text):
        how = draw(st.integers(0, 5))
        escaped = json.dumps(char)[1:-1]
        if how == 0:
            units = char.encode("utf-16-be").hex()
            escaped = "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
        elif how == 1 and char == "/":
            escaped = "\\/"
        elif how > 1 and char not in '"\\' and char >= " ":
            escaped = char
        out.append(escaped)
    return '"' + "".join(out) + '"'


@st.composite
def _joined(draw: st.DrawFn, opening: str, items: st.SearchStrategy[str], closing: str) -> str:
    parts = draw(st.lists(items, max_size=6))
    spaced = [draw(_SPACE) + part + draw(_SPACE) for part in parts]
    return opening + (",".join(spaced) or draw(_SPACE)) + closing


def _member(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    parts = st.tuples(_string(_KEYS), _SPACE, _SPACE, value)
    return parts.map(lambda p: f"{p[0]}{p[1]}:{p[2]}{p[3]}")


_scalars = st.sampled_from(["true", "false", "null"]) | _NUMBERS | _string(_KEYS)
values = st.recursive(
    _scalars,
    lambda inner: _joined("[", inner, "]") | _joined("{", _member(inner), "}"),
    max_leaves=12,
)
objects = _joined("{", _member(values), "}")

_PIECES = st.sampled_from(
    rb'" \ \u \ud83d { } [ ] , : 0 1 . e - + null NaN 1e999 "a":1, "__proto__" "\u0000"'.split()
) | st.binary(min_size=1, max_size=3)
_PIECES |= st.sampled_from(
    [b" ", b"\n", b"\0", b"\x1f", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xff"]
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A text with up to three pieces put in, cut out, or put over."""
    data = bytearray(draw(objects | values).encode())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        piece = draw(_PIECES)
        end = draw(st.sampled_from([at, at, at + 1, at + len(piece), at + 5]))
        data[at:end] = draw(st.sampled_from([piece, piece, b""]))
    return bytes(data)


# ### Outcomes ###


def outcome(kernel: ModuleType, name: str, data: bytes, **limits: int) -> Any:
    """What `split` or `compact` makes of the text: its result, or (code, status)."""
    try:
        result = getattr(kernel, name)(data, kernel.DocumentLimits(**limits))
    except kernel.DocumentError as error:
        return error.code, error.status
    if name == "compact":
        return result
    return result.render(), result.flat(), result.nbytes
