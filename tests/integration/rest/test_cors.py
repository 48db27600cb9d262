"""Pages of other origins: what a browser asks before, what it is told, and who is never let act."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.listener.http_site import WAYS as HTTP1
from support.listener.http_site import Reply, get, http_site, read_all
from support.listener.http_site import answer as answer_with
from support.listener.listener_site import certificate, open_site
from support.listener.ws_raw import open_http2, open_plain
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device, Refused
from syncbridge.identity import Role
from syncbridge_server.listener.contract import Refusal as ListenerRefusal
from syncbridge_server.origins import Origins

PAGE = "https://app.example"
LISTED = {"origins": (PAGE, "https://b.example")}
ALLOW_ORIGIN = "access-control-allow-origin"
ALLOW_METHODS = "access-control-allow-methods"
WAYS = ("plain", "tls", "http2")


@asynccontextmanager
async def reached(
    way: str, redis_url: str, folder: Path, **values: Any
) -> AsyncIterator[tuple[Node, httpx.AsyncClient]]:
    """A server, and a client that reaches it in one of the WAYS."""
    base = "http"
    if way != "plain":
        base = "https"
        cert, key = await trio.to_thread.run_sync(certificate, folder)
        values |= {"tls_cert": cert, "tls_key": key}
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with (
        running_node(redis_url, **values) as node,
        httpx.AsyncClient(
            base_url=f"{base}://127.0.0.1:{node.port}", verify=context, http2=way == "http2"
        ) as http,
    ):
        yield node, http


def asks(method: str, page: str = PAGE) -> dict[str, str]:
    """The headers of a preflight."""
    return {
        "Origin": page,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }


def words(answer: httpx.Response, name: str) -> set[str]:
    return {word.strip() for word in answer.headers[name].split(",")}


@pytest.mark.parametrize("way", WAYS)
async def test_a_preflight_is_told_what_the_route_takes(
    way: str, redis_url: str, tmp_path: Path
) -> None:
    """204 for any route, with its true methods; no credentials, and no other origin's name."""
    paths = {
        "/auth/refresh": {"POST"},
        "/session/snapshot": {"POST"},  # it is no session
        f"/session/{new_session()}": {"GET", "HEAD"},
        f"/session/{new_session()}/device/d": {"DELETE"},
        "/sessions/a": {"GET", "HEAD", "DELETE"},
        "/sessions/a/state": {"GET", "HEAD", "DELETE", "PUT"},  # an id may have a slash
        "/api/voice/token": {"POST"},
        "/ws": {"GET", "HEAD"},
        "/health": {"GET", "HEAD"},
    }
    async with reached(way, redis_url, tmp_path, **LISTED) as (_, http):
        for path, methods in paths.items():
            answer = await http.options(path, headers=asks("POST"))
            assert (204, b"", PAGE) == (
                answer.status_code,
                answer.content,
                answer.headers[ALLOW_ORIGIN],
            )
            assert methods == words(answer, ALLOW_METHODS), path
            assert {"Authorization", "Content-Type", "X-Device-ID", "X-Request-ID"} <= words(
                answer, "access-control-allow-headers"
            )
            assert 0 < int(answer.headers["access-control-max-age"])
            assert "Origin" in words(answer, "vary")
            assert answer.headers["x-request-id"]
            assert "access-control-allow-credentials" not in answer.headers
        unknown = await http.options("/nowhere", headers=asks("PUT"))
        refused = await http.options("/auth/refresh", headers=asks("POST", "https://c.example"))
        plain = await http.options("/auth/refresh")
        webhook = await http.options("/rtk-webhook", headers=asks("POST"))

    assert (204, True) == (unknown.status_code, "PUT" in words(unknown, ALLOW_METHODS))
    assert (403, "origin_refused") == (refused.status_code, refused.json()["code"])
    assert (204, 204) == (plain.status_code, webhook.status_code)
    for answer in (refused, plain, webhook):
        assert ALLOW_ORIGIN not in answer.headers
        assert ALLOW_METHODS not in answer.headers


