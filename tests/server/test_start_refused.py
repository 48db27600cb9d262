"""Starts that cannot work: one line, code 2, what is wrong and where, and no secret."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from syncbridge_server.cli import app
from syncbridge_server.configuration.docs import rows
from syncbridge_server.environment import distance, unknown_names
from syncbridge_server.listener.bind import bind, listen
from syncbridge_server.settings import Settings, variable

PASSWORD = "hush-hush-hush"
GOOD = {"JWT_SECRET": "a" * 40, "JWT_REFRESH_SECRET": "r" * 40, "REDIS_ADDR": "127.0.0.1:1"}
KNOWN = {variable(name) for name in Settings.model_fields}
TLS = ("SYNCBRIDGE_TLS_CERT", "SYNCBRIDGE_TLS_KEY")
ALGORITHM, PUBLIC_KEY = "SYNCBRIDGE_JWT_ALGORITHM", "SYNCBRIDGE_JWT_PUBLIC_KEY"

FAULTS: list[tuple[dict[str, str], str]] = [
    ({"SERVER_ADDR": "nonsense"}, "SERVER_ADDR: not an address"),
    ({"SERVER_ADDR": "127.0.0.1:99999"}, "SERVER_ADDR: not an address"),
    ({"SERVER_ADDR": "::1:8080"}, "needs brackets"),
    ({"SERVER_ADDR": "unix:"}, "needs a path"),
    ({"SERVER_ADDR": "192.0.2.1:8000"}, "SERVER_ADDR: cannot listen on 192.0.2.1:8000"),
    ({"SERVER_ADDR": "unix:/no/such/folder/a"}, "SERVER_ADDR: cannot listen on unix:/no/such"),
    ({"SERVER_ADDR": "unix:/tmp/" + "x" * 150}, "AF_UNIX path too long"),
    ({"SERVER_ADDR": "{taken}"}, "Address already in use"),
    ({"SERVER_ADDR": "{taken}", "SYNCBRIDGE_WORKERS": "2"}, "Address already in use"),
    (
        {"REDIS_ADDR": f"redis://u:{PASSWORD}@host:port"},
        "REDIS_ADDR: the port must be a number up to 65535",
    ),
    ({"REDIS_ADDR": f"http://u:{PASSWORD}@host"}, "REDIS_ADDR: scheme 'http'"),
    (
        {"REDIS_ADDR": f"redis://host:{PASSWORD}"},
        "REDIS_ADDR: the port must be a number up to 65535",
    ),
    ({"REDIS_ADDR": "redis://"}, "redis:// needs a host"),
    ({"REDIS_ADDR": "unix://"}, "unix:// needs a path"),
    ({"REDIS_ADDR": "host:x"}, "REDIS_ADDR: write host:port"),
    ({"REDIS_ADDR": "redis+sentinel://a,b"}, "REDIS_ADDR: write host:port,host:port/service"),
    ({"REDIS_DB": "x"}, "REDIS_DB"),
    ({"REDIS_ADDR": "", "SYNCBRIDGE_DATA_DIR": "{file}"}, "SYNCBRIDGE_DATA_DIR: {file}"),
    ({"REDIS_ADDR": "", "SYNCBRIDGE_DATA_DIR": "{file}/x"}, "Not a directory"),
    ({"JWT_SECRET": ""}, "JWT_SECRET is not set"),
    ({"JWT_SECRET": PASSWORD}, "JWT_SECRET is shorter than 32 bytes"),
    ({"JWT_SECRET": "change-me-" + "x" * 40}, "JWT_SECRET is a published example"),
    ({"JWT_SECRET": " " + "x" * 40}, "JWT_SECRET has blanks"),
    ({"JWT_REFRESH_SECRET": "x" * 40 + "\n"}, "JWT_REFRESH_SECRET has blanks, a line end"),
    ({"JWT_SECRET": '"' + "x" * 40 + '"'}, "JWT_SECRET has blanks, a line end or quotes"),
    ({"JWT_REFRESH_SECRET": ""}, "JWT_REFRESH_SECRET is not set"),
    ({"JWT_REFRESH_SECRET": "a" * 40}, "they must differ"),
    ({ALGORITHM: "none"}, f"{ALGORITHM}: Input should be"),
    ({ALGORITHM: "RS256"}, "RS256 needs"),
    ({ALGORITHM: "RS256", PUBLIC_KEY: "{file}/x"}, "cannot read the key file"),
    ({TLS[0]: "{file}"}, "go together"),
    ({TLS[0]: "/no/such", TLS[1]: "/no/such"}, "cannot read the TLS file /no/such"),
    ({TLS[0]: "{file}", TLS[1]: "{file}"}, "not PEM, or the two do not fit"),
    ({"SYNCBRIDGE_WORKERS": "0"}, "SYNCBRIDGE_WORKERS: Input should be greater than 0"),
    ({"SYNCBRIDGE_LOG_LEVEL": "loud"}, "SYNCBRIDGE_LOG_LEVEL: Input should be"),
    ({"SYNCBRIDGE_DEV": "1"}, "use `syncbridge dev`"),
    ({"SYNCBRIDGE_TRUSTED_PROXIES": "10.0.0.0/99"}, "SYNCBRIDGE_TRUSTED_PROXIES"),
    ({"SYNCBRIDGE_HEARTBEAT_INTERVAL": "soon"}, "not a duration: 'soon'"),
    ({"SYNCBRIDGE_VOICE_PROVIDER": "zoom"}, "SYNCBRIDGE_VOICE_PROVIDER: there is no zoom"),
    ({"SYNCBRIDGE_VOICE_PROVIDER": "livekit"}, "SYNCBRIDGE_LIVEKIT_URL is not set"),
    ({"SYNCBRIDGE_WORKER": "2"}, "did you mean SYNCBRIDGE_WORKERS?"),
    ({"SYNCBRIDGE_ORIGIN": "https://a"}, "did you mean SYNCBRIDGE_ORIGINS?"),
    ({"JWT_SECERT": PASSWORD}, "JWT_SECERT is not a setting; did you mean JWT_SECRET?"),
]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = [name for name in os.environ if name.startswith("SYNCBRIDGE_")]
    for name in [*KNOWN, *(row.name for row in rows()), *ours]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("syncbridge_server.cli.configure_logging", lambda *args: None)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A file, and an address on which somebody listens."""
    (tmp_path / "file").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {
            "{file}": str(tmp_path / "file"),
            "{taken}": f"127.0.0.1:{server.getsockname()[1]}",
        }


