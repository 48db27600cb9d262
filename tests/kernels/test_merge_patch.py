"""JSON Merge Patch on texts: the examples of RFC 7396, and laws against a reference on values."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.test_document_laws import same
from support.kernels.json_cases import objects, values
from support.kernels.merge_kit import ABSENT, KERNELS, MergeKernel, reference

quick = settings(deadline=None, max_examples=200)


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> MergeKernel:
    """One of the two implementations."""
    return KERNELS[request.param]


APPENDIX_A = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]
"""RFC 7396 appendix A: original, patch, result."""

SECTION_3 = (
    '{"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},'
    '"tags":["example","sample"],"content":"This will be unchanged"}',
    '{"title":"Hello!","phoneNumber":"+01-123-456-7890","author":{"familyName":null},'
    '"tags":["example"]}',
    '{"title":"Hello!","author":{"givenName":"John"},"tags":["example"],'
    '"content":"This will be unchanged","phoneNumber":"+01-123-456-7890"}',
)

MORE = [
    ("", '{"a":1,"b":null}', '{"a":1}'),
    ("", "5", "5"),
    ("7", '{"a":1}', '{"a":1}'),
    ('{"a":[null]}', "{}", '{"a":[null]}'),
    ("{}", '{"a":[null,{"b":null}]}', '{"a":[null,{"b":null}]}'),
    ('{"a":1.0,"n":12345678901234567890123}', '{"b":1e2}',
     '{"a":1.0,"n":12345678901234567890123,"b":1e2}'),
    ('{"\\u0061":1,"b":2}', '{"a":3}', '{"\\u0061":3,"b":2}'),
    ('{"a":1}', '{"\\u0061":null}', "{}"),
    ('{"a\\"b":{"c":1}}', '{"a\\u0022b":{"c":2}}', '{"a\\"b":{"c":2}}'),
    ('{"a":"}{,:","b":"\\\\"}', '{"a":null}', '{"b":"\\\\"}'),
    ('{"a":{},"b":1}', '{"a":{"x":null}}', '{"a":{},"b":1}'),
    ('{"a":1,"b":2,"c":3}', '{"b":null,"c":null,"a":null}', "{}"),
    ('{"é":1}', ' { "\\u00e9" : { "x" : [ 1 , 2 ] } } ', '{"é":{"x":[1,2]}}'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "patch", "expected"), [*APPENDIX_A, SECTION_3, *MORE])
def test_examples(kernel: MergeKernel, value: str, patch: str, expected: str) -> None:
    """The RFC's own table and example, and what texts add to it: spelling, order, escapes."""
    assert expected == kernel.merge.merge_patch(value.encode(), patch.encode()).decode()


@pytest.mark.parametrize(
    ("value", "patch", "code"),
    [
        (b"{}", b"{", "invalid_json"),
        (b"{}", b"", "invalid_json"),
        (b"{}", b'{"a":1,"a":2}', "duplicate_key"),
        (b"{}", b'{"a":1e999}', "number_range"),
        (b"{}", b'{"a":' * 64 + b"1" + b"}" * 64 + b"}", "invalid_json"),
        (b"{}", b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep"),
        (b'{"a":', b"{}", "invalid_json"),
        (b"\xff", b"{}", "invalid_json"),
        (b'{"a":1,"a":2}', b"{}", "duplicate_key"),
    ],
)
def test_refused(kernel: MergeKernel, value: bytes, patch: bytes, code: str) -> None:
    """A patch is held to the limits; stored bytes that are not JSON are an error, no crash."""
    with pytest.raises(kernel.documents.DocumentError) as caught:
        kernel.merge.merge_patch(value, patch)

    assert code == caught.value.code


def test_result_is_held_to_the_size_of_a_value(kernel: MergeKernel) -> None:
    """Both fit, their merge does not."""
    limits = kernel.documents.DocumentLimits(max_value_bytes=20)
    with pytest.raises(kernel.documents.DocumentError) as caught:
        kernel.merge.merge_patch(b'{"a":"0123456789"}', b'{"b":"0123456789"}', limits)

    assert ("too_large", 413) == (caught.value.code, caught.value.status)
    assert b'{"a":1}' == kernel.merge.merge_patch(b'{"a":"0123456789"}', b'{"a":1}', limits)


def test_stored_value_may_be_beyond_todays_limits(kernel: MergeKernel) -> None:
    """Lowered limits do not lock a value in: it can still be made smaller."""
    limits = kernel.documents.DocumentLimits(max_value_bytes=30, max_depth=2, max_bytes=30)
    value = b'{"a":[[[[]]]],"b":"%b"}' % (b"x" * 100)

    assert b"{}" == kernel.merge.merge_patch(value, b'{"a":null,"b":null}', limits)


def test_wide_objects(kernel: MergeKernel) -> None:
    """Thousands of members on both sides: each is found, none is mixed up."""
    value = {f"k{n}": n for n in range(3000)} | {"deep": {f"d{n}": n for n in range(500)}}
    patch: dict[str, Any] = {f"k{n}": None if n % 2 else -n for n in range(1500, 4500)}
    patch["deep"] = {f"d{n}": {"n": None} for n in range(250, 750)}
    merged = kernel.merge.merge_patch(json.dumps(value).encode(), json.dumps(patch).encode())

    assert reference(value, patch) == json.loads(merged)


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A value and a patch, half of the time with many names in common."""
    small = st.recursive(
        st.sampled_from(["1", "null", '"x"', "[]", "[null]", "{}"]),
        lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4).map(
            lambda d: "{" + ",".join(f'"{k}":{v}' for k, v in d.items()) + "}"
        ),
        max_leaves=10,
    )
    texts = draw(st.sampled_from([small, objects | values]))
    return draw(texts).encode(), draw(texts).encode()


def accepted(kernel: MergeKernel, *texts: bytes) -> bool:
    """Whether the texts are good JSON under the default limits."""
    try:
        for text in texts:
            kernel.documents.compact(text)
    except kernel.documents.DocumentError:
        return False
    return True


@quick
@given(case=cases())
def test_like_the_reference(kernel: MergeKernel, case: tuple[bytes, bytes]) -> None:
    """The merged text is the RFC's algorithm on the parsed values, and is compact JSON."""
    value, patch = case
    if not accepted(kernel, value, patch):
        return
    merged = kernel.merge.merge_patch(value, patch)

    assert same(reference(json.loads(value), json.loads(patch)), json.loads(merged))
    assert kernel.documents.compact(merged) == merged


@quick
@given(case=cases())
def test_applied_twice_is_applied_once(kernel: MergeKernel, case: tuple[bytes, bytes]) -> None:
    """A patch is idempotent, and onto nothing it is itself without its nulls."""
    value, patch = case
    if not accepted(kernel, value, patch):
        return
    once = kernel.merge.merge_patch(value, patch)

    assert once == kernel.merge.merge_patch(once, patch)
    bare = kernel.merge.merge_patch(b"", patch)
    assert same(reference(ABSENT, json.loads(patch)), json.loads(bare))
    assert bare == kernel.merge.merge_patch(b"0", patch)


@settings(deadline=None, max_examples=400)
@given(case=cases() | st.tuples(st.binary(max_size=20), st.binary(max_size=20)))
def test_the_twins_agree(case: tuple[bytes, bytes]) -> None:
    """Same bytes out, or the same refusal."""
    results = []
    for kernel in KERNELS.values():
        try:
            results.append(kernel.merge.merge_patch(*case))
        except kernel.documents.DocumentError as error:
            results.append((error.code, error.status))

    assert results[0] == results[1]
