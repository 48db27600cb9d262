"""The scenarios: the load of each, and its figures.

Each takes a connected `Load` and returns an `Outcome`. A figure's key ends in its unit. The
latencies stay whole histograms, so that a plot can show more than three percentiles.
"""

import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import NamedTuple

import httpx

from syncbridge_core.swarm import (
    SEQUENCE_FIELD,
    UPDATE_VALUE,
    ConnectResult,
    Progress,
    Swarm,
    Totals,
)
from syncbridge_core.swarm_histogram import Histogram
from syncbridge_tools.bench.usage import Usage, sample

HEARTBEAT_ACK = 2
BROADCAST = 13
BROADCAST_BYTES = 200
UPDATE_KEYS = 8
FANOUT_SECONDS = 10.0
REQUEST_SECONDS = 30.0
WARMUP_SHARE = 0.2
HEARTBEAT_CLIENTS = 100

Watch = Callable[[Progress], object]


class Options(NamedTuple):
    """Parameters of a run. Times in seconds, `rate` in updates a second."""

    connections: int = 1000
    devices_per_session: int = 2
    duration: float = 10.0
    rate: float = 1000.0
    concurrency: int = 64
    server_pid: int = 0


class Outcome(NamedTuple):
    """One scenario's result.

    `complete`: nothing was refused, lost or closed. `error`: the system's error message.
    """

    scenario: str
    complete: bool
    figures: dict[str, float]
    latencies: dict[str, Histogram]
    error: str = ""


class Load(NamedTuple):
    """Connected clients and what a scenario needs to know about them."""

    swarm: Swarm
    options: Options
    http: str
    admin_token: str
    watch: Watch


def heartbeat_message() -> bytes:
    """HEARTBEAT (type 1)."""
    now = time.time()
    payload = {"client_time": int(now * 1000)}
    message = {"type": 1, "payload": payload, "timestamp": int(now), "correlation_id": "bench"}
    return json.dumps(message, separators=(",", ":")).encode()


def update_templates(keys: int = UPDATE_KEYS) -> list[bytes]:
    """STATE_UPDATE (type 5) of several keys in turn, each carrying its number.

    Numbers begin at 0 in every run. The salt makes the correlation ids, and the values too, new
    each time: a repeated id is a duplicate to the server, and an equal value no change.
    """
    salt = secrets.token_hex(4)
    value, number = f"{salt} {UPDATE_VALUE.decode()}", f"{salt}-{SEQUENCE_FIELD.decode()}"
    templates = []
    for key in range(keys):
        payload = {"key": f"k{key}", "value": value, "operation": "SET"}
        message = {"type": 5, "payload": payload, "correlation_id": number}
        templates.append(json.dumps(message, separators=(",", ":")).encode())
    return templates


def connect(load: Load, first_messages: list[bytes]) -> Outcome:
    """Open every connection, with AUTH, and see what it costs the server to hold them."""
    meter = _Meter(load.options.server_pid)
    result: ConnectResult = load.swarm.connect(
        first_messages,
        concurrency=load.options.concurrency,
        seconds=max(60.0, load.options.connections / 100),
        watch=load.watch,
    )
    figures: dict[str, float] = {
        "opened": result.opened,
        "failed": result.failed,
        "connects_per_s": result.opened / result.seconds,
    }
    used = meter.read()
    if used is not None and result.opened:
        figures["server_cpu_us_per_connect"] = used.cpu / result.opened * 1e6
        figures["server_private_bytes_per_connection"] = used.private / result.opened
    latencies = {"connect to AUTH_SUCCESS": result.latency}
    return Outcome("connect", result.failed == 0, figures, latencies, result.error)


def idle(load: Load) -> Outcome:
    """Only answer pings."""
    meter = _Meter(load.options.server_pid)
    result = load.swarm.idle(load.options.duration, watch=load.watch)
    figures: dict[str, float] = {
        "messages": result.totals.messages,
        "pings": result.totals.pings,
        "closed": result.totals.closed,
    }
    meter.add_cpu_share(figures, result.seconds)
    return Outcome("idle", _clean(result.totals), figures, {})


def heartbeat(load: Load) -> Outcome:
    """Closed loop of HEARTBEAT and HEARTBEAT_ACK over at most 100 connections."""
    meter = _Meter(load.options.server_pid)
    result = load.swarm.echo(
        heartbeat_message(),
        load.options.duration,
        clients=HEARTBEAT_CLIENTS,
        reply_type=HEARTBEAT_ACK,
        watch=load.watch,
    )
    figures: dict[str, float] = {
        "replies": result.done,
        "replies_per_s": result.done / result.seconds,
        "errors": result.totals.errors,
    }
    meter.add_cpu_each(figures, "reply", result.done)
    return Outcome("heartbeat", _clean(result.totals), figures, {"round trip": result.latency})


