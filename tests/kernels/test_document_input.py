"""What documents accept and refuse: the profile (RFC 7493 with limits), example by example."""

import json
from types import ModuleType

import pytest

from support.kernels.json_cases import BAD_OBJECTS, LEAST_INFINITE, NUMBERS, outcome


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_bad_input_is_refused_with_its_code(kernel: ModuleType, name: str) -> None:
    """Each line of the table is refused by `split`, with the code of the catalogue."""
    data, code, status = BAD_OBJECTS[name]

    assert outcome(kernel, "split", data) == (code, status)


@pytest.mark.parametrize(
    "name", [n for n, case in BAD_OBJECTS.items() if case[1] in ("invalid_json", "number_range")]
)
def test_compact_refuses_the_same_text(kernel: ModuleType, name: str) -> None:
    """Syntax and numbers are judged by `compact` as by `split`."""
    data, code, status = BAD_OBJECTS[name]

    assert outcome(kernel, "compact", data) == (code, status)


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_a_bad_object_does_not_become_good_by_position(kernel: ModuleType, name: str) -> None:
    """A memoryview into a larger buffer is judged by its own bytes."""
    data, code, status = BAD_OBJECTS[name]
    view = memoryview(b'{"x":' + data + b'}" ]')[5 : 5 + len(data)]

    with pytest.raises(kernel.DocumentError) as raised:
        kernel.split(view)

    assert (code, status) == (raised.value.code, raised.value.status)


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_keep_their_text(kernel: ModuleType, number: str) -> None:
    """An accepted number is not rounded, shortened or rewritten."""
    assert kernel.compact(number.encode()) == number.encode()


@pytest.mark.parametrize(
    ("number", "fits"),
    [
        (LEAST_INFINITE, False),
        (str(int(LEAST_INFINITE) - 1), True),
        (LEAST_INFINITE + ".0", False),
        (str(int(LEAST_INFINITE) - 1) + ".9999", True),
        (LEAST_INFINITE[0] + "." + LEAST_INFINITE[1:] + "e308", False),
        ("0.000" + LEAST_INFINITE + "e312", False),
        ("0.000" + LEAST_INFINITE + "e311", True),
        ("-" + LEAST_INFINITE + "0e-1", False),
        ("9" * 308, True),
        ("9" * 309, False),
    ],
)
def test_the_greatest_number_is_exact(kernel: ModuleType, number: str, fits: bool) -> None:
    """The edge of a double is found to the last digit, however it is written."""
    result = outcome(kernel, "compact", number.encode(), max_number_bytes=400)

    assert result == (number.encode() if fits else ("number_range", 422))


def test_split_drops_space_and_keeps_order(kernel: ModuleType) -> None:
    """Insignificant whitespace goes, order and value bytes stay."""
    parts = kernel.split(b' { "b" : [ 1 , 2 ] ,\r\n"a":{ "x" : "\\u0041 \\/" } } ')

    assert parts.render() == b'{"b":[1,2],"a":{"x":"\\u0041 \\/"}}'
    assert parts.flat() == [b"b", b"[1,2]", b"a", b'{"x":"\\u0041 \\/"}']
    assert parts.items() == [(b"b", b"[1,2]"), (b"a", b'{"x":"\\u0041 \\/"}')]
    assert list(parts) == [b"b", b"a"]
    assert (len(parts), parts.nbytes) == (2, len(parts.render()))


def test_keys_are_normalised(kernel: ModuleType) -> None:
    """An escaped key and the same key in plain UTF-8 are one key and render alike."""
    parts = kernel.split(b'{"\\u0061\\u00e9\\ud83d\\ude00\\/\\u000a\\u0022":1,"\\u001f":2}')

    assert list(parts) == ['aé😀/\n"'.encode(), b"\x1f"]
    assert parts.render() == '{"aé😀/\\n\\"":1,"\\u001f":2}'.encode()
    assert parts.get('aé😀/\n"'.encode()) == b"1"
    assert kernel.split(b'{"\\u001F":1}').render() == b'{"\\u001f":1}'
    assert b"\x1f" in parts
    assert b"a" not in parts
    assert parts.get(b"a") is None


