"""The command line: what it prints, what it refuses, and with which exit code."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from syncbridge import __version__
from syncbridge.identity import Role
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.cli import app
from syncbridge_server.configuration.docs import rows
from syncbridge_server.configuration.secrets_file import FILE_NAME, keep_secrets, read_secrets
from syncbridge_server.settings import ConfigError, Settings

GOOD = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "r" * 40}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for row in rows():
        monkeypatch.delenv(row.name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, bool]]:
    """Stands in for the server; collects what it was started with."""
    started: list[tuple[Settings, bool]] = []

    def run(settings: Settings, dev: bool, code: str) -> None:
        assert bool(code) is dev
        if settings.redis_addr == "broken:1":
            raise ConfigError("Redis 7.0 or newer is needed")
        started.append((settings, dev))

    module = types.ModuleType("syncbridge_server.start")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "syncbridge_server.start", module)
    monkeypatch.setattr("syncbridge_server.cli.configure_logging", lambda *args: None)
    return started


def call(*args: str, **environment: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(args), env=environment)


def identity_of(token: str, settings: Settings) -> Any:
    """Who a printed token is for."""
    return build_tokens(settings)[0].verify_access(token.strip(), time.time())


def test_version() -> None:
    """The version of the package."""
    assert f"syncbridge {__version__}\n" == call("version").stdout


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "JWT_SECRET is not set"),
        ({"JWT_SECRET": "", "JWT_REFRESH_SECRET": ""}, "JWT_SECRET is not set"),
        ({"JWT_SECRET": "harmony-flow-secret-key"}, "JWT_SECRET is a published example"),
        ({"JWT_SECRET": "a" * 40}, "JWT_REFRESH_SECRET is not set"),
        ({"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "a" * 40}, "must differ"),
        (GOOD | {"SYNCBRIDGE_DEV": "1"}, "SYNCBRIDGE_DEV"),
        (GOOD | {"REDIS_DB": "x"}, "REDIS_DB"),
        (GOOD | {"REDIS_ADDR": "broken:1"}, "Redis 7.0"),
        (
            GOOD | {"SYNCBRIDGE_JWT_ALGORITHM": "RS256", "SYNCBRIDGE_JWT_PUBLIC_KEY": "/no"},
            "cannot read the key file",
        ),
    ],
)
def test_serve_refuses_with_one_line(
    runs: list[Any], environment: dict[str, str], words: str
) -> None:
    """Exit code 2, one line on standard error, nothing started."""
    result = call("serve", **environment)

    assert 2 == result.exit_code
    assert words in result.stderr
    assert 1 == result.stderr.count("\n")
    assert [] == runs


def test_serve_starts_with_good_secrets(runs: list[tuple[Settings, bool]]) -> None:
    """Options win over variables."""
    environment = GOOD | {"SERVER_ADDR": ":1", "SYNCBRIDGE_WORKERS": "3"}
    result = call("serve", "--workers", "2", "--addr", "127.0.0.1:9,unix:/x", **environment)

    assert 0 == result.exit_code, result.output
    [(settings, dev)] = runs
    assert (2, ("127.0.0.1:9", "unix:/x"), False) == (settings.workers, settings.server_addr, dev)
    assert not settings.dev


def test_serve_help_lists_every_setting() -> None:
    """`serve --help` is complete."""
    shown = call("serve", "--help").stdout

    assert [] == [row.name for row in rows() if row.name not in shown]


@pytest.mark.parametrize("args", [["serve", "--workers", "0"], ["serve", "--nonsense"], ["fly"]])
def test_wrong_usage_is_code_2(args: list[str]) -> None:
    """Unknown commands, options and impossible values."""
    assert 2 == call(*args).exit_code


def test_dev_needs_no_setup(runs: list[tuple[Settings, bool]]) -> None:
    """Loopback, embedded Redis, kept secrets, and a token that works at once."""
    first, second = call("dev"), call("dev")

    assert 0 == first.exit_code, first.output
    settings, dev = runs[0]
    assert (("127.0.0.1:8080",), True, True) == (settings.server_addr, settings.dev, dev)
    assert ("", "console") == (settings.redis_url(), settings.log_format)
    assert runs[0][0].jwt_secret == runs[1][0].jwt_secret
    assert "http://127.0.0.1:8080" in first.stdout
    for result in (first, second):
        [token] = [line for line in result.stdout.splitlines() if line.startswith("eyJ")]
        identity = identity_of(token, settings)
        assert ("demo", Role.USER, "*") == (
            identity.user_id,
            identity.role,
            identity.voice[0].waddle,
        )


def test_dev_takes_the_environment(runs: list[tuple[Settings, bool]]) -> None:
    """Variables and options still count, also the published example secrets."""
    secrets = {
        "JWT_SECRET": "harmony-flow-secret-key",
        "JWT_REFRESH_SECRET": "harmony-flow-refresh-secret-key",
    }
    environment = secrets | {"SYNCBRIDGE_LOG_FORMAT": "json", "REDIS_ADDR": "h:1"}
    result = call("dev", "--addr", "[::1]:9", "--data-dir", "elsewhere", **environment)

    assert 0 == result.exit_code, result.output
    settings = runs[0][0]
    assert (("[::1]:9",), "json", "redis://h:1") == (
        settings.server_addr,
        settings.log_format,
        settings.redis_url(),
    )
    assert "harmony-flow-secret-key" == settings.jwt_secret.get_secret_value()
    assert "http://[::1]:9" in result.stdout
    assert not Path("elsewhere").exists()


def test_dev_keeps_who_wrote_each_key(runs: list[tuple[Settings, bool]]) -> None:
    """Unless the environment says otherwise; a production server does so on demand."""
    call("dev")
    call("dev", SYNCBRIDGE_KEY_WRITERS="false")

    assert [True, False] == [settings.key_writers for settings, _ in runs]
    assert not Settings().key_writers


def test_dev_has_a_stand_in_for_a_voice_provider(runs: list[tuple[Settings, bool]]) -> None:
    """Unless one is configured; its webhooks come to this server."""
    call("dev", "--addr", "127.0.0.1:9")
    call("dev", RTK_API_URL="http://127.0.0.1:1", RTK_API_KEY="k", RTK_SECRET_KEY="s" * 32)
    call("dev", SYNCBRIDGE_VOICE_PROVIDER="cloudflare")
    ours, given, other = (settings for settings, _ in runs)

    assert ours.rtk_api_url.startswith("http://127.0.0.1:")
    assert (True, "http://127.0.0.1:9") == (ours.voice, ours.worker_url)
    assert ("http://127.0.0.1:1", "k") == (given.rtk_api_url, given.rtk_api_key.get_secret_value())
    assert not other.voice


def test_the_pasted_line_is_a_command(runs: list[Any]) -> None:
    """The line to paste carries JSON that the server takes."""
    [line] = [text for text in call("dev").stdout.splitlines() if text.startswith("curl ")]
    body = json.loads(line.split("-d '")[1].rstrip("'"))

    assert {"session_id", "user_id", "device_id", "state_data"} == set(body)


def test_token_uses_the_kept_secrets(runs: list[tuple[Settings, bool]]) -> None:
    """After `dev` ran here, `token` needs no variable."""
    call("dev")
    session = "550e8400-e29b-41d4-a716-446655440000"
    args = ["--user", "bob", "--role", "service", "--session", session.upper(), "--device", "d"]
    result = call("token", *args, "--ttl", "2h")

    identity = identity_of(result.stdout, runs[0][0])
    assert ("bob", Role.SERVICE, session, "d") == (
        identity.user_id,
        identity.role,
        identity.session_id,
        identity.device_id,
    )
    assert 7_200 == pytest.approx(identity.expires_at - identity.issued_at)


def test_token_needs_only_the_access_secret() -> None:
    """JWT_SECRET alone is enough, and the default life is 15 minutes."""
    result = call("token", "--user", "bob", JWT_SECRET="a" * 40)

    identity = identity_of(result.stdout, Settings(jwt_secret="a" * 40, jwt_refresh_secret="r"))
    assert 900 == pytest.approx(identity.expires_at - identity.issued_at)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--user", "x" * 65], "sub"),
        (["--user", ""], "sub"),
        (["--user", "u", "--session", "s"], "--session must be a UUID"),
        (["--user", "u", "--device", "x" * 65], "device_id"),
        (["--user", "u", "--ttl", "soon"], "--ttl"),
        (["--user", "u", "--ttl", "0"], "--ttl"),
        (["--user", "u", "--ttl", "8d"], "at most 7d"),
    ],
)
def test_token_refuses(args: list[str], words: str) -> None:
    """Each impossible token is refused in one line, exit code 2."""
    result = call("token", *args, JWT_SECRET="a" * 40)

    assert (2, "") == (result.exit_code, result.stdout)
    assert words in result.stderr
    assert 1 == result.stderr.count("\n")


def test_token_without_any_secret() -> None:
    """No variable, no file: one line."""
    result = call("token", "--user", "u")

    assert 2 == result.exit_code
    assert "JWT_SECRET is not set" in result.stderr
    assert not Path(".syncbridge").exists()


def test_bench_is_handed_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything after `bench`, --help too, goes to the load generator."""
    seen: list[Any] = []
    module = types.ModuleType("syncbridge_tools.bench.cli")
    vars(module)["app"] = "the load generator"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("syncbridge_server.commands.usage.run", lambda *told: seen.append(told))

    result = call("bench", "idle", "--connections", "3", "--help")

    assert 0 == result.exit_code, result.output
    arguments = ["idle", "--connections", "3", "--help"]
    assert [("the load generator", arguments, "syncbridge bench")] == seen


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    """File 0600 in a directory 0700, whatever the umask; nothing else is left there."""
    before = os.umask(0)
    try:
        made = keep_secrets(str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)

    directory = tmp_path / "a" / "b"
    assert 0o700 == stat.S_IMODE(directory.stat().st_mode)
    assert 0o600 == stat.S_IMODE((directory / FILE_NAME).stat().st_mode)
    assert [FILE_NAME] == os.listdir(directory)
    assert made == read_secrets(str(directory))
    assert 64 == len(made.jwt_secret) == len(made.jwt_refresh_secret)
    assert made.jwt_secret != made.jwt_refresh_secret