def filled(text: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        text = text.replace(name, place)
    return text


@pytest.mark.parametrize(("changes", "words"), FAULTS, ids=range(len(FAULTS)))
def test_a_start_that_cannot_work(
    changes: dict[str, str], words: str, places: dict[str, str]
) -> None:
    """One line on standard error, code 2, nothing on standard output, no password."""
    changes = {name: filled(value, places) for name, value in changes.items()}
    result = CliRunner().invoke(
        app, ["serve"], env={"SERVER_ADDR": "127.0.0.1:0", **GOOD} | changes
    )

    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("syncbridge: ")
    assert filled(words, places) in result.stderr
    assert 1 == result.stderr.count("\n")
    assert PASSWORD not in result.stderr


def test_names_that_nothing_reads_are_told() -> None:
    """Others' variables, Kubernetes' for a Service and what workers are handed are not."""
    environment = {
        "SYNCBRIDGE_FOO_BAR_BAZ": "1",
        "SYNCBRIDGE_SERVICE_HOST": "10.0.0.1",
        "SYNCBRIDGE_SERVICE_PORT_HTTP": "80",
        "SYNCBRIDGE_PORT": "tcp://10.0.0.1:80",
        "SYNCBRIDGE_PORT_80_TCP_ADDR": "10.0.0.1",
        "SYNCBRIDGE_TOKEN": "x",
        "REDIS_PORT": "tcp://10.0.0.2:6379",
        "JWT_AUDIENCE_OF_SOMEBODY": "x",
        "PATH": os.defpath,
    }

    assert ["SYNCBRIDGE_FOO_BAR_BAZ"] == unknown_names(environment, KNOWN)
    assert [] == unknown_names(environment | {"SYNCBRIDGE_WORKER": "0:4:5,6"}, KNOWN)


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [("", "ab", 2), ("SECRET", "SECERT", 1), ("kitten", "sitting", 3), ("ca", "abc", 3)],
)
def test_distance(one: str, other: str, edits: int) -> None:
    """A swap of neighbours is one edit; nothing is edited twice."""
    assert (edits, edits) == (distance(one, other), distance(other, one))


def test_a_bound_socket_takes_nobody_before_it_listens() -> None:
    """Clients are refused until the server is ready for them."""
    (sock,) = bind(["127.0.0.1:0"])
    with sock:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(sock.getsockname(), 5)
        listen([sock], 1)
        socket.create_connection(sock.getsockname(), 5).close()