@pytest.mark.parametrize("way", WAYS)
async def test_every_answer_says_who_may_read_it(way: str, redis_url: str, tmp_path: Path) -> None:
    """Errors of every kind too; once, for the page that asked; and what it may read of them."""
    page, me = {"Origin": PAGE}, bearer(mint("ann"))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    json_type = {"Content-Type": "application/json"}
    limits = {"requests_per_second": 1, "request_burst": 12}
    async with reached(way, redis_url, tmp_path, **LISTED, **limits) as (node, http):
        answers = {
            400: await http.post("/auth/refresh", content=b"{", headers=page | json_type),
            401: await http.get(f"/session/{new_session()}", headers=page),
            403: await http.get("/admin/sessions", headers=page | me),
            404: await http.get("/nowhere", headers=page),
            405: await http.put("/auth/refresh", headers=page),
            413: await http.post("/auth/refresh", content=b" " * 20_000, headers=page | json_type),
            415: await http.post("/auth/refresh", content=b"a=b", headers=page | form),
            422: await http.post("/auth/refresh", content=b"{}", headers=page | json_type),
            426: await http.get("/ws", headers=page),
            200: await http.get("/openapi.json", headers=page),
        }
        tag = answers[200].headers["etag"]
        answers[304] = await http.get("/openapi.json", headers=page | {"If-None-Match": tag})
        while (answer := await http.get("/nowhere", headers=page)).status_code == 404:
            pass
        answers[429] = answer
        node.server.gateway.draining = True
        answers[503] = await http.get("/ws", headers=page | me)
        foreign = await http.get("/health", headers={"Origin": "https://c.example"})
        none = await http.get("/health")

    for status, answer in answers.items():
        assert status == answer.status_code
        assert [PAGE] == answer.headers.get_list(ALLOW_ORIGIN), status
        assert {"X-Request-ID", "ETag", "Retry-After"} <= words(
            answer, "access-control-expose-headers"
        )
        assert "Origin" in words(answer, "vary")
        assert "access-control-allow-credentials" not in answer.headers
    assert "retry-after" in answers[503].headers
    for answer in (foreign, none):
        assert (200, True) == (answer.status_code, "Origin" in words(answer, "vary"))
        assert ALLOW_ORIGIN not in answer.headers