def test_empty_object(kernel: ModuleType) -> None:
    """An object without members is a document."""
    parts = kernel.split(b" {\n} ")

    assert (parts.render(), parts.flat(), len(parts), parts.get(b"")) == (b"{}", [], 0, None)


@pytest.mark.parametrize("name", ["constructor", "prototype", "toString", "__proto", "proto__"])
def test_other_javascript_names_are_allowed(kernel: ModuleType, name: str) -> None:
    """Only `__proto__` is reserved, and only as a key of the outermost object."""
    text = json.dumps({name: {"__proto__": 1, "": 2}}, separators=(",", ":")).encode()

    assert kernel.split(text).render() == text


def test_nul_is_allowed_in_values(kernel: ModuleType) -> None:
    """U+0000 is refused in top-level keys only."""
    text = b'{"a":"\\u0000","b":{"\\u0000":1}}'

    assert kernel.split(text).render() == text


@pytest.mark.parametrize(
    ("data", "limits", "code"),
    [
        (b'{"a":1}', {"max_bytes": 7}, None),
        (b'{"a":1}', {"max_bytes": 6}, "too_large"),
        (b'{"a":1,"b":2}', {"max_keys": 2}, None),
        (b'{"a":1,"b":2}', {"max_keys": 1}, "too_many_keys"),
        ('{"éé":1}'.encode(), {"max_key_bytes": 4}, None),
        (b'{"\\u00e9\\u00e9":1}', {"max_key_bytes": 4}, None),
        (b'{"\\u00e9\\u00e9":1}', {"max_key_bytes": 3}, "invalid_key"),
        (b'{"a": [ 1, 2 ] }', {"max_value_bytes": 5}, None),
        (b'{"a": [ 1, 2 ] }', {"max_value_bytes": 4}, "too_large"),
        (b'{"a":[[]]}', {"max_depth": 3}, None),
        (b'{"a":[[]]}', {"max_depth": 2}, "too_deep"),
        (b'{"a":-12}', {"max_number_bytes": 3}, None),
        (b'{"a":-12}', {"max_number_bytes": 2}, "number_range"),
        (b'{"a":' + b"[" * 511 + b"]" * 511 + b"}", {"max_depth": 512}, None),
    ],
)
def test_limits_are_inclusive(
    kernel: ModuleType, data: bytes, limits: dict[str, int], code: str | None
) -> None:
    """A bound itself is allowed, one more is not."""
    result = outcome(kernel, "split", data, **limits)

    assert (result[0] if isinstance(result[0], str) else None) == code


@pytest.mark.parametrize("count", [8, 9, 16, 17, 18, 60, 400])
@pytest.mark.parametrize("prefix", ["", "a shared beginning "])
def test_wide_objects_find_their_duplicates(kernel: ModuleType, count: int, prefix: str) -> None:
    """However many names an object has, an equal one is found, at each level and position."""
    names = [f'"{prefix}{n}":{n}' for n in range(count)]
    for twice in {n for n in (0, 7, 8, 15, 16, 17, count // 2, count - 1) if n < count}:
        good, bad = ",".join(names), ",".join([*names, names[twice]])

        assert kernel.split(f'{{"x":{{{good}}},"y":{{{good}}},{good}}}'.encode()).nbytes > count
        for text in (f"{{{bad}}}", f'{{"x":{{{bad}}}}}', f'{{"x":[{{{good}}},{{{bad}}}]}}'):
            assert outcome(kernel, "split", text.encode()) == ("duplicate_key", 422)


def test_compact_takes_any_value(kernel: ModuleType) -> None:
    """Every kind of value is accepted, and nothing but whitespace is taken away."""
    for text in (b"null", b"true", b"-1.50", b'"a b\\u0041"', b"[]", b"{}", b'{"":[{}]}'):
        assert kernel.compact(b" " + text + b"\n") == text
    assert kernel.compact(b'[ { "a" : [ ] } , "x y" ]') == b'[{"a":[]},"x y"]'


def test_compact_bounds_the_result(kernel: ModuleType) -> None:
    """The value is measured without whitespace, the input with it."""
    limits = {"max_value_bytes": 5, "max_bytes": 12}

    assert outcome(kernel, "compact", b"[ 1 , 2 ]", **limits) == b"[1,2]"
    assert outcome(kernel, "compact", b"[ 1 , 23 ]", **limits) == ("too_large", 413)
    assert outcome(kernel, "compact", b"[1,2]" + b" " * 8, **limits) == ("too_large", 413)


def test_errors_say_where(kernel: ModuleType) -> None:
    """The byte and the top-level key are named."""
    with pytest.raises(kernel.DocumentError) as raised:
        kernel.split(b'{"good":1,"profile":{"age":01}}')

    assert raised.value.where == 'key "profile", byte 27'
    assert "byte 27" in str(raised.value)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"[]", "array"),
        (b'""', "string"),
        (b"true", "boolean"),
        (b"null", "null"),
        (b"1", "number"),
    ],
)
def test_wrong_kind_is_named(kernel: ModuleType, data: bytes, kind: str) -> None:
    """Who sends something else than an object is told what it was."""
    with pytest.raises(kernel.DocumentError, match=f"an object is expected, got {kind}"):
        kernel.split(data)


