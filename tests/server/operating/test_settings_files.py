"""Settings in `.env` and in TOML: which one wins, what is refused, and that nothing is repeated."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from syncbridge_server.cli import app
from syncbridge_server.configuration.docs import rows
from syncbridge_server.configuration.load import load_settings
from syncbridge_server.settings import ConfigError

SECRET = "hush-hush-hush-hush-hush-hush-hush-hush"


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for row in rows():
        monkeypatch.delenv(row.name, raising=False)
    monkeypatch.delenv("SYNCBRIDGE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


def write(**files: str) -> None:
    """`env` is `.env`, `toml` is `syncbridge.toml`."""
    names = {"env": ".env", "toml": "syncbridge.toml"}
    for name, text in files.items():
        Path(names.get(name, name)).write_text(text, "utf-8")


def test_the_environment_wins_over_dotenv_which_wins_over_toml(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each setting is taken from the first that gives it; an empty one gives nothing."""
    write(
        env="SYNCBRIDGE_WORKERS=3\nexport REDIS_ADDR='r:1' # ours\nSYNCBRIDGE_DRAIN=\nPGHOST=x\n",
        toml='SYNCBRIDGE_WORKERS = 4\nREDIS_ADDR = "r:2"\nSYNCBRIDGE_DRAIN = "9s"\nREDIS_DB = 5\n',
    )
    monkeypatch.setenv("SYNCBRIDGE_WORKERS", "2")
    monkeypatch.setenv("REDIS_DB", "")
    found = load_settings()

    assert (2, "r:1", 9.0, 5) == (found.workers, found.redis_addr, found.drain, found.redis_db)
    assert 7 == load_settings(workers=7).workers


