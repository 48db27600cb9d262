"""`syncbridge deliver` reads its file of endpoints again when it gets SIGHUP."""

import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from sys import executable
from typing import Any

import pytest
import trio

from support.events.receiver import receiving
from support.redis_servers import RedisServer
from support.server_kit import bare_environment
from syncbridge_server.http.endpoints import new_secret
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.endpoints import RedisEndpoints

COMMAND = [executable, "-m", "syncbridge_server", "deliver"]


def entry(name: str, url: str) -> str:
    """One endpoint of the file."""
    return f'[[endpoint]]\nname = "{name}"\nurl = "{url}"\nsecret_env = "SECRET"\n'


def reload(deliver: "Popen[str]", path: Path, text: str) -> None:
    """Change the file and say so."""
    path.write_text(text)
    deliver.send_signal(signal.SIGHUP)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "endpoints.toml"


@pytest.fixture
def deliver(redis_server: RedisServer, path: Path) -> Iterator["Popen[str]"]:
    """The process, with one endpoint in its file. Nothing is ever sent there."""
    path.write_text(entry("first", "http://127.0.0.1:9/"))
    variables = {
        "REDIS_ADDR": redis_server.url,
        "SYNCBRIDGE_WEBHOOKS": str(path),
        "SYNCBRIDGE_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "SECRET": new_secret(),
    }
    environment = {**bare_environment(), **variables}
    popen = Popen(COMMAND, env=environment, stdout=DEVNULL, stderr=PIPE, text=True)
    try:
        yield popen
    finally:
        popen.kill()
        popen.communicate()


async def until(endpoints: RedisEndpoints, wanted: dict[str, str]) -> None:
    """Wait until those are the endpoints in Redis: id and URL."""
    found: dict[str, str] = {}
    with trio.fail_after(60):
        while found != wanted:
            found = {one.id: one.url for one in await endpoints.endpoints()}
            await trio.sleep(0.05)


async def line_with(popen: "Popen[str]", word: str) -> str:
    """The first line of its log that has a word."""
    assert popen.stderr is not None
    with trio.fail_after(60):
        while word not in (line := await trio.to_thread.run_sync(popen.stderr.readline)):
            assert line, "it has ended"
    return line


async def test_the_file_is_read_again(
    redis_server: RedisServer, path: Path, deliver: "Popen[Any]"
) -> None:
    """What was added, changed and taken away holds at once; a file that cannot be used, nothing."""
    async with RedisIO(redis_server.url).running() as io, receiving() as receiver:
        endpoints = RedisEndpoints(io)
        await until(endpoints, {"file-first": "http://127.0.0.1:9/"})
        text = entry("first", receiver.url()) + entry("second", receiver.url("/2"))
        reload(deliver, path, text)
        both = {"file-first": receiver.url(), "file-second": receiver.url("/2")}
        await until(endpoints, both)
        reload(deliver, path, "[[endpoint]]")
        refused = await line_with(deliver, "endpoints_not_reloaded")
        await until(endpoints, both)
        reload(deliver, path, entry("second", receiver.url("/2")))
        await until(endpoints, {"file-second": receiver.url("/2")})
        deliver.terminate()
        status = await trio.to_thread.run_sync(deliver.wait)

    assert str(path) in refused
    assert 0 == status
