"""Values are values, not spellings: the canonical form, and everything that is made of it.

The oracle is `json` with `Decimal`: two texts are equal when it reads equal values from them. What
must never change, as it stands in Redis, is a table.
"""

import hashlib
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from support.kernels.json_cases import BAD_OBJECTS, broken, outcome, values
from support.kernels.merge_kit import KERNELS, MergeKernel
from syncbridge_core import canonical as compiled_values

quick = settings(deadline=None, max_examples=300)
CORPUS = sorted((Path(__file__).parent.parent / "fuzz" / "corpus").glob("[cd]*/*"))


@pytest.fixture(scope="module", params=KERNELS)
def both(request: pytest.FixtureRequest) -> MergeKernel:
    """One of the two implementations, all of its kernels."""
    return KERNELS[request.param]


# ### Tables ###

STRINGIFIED = [
    "true", "false", "null", "0", "1", "-1", "0.1", "-0.5", "100", "1.5", "123456789012345680000",
    "1e+21", "1.2345678901234568e+21", "0.000001", "1e-7", "1.5e-7", "5e-324", "-1e-9",
    "1.7976931348623157e+308", "9007199254740991", "0.30000000000000004", '""', '"/"', '"é"',
    '"日本"', '"😀"', '"\x7f"', '"\u2028"', r'"\b\t\n\f\r"', r'"\u0000\u001f"', r'"\"\\"', "[]",
    "{}", '[1,"a",null,[true],{}]', '{"a":1,"b":{"c":[],"d":0}}',
    '{"":1,"A":2,"a":3,"aa":4,"b":5,"é":6}',
]  # fmt: skip
"""What JSON.stringify writes, names ascending."""

SPELLINGS: dict[str, list[str]] = {
    "0": ["-0", "0.0", "-0.00", "0e5", "-0E-99999999999999999999", "0.000e+7"],
    "1": ["1.0", "1.000", "1e0", "1E+0", "0.1e1", "10e-1", "0.01E+02", "1" + "0" * 30 + "e-30"],
    "100": ["1e2", "1E+2", "100.0", "1e+02", "0.1e3", "1000e-1"],
    "-12.5": ["-125e-1", "-12.50", "-0.125e2", "-1.25E1"],
    "0.000001": ["1e-6", "0.0000010", "0.1e-5"],
    "1e-7": ["0.0000001", "10e-8", "0.00000010"],
    "1.2e-7": ["0.00000012", "12e-8"],
    "123456789012345678901": ["123456789012345678901.0", "1.23456789012345678901e20"],
    "100000000000000000000": ["1e20", "1" + "0" * 20 + ".0", "0.1e21"],
    "1e+21": ["1e21", "1" + "0" * 21, "10E20", "0.001e24"],
    "1.234567890123456789012e+21": ["1234567890123456789012", "1234567890123456789.012e3"],
    "1e+400": ["1e400", "10e399", "0.1e401", "1E+0400"],
    "-1.5e-400": ["-15e-401", "-0.15e-399"],
    "1e-99999999999999999999": ["10e-100000000000000000000", "0.1e-99999999999999999998"],
    "1e+100000000000000000000": ["10e99999999999999999999", "0.01e100000000000000000002"],
    "1e+99999999999999999999": ["0.1e100000000000000000000", "1e0099999999999999999999"],
    "1e+999999999999999999": ["1e999999999999999999", "0.1e1000000000000000000"],
    "9.87e+123456789012345678901234567890": ["987e123456789012345678901234567888"],
    '"café"': [r'"caf\u00e9"', r'"caf\u00E9"', r'"\u0063afé"'],
    '"/"': [r'"\/"', r'"\u002f"', r'"\u002F"'],
    '"😀"': [r'"\ud83d\ude00"', r'"\uD83D\uDE00"'],
    r'"\u001f"': [r'"\u001F"'],
    r'"\n\"\\"': [r'"\u000a\u0022\u005c"', r'"\u000A\"\u005C"'],
    '"\x7f\u2028"': [r'"\u007f\u2028"'],
    '{"a":1,"b":2}': ['{"b":2,"a":1}', r'{"\u0062":2.0,"\u0061":1e0}'],
    '{"":0,"a":1,"aa":2,"ab":3,"b":4}': ['{"b":4,"ab":3,"aa":2,"a":1,"":-0}'],
    '{"Z":1,"a":2,"é":3,"\uffff":4,"😀":5}': [r'{"😀":5,"\uffff":4,"é":3,"a":2,"Z":1}'],
    r'{"\n":1,"!":2,"\"":3,"A":4,"\\":5,"a":6}': [r'{"\\":5,"A":4,"a":6,"\"":3,"\u0021":2,"\n":1}'],
    '[{"a":[{"c":1,"d":{}}],"b":[]},2]': ['[{"b":[],"a":[{"d":{},"c":1.0}]},2.0]'],
    '[1,{"a":{"a":{"b":0}},"b":0},[]]': [' [ 1, {"b":\t0.0,"a":{"a":{"b":-0}}}\n,[ ] ] '],
}
"""Canonical form -> other spellings of the value."""