@pytest.mark.parametrize("way", ["plain", "http2"])
async def test_a_fault_of_ours_can_be_read_too(
    way: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 with the request id, for the page that has to report it."""
    async with reached(way, redis_url, tmp_path, **LISTED) as (node, http):
        monkeypatch.setattr(node.server.store, "call", None)
        url = f"/session/{new_session()}"
        answer = await http.get(url, headers={"Origin": PAGE} | bearer(mint("ann")))

    assert (500, [PAGE]) == (answer.status_code, answer.headers.get_list(ALLOW_ORIGIN))


async def test_any_origin(redis_url: str) -> None:
    """`*` is said as `*`, and lets sockets in, sandboxed pages too."""
    async with running_node(redis_url, origins=("*",)) as node, node.http() as http:
        answer = await http.options("/auth/refresh", headers=asks("POST", "null"))
        async with await Device.open(node.port, headers=[(b"Origin", b"null")]) as device:
            await device.auth(mint("ann"), "phone")

    assert (204, "*") == (answer.status_code, answer.headers[ALLOW_ORIGIN])


async def test_webhooks_say_nothing_of_origins(redis_url: str) -> None:
    """They are called by a provider, never by a page."""
    async with running_node(redis_url, **LISTED) as node, node.http() as http:
        answer = await http.post("/rtk-webhook", content=b"{}", headers={"Origin": PAGE})

    assert 401 == answer.status_code
    assert {"vary", ALLOW_ORIGIN}.isdisjoint(answer.headers)


LOOPBACK_PAGES = ("http://127.0.0.1:5173", "http://localhost:3000", "http://[::1]:8000")


async def test_dev_lets_pages_of_this_machine_in(redis_url: str) -> None:
    """With a token, over the socket and over HTTP; a server that is not for development does not,
    and counts what it refused."""
    token = mint("ann")
    async with running_node(redis_url, dev=True) as node, node.http() as http:
        for page in LOOPBACK_PAGES:
            headers = [(b"Origin", page.encode())]
            async with await Device.open(node.port, headers=headers) as device:
                await device.auth(token, "phone")
                assert device.welcome["session_id"]
            asked = await http.options("/session/snapshot", headers=asks("POST", page))
            body = {"session_id": new_session(), "user_id": "ann", "state_data": {}}
            told = await http.post(
                "/session/snapshot", json=body, headers={"Origin": page} | bearer(token)
            )
            assert (204, 201) == (asked.status_code, told.status_code)
            assert page == asked.headers[ALLOW_ORIGIN] == told.headers[ALLOW_ORIGIN]
    async with running_node(redis_url) as node, node.http() as http:
        for page in LOOPBACK_PAGES:
            with pytest.raises(Refused) as caught:
                await Device.open(node.port, headers=[(b"Origin", page.encode())])
            assert 403 == caught.value.status
        metrics = (await http.get("/metrics")).text

    assert 'syncbridge_origins_refused_total{door="websocket"} 3.0' in metrics


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:5173", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Host": "evil.example:80"},
    ],
    ids=str,
)
async def test_no_page_acts_as_the_developer(redis_url: str, headers: dict[str, str]) -> None:
    """Another port, another site, a sandboxed frame, a name that was rebound to this machine: none
    of them reads or writes without a token, by a request that the browser sends unasked."""
    body = b'{"message": "x"}'
    texts = [{}, {"Content-Type": "text/plain;charset=UTF-8"}, {"Content-Type": "application/json"}]
    async with running_node(redis_url, dev=True) as node, node.http() as http:
        written = [
            await http.post("/admin/broadcast", content=body, headers=headers | text)
            for text in texts
        ]
        read = await http.get("/admin/sessions", headers=headers)

    assert [401] * 4 == [answer.status_code for answer in (*written, read)]


@pytest.mark.parametrize(("version", "status"), [("1.0", b"401"), ("1.1", b"200")])
async def test_a_proxy_that_adds_no_header_opens_nothing(
    redis_url: str, version: str, status: bytes
) -> None:
    """As nginx is without configuration: it puts our address into Host, and speaks HTTP/1.0."""
    async with running_node(redis_url, dev=True) as node:
        head = f"GET /admin/sessions HTTP/{version}\r\nHost: 127.0.0.1:{node.port}\r\n"
        async with await trio.open_tcp_stream("127.0.0.1", node.port) as stream:
            await stream.send_all(f"{head}Connection: close\r\n\r\n".encode())
            answer = await stream.receive_some(64)

    assert status == answer.split()[1]


@pytest.mark.parametrize("way", ["plain", "http2"])
async def test_a_simple_request_never_acts_without_a_token(
    way: str, redis_url: str, tmp_path: Path
) -> None:
    """Even where nothing else tells a page from the developer's curl, a body that a page could have
    sent unasked is not JSON; the same with a token, or as JSON, is."""
    body = b'{"message": "x"}'
    simple = (
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "text/plain;charset=UTF-8"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    admin = bearer(mint("root", Role.ADMIN))
    async with reached(way, redis_url, tmp_path, dev=True) as (_, http):
        bare = [await http.post("/admin/broadcast", content=body, headers=h) for h in simple]
        with_token = [
            await http.post("/admin/broadcast", content=body, headers=h | admin) for h in simple
        ]
        declared = await http.post("/admin/broadcast", json={"message": "x"})

    assert [415] * 5 == [answer.status_code for answer in bare]
    assert [200, 200, 200, 415, 415] == [answer.status_code for answer in with_token]
    assert 200 == declared.status_code
    assert "application/json" == bare[0].headers["accept"]


@pytest.mark.parametrize(
    "path", ["/session/snapshot", "/session/incremental", "/session/conflict/resolve", "/sessions"]
)
async def test_one_rule_for_every_route(redis_url: str, path: str) -> None:
    """What `fetch` sends for a string is JSON with a token; a form never is."""
    me = bearer(mint("robot", Role.SERVICE))
    form, text = "application/x-www-form-urlencoded", "text/plain;charset=UTF-8"
    async with running_node(redis_url) as node, node.http() as http:
        answers = [
            await http.post(path, content=b"{", headers=me | {"Content-Type": media})
            for media in (form, text)
        ]

    assert [(415, "unsupported_media_type"), (400, "invalid_json")] == [
        (answer.status_code, answer.json()["code"]) for answer in answers
    ]


def heard(reply: Reply) -> tuple[int, str | None]:
    """The status, and who may read it."""
    if reply.status != 200:
        assert "Origin" == reply.headers["vary"]
    return reply.status, reply.headers.get(ALLOW_ORIGIN)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await read_all(receive)
    await answer_with(send)


FROM_PAGE = f"Origin: {PAGE}"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/", FROM_PAGE, "Content-Length: 99999999999", method="POST"), 413),
        (get("/" + "x" * 9000, FROM_PAGE), 414),
        (get("/", FROM_PAGE, "Expect: 200-maybe"), 417),
        (get("/", FROM_PAGE, method="FOO"), 501),
        (get("/", *["a: b"] * 200, FROM_PAGE), 431),
        (get("/", FROM_PAGE, "bad field"), 400),
        (get("/", FROM_PAGE, "Transfer-Encoding: chunked", method="POST") + b"zz\r\n", 400),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
async def test_what_the_listener_refuses_can_be_read(request_bytes: bytes, status: int) -> None:
    """Refusals that no application has seen say who may read them, as far as the head was read."""
    async with http_site("plain", {"/": hello}, origins=Origins([PAGE])) as site:
        known = await site.ask(request_bytes)
        foreign = await site.ask(request_bytes.replace(PAGE.encode(), b"https://c.example"))
        none = await site.ask(request_bytes.replace(FROM_PAGE.encode(), b"x: y"))

    assert [(status, PAGE), (status, None), (status, None)] == [
        heard(reply) for reply in (known, foreign, none)
    ]


@pytest.mark.parametrize("way", HTTP1)
async def test_a_busy_listener_can_be_read(way: str) -> None:
    """503 with Retry-After while all connections are at work; an idle one would give way."""
    working, done = trio.Event(), trio.Event()

    async def work(scope: Any, receive: Any, send: Any) -> None:
        working.set()
        await done.wait()
        await hello(scope, receive, send)

    routes = {"/": hello, "/work": work}
    async with http_site(way, routes, origins=Origins([PAGE]), max_connections=1) as site:
        first = await site.connect()
        await first.send(get("/work", FROM_PAGE))
        with trio.fail_after(10):
            await working.wait()
        busy = await site.ask(get("/", FROM_PAGE))
        done.set()
        assert (200, None) == heard(await first.reply())

    assert (503, PAGE, "1") == (*heard(busy), busy.headers["retry-after"])


@pytest.mark.parametrize("way", HTTP1)
async def test_a_refusal_is_for_its_own_request(way: str) -> None:
    """The page of an earlier request of the connection is not told to read what follows."""
    async with http_site(way, {"/": hello}, origins=Origins([PAGE])) as site:
        peer = await site.connect()
        await peer.ask(get("/", FROM_PAGE))
        bad = await peer.ask(get("/", "bad field"))

    assert (400, None) == heard(bad)


@pytest.mark.parametrize("kind", ["plain", "tls", "asgi"])
async def test_a_refused_handshake_says_who_may_read_it(tmp_path: Path, kind: str) -> None:
    """503 of the sink, on every way a handshake comes in, once."""
    async with open_site(tmp_path, kind, origins=Origins([PAGE])) as site:
        site.sink.refusal = ListenerRefusal(503, "draining", "later", 7)
        openers = {"plain": open_plain, "tls": open_http2, "asgi": open_plain}
        answer = await openers[kind](site.ports[kind], "/ws", {"origin": PAGE})
        await answer.link.abort()

    assert (503, PAGE, "Origin", "7") == (
        answer.status,
        answer.headers[ALLOW_ORIGIN],
        answer.headers["vary"],
        answer.headers["retry-after"],
    )
