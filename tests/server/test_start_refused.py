"""Starts that cannot work: one line, code 2, what is wrong and where, and no secret."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotated_types import Le
from typer.testing import CliRunner

from support.contract.old_redis import old_server
from support.redis_servers import RedisServer, free_port
from syncbridge_server.cli import app, main
from syncbridge_server.configuration.docs import rows
from syncbridge_server.environment import distance, unknown_names
from syncbridge_server.listener.bind import AddressTaken, bind, listen
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
    ({"SERVER_ADDR": "http://127.0.0.1:8080"}, "SERVER_ADDR: not an address: 'http://127"),
    ({"SERVER_ADDR": "127.0.0.1:" + "8" * 5000}, "SERVER_ADDR: not an address"),
    ({"SERVER_ADDR": "unix:"}, "needs a path"),
    ({"SERVER_ADDR": "192.0.2.1:8000"}, "SERVER_ADDR: cannot listen on 192.0.2.1:8000"),
    ({"SERVER_ADDR": "unix:/no/such/folder/a"}, "SERVER_ADDR: cannot listen on unix:/no/such"),
    ({"SERVER_ADDR": "unix:/tmp/" + "x" * 150}, "AF_UNIX path too long"),
    ({"SERVER_ADDR": "{taken}"}, "Address already in use"),
    ({"SERVER_ADDR": "{taken}", "SYNCBRIDGE_WORKERS": "2"}, "Address already in use"),
    ({"SERVER_ADDR": "{free},{free}"}, "SERVER_ADDR: cannot listen on {free}: it is taken twice"),
    ({"SERVER_ADDR": "{every},{free}"}, "SERVER_ADDR: cannot listen on {free}: it is taken twice"),
    (
        {"SERVER_ADDR": "{free}", "SYNCBRIDGE_ADMIN_ADDR": "{free}"},
        "SYNCBRIDGE_ADMIN_ADDR: cannot listen on {free}: it is taken twice",
    ),
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
    ({"REDIS_ADDR": f"redis+sentinel://a:{PASSWORD}/main"}, "the port must be a number"),
    ({"REDIS_ADDR": "::1:6379"}, "REDIS_ADDR: write host:port, [v6]:port"),
    ({"REDIS_ADDR": "a:1,b:2"}, "REDIS_ADDR: write host:port"),
    ({"REDIS_ADDR": "redis://127.0.0.1:1/nought"}, "there may be /number of the database"),
    ({"REDIS_ADDR": "redis://127.0.0.1:1?foo=1"}, "REDIS_ADDR: an option is not known: 'foo'"),
    ({"REDIS_ADDR": "redis://127.0.0.1:1?socket_timeout=x"}, "Invalid value for 'socket_timeout'"),
    ({"REDIS_ADDR": "rediss://127.0.0.1:1?ssl_cert_reqs=x"}, "REDIS_ADDR: Invalid SSL"),
    ({"REDIS_DB": "x"}, "REDIS_DB"),
    ({"REDIS_ADDR": "", "SYNCBRIDGE_DATA_DIR": "{file}"}, "SYNCBRIDGE_DATA_DIR: {file}"),
    ({"REDIS_ADDR": "", "SYNCBRIDGE_DATA_DIR": "{file}/x"}, "Not a directory"),
    (
        {"REDIS_ADDR": "", "SYNCBRIDGE_DATA_DIR": "{damaged}"},
        "REDIS_ADDR is not set, and the server ended at once: ",
    ),
    ({"JWT_SECRET": ""}, "JWT_SECRET is not set"),
    ({"JWT_SECRET": "\udcff" * 40}, "JWT_SECRET: not UTF-8"),
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
    (
        {"SYNCBRIDGE_WORKERS": "257"},
        "WORKERS: Input should be less than or equal to 256",
    ),
    ({"SYNCBRIDGE_LOG_LEVEL": "loud"}, "SYNCBRIDGE_LOG_LEVEL: Input should be"),
    ({"SYNCBRIDGE_DEV": "1"}, "use `syncbridge dev`"),
    ({"SYNCBRIDGE_TRUSTED_PROXIES": "10.0.0.0/99"}, "SYNCBRIDGE_TRUSTED_PROXIES"),
    ({"SYNCBRIDGE_HEARTBEAT_INTERVAL": "soon"}, "not a duration: 'soon'"),
    ({"SYNCBRIDGE_VOICE_PROVIDER": "zoom"}, "SYNCBRIDGE_VOICE_PROVIDER: there is no zoom"),
    ({"SYNCBRIDGE_VOICE_PROVIDER": "livekit"}, "SYNCBRIDGE_LIVEKIT_URL is not set"),
    ({"SYNCBRIDGE_WORKER": "2"}, "did you mean SYNCBRIDGE_WORKERS?"),
    ({"SYNCBRIDGE_ORIGIN": "https://a"}, "did you mean SYNCBRIDGE_ORIGINS?"),
    ({"JWT_SECERT": PASSWORD}, "JWT_SECERT is not a setting; did you mean JWT_SECRET?"),
    ({"SYNCBRIDGE_WORKER": "0:4:999999999"}, "SYNCBRIDGE_WORKER is internal to a server"),
    ({"SYNCBRIDGE_WORKER": "0:4:" + "9" * 30}, "SYNCBRIDGE_WORKER is internal to a server"),
    ({"SYNCBRIDGE_WORKER_REDIS": "redis://h"}, "SYNCBRIDGE_WORKER_REDIS is internal to a server"),
    ({"SYNCBRIDGE_WORKER_FOLDER": "/tmp"}, "SYNCBRIDGE_WORKER_FOLDER is internal to a server"),
    ({"WORKER_URL": "https://"}, "WORKER_URL: write an http:// or https:// URL"),
    ({"RTK_API_URL": f"https://h:{PASSWORD}"}, "RTK_API_URL: the port must be a number"),
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
    """A file, a folder that Redis cannot use, and addresses: of somebody else, and of nobody."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "appendonlydir").write_text("x")
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {
            "{file}": str(tmp_path / "file"),
            "{damaged}": str(tmp_path / "damaged"),
            "{free}": f"127.0.0.1:{port}",
            "{every}": f"0.0.0.0:{port}",
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--workers", "0"], "syncbridge: Invalid value for '--workers': Input should be"),
        (["serve", "--worker", "2"], "syncbridge: No such option: --worker"),
        (["serve", "now"], "see syncbridge serve --help"),
        (["sevre"], "see syncbridge --help"),
        (["check", "--skip", "vioce"], "syncbridge check: Invalid value: no check is called vioce"),
        (["deliver", "--nonsense"], "syncbridge deliver: No such option: --nonsense"),
    ],
)
def test_a_mistake_in_the_command(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, too, and code 2."""
    monkeypatch.setattr(sys, "argv", ["syncbridge", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()

    assert (2, "", 1) == (ended.value.code, told.out, told.err.count("\n"))
    assert words in told.err


def refused(**environment: str) -> str:
    """What `serve` says when it ends with code 2 and one line."""
    result = CliRunner().invoke(
        app, ["serve"], env={"SERVER_ADDR": "127.0.0.1:0", **GOOD} | environment
    )

    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    return result.stderr


def test_a_data_folder_that_is_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A second server in the same folder is told to choose another."""
    monkeypatch.setattr("syncbridge_server.redis.link.embedded.LOCK_SECONDS", 0.0)
    lock = (tmp_path / "redis.lock").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        told = refused(REDIS_ADDR="", SYNCBRIDGE_DATA_DIR=str(tmp_path))

    assert f"{tmp_path} is in use by another server" in told


def test_a_redis_that_will_never_do(redis_server: RedisServer, tmp_path: Path) -> None:
    """Its version, its password, the rights of the user, the number of the database."""
    with redis_server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "less", "on", f">{PASSWORD}", "~*", "+@all", "-zadd")
    place = redis_server.url.removeprefix("unix://")
    with old_server(tmp_path / "old") as old:
        too_old = refused(REDIS_ADDR=old)
    poor = refused(REDIS_ADDR=f"unix://less@{place}", REDIS_PASSWORD=PASSWORD)
    unknown = refused(REDIS_ADDR=f"unix://nobody@{place}", REDIS_PASSWORD=PASSWORD)
    database = refused(REDIS_ADDR=redis_server.url, REDIS_DB="99")

    assert "REDIS_ADDR: Redis 7.0 or newer is needed" in too_old
    assert "REDIS_ADDR: not ready: NOPERM, the user may not: ZADD" in poor
    assert "REDIS_PASSWORD: Redis refuses the password" in unknown
    assert "REDIS_DB: there is no such database" in database
    assert PASSWORD not in poor + unknown


