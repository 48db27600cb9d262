"""Settings in `.env` and in TOML: which one wins, what is refused, and that nothing is repeated."""

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
    ],
)
def test_files_that_are_refused(files: dict[str, str], words: str) -> None:
    """One line that says where, code 2, and nothing of what the file holds."""
    write(**files)
    result = CliRunner().invoke(app, ["serve"])

    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith(f"syncbridge: {words}") or words in result.stderr
    assert SECRET not in result.stderr


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


def test_shells_complete_the_commands() -> None:
    """What bash asks for a word that has been begun."""
    words = {"_SYNCBRIDGE_COMPLETE": "complete_bash", "COMP_WORDS": "syncbridge se"}
    asked = CliRunner().invoke(
        app, [], prog_name="syncbridge", env=words | {"COMP_CWORD": "1", "_TYPER_STANDARD": ""}
    )

    assert "serve" in asked.output
    assert "version" not in asked.output
