"""Which pages are let in, and what is said about those that are not."""

import io

import pytest

from syncbridge_server.configuration.load import load_settings
from syncbridge_server.log import configure_logging
from syncbridge_server.observability import new_registry
from syncbridge_server.origins import LOG_SECONDS, Origins, is_loopback_origin
from syncbridge_server.settings import ConfigError


class Clock:
    """A monotonic clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "expected"),
    [
        ("https://app.example", "app.example", set(), True),
        ("http://app.example:8080", "app.example:8080", set(), True),
        ("https://APP.example:443", "app.example", set(), True),
        ("http://[::1]:8080", "[::1]:8080", set(), True),
        ("http://app.example:8081", "app.example:8080", set(), False),
        ("https://app.example.evil", "app.example", set(), False),
        ("https://a@app.example.evil", "app.example", set(), False),
        ("null", "null", set(), False),
        ("", "", set(), False),
        ("chrome-extension://abc", "abc", set(), False),
        ("https://app.example:x", "app.example", set(), False),
        ("https://other.example", "app.example", {"https://other.example"}, True),
        ("http://other.example", "app.example", {"https://other.example"}, False),
        ("http://app.example/", "app.example", set(), False),
        ("http://app.example/x", "app.example", set(), False),
        ("http://a@app.example", "app.example", set(), False),
        ("http://app.example x", "app.example x", set(), False),
        ("https://any.example", "app.example", {"*"}, True),
        ("null", "app.example", {"*"}, True),
    ],
)
def test_origins(origin: str, host: str, allowed: set[str], expected: bool) -> None:
    """An own page, an exact entry, or `*`; nothing that merely looks alike."""
    assert expected is Origins(allowed).allows(origin, host)


@pytest.mark.parametrize(
    ("origin", "local"),
    [
        ("http://127.0.0.1:5173", True),
        ("http://localhost:3000", True),
        ("http://[::1]:8000", True),
        ("https://localhost", True),
        ("http://127.8.9.10", True),
        ("http://app.localhost:5173", True),
        ("http://applocalhost", False),
        ("http://.localhost.evil.example", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("file://localhost", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://evil.example#@localhost", False),
        ("http://evil@localhost", False),
        ("http://0.0.0.0:3000", False),
        ("http://10.0.0.1:3000", False),
        ("http://[::1", False),
    ],
)
def test_pages_of_this_machine(origin: str, local: bool) -> None:
    """Any port, by name or address; what only looks local is not. They come in only when told."""
    assert local is is_loopback_origin(origin)
    assert local is Origins(loopback=True).allows(origin, "127.0.0.1:8080")
    assert not Origins().allows(origin, "127.0.0.1:8080")


def test_an_answer_names_the_one_origin() -> None:
    """Never `*` unless that is the setting, and never credentials."""
    page, host = b"https://app.example", b"api.example"
    named = dict(Origins(["https://app.example", "https://b.example"]).answer_headers(page, host))
    anybody = dict(Origins(["*", "https://app.example"]).answer_headers(page, host))

    assert page == named[b"access-control-allow-origin"]
    assert b"ETag" in named[b"access-control-expose-headers"]
    assert b"*" == anybody[b"access-control-allow-origin"]
    assert b"access-control-allow-credentials" not in named | anybody
    assert [] == Origins(["https://b.example"]).answer_headers(page, host)


def test_a_refused_origin_is_counted_and_seldom_logged() -> None:
    """One line in ten seconds, with the setting to change and how many there were; no control
    characters of the caller in it."""
    log, clock, registry = io.StringIO(), Clock(), new_registry()
    configure_logging("console", "info", log)
    origins = Origins(["https://app.example"], clock=clock)
    origins.register(registry)

    assert origins.admits(b"https://app.example", b"a", "preflight")
    for _ in range(5):
        assert not origins.admits(b"https://evil.example\xc2\x85" + b"x" * 999, b"a", "websocket")
    clock.now += LOG_SECONDS
    assert not origins.admits(b"null", b"a", "preflight")

    lines = log.getvalue().splitlines()
    assert 2 == len(lines)
    assert "[INFO]" in lines[0]
    assert "SYNCBRIDGE_ORIGINS" in lines[0]
    assert "https://evil.example" in lines[0]
    assert "door=websocket" in lines[0]
    assert len(lines[0]) < 500
    assert "refused=5" in lines[1]
    counts = [
        registry.get_sample_value("syncbridge_origins_refused_total", {"door": door})
        for door in ("websocket", "preflight")
    ]
    assert [5, 1] == counts


@pytest.mark.parametrize(
    ("listed", "origin", "allowed"),
    [
        ("https://App.Example.com/", "https://app.example.com", True),
        ("https://app.example.com:443", "https://app.example.com", True),
        ("HTTPS://app.example.com", "https://app.example.com:443", True),
        ("http://app.example.com", "https://app.example.com", False),
        ("https://app.example.com", "https://app.example.com:8443", False),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example", True),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example", True),
        ("https://*.example.com", "https://a.example.com", True),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "https://a.example.com.evil", False),
        ("https://*.example.com", "http://a.example.com", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("https://*.example.com", "https://a@a.example.com", False),
        ("http://[::1]:80", "http://[::1]", True),
        ("https://app.example.com", "https://app.example.com/", False),
    ],
)
def test_listed_origins_are_compared_as_origins(listed: str, origin: str, allowed: bool) -> None:
    """Whatever a setting is written like, and no more than it says."""
    assert allowed is Origins([listed]).allows(origin, "sync.example")


@pytest.mark.parametrize(
    "text",
    [
        "app.example.com",
        "https://app.example.com/path",
        "https://app.example.com?x",
        "https://a@app.example.com",
        "wss://app.example.com",
        "ftp://app.example.com",
        "null",
        "https://",
        "https://*.com",
        "https://*",
        "https://a.*.example.com",
        "https://*a.example.com",
        "https://app.example.com:99999",
    ],
)
def test_an_origin_that_can_never_match_stops_the_start(text: str) -> None:
    """The line names the setting, what stands there, and what would be accepted."""
    with pytest.raises(ConfigError, match=r"SYNCBRIDGE_ORIGINS.*can never match") as refused:
        load_settings(origins=text)

    assert "\n" not in str(refused.value)
