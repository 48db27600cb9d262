"""WebSockets over HTTP/2 when the server is full for one more socket."""

import logging
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from support.listener.listener_site import open_site
from support.listener.ws_raw import H2Link, open_http2
from syncbridge_server.listener import tunnel


def full(*args: Any, **kwargs: Any) -> NoReturn:
    raise OSError(24, "Too many open files")


async def test_without_descriptors_the_handshake_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 on that stream; when there is room again, the next one is served."""
    async with open_site(tmp_path, "tls") as site:
        exhausted = SimpleNamespace(socketpair=full, socket=socket.socket)
        with monkeypatch.context() as patch:
            patch.setattr(tunnel, "socket", exhausted)
            refused = await open_http2(site.ports["tls"])
        accepted = await open_http2(site.ports["tls"])
        await accepted.open.text("hello")
        echoed = await accepted.open.message()
        await refused.link.abort()
        await accepted.link.abort()

    assert (503, 200) == (refused.status, accepted.status)
    assert b"hello" == echoed


async def test_a_socket_that_is_not_taken_ends_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer has been told 200 already, so all that is left is the end; it is logged."""
    async with open_site(tmp_path, "tls") as site:
        monkeypatch.setattr(site.sink, "adopt", full)
        with caplog.at_level(logging.WARNING):
            answer = await open_http2(site.ports["tls"])
            link = answer.link
            assert isinstance(link, H2Link)
            over = await answer.open.ended()
        await link.abort()

    assert over
    assert ["the sink took no socket: [Errno 24] Too many open files"] == [
        record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
    ]