@pytest.mark.parametrize("text", STRINGIFIED)
def test_what_javascript_writes_is_canonical(both: MergeKernel, text: str) -> None:
    """Scalars, arrays and objects with ascending names, as JSON.stringify prints them."""
    assert text.encode() == both.values.canonical(text.encode())
    assert b"" == both.values.spelling(text.encode())


@pytest.mark.parametrize("form", SPELLINGS)
def test_spellings_of_one_value(both: MergeKernel, form: str) -> None:
    """All of them have the form, the form has itself, and all have its imprint."""
    for text in [form, *SPELLINGS[form]]:
        assert form.encode() == both.values.canonical(text.encode())
        assert both.values.imprint(form.encode()) == both.values.imprint(text.encode())
        beside = b"" if text == form else both.values.imprint(form.encode())
        assert beside == both.values.spelling(text.encode())


def test_different_values_have_different_forms(both: MergeKernel) -> None:
    """No two rows of the tables are one value; nor 1, "1", true and [1], nor close neighbours."""
    near = ['"1"', "[1]", "[1,1]", "[[1],1]", '{"1":1}', '"true"', "9007199254740993", "1e-400",
            "9007199254740992", "0.1000000000000000055511151231257827", "1e-99999999999999999998",
            '"e\u0301"', "[[]]", "[{}]", "[{},[]]", "1e+22"]  # fmt: skip
    texts = {*STRINGIFIED, *SPELLINGS, *near}

    assert len(texts) == len({both.values.canonical(text.encode()) for text in texts})


NO_JSON = [
    name for name, case in BAD_OBJECTS.items() if case[1] in ("invalid_json", "duplicate_key")
]


@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_not_json_equals_itself_only(both: MergeKernel, name: str) -> None:
    """Broken text, and text with a name twice, is its own form, also where 1.0 is in front."""
    text = BAD_OBJECTS[name][0]

    assert text == both.values.canonical(text)
    assert b"[1.0,%b]" % text == both.values.canonical(b"[1.0,%b]" % text)


@pytest.mark.parametrize("digits", [64, 65, 5000])
def test_numbers_of_any_length(both: MergeKernel, digits: int) -> None:
    """Exact to the last digit, in the mantissa and in the exponent."""
    ones, power = b"1" * digits, b"9" * digits

    form = b"1.%be+%d" % (ones[1:], digits - 1)
    assert form == both.values.canonical(ones) == both.values.canonical(ones + b"00e-2")
    assert b"-1e+1" + b"0" * digits == both.values.canonical(b"-10e" + power)
    assert b"1e-%b8" % power[1:] == both.values.canonical(b"10e-" + power)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_depth_is_bounded(both: MergeKernel, opening: bytes) -> None:
    """512 levels are read as everywhere, one more is only compared as text."""
    closing = b"]" if opening == b"[" else b"}"
    for depth, form in ((512, b"1"), (513, b"1.0"), (100_000, b"1.0")):
        text = opening * depth + b"1.0" + closing * depth
        assert opening * depth + form + closing * depth == both.values.canonical(text)


# ### Spelling and imprint ###


@pytest.mark.parametrize(
    ("text", "imprint", "spelling"),
    [
        (b"1.0", b"=1", b"=1"),
        (b'"' + b"x" * 22 + b'"', b'="' + b"x" * 22 + b'"', b""),
        (b'"\\/' + b"x" * 21 + b'"', b'="/' + b"x" * 21 + b'"', b'="/' + b"x" * 21 + b'"'),
        (b'"' + b"x" * 23 + b'"', b"HASH", b""),
        (b'"\\/' + b"x" * 22 + b'"', b"HASH", b"HASH"),
        (b'"' + b"x" * 2046 + b'"', b"HASH", b""),
        (b'"' + b"x" * 2047 + b'"', b"HASH", b"HASH"),
        (b'"' + b"\\/" * 1500 + b'"', b"HASH", b"HASH"),
        (b"not JSON", b"=not JSON", b""),
        (b"", b"=", b""),
    ],
    ids=lambda x: f"{len(x)} {x[:8]!r}" if isinstance(x, bytes) else None,
)
def test_imprint_and_spelling(
    both: MergeKernel, text: bytes, imprint: bytes, spelling: bytes
) -> None:
    """Up to 24 bytes of the form, else of its SHA-1; beside a canonical text up to 2,048 none."""
    digest = hashlib.sha1(both.values.canonical(text)).hexdigest()[:16].encode()

    assert imprint.replace(b"HASH", digest) == both.values.imprint(text)
    assert spelling.replace(b"HASH", digest) == both.values.spelling(text)


