"""The figures beside Centrifugo: which number, beside whom, with which target.

With a baseline the target is a bound of the ratio ours/theirs, else of our value.
"""

from typing import NamedTuple

from beside.contestants import HISTORY, MAP, OURS, PRESENCE
from harness.figure import Figure


class Entry(NamedTuple):
    """A figure of a case. `phase` names the measured phase, whose shares of the cores tell what
    bounds it; empty where nothing is bound."""

    case: str
    figure: Figure
    phase: str = ""


def _entry(
    case: str,
    title: str,
    unit: str,
    metric: str,
    baseline: str = "",
    target: float | None = None,
    at_most: bool = True,
    phase: str = "",
) -> Entry:
    return Entry(case, Figure(case, title, unit, metric, OURS, baseline, target, at_most), phase)


def _updates(rate: int, p50: float, p99: float, cpu: float) -> list[Entry]:
    title = f"update to the other device, {rate:,}/s"
    name = f"updates_{rate}"
    entries = []
    for peer, targets in ((HISTORY, (p50, p99, cpu)), (MAP, (None, None, None))):
        for what, target in zip(
            (("p50", "p50_us"), ("p99", "p99_us"), ("server CPU an update", "cpu_us")),
            targets,
            strict=True,
        ):
            entry = _entry(
                "updates",
                f"{title}: {what[0]}",
                "µs",
                f"{name}_{what[1]}",
                peer,
                target,
                phase=name,
            )
            entries.append(entry)
    return entries


def _ceiling() -> list[Entry]:
    entries = []
    for peer, targets in ((HISTORY, (2.2, 3.0, 1.1)), (MAP, (None, None, 0.7))):
        rate, per_cpu, redis = targets
        entries += [
            _entry(
                "updates",
                "most durable updates, 4 outstanding a session",
                "/s",
                "ceiling_per_s",
                peer,
                rate,
                False,
                "ceiling",
            ),
            _entry(
                "updates",
                "the same per second of server CPU",
                "/s",
                "ceiling_per_cpu_s",
                peer,
                per_cpu,
                False,
                "ceiling",
            ),
            _entry(
                "updates",
                "CPU of Redis an update, at most updates",
                "µs",
                "ceiling_redis_us",
                peer,
                redis,
                True,
                "ceiling",
            ),
        ]
    return entries


def _many() -> list[Entry]:
    fast, slow, refused = "10,000/s with 10,000 open", "2,000/s with 10,000 open", "not delivered"
    return [
        _entry("many", f"{fast}: {refused}", "", "many_10000_lost", "", 0, True, "many_10000"),
        _entry("many", f"{fast}: p99", "µs", "many_10000_p99_us", "", 10_000, True, "many_10000"),
        _entry("many", f"{fast}: p99", "µs", "many_10000_p99_us", HISTORY, phase="many_10000"),
        _entry("many", f"{fast}: p50", "µs", "many_10000_p50_us", HISTORY, phase="many_10000"),
        _entry("many", f"{fast}: CPU", "µs", "many_10000_cpu_us", "", 40, True, "many_10000"),
        _entry("many", f"{fast}: CPU", "µs", "many_10000_cpu_us", HISTORY, phase="many_10000"),
        _entry("many", f"{slow}: p99", "µs", "many_2000_p99_us", "", 3_000, True, "many_2000"),
        _entry("many", f"{slow}: p99", "µs", "many_2000_p99_us", HISTORY, phase="many_2000"),
        _entry("many", "10,000 connect", "/s", "connects_per_s", HISTORY, 1.3, False),
        _entry("many", "10,000 connect", "/s", "connects_per_s", PRESENCE),
        _entry("many", "server CPU a connect", "µs", "connect_cpu_us", HISTORY, 0.75),
        _entry("many", "server CPU a connect", "µs", "connect_cpu_us", PRESENCE),
        _entry("many", "CPU of Redis a connect", "µs", "connect_redis_us", HISTORY),
        _entry("many", "CPU of Redis a connect", "µs", "connect_redis_us", PRESENCE, 1.0),
        _entry("many", "memory a connection, two a session", "B", "memory", "", 2_200),
        _entry("many", "memory a connection, two a session", "B", "memory", HISTORY),
    ]


def _crowd() -> list[Entry]:
    joins, told = (
        "1,000 devices join one session",
        "updates to all of them: deliveries a CPU second",
    )
    return [
        _entry("crowd", joins, "/s", "joins_per_s", HISTORY, 1.0, False),
        _entry("crowd", joins, "/s", "joins_per_s", PRESENCE),
        _entry("crowd", told, "/s", "crowd_per_cpu_s", HISTORY, 3.0, False, "crowd"),
    ]


def _broadcast(connections: int, target: float) -> Entry:
    name = f"broadcast_{connections}"
    title = f"broadcast to {connections:,}: deliveries a CPU second"
    return _entry("broadcast", title, "/s", f"{name}_per_cpu_s", HISTORY, target, False, name)


ENTRIES = [
    *_updates(1_000, 1.0, 0.8, 0.85),
    *_updates(5_000, 1.15, 0.12, 0.9),
    *_ceiling(),
    *_many(),
    *_crowd(),
    _broadcast(1_000, 3.0),
    _broadcast(5_000, 4.0),
    _entry(
        "recovery",
        "kill -9, restart, 5,000 resume: until all have what they missed",
        "s",
        "recovery_s",
        HISTORY,
        0.9,
    ),
    _entry("start", "start, until it accepts", "s", "start_s", HISTORY, 2.4),
]

FRONT = (
    ("update to the other device, 1,000 a second: median", "updates_1000_p50_us"),
    ("the same at 5,000 a second: 99th percentile", "updates_5000_p99_us"),
    ("most durable updates a second", "ceiling_per_s"),
    ("durable updates per second of server CPU", "ceiling_per_cpu_s"),
    ("broadcast to 5,000: deliveries per second of server CPU", "broadcast_5000_per_cpu_s"),
    ("10,000 devices connect", "connects_per_s"),
    ("memory a connection", "memory"),
    ("killed, started, 5,000 devices have what they missed", "recovery_s"),
)
"""The README's rows, beside HISTORY."""
