"""The opening handshake: what is agreed, what is refused and how the answer reads."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge_server.listener.contract import (
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_PROTOBUF,
    ListenerConfig,
    Refusal,
)
from syncbridge_server.listener.response import (
    refusal_response,
    request_id,
    switching_headers,
    to_http1,
)
from syncbridge_server.listener.upgrade import (
    Agreement,
    HandshakeError,
    UpgradeRequest,
    accept_token,
    collect,
    is_key,
    negotiate,
    parse_head,
)

CONFIG = ListenerConfig(subprotocols={SUBPROTOCOL_JSON: 0, SUBPROTOCOL_PROTOBUF: 1})
HEADERS = {
    b"host": b"app.example:8080",
    b"connection": b"keep-alive, Upgrade",
    b"upgrade": b"websocket",
    b"sec-websocket-version": b"13",
    b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
}


def judge(
    path: bytes = b"/ws", query: bytes = b"", config: ListenerConfig = CONFIG, **changed: bytes
) -> Agreement | Refusal:
    fields = {name.replace("_", "-").encode(): value for name, value in changed.items()}
    headers = {name: value for name, value in (HEADERS | fields).items() if value}
    return negotiate(UpgradeRequest(path, query, headers), config)


def refused(verdict: Agreement | Refusal) -> tuple[int, str]:
    assert isinstance(verdict, Refusal), verdict
    return verdict.status, verdict.code


def test_the_accept_token_is_that_of_the_rfc() -> None:
    """The example of RFC 6455 section 1.3."""
    verdict = judge()

    assert isinstance(verdict, Agreement)
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == verdict.accept
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == accept_token(HEADERS[b"sec-websocket-key"])


@pytest.mark.parametrize(
    ("offered", "name", "encoding"),
    [
        (b"", None, 0),
        (b"syncbridge.json.v1", SUBPROTOCOL_JSON, 0),
        (b"syncbridge.proto.v1", SUBPROTOCOL_PROTOBUF, 1),
        (b"chat, syncbridge.proto.v1 ,syncbridge.json.v1", SUBPROTOCOL_PROTOBUF, 1),
        (b"chat", None, 0),
        (b"\xff", None, 0),
    ],
)
def test_the_first_known_subprotocol_is_agreed(
    offered: bytes, name: str | None, encoding: int
) -> None:
    """The client's order counts; unknown offers get JSON without a name."""
    verdict = judge(sec_websocket_protocol=offered)

    assert isinstance(verdict, Agreement)
    assert (name, encoding) == (verdict.subprotocol, verdict.encoding)


def test_protobuf_must_be_enabled() -> None:
    """By default only JSON can be agreed on."""
    verdict = judge(config=ListenerConfig(), sec_websocket_protocol=b"syncbridge.proto.v1")

    assert isinstance(verdict, Agreement)
    assert (None, 0) == (verdict.subprotocol, verdict.encoding)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"path": b"/other"}, (404, "not_found")),
        ({"host": b""}, (400, "bad_handshake")),
        ({"host": b"a b"}, (400, "bad_handshake")),
        ({"upgrade": b""}, (426, "upgrade_required")),
        ({"connection": b"keep-alive"}, (426, "upgrade_required")),
        ({"sec_websocket_version": b""}, (426, "upgrade_required")),
        ({"sec_websocket_version": b"8"}, (426, "upgrade_required")),
        ({"sec_websocket_key": b""}, (400, "bad_handshake")),
        ({"sec_websocket_key": b"c2hvcnQ="}, (400, "bad_handshake")),
        ({"sec_websocket_key": b"dGhlIHNhbXBsZSBub25jZ!=="}, (400, "bad_handshake")),
        ({"query": b"token=x"}, (400, "token_in_url")),
        ({"query": b"a=1&ACCESS_token="}, (400, "token_in_url")),
        ({"query": b"%74oken=x"}, (400, "token_in_url")),
        ({"query": b"a=1&" * 100}, (400, "bad_handshake")),
        ({"origin": b"https://evil.example"}, (403, "origin_refused")),
        ({"origin": b"null"}, (403, "origin_refused")),
    ],
)
def test_refusals(changed: dict[str, bytes], expected: tuple[int, str]) -> None:
    """Each broken rule has its own status and code."""
    assert expected == refused(judge(**changed))