def test_traces_without_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is served, by `check` too."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    told = refused(SYNCBRIDGE_OTLP_URL="http://collector:4318")
    checked = CliRunner().invoke(
        app, ["check", "--json"], env={**GOOD, "SYNCBRIDGE_OTLP_URL": "http://collector:4318"}
    )

    assert "SYNCBRIDGE_OTLP_URL needs the extra `otel`" in told
    assert "SYNCBRIDGE_OTLP_URL needs the extra `otel`" in checked.stdout


def test_somebody_listens_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that start at once have both bound the port; to the later one it is in use."""

    def taken(sockets: list[socket.socket], backlog: int) -> None:
        raise AddressTaken(errno.EADDRINUSE, "cannot listen on a:1: Address already in use")

    monkeypatch.setattr("syncbridge_server.listener.serve.listen", taken)
    result = CliRunner().invoke(app, ["serve"], env={"SERVER_ADDR": "127.0.0.1:0", **GOOD})

    assert 2 == result.exit_code
    assert result.stderr.endswith(
        "syncbridge: SERVER_ADDR: cannot listen on a:1: Address already in use\n"
    )


def test_sockets_of_which_one_listens(places: dict[str, str]) -> None:
    """What listens to the same port already is named as it is written in settings."""
    first, second = (bind([places["{free}"]])[0] for _ in range(2))
    with first, second:
        listen([first], 1)
        with pytest.raises(AddressTaken, match=f"cannot listen on {places['{free}']}: Address al"):
            listen([second], 1)


def test_the_least_bound_of_a_number_holds() -> None:
    """Where a field narrows the range of its type, pydantic must not go by the wider one."""
    narrowed = {
        name: min(bounds)
        for name, field in Settings.model_fields.items()
        if (bounds := [bound.le for bound in field.metadata if isinstance(bound, Le)])
    }

    assert 256 == narrowed["workers"]
    for name, most in narrowed.items():
        with pytest.raises(ValueError, match=f"less than or equal to {most}"):
            Settings(**{name: most + 1})


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