def test_two_that_start_at_once_agree(tmp_path: Path) -> None:
    """Threads that all find no file end with the same secrets."""
    barrier, found = threading.Barrier(8), set()

    def start() -> None:
        barrier.wait()
        found.add(keep_secrets(str(tmp_path)))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(found)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", "[" * 100_000, '{"jwt_secret": "", "jwt_refresh_secret": ""}'),
        '{"jwt_secret": null, "jwt_refresh_secret": "x"}',
    ],
)
def test_damaged_secrets_are_not_replaced(tmp_path: Path, content: str) -> None:
    """A file that cannot be read is an error with its path, not a reason for new secrets."""
    (tmp_path / FILE_NAME).write_text(content)

    with pytest.raises(ConfigError, match=FILE_NAME):
        keep_secrets(str(tmp_path))

    assert content == (tmp_path / FILE_NAME).read_text()


def test_as_a_process() -> None:
    """`python -m syncbridge_server` is the same command, without a trace on errors."""
    environment = {name: value for name, value in os.environ.items() if name != "JWT_SECRET"}
    command = [sys.executable, "-m", "syncbridge_server"]
    version = subprocess.run(
        [*command, "version"], capture_output=True, text=True, timeout=60, check=True
    )
    refused = subprocess.run(
        [*command, "serve"], capture_output=True, text=True, timeout=60, env=environment
    )

    assert f"syncbridge {__version__}\n" == version.stdout
    assert (2, "") == (refused.returncode, refused.stdout)
    assert refused.stderr.startswith("syncbridge: JWT_SECRET is not set")
    assert 1 == refused.stderr.count("\n")


NOT_NEEDED = {
    "google.protobuf": "messages of clients that take it; imported on a thread after the start",
    "httpx": "voice, and a JWKS URL",
    "syncbridge_server.voice.provider.calling": "voice",
    "syncbridge_server.voice.provider.livekit": "voice",
    "syncbridge_server.voice.figures.analytics": "voice",
    "syncbridge_server.auth.jwks": "a JWKS URL",
    "syncbridge_tools": "tools",
}


def test_a_start_imports_what_it_needs() -> None:
    """Module by module, and why it is not needed."""
    show = "import sys, syncbridge_server.cli, syncbridge_server.start; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", show], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "syncbridge_server.gateway.gateway" in loaded
    assert {name: why for name, why in NOT_NEEDED.items() if name in loaded} == {}