def test_no_value_has_an_imprint_of_its_own(both: MergeKernel) -> None:
    """None is told from every value, and what is unknown from both."""
    assert b"" == both.values.imprint(None)
    assert both.values.UNKNOWN not in {both.values.imprint(x) for x in (None, b"?", b'"?"')}


def test_spellings_of_a_list(both: MergeKernel) -> None:
    """One for each value in its place, and none for keys; [] when there is nothing to say."""
    spellings = both.values.spellings

    assert [] == spellings([])
    assert [] == spellings([b"1.0", b"1", b"\xff", b'"x"'])
    assert [b"", b"", b"=1", b"", b"=[]"] == spellings(
        [b"a", b"1", b"b", b"2", b"c", b"1.0", b"d", b"4", b"e", b"[ ]"]
    )
    assert [b"=0", b""] == spellings((b"a", b"-0", b"b", b"0"))


@pytest.mark.parametrize(
    ("flat", "error"), [([b"a"], ValueError), ([b"a", "1"], TypeError), ([b"a", None], TypeError)]
)
def test_spellings_of_no_list_of_pairs(
    both: MergeKernel, flat: list[Any], error: type[Exception]
) -> None:
    """As for every flat list of keys and values."""
    with pytest.raises(error):
        both.values.spellings(flat)


# ### Laws ###


def oracle(text: bytes) -> Any:
    """The value of a text in a form that `==` compares as JSON."""
    return comparable(json.loads(text, parse_int=Decimal, parse_float=Decimal))


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {"object": {name: comparable(item) for name, item in value.items()}}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return (type(value).__name__, value)


def respelled(value: Any, rng: random.Random) -> str:
    """One of the many texts of a parsed value."""
    space = rng.choice(["", "", " ", "\n\t"])
    if isinstance(value, dict):
        names = rng.sample(list(value), len(value))
        parts = [f"{respelled(n, rng)}{space}:{respelled(value[n], rng)}" for n in names]
        return "{" + space + ",".join(parts) + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join([respelled(item, rng) for item in value]) + space + "]"
    if isinstance(value, str):
        return '"' + "".join([spelled_character(char, rng) for char in value]) + '"'
    if isinstance(value, Decimal):
        return spelled_number(value, rng)
    return json.dumps(value)


def spelled_character(char: str, rng: random.Random) -> str:
    units = char.encode("utf-16-be").hex()
    escaped = "".join([f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)])
    plain = json.dumps(char, ensure_ascii=False)[1:-1]
    return rng.choice([escaped, escaped.upper().replace("\\U", "\\u"), plain, plain])


def spelled_number(value: Decimal, rng: random.Random) -> str:
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)) + "0" * rng.randrange(4)
    exponent -= len(text) - len(digits)
    point = rng.randrange(len(text))
    whole, fraction = text[: len(text) - point].lstrip("0") or "0", text[len(text) - point :]
    power = f"{rng.choice('eE')}{rng.choice(['', '+'])}" if exponent + point >= 0 else "e"
    power += f"{exponent + point:03d}" if rng.random() < 0.5 else str(exponent + point)
    fraction = "." + fraction if fraction else ""
    return "-" * sign + whole + fraction + (power if exponent + point or rng.random() < 0.5 else "")


def valid(text: bytes) -> bool:
    """Whether a text is JSON without a name twice; numbers may be of any size."""
    result = outcome(KERNELS["pure"].documents, "compact", text)
    return isinstance(result, bytes)


@quick
@given(text=values.map(str.encode))
def test_the_form_is_the_value(both: MergeKernel, text: bytes) -> None:
    """It reads as the same value, is its own form, and is compact JSON."""
    assume(valid(text))
    form = both.values.canonical(text)

    assert oracle(text) == oracle(form)
    assert form == both.values.canonical(form)
    assert form == both.values.canonical(both.documents.compact(text))


@quick
@given(text=values.map(str.encode), seed=st.integers(0, 2**32))
def test_equal_values_have_one_form(both: MergeKernel, text: bytes, seed: int) -> None:
    """However a value is spelled: spaces, escapes, exponents, order of members."""
    assume(valid(text))
    value = json.loads(text, parse_int=Decimal, parse_float=Decimal)
    other = respelled(value, random.Random(seed)).encode()

    assert oracle(text) == oracle(other)
    assert both.values.canonical(text) == both.values.canonical(other)
    assert both.values.imprint(text) == both.values.imprint(other)