def fanout(load: Load) -> Outcome:
    """One BROADCAST after another to every connection, through POST /admin/broadcast."""
    meter = _Meter(load.options.server_pid)
    expected = load.swarm.opened
    latency = Histogram()
    rounds = received = 0
    busy = 0.0
    complete = True
    with _Broadcaster(load) as broadcaster:
        stop = time.monotonic() + load.options.duration
        while complete and (rounds == 0 or time.monotonic() < stop):
            result = load.swarm.receive(
                expected,
                FANOUT_SECONDS,
                wanted_type=BROADCAST,
                trigger=broadcaster.begin,
                watch=load.watch,
            )
            complete = broadcaster.end() == HTTPStatus.OK and result.done == expected
            latency.merge(result.latency)
            rounds, received, busy = rounds + 1, received + result.done, busy + result.seconds
    figures: dict[str, float] = {
        "broadcasts": rounds,
        "deliveries": received,
        "lost": rounds * expected - received,
        "deliveries_per_s": received / busy,
    }
    meter.add_cpu_each(figures, "delivery", received)
    return Outcome("fanout", complete, figures, {"request to arrival": latency})


def updates(load: Load) -> Outcome:
    """Open loop of STATE_UPDATE; how late the session's other devices have them."""
    meter = _Meter(load.options.server_pid)
    options = load.options
    result = load.swarm.updates(
        update_templates(),
        options.rate,
        options.duration,
        senders=range(0, load.swarm.count, options.devices_per_session),
        copies=options.devices_per_session - 1,
        warmup=options.duration * WARMUP_SHARE,
        watch=load.watch,
    )
    figures: dict[str, float] = {
        "sent": result.sent,
        "unsent": result.unsent,
        "acknowledged": result.acknowledged,
        "refused": result.totals.errors,
        "delivered": result.delivered,
        "lost": result.expected - result.delivered,
        "repeated": result.repeated,
        "generator_lag_p99_ms": result.lag.percentile(99) / 1e6,
    }
    meter.add_cpu_each(figures, "update", result.sent)
    complete = (
        result.unsent == 0
        and result.acknowledged == result.sent
        and result.delivered == result.expected
        and _clean(result.totals)
    )
    latencies = {"due to acknowledged": result.acks, "due to other device": result.latency}
    return Outcome("updates", complete, figures, latencies)


SCENARIOS: dict[str, Callable[[Load], Outcome]] = {
    "idle": idle,
    "heartbeat": heartbeat,
    "fanout": fanout,
    "updates": updates,
}


def _clean(totals: Totals) -> bool:
    return not (totals.errors or totals.closed or totals.protocol_errors or totals.send_failures)


class _Meter:
    """The server's usage since the scenario began, when its process id is known."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = sample(pid) if pid else None

    def read(self) -> Usage | None:
        return sample(self._pid).since(self._before) if self._before is not None else None

    def add_cpu_each(self, figures: dict[str, float], noun: str, count: int) -> None:
        used = self.read()
        if used is not None and count:
            figures[f"server_cpu_us_per_{noun}"] = used.cpu / count * 1e6

    def add_cpu_share(self, figures: dict[str, float], seconds: float) -> None:
        used = self.read()
        if used is not None:
            figures["server_cpu_percent"] = used.cpu / seconds * 100


class _Broadcaster:
    """Admin requests in a thread, so that the swarm can read while the server answers."""

    def __init__(self, load: Load) -> None:
        headers = {"Authorization": f"Bearer {load.admin_token}"}
        self._client = httpx.Client(
            base_url=load.http, headers=headers, trust_env=False, timeout=REQUEST_SECONDS
        )
        self._pool = ThreadPoolExecutor(1)
        self._status: Future[int] | None = None

    def __enter__(self) -> "_Broadcaster":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._client.close()

    def begin(self) -> None:
        self._status = self._pool.submit(self._post)

    def end(self) -> int:
        """The answer's HTTP status, 0 without an answer."""
        return self._status.result() if self._status is not None else 0

    def _post(self) -> int:
        body = {"audience": "all", "message": "x" * (BROADCAST_BYTES // 2)}
        try:
            return self._client.post("/admin/broadcast", json=body).status_code
        except httpx.HTTPError:
            return 0
