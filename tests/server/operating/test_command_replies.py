"""Commands that ask a server: what is no URL, no token or no SyncBridge is said in one line."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from support.server_kit import new_session, settings
from support.voice.command_kit import use_secrets
from syncbridge_server.checks.findings import Level
from syncbridge_server.checks.provider import check_voice
from syncbridge_server.cli import app
from syncbridge_server.commands.events import line_of

COMMANDS = {
    "why": ["why", "ann", "lobby"],
    "dead-letters": ["dead-letters", "list"],
    "events": ["events", "--no-follow"],
    "admin-link": ["admin-link"],
    "tail": ["tail", new_session()],
}
REPLIES = {
    "a page": (200, {"Content-Type": "text/html"}, b"<html>"),
    "other JSON": (200, {"Content-Type": "application/json"}, b"[1]"),
    "a redirection": (302, {"Location": "/login"}, b""),
    "no HTTP": (0, {}, b"220 mail.example ESMTP\r\n"),
}


@contextmanager
def stranger(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """Another server of this machine, which gives every request one answer; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if not status:
                self.wfile.write(body)
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    use_secrets(monkeypatch)


def refused(name: str, url: str) -> str:
    """What a command says in its one line; it has to fail with code 1."""
    result = CliRunner().invoke(app, [*COMMANDS[name], "--url", url])

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n")), result
    assert result.stderr.startswith(f"syncbridge {name}: ")
    return result.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("reply", REPLIES)
def test_another_server_answers(name: str, reply: str) -> None:
    """Whatever it says, nothing of it is taken for an answer of ours."""
    with stranger(*REPLIES[reply]) as url:
        line = refused(name, url)

    assert "--url" in line or "302" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_a_server_without_tls_answers(name: str) -> None:
    """Where https was asked for."""
    with stranger(*REPLIES["a page"]) as url:
        assert "--url" in refused(name, url.replace("http:", "https:"))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:port", "http://", "nonsense"])
def test_a_url_that_is_none(name: str, url: str) -> None:
    """A missing bracket, a port that is no number, no host, no scheme."""
    assert "--url" in refused(name, url)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_token_that_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not repeated."""
    monkeypatch.setenv("SYNCBRIDGE_TOKEN", "größe")
    line = refused(name, "http://127.0.0.1:1")

    assert ("SYNCBRIDGE_TOKEN is not a token" in line, "größe" in line) == (True, False)


def test_a_line_of_an_event_obeys_nobody() -> None:
    """An id that turns the direction of a terminal is shown with ? in its place."""
    event = {"timestamp": "t", "cursor": "c", "type": "call.ended", "channel_id": "a\u202eb"}

    assert "t\tc\tcall.ended\ta?b\t{}" == line_of({**event, "data": {}})


async def test_livekit_needs_no_address_of_ours() -> None:
    """Its webhooks are in its own configuration, so that WORKER_URL is not missed."""
    rooms = json.dumps({"rooms": []}).encode()
    with stranger(200, {"Content-Type": "application/json"}, rooms) as url:
        values = {"livekit_url": url, "livekit_api_key": "key", "livekit_api_secret": "s" * 32}
        [found] = await check_voice(settings("", voice_provider="livekit", **values))

    assert (Level.OK, "livekit answers") == (found.level, found.text)