SMALL = st.recursive(
    st.sampled_from(["0", "-0", "1", "1.0", "10", "1e1", '""', '"a"', r'"\u0061"', "null", "true"]),
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda p: f"[{','.join(p)}]")
        | st.permutations(["a", "b"]).flatmap(
            lambda names: st.tuples(inner, inner).map(
                lambda p: f'{{"{names[0]}":{p[0]},"{names[1]}":{p[1]}}}'
            )
        )
    ),
    max_leaves=4,
).map(str.encode)


@settings(deadline=None, max_examples=1000)
@given(one=SMALL, other=SMALL)
def test_only_equal_values_have_one_form(both: MergeKernel, one: bytes, other: bytes) -> None:
    """Of values that are often equal, those that are have one form, and no others."""
    equal = both.values.canonical(one) == both.values.canonical(other)

    assert (oracle(one) == oracle(other)) == equal


@quick
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_written_as_in_javascript(both: MergeKernel, number: float) -> None:
    """Python's shortest digits in ECMAScript's layout read back as the same double."""
    form = both.values.canonical(repr(number).encode())

    assert number == float(form)
    mantissa, _, power = form.partition(b"e")
    assert not power or int(power) >= 21 or int(power) <= -7
    assert not power or len(mantissa.lstrip(b"-").split(b".")[0]) == 1


@settings(deadline=None, max_examples=1000)
@given(data=broken() | st.binary(max_size=40) | values.map(str.encode))
def test_the_twins_agree_on_any_bytes(data: bytes) -> None:
    """JSON or not, both have the same form, imprint and spelling."""
    compiled, pure = KERNELS["compiled"].values, KERNELS["pure"].values

    for name in ("canonical", "imprint", "spelling"):
        assert getattr(compiled, name)(data) == getattr(pure, name)(data)
    flat = [b"a", data, b"b", b"1", b"c", data]
    assert compiled.spellings(flat) == pure.spellings(flat)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_twins_agree_on_the_fuzz_corpus(path: Path) -> None:
    """Seeds and past findings of the fuzzer have one form, with or without the two option bytes."""
    data = path.read_bytes()
    for text in (data, data[2:]):
        expected = KERNELS["pure"].values.canonical(text)
        assert expected == compiled_values.canonical(text)


@pytest.mark.parametrize("count", [2, 23, 24, 25, 100, 3000])
def test_wide_objects(both: MergeKernel, count: int) -> None:
    """Any number of members in any order; one name twice is found wherever it is."""
    rng = random.Random(count)
    names = [f"k{n}" if n % 3 else f"\\u006b{n}" for n in range(count)]
    rng.shuffle(names)
    text = "{" + ",".join([f'"{name}":{{"b":1,"a":[{{}}]}}' for name in names]) + "}"
    form = both.values.canonical(text.encode())

    assert oracle(text.encode()) == oracle(form)
    assert sorted(json.loads(form)) == list(json.loads(form))
    for place in {0, count // 2, count - 1}:
        twice = f'{text[:-1]},"{names[place]}":1}}'.encode()
        assert twice == both.values.canonical(twice)


# ### What is compared by value ###


@pytest.mark.parametrize("form", SPELLINGS)
def test_another_spelling_is_no_difference(both: MergeKernel, form: str) -> None:
    """A replica keeps the first spelling, and `diff` has nothing to say of another one."""
    documents = both.documents
    for text in SPELLINGS[form]:
        doc = documents.Doc.from_flat([b"k", form.encode(), b"n", b"1"], 1, "e")
        if isinstance(outcome(documents, "compact", text.encode()), bytes):
            target = documents.split(b'{"n":2,"k":%b}' % text.encode())
            assert ([b"n", b"2"], []) == doc.diff(target)
        assert form.encode() == doc.get(b"k")


@quick
@given(one=SMALL, other=SMALL)
def test_diff_compares_by_value(both: MergeKernel, one: bytes, other: bytes) -> None:
    """What differs is what the oracle says differs, and it is proposed as it is spelled."""
    documents = both.documents
    doc = documents.Doc.from_flat([b"k", one], 1, "e")

    expected = [] if oracle(one) == oracle(other) else [b"k", other]
    assert (expected, []) == doc.diff(documents.split(b'{"k":%b}' % other))


@pytest.mark.parametrize("form", SPELLINGS)
def test_merge_keeps_the_newer_value(both: MergeKernel, form: str) -> None:
    """A device that sends an old value in another spelling has changed only its other key."""
    documents, base = both.documents, both.values.imprint(form.encode())
    for text in SPELLINGS[form]:
        if not isinstance(outcome(documents, "compact", text.encode()), bytes):
            continue
        doc = documents.Doc.from_flat([b"k", b'"NEWER"'], 2, "e")
        client = documents.split(b'{"k":%b,"mine":2}' % text.encode())
        assert ([b"mine", b"2"], [], [], []) == both.merge.merge3(doc, client, {b"k": base})