def test_http2_needs_neither_key_nor_upgrade() -> None:
    """RFC 8441 section 5 drops both, and keeps the version."""
    bare = {b"host": b"a", b"sec-websocket-version": b"13"}
    verdict = negotiate(UpgradeRequest(b"/ws", b"", bare, http2=True), CONFIG)

    assert isinstance(verdict, Agreement)
    old = bare | {b"sec-websocket-version": b"12"}
    assert (426, "upgrade_required") == refused(
        negotiate(UpgradeRequest(b"/ws", b"", old, http2=True), CONFIG)
    )


def test_repeated_single_headers_are_refused_and_lists_are_joined() -> None:
    """Two hosts or keys are an attack or a bug; two Connection lines are one list."""
    assert {b"connection": b"a,b"} == collect([(b"Connection", b"a"), (b"connection", b"b")])
    for name in (b"Host", b"Origin", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version"):
        with pytest.raises(HandshakeError):
            collect([(name, b"a"), (name, b"a")])


def test_the_switching_answer_reads_as_the_rfc_says() -> None:
    """Status line, Upgrade, Connection, accept token, chosen subprotocol, request id."""
    verdict = judge(sec_websocket_protocol=b"syncbridge.json.v1")
    assert isinstance(verdict, Agreement)
    answer = to_http1(101, switching_headers(verdict, b"abc-1"))

    assert (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"x-request-id: abc-1\r\n"
        b"sec-websocket-protocol: syncbridge.json.v1\r\n\r\n"
    ) == answer


def test_a_refusal_is_a_problem_document() -> None:
    """RFC 9457 body, request id, Retry-After, and the version that is spoken with 426."""
    status, pairs, body = refusal_response(
        Refusal(503, "draining", "bye", 3), {b"x-request-id": b"abc"}
    )
    headers = dict(pairs)

    assert 503 == status
    assert (b"application/problem+json", b"3", b"abc") == (
        headers[b"content-type"],
        headers[b"retry-after"],
        headers[b"x-request-id"],
    )
    assert {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "bye",
        "code": "draining",
    } == json.loads(body)
    assert b"13" == dict(refusal_response(Refusal(426, "x", "y"))[1])[b"sec-websocket-version"]


@pytest.mark.parametrize("given", [b"", b"a b", b"a\r\nb", b"x" * 65, b"\xff"])
def test_a_strange_request_id_is_replaced(given: bytes) -> None:
    """Only short plain ids come back, so that none can inject a header or fill a log."""
    new = request_id(given)

    assert given != new
    assert b"keep.me-1" == request_id(b"keep.me-1")


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_keys_are_judged_without_failing(data: bytes) -> None:
    """Any bytes are a key or not."""
    assert is_key(data) is False or len(data) == 24


@given(st.binary(max_size=120), st.binary(max_size=40))
@settings(deadline=None)
def test_a_parsed_head_has_only_plain_bytes(line: bytes, query: bytes) -> None:
    """What the strict parser takes has no control characters, and one host."""
    base = b"\r\n".join(n + b": " + v for n, v in HEADERS.items())
    request = parse_head(b"GET /ws?" + query + b" HTTP/1.1\r\n" + line + base + b"\r\n\r\n")

    if request is not None:
        whole = request.query + b"".join(request.headers.values())
        assert not [byte for byte in whole if (byte < 0x20 and byte != 0x09) or byte == 0x7F]
        if b"host" not in line.lower():
            assert HEADERS[b"host"] == request.headers[b"host"]


def test_a_head_of_blanks_is_judged_in_linear_time() -> None:
    """A value of 64 KiB of blanks before a byte that is not allowed: backtracking over it would
    take longer than anybody waits for this test."""
    blanks = b" \t" * 32_768

    assert parse_head(b"GET /ws HTTP/1.1\r\nhost:" + blanks + b"\x01\r\n\r\n") is None
