"""`syncbridge bench` from the command line, against a small server that speaks the protocol."""

import json
import resource
from pathlib import Path
from typing import Any

import jwt
import pytest
from typer.testing import CliRunner, Result
from wsproto.events import TextMessage

from support.swarm_peer import Peer, Wire
from syncbridge_core.swarm_histogram import Histogram
from syncbridge_tools.bench import report
from syncbridge_tools.bench.cli import app

SECRET = "s" * 40
BROADCAST = json.dumps({"type": 13, "payload": {"message": "x"}})


class Service:
    """Enough of the server: AUTH, HEARTBEAT, updates within a session, the admin broadcast."""

    def __init__(self, lossy: bool = False) -> None:
        self.lossy = lossy
        self.sessions: dict[str, list[Wire]] = {}
        self.session_of: dict[Wire, str] = {}
        self.claims: list[dict[str, Any]] = []

    def __call__(self, peer: Peer, wire: Wire, text: str) -> None:
        message = json.loads(text)
        answers = {7: self.authenticate, 1: self.heartbeat, 5: self.update}
        if answer := answers.get(message.get("type")):
            answer(wire, message["payload"])
        else:
            peer.broadcast(BROADCAST)

    def authenticate(self, wire: Wire, payload: dict[str, Any]) -> None:
        claims = jwt.decode(payload["token"], SECRET, algorithms=["HS256"])
        self.claims.append(claims | {"named": payload["device_id"]})
        self.sessions.setdefault(claims["session_id"], []).append(wire)
        self.session_of[wire] = claims["session_id"]
        wire.send('{"type":8,"payload":{}}')

    def heartbeat(self, wire: Wire, payload: dict[str, Any]) -> None:
        wire.send('{"type":2,"payload":{}}')

    def update(self, wire: Wire, payload: dict[str, Any]) -> None:
        news = json.dumps({"type": 5, "payload": {"value": payload["value"]}})
        for device in self.sessions[self.session_of[wire]]:
            if device is wire or not self.lossy:
                device.send(news)


@pytest.fixture
def _secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("SYNCBRIDGE_DATA_DIR", str(tmp_path))


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def small(command: str, peer: Peer, *more: str) -> Result:
    url = f"ws://127.0.0.1:{peer.port}/ws"
    sizes = ["--connections", "6", "--duration", "0.2", "--rate", "100"]
    return bench(command, "--url", url, *sizes, *more)


@pytest.mark.usefixtures("_secret")
def test_all_runs_every_scenario_and_writes_figures_and_a_picture(tmp_path: Path) -> None:
    """Exit code 0, one entry a scenario with its latencies in the file, and an SVG."""
    figures, picture = tmp_path / "figures.json", tmp_path / "plot.svg"
    with Peer(Service()) as peer:
        result = small("all", peer, "--json", str(figures), "--plot", str(picture))

    assert result.exit_code == 0, result.output
    written = json.loads(figures.read_text())
    scenarios = {entry["scenario"]: entry for entry in written["scenarios"]}
    assert list(scenarios) == ["connect", "idle", "heartbeat", "fanout", "updates"]
    assert all(entry["complete"] for entry in scenarios.values())
    assert scenarios["connect"]["figures"]["opened"] == 6
    assert scenarios["updates"]["figures"]["delivered"] == 24
    latency = scenarios["updates"]["latency_ms"]["due to other device"]
    assert latency["samples"] == 20
    assert sum(count for _, count in latency["buckets"]) == 20
    assert "<svg" in picture.read_text()


@pytest.mark.usefixtures("_secret")
def test_devices_share_sessions_in_pairs_with_tokens_of_their_own() -> None:
    """Six devices: three sessions with a user each, and each token names its device."""
    service = Service()
    with Peer(service) as peer:
        result = small("connect", peer)

    assert result.exit_code == 0, result.output
    assert sorted(len(wires) for wires in service.sessions.values()) == [2, 2, 2]
    assert len({claims["sub"] for claims in service.claims}) == 3
    assert all(claims["device_id"] == claims["named"] for claims in service.claims)
    assert len({claims["device_id"] for claims in service.claims}) == 6


@pytest.mark.usefixtures("_secret")
def test_lost_updates_are_reported_and_fail_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that forgets the other device: exit code 1, and the figures say how many."""
    figures = tmp_path / "figures.json"
    with Peer(Service(lossy=True)) as peer:
        result = small("updates", peer, "--json", str(figures))

    entry = json.loads(figures.read_text())["scenarios"][1]
    assert result.exit_code == 1
    assert (entry["complete"], entry["figures"]["lost"]) == (False, 24)
    assert "incomplete" in result.output


@pytest.mark.usefixtures("_secret")
def test_refused_devices_end_the_run_after_connect() -> None:
    """With AUTH refused there is nothing to measure: exit code 1 and one scenario."""
    with Peer(lambda peer, wire, text: wire.send('{"type":9}')) as peer:
        result = small("all", peer)
        heard = len(peer.events(TextMessage))

    assert result.exit_code == 1
    assert heard == 6
    assert "heartbeat" not in result.output


@pytest.mark.usefixtures("_secret")
def test_a_server_that_is_not_there_is_named_as_the_reason() -> None:
    """Exit code 1, and the table says that the connections were refused."""
    with Peer(Service()) as peer:
        gone = peer
    result = small("connect", gone)

    assert result.exit_code == 1
    assert "Connection refused" in result.output


@pytest.mark.usefixtures("_secret")
@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ws://192.0.2.1/ws", "--allow-remote"),
        ("wss://127.0.0.1/ws", "TLS"),
        ("http://127.0.0.1/ws", "ws://"),
        ("ws://127.0.0.1:99999/ws", "range"),
    ],
)
def test_targets_that_are_not_ours_are_refused(url: str, word: str) -> None:
    """Exit code 2 and one line, before anything is sent."""
    result = bench("connect", "--url", url, "--connections", "1")

    assert result.exit_code == 2
    assert word in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_without_a_secret_there_are_no_tokens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit code 2, and the line names the variable."""
    monkeypatch.delenv("JWT_SECRET", raising=False)
    monkeypatch.setenv("SYNCBRIDGE_DATA_DIR", str(tmp_path))

    result = bench("connect", "--connections", "1")

    assert result.exit_code == 2
    assert "JWT_SECRET" in result.output


@pytest.mark.usefixtures("_secret")
def test_more_connections_than_descriptors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2 with the limit that would be needed."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))

    result = bench("connect", "--connections", "5000")

    assert result.exit_code == 2
    assert "ulimit -n 5064" in result.output


def test_the_curve_rises_with_the_share_of_values() -> None:
    """One point a bucket: 1 / share above on one axis, milliseconds on the other."""
    histogram = Histogram()
    for value in (10**6, 2 * 10**6, 3 * 10**6, 4 * 10**6):
        histogram.record(value)

    points = report.curve(histogram)

    assert [round(share, 3) for share, _ in points] == [1.333, 2.0, 4.0, 4.0]
    assert [round(ms) for _, ms in points] == [1, 2, 3, 4]