def test_toml_has_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, booleans and arrays, in a file that a variable, or `.env`, names."""
    write(
        env="SYNCBRIDGE_CONFIG=my.toml\n",
        **{"my.toml": 'SYNCBRIDGE_ORIGINS = ["https://a", "https://b"]\nSYNCBRIDGE_DRAIN = 2.5\n'},
        other='SYNCBRIDGE_ACCESS_LOG = false\nSERVER_ADDR = ":1,:2"\n',
    )
    mine = load_settings()
    monkeypatch.setenv("SYNCBRIDGE_CONFIG", "other")
    other = load_settings()

    assert (("https://a", "https://b"), 2.5) == (mine.origins, mine.drain)
    assert (False, (":1", ":2")) == (other.access_log, other.server_addr)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"env": f"JWT_SECERT={SECRET}"}, "JWT_SECERT in .env is not a setting; did you mean JWT_"),
        ({"env": f"\nJWT_SECRET\n# {SECRET}"}, ".env, line 2: write NAME=value"),
        ({"env": f"A=1\nJWT_SECRET='{SECRET}"}, ".env, line 2: write NAME=value"),
        ({"env": "SYNCBRIDGE_WORKERS=many"}, "SYNCBRIDGE_WORKERS in .env: Input should be"),
        (
            {"env": f"REDIS_ADDR=redis://h:{SECRET}"},
            "REDIS_ADDR in .env: the port must be a number up to 65535",
        ),
        ({"toml": f'JWT_SECERT = "{SECRET}"'}, "JWT_SECERT in syncbridge.toml is not a setting;"),
        ({"toml": f'FOO = "{SECRET}"'}, "FOO in syncbridge.toml is not a setting"),
        ({"toml": f'jwt_secret = "{SECRET}"'}, "did you mean JWT_SECRET?"),
        ({"toml": f"JWT_SECRET = {SECRET}"}, "syncbridge.toml: not TOML, at line 1, column"),
        ({"toml": f'JWT_SECRET = ["{SECRET}", 1]'}, "JWT_SECRET in syncbridge.toml: write a str"),
        ({"toml": f'[JWT_SECRET]\nx = "{SECRET}"'}, "JWT_SECRET in syncbridge.toml: write a str"),
        ({"toml": f'JWT_SECRET = ["{SECRET}"]'}, "JWT_SECRET in syncbridge.toml: Input should be"),
        ({"toml": "SYNCBRIDGE_DRAIN = 1979-05-27"}, "SYNCBRIDGE_DRAIN in syncbridge.toml: write"),
        ({"env": "SYNCBRIDGE_CONFIG=no.toml"}, "SYNCBRIDGE_CONFIG: no such file: no.toml"),
        ({"toml": "SYNCBRIDGE_WORKERS = true"}, "SYNCBRIDGE_WORKERS in syncbridge.toml: it is not"),
        ({"toml": "SYNCBRIDGE_DRAIN = true"}, "SYNCBRIDGE_DRAIN in syncbridge.toml: it is not a b"),
        ({"toml": "SYNCBRIDGE_DRAIN = nan"}, "SYNCBRIDGE_DRAIN in syncbridge.toml: Input should"),
        ({"toml": "SYNCBRIDGE_WORKERS = " + "9" * 5_000}, "syncbridge.toml: not TOML, see"),
        ({"toml": "A = " + "[" * 20_000}, "syncbridge.toml: not TOML, see toml.io"),
        ({"toml": "#" * 2_000_000}, "syncbridge.toml: more than 1048576 bytes"),
        ({"toml": 'SYNCBRIDGE_DATA_DIR = "a\\u0000"'}, "in syncbridge.toml has a NUL character"),
        ({"env": "SYNCBRIDGE_DATA_DIR=a\0b"}, "SYNCBRIDGE_DATA_DIR in .env has a NUL character"),
        ({"env": "#" * 2_000_000}, ".env: more than 1048576 bytes"),
        (
            {"env": "SYNCBRIDGE_WORKER=0:4:5\nSYNCBRIDGE_ORIGIN=x"},
            "SYNCBRIDGE_ORIGIN in .env is not a setting; did you mean SYNCBRIDGE_ORIGINS?",
        ),
        ({"env": "SYNCBRIDGE_WORKER=0:4:5"}, "SYNCBRIDGE_WORKER in .env is internal to a server"),
    ],
)
def test_files_that_are_refused(files: dict[str, str], words: str) -> None:
    """One line that says where, code 2, and nothing of what the file holds."""
    write(**files)
    result = CliRunner().invoke(app, ["serve"])

    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith(f"syncbridge: {words}") or words in result.stderr
    assert SECRET not in result.stderr


@pytest.mark.parametrize(
    "written",
    [
        b"\xef\xbb\xbfSYNCBRIDGE_WORKERS=3\n",
        b"SYNCBRIDGE_DRAIN=9s\r\nSYNCBRIDGE_WORKERS=3\r\n",
        b"export SYNCBRIDGE_WORKERS='3'",
        b'SYNCBRIDGE_WORKERS = "3" # three\n',
        b"syncbridge_workers=3\n",
        b"SYNCBRIDGE_WORKERS=2\nSYNCBRIDGE_WORKERS=3\n",
    ],
)
def test_spellings_of_a_dotenv(written: bytes) -> None:
    """As editors on Windows, shells and people write it; the last line of a name counts."""
    Path(".env").write_bytes(written)

    assert 3 == load_settings().workers


def test_a_toml_file_from_windows() -> None:
    """With the mark in front and its ends of lines."""
    Path("syncbridge.toml").write_bytes(b"\xef\xbb\xbfSYNCBRIDGE_WORKERS = 3\r\n")

    assert 3 == load_settings().workers


def test_a_folder_that_may_not_be_entered(tmp_path: Path) -> None:
    """Whether files of settings are in it cannot be known: one line, not a traceback."""
    command = "import os; os.setuid(65534); from syncbridge_server.cli import main; main()"
    if os.getuid():
        pytest.skip("NOT RUN: only root can become somebody who may not enter a folder")
    tmp_path.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; import syncbridge_server.cli; {command}", "serve"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert (2, "") == (done.returncode, done.stdout)
    assert "syncbridge: cannot read syncbridge.toml: Permission denied\n" == done.stderr


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Bytes that are no text, and a folder in place of the TOML file; `.env` may be a folder."""
    Path(".env").mkdir()
    assert 1 == load_settings().workers
    Path(".env").rmdir()
    Path(".env").write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match=r"cannot read \.env: not UTF-8"):
        load_settings()
    Path(".env").unlink()
    Path("syncbridge.toml").mkdir()
    with pytest.raises(ConfigError, match=r"cannot read syncbridge\.toml: Is a directory"):
        load_settings()


@pytest.mark.parametrize(
    ("written", "there", "absent"),
    [
        ("se", "serve", "version"),
        ("serve --w", "--workers", "--addr"),
        ("check --s", "--skip", "--json"),
        ("dead-letters re", "replay", "list"),
    ],
)
def test_shells_complete_commands_and_options(written: str, there: str, absent: str) -> None:
    """What bash asks for a word that has been begun, also of commands that live elsewhere."""
    words = {"_SYNCBRIDGE_COMPLETE": "complete_bash", "COMP_WORDS": f"syncbridge {written}"}
    place = {"COMP_CWORD": str(len(written.split())), "_TYPER_STANDARD": ""}
    asked = CliRunner().invoke(app, [], prog_name="syncbridge", env=words | place)

    assert there in asked.output
    assert absent not in asked.output
