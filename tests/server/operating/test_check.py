"""`syncbridge check`: what it finds in Redis, at the provider, on this machine, and its exits."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from support.redis_servers import RedisServer, free_port
from support.server_kit import settings
from support.source_tree import text, with_suffix
from support.voice.sim_kit import KINDS, rig
from support.voice.voice_kit import voice_settings
from syncbridge_server.checks.findings import Finding, Level
from syncbridge_server.checks.local import check_descriptors, check_files, check_ports
from syncbridge_server.checks.provider import check_voice
from syncbridge_server.checks.redis import check_redis
from syncbridge_server.cli import app
from syncbridge_server.configuration.docs import rows
from syncbridge_server.redis.link.rights import TRIALS
from syncbridge_server.settings import Settings

SECRET = "hush-hush-hush-hush-hush-hush-hush-hush"
GOOD = {"JWT_SECRET": SECRET, "JWT_REFRESH_SECRET": SECRET[::-1], "SERVER_ADDR": "127.0.0.1:0"}
SENDERS = r"\bplain|\b_plain|\bexecute|\bcall|\bgather|\bwrite|\bwords = "
CALLED = re.compile(rf"""(?:{SENDERS})\((?:\w+\([^()]*\), )?\s*["']([A-Z]{{3,}})["']""")
OUTSIDE_OF_KEYS = {"CONFIG", "DBSIZE", "INFO", "PING", "SPUBLISH", "TIME"}
"""Tried by the probe of readiness, or not needed."""


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for row in rows():
        monkeypatch.delenv(row.name, raising=False)
    monkeypatch.chdir(tmp_path)


def levels(findings: list[Finding]) -> dict[str, Level]:
    """The level of each check; of several findings, the last."""
    return {finding.check: finding.level for finding in findings}


async def test_a_good_redis(redis_server: RedisServer) -> None:
    """Everything is well, and no key of the trials stays."""
    found = await check_redis(settings(redis_server.url, durability="fsync"))
    with redis_server.client() as client:
        left = [key for key in client.scan_iter("check:*") if key.startswith(b"check:")]

    assert [] == left
    assert dict.fromkeys(levels(found), Level.OK) == levels(found)
    assert {
        "redis",
        "redis-ready",
        "redis-rights",
        "redis-configuration",
        "durability",
        "clocks",
    } == (set(levels(found)))


async def test_redis_that_may_lose_what_it_is_told() -> None:
    """No persistence, eviction, too few replicas for what is promised."""
    with RedisServer(options=["--maxmemory-policy", "allkeys-lru"]) as server:
        found = await check_redis(settings(server.url, durability="replicas:1"))
        texts = " ".join(finding.text for finding in found)

    assert "maxmemory-policy allkeys-lru: use noeviction" in texts
    assert "no persistence: use appendonly yes" in texts
    assert Finding(
        "durability", Level.FAILED, "replicas:1 is set, and 0 replicas are connected"
    ) in (found)


async def test_more_replicas_than_are_waited_for() -> None:
    """Durability of N replicas where N + 1 can be promoted is a warning that names the number."""
    with RedisServer(aof=True, tcp=True) as primary:
        of = ["--replicaof", f"127.0.0.1 {primary.port}"]
        with RedisServer(options=of), RedisServer(options=of):
            with primary.client() as client:
                client.wait(2, 5_000)
            found = await check_redis(settings(primary.url, durability="replicas:1"))

    assert Level.WARNING == levels(found)["durability"]
    assert any("use replicas:2: one may be promoted that lacks a write" in f.text for f in found)


async def test_a_cluster_with_long_timeouts() -> None:
    """The default of cluster-node-timeout is too long, and full coverage stops everybody."""
    with RedisServer(aof=True, cluster=True) as server:
        found = await check_redis(settings(server.url))
    texts = " ".join(finding.text for finding in found)

    assert "cluster of 1 primaries" in texts
    assert "cluster-node-timeout 15000: use 2000" in texts
    assert "cluster-require-full-coverage yes: use no" in texts


async def test_the_rights_of_a_user(redis_server: RedisServer) -> None:
    """The documented user may do everything; one that lacks a command is told which."""
    line = re.search(r"ACL SETUSER syncbridge (.*)", text(Path("docs/operations.md")))
    assert line is not None
    rights = line[1].replace("PASSWORD", SECRET).split()
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "good", *rights)
        client.execute_command("ACL", "SETUSER", "poor", *rights, "-zadd", "-lset")
        client.execute_command("ACL", "SETUSER", "mute", *rights, "-@connection", "+auth")
    options: dict[str, Any] = {"redis_password": SECRET}
    place = redis_server.url.removeprefix("unix://")
    good = await check_redis(settings(f"unix://good@{place}", **options))
    poor = await check_redis(settings(f"unix://poor@{place}", **options))
    mute = await check_redis(settings(f"unix://mute@{place}", **options))
    wrong = await check_redis(settings(f"unix://good@{place}", redis_password="no"))

    assert Level.OK == levels(good)["redis-rights"]
    assert Level.SKIPPED == levels(good)["redis-configuration"]
    denied = "REDIS_ADDR: not ready: NOPERM, the user may not: ZADD, LSET"
    assert [Finding("redis-rights", Level.FAILED, denied)] == poor
    assert [("redis-rights", Level.FAILED)] == [(one.check, one.level) for one in mute]
    assert "NOPERM" in mute[0].text
    assert "client" in mute[0].text
    assert [Level.FAILED] == [finding.level for finding in wrong]
    assert SECRET not in str([good, poor, wrong])


def test_every_command_of_the_stores_is_tried() -> None:
    """What the sources send to Redis about keys is in the table of trials."""
    folder = "server/syncbridge_server/"
    sent = {
        name
        for path in with_suffix(".py", ".lua", under=folder)
        if "/checks/" not in path.as_posix()
        for name in CALLED.findall(text(path))
    }

    assert {"ZADD", "XADD", "LSET", "GETEX", "ZMSCORE", "SCAN", "SSCAN"} <= sent
    assert sent - {trial[0] for trial in TRIALS} - OUTSIDE_OF_KEYS == set()


async def test_no_redis() -> None:
    """One finding, without the password in the address."""
    found = await check_redis(settings(f"redis://u:{SECRET}@127.0.0.1:1"))

    assert [("redis", Level.FAILED)] == [finding[:2] for finding in found]
    assert SECRET not in str(found)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_voice_provider(kind: str) -> None:
    """It answers; with another key it refuses; it is away."""
    async with rig() as one:
        values = voice_settings(one.url, kind, "https://a.example")
        good = await check_voice(settings("", **values))
        bad = await check_voice(settings("", **values | {"rtk_api_key": "other"}))
    gone = await check_voice(settings("", **values))

    assert [Level.OK, Level.FAILED, Level.FAILED] == [f.level for f in (*good, *bad, *gone)]
    assert values["rtk_api_key"] not in str([good, bad, gone])


def test_ports_descriptors_and_files() -> None:
    """A port in use has failed; bounds above the limit, and a file for everybody, are warnings."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = check_ports(Settings(server_addr=f"127.0.0.1:{server.getsockname()[1]}"))
    Path(".env").write_text("")
    Path(".env").chmod(0o644)
    seen = [finding.level for finding in check_files()]
    Path(".env").chmod(0o600)
    hidden = [finding.level for finding in check_files()]

    assert (Level.FAILED, True) == (taken.level, "Address already in use" in taken.text)
    assert Level.WARNING is check_descriptors(Settings(max_connections=2**31 - 1)).level
    assert Level.OK is check_descriptors(Settings(max_connections=10, http_connections=10)).level
    assert ([Level.WARNING], [Level.OK]) == (seen, hidden)


UNUSABLE = [
    ("configuration", {"SYNCBRIDGE_STATE_POLICY": "{tmp}"}, "SYNCBRIDGE_STATE_POLICY: {tmp}: Is a"),
    (
        "configuration",
        {"SYNCBRIDGE_WEBHOOKS": "/no/such"},
        "SYNCBRIDGE_WEBHOOKS: /no/such: No",
    ),
    ("configuration", {"REDIS_ADDR": "redis://h?foo=1"}, "REDIS_ADDR: an option is not known"),
    ("files", {"SYNCBRIDGE_AUDIT_LOG": "{tmp}"}, "SYNCBRIDGE_AUDIT_LOG: {tmp}: Is a directory"),
    ("files", {"SYNCBRIDGE_AUDIT_LOG": "/no/such/file"}, "/no/such/file: No such file or dir"),
    ("files", {"SYNCBRIDGE_DATA_DIR": "{tmp}/file/below"}, "SYNCBRIDGE_DATA_DIR: "),
    ("ports", {"SERVER_ADDR": "unix:/tmp/" + "x" * 150}, "AF_UNIX path too long"),
    ("ports", {"SERVER_ADDR": "unix:/no/such/s"}, "cannot listen on unix:/no/such/s: No such file"),
    ("ports", {"SERVER_ADDR": "unix:{tmp}/file"}, "{tmp}/file: Address already in use"),
    ("ports", {"SYNCBRIDGE_ADMIN_ADDR": "unix:{tmp}"}, "unix:{tmp}: Is a directory"),
    ("ports", {"SERVER_ADDR": "127.0.0.1:{port},127.0.0.1:{port}"}, "it is taken twice"),
]


@pytest.mark.parametrize(("check", "environment", "words"), UNUSABLE)
def test_what_a_start_would_stumble_over(
    check: str, environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    """Each is one finding that has failed, as a line and as JSON; nothing is made or removed."""
    (tmp_path / "file").write_text("x")
    places = {"{tmp}": str(tmp_path), "{port}": str(free_port())}
    for name, place in places.items():
        environment = {key: value.replace(name, place) for key, value in environment.items()}
        words = words.replace(name, place)
    told = run("--skip", "redis", **environment)
    code, output = run("--skip", "redis", "--json", **environment)
    failed = [one for one in json.loads(output)["findings"] if one["level"] == "failed"]

    assert (1, 1) == (told[0], code)
    assert [check] == [one["check"] for one in failed]
    assert words in failed[0]["text"]
    assert words in told[1]
    assert ["file"] == [path.name for path in tmp_path.iterdir()]


def test_unix_sockets_that_will_do(tmp_path: Path) -> None:
    """A place for one, and one at which a server listens: it is left alone."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        found = [
            check_ports(Settings(server_addr=f"unix:{path}"))
            for path in (tmp_path / "s", tmp_path / "new")
        ]

    assert [Level.OK, Level.OK] == [one.level for one in found]
    assert ["s"] == [path.name for path in tmp_path.iterdir()]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command logs to what Click gives it in place of standard error, which is closed then."""
    yield
    structlog.reset_defaults()


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """The command: exit code and output."""
    done = CliRunner().invoke(app, ["check", *arguments], env=GOOD | environment)
    return done.exit_code, done.output


def test_the_command(redis_server: RedisServer) -> None:
    """A line a finding for people, JSON for programs, and an exit code; never a secret."""
    address = {"REDIS_ADDR": redis_server.url, "SYNCBRIDGE_FOO_BAR_BAZ": "1"}
    told = run(**address)
    code, output = run("--json", "--skip", "voice", **address)
    away, lost = run("--json", REDIS_ADDR="127.0.0.1:1")
    wrong, first = run(JWT_SECRET="short")
    unknown, _ = run("--skip", "vioce")
    shown = json.loads(output)

    assert 0 == told[0]
    assert re.search(r"^ok +redis-rights ", told[1], re.M)
    assert (0, True) == (code, shown["ok"])
    assert "SYNCBRIDGE_FOO_BAR_BAZ is not a setting" in str(shown)
    assert "voice" not in {finding["check"] for finding in shown["findings"]}
    assert (1, False) == (away, json.loads(lost)["ok"])
    assert 2 == unknown
    assert (1, True) == (wrong, "`openssl rand -hex 32`" in first)
    assert {"failed", "ok", "warning"} >= {line.split()[0] for line in first.splitlines()}
    assert SECRET not in told[1] + output + lost + first