def test_a_bad_key_is_shortened_in_errors(kernel: ModuleType) -> None:
    """A key of a megabyte does not end up in an error message."""
    with pytest.raises(kernel.DocumentError) as raised:
        kernel.split(b'{"' + b"k" * 1_000_000 + b'":1}')

    assert len(str(raised.value)) < 200


def test_only_bytes_are_taken(kernel: ModuleType) -> None:
    """Text and numbers are a programming error, not bad input."""
    for wrong in ("{}", None, 5):
        for function in (kernel.split, kernel.compact, kernel.quote):
            with pytest.raises((TypeError, AttributeError)):
                function(wrong)


@pytest.mark.parametrize(
    "bound", [{"max_depth": 513}, {"max_depth": 0}, {"max_bytes": 2**31}, {"max_keys": 0}]
)
def test_impossible_limits_are_refused(kernel: ModuleType, bound: dict[str, int]) -> None:
    """A limit beyond what the scanner can hold is an error when it is made."""
    with pytest.raises(ValueError, match="limit"):
        kernel.DocumentLimits(**bound)


def test_default_limits(kernel: ModuleType) -> None:
    """The defaults are those of the protocol, and cannot be changed by accident."""
    limits = kernel.DEFAULT_LIMITS
    shown = [limits.max_bytes, limits.max_keys, limits.max_key_bytes]

    assert shown == [1_048_576, 2000, 256]
    assert [limits.max_value_bytes, limits.max_depth, limits.max_number_bytes] == [262_144, 64, 64]
    with pytest.raises(AttributeError):
        limits.max_keys = 1


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (b"", b'""'),
        (b"plain", b'"plain"'),
        (b'a"b\\c', b'"a\\"b\\\\c"'),
        (b"\b\t\n\f\r", b'"\\b\\t\\n\\f\\r"'),
        (b"\0\x1f\x7f", b'"\\u0000\\u001f\x7f"'),
        ("é日😀\u2028".encode(), '"é日😀\u2028"'.encode()),
        (b"a\xffb\xc3", '"a\ufffdb\ufffd"'.encode()),
    ],
)
def test_quote(kernel: ModuleType, text: bytes, quoted: bytes) -> None:
    """What must be escaped is, in the shortest form; what is not UTF-8 is replaced."""
    assert kernel.quote(text) == quoted


def test_render_pairs(kernel: ModuleType) -> None:
    """An HGETALL reply becomes one object; keys are quoted, values taken as they are."""
    assert kernel.render_pairs([]) == b"{}"
    assert kernel.render_pairs((b"a", b"[1]")) == b'{"a":[1]}'
    assert (
        kernel.render_pairs([b'q"', b"1", "é".encode(), b"null"]) == '{"q\\"":1,"é":null}'.encode()
    )
    assert kernel.render_pairs([b"\xff", b"1", b"b", b"2"]) == '{"\ufffd":1,"b":2}'.encode()


def test_render_pairs_refuses_other_lists(kernel: ModuleType) -> None:
    """An odd number of items and items that are not bytes are programming errors."""
    with pytest.raises(ValueError, match="even"):
        kernel.render_pairs([b"a"])
    with pytest.raises(TypeError):
        kernel.render_pairs(["a", "1"])
