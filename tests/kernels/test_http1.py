"""Heads and answers: both forms of the kernel, held to the same rules and to each other."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbridge.kernels import _http1_py as pure
from syncbridge_core import http1 as compiled

OPENING = b"HTTP/1.1 200 OK\r\n"
FORMS = pytest.mark.parametrize("kernel", [compiled, pure], ids=["compiled", "pure"])
PIECES = st.sampled_from(
    [
        b"GET",
        b" ",
        b"/",
        b"/a?b=%20",
        b"*",
        b"HTTP/1.",
        b"0",
        b"1",
        b"2",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host",
        b"X-1",
        b":",
        b"a",
        b"\t",
        b"\x00",
        b"\x7f",
        b"\xe9",
        b"#",
        b"(",
    ]
)


@given(st.lists(PIECES, max_size=16).map(b"".join) | st.binary(max_size=40))
def test_both_forms_read_the_same_heads(noise: bytes) -> None:
    """The same parts, or both refuse: also what only differs in one byte from a good head."""
    head = b"GET /a?b HTTP/1.1\r\nHost: a\r\nX:\ty \xe9\r\n\r\n"
    for at in {0, 4, 9, 17, 19, len(noise) % len(head), len(head) - 2, len(head)}:
        for data in (noise, head[:at] + noise + head[at:], head[:at] + noise):
            assert compiled.split_head(data) == pure.split_head(data)


@FORMS
@pytest.mark.parametrize("cut", range(40))
def test_no_beginning_is_a_head(kernel: Any, cut: int) -> None:
    """Cut off anywhere, or with one byte more, it is none."""
    head = b"PUT /x HTTP/1.0\r\nA: b\r\nContent-Length:\r\n\r\n"

    assert kernel.split_head(head) == (b"PUT", b"/x", b"0")
    assert kernel.split_head(head[:cut]) is None
    assert kernel.split_head(head + b"\r") is None
    assert kernel.split_head(b"") is None


@FORMS
def test_fields(kernel: Any) -> None:
    """Names in lower case, values without outer spaces, and what decides over the message."""
    fields = kernel.Fields()
    for name, value in [(b"HOST", b" a\t"), (b"X-Y", b""), (b"Expect", b"1 2"), (b"hosts", b"\t ")]:
        fields.on_header(name, value)

    assert fields.headers == [(b"host", b"a"), (b"x-y", b""), (b"expect", b"1 2"), (b"hosts", b"")]
    assert fields.deciding == [(b"host", b"a"), (b"expect", b"1 2")]
    before = fields.headers
    fields.reset()
    assert (fields.headers, fields.deciding, len(before)) == ([], [], 4)


def answer(kernel: Any, method: str, version: str, keep: bool, start: Any, parts: Any) -> Any:
    """The bytes of each part, or which error, and how the response ended."""
    response = kernel.Response(method, version, keep)
    sent: list[Any] = []
    try:
        response.start(start, OPENING)
        for data, more in parts:
            sent.append(response.body(data, more))
    except (RuntimeError, ValueError) as error:
        sent.append(str(error))
    return sent, response.keep_alive, response.started, response.sent, response.complete


NAMES = st.sampled_from(
    [
        b"content-length",
        b"Content-Length",
        b"connection",
        b"date",
        b"transfer-encoding",
        b"x",
        b"X-Y",
        b"etag",
        b"no name",
        b"",
    ]
)
VALUES = st.sampled_from([b"3", b"0", b"-1", b"close", b"keep-alive", b"a b", b"x\r\ny", b"\0"])


@given(
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from(["1.0", "1.1"]),
    st.booleans(),
    st.sampled_from([200, 204, 304, 404]),
    st.lists(st.tuples(NAMES, VALUES | st.binary(max_size=3)), max_size=4),
    st.lists(
        st.tuples(
            st.sampled_from([b"", b"abc", bytearray(b"ab"), memoryview(b"x")]), st.booleans()
        ),
        max_size=4,
    ),
)
def test_both_forms_answer_alike(
    method: str, version: str, keep: bool, status: int, headers: Any, parts: Any
) -> None:
    """The same bytes and the same errors, whatever an application says."""
    start = {"type": "http.response.start", "status": status, "headers": headers}
    results = [answer(kernel, method, version, keep, start, parts) for kernel in (compiled, pure)]

    assert results[0] == results[1]


@FORMS
def test_many_values_of_one_name(kernel: Any) -> None:
    """Lines that are remembered are those of the same name and value, however many there are."""
    for number in [*range(3_000), *range(50)]:
        response = kernel.Response("GET", "1.1", True)
        value = b"%d" % (number % 1_500)
        response.start({"status": 200, "headers": [(b"x-id", value), (b"a", b"b")]}, OPENING)
        expected = OPENING + b"x-id: " + value + b"\r\na: b\r\ncontent-length: 2\r\n\r\nok"
        assert response.body(b"ok", False) == expected
