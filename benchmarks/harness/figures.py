"""The figures: numbers of servers beside their baselines, and what they do not show."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from harness.figure import Figure
from harness.figures_state import state_figures
from harness.load import Size
from harness.servers import C_GATHER, C_SEND, GO_CHANNEL, GO_DIRECT, HUB, STOCK, SYNCBRIDGE

GO_BETTER = "Go gorilla, better of two"
Samples = dict[str, dict[str, list[float]]]
"""Server, metric, one value a round."""


class Spread(NamedTuple):
    """Median and range over the rounds."""

    median: float
    lowest: float
    highest: float


class Line(NamedTuple):
    """A figure that was measured. `met` is None without a target."""

    figure: Figure
    subject: Spread
    baseline: Spread | None
    ratio: Spread | None
    met: bool | None


def figures(size: Size) -> list[Figure]:
    """All figures, in the order of the report."""
    low, middle, high = size.rates
    return [
        Figure(
            "a",
            "Authenticated connections open in one process, two devices a session",
            "",
            "open",
            SYNCBRIDGE,
            "",
            size.connections,
            caveat="The connections are idle or moderately busy and come from one machine.",
        ),
        Figure(
            "a",
            "Memory of the process per connection",
            "B",
            "private_bytes_per_connection",
            SYNCBRIDGE,
            "",
            3072,
            True,
            "Private memory of the process. The kernel's socket buffers are not in it.",
        ),
        Figure(
            "a",
            "The same beside the usual Python server",
            "B",
            "private_bytes_per_connection",
            SYNCBRIDGE,
            STOCK,
            caveat=f"The other server holds {size.stock:,} connections, no session and no state.",
        ),
        Figure(
            "b",
            "One 200-byte message to all, the product: frames per second of server CPU",
            "/s",
            "fan1_frames_per_cpu_s",
            SYNCBRIDGE,
            GO_BETTER,
            caveat="Asked for over REST. The peer has no REST, no roles and no metrics to serve.",
        ),
        Figure(
            "b",
            "The same, the hub alone: frames per second of server CPU",
            "/s",
            "fan1_frames_per_cpu_s",
            HUB,
            GO_BETTER,
            1.8,
            caveat="The hub without sessions or authentication, as the peer is.",
        ),
        Figure(
            "b",
            "The hub alone against a bare loop of send()",
            "/s",
            "fan1_frames_per_cpu_s",
            HUB,
            C_SEND,
            0.85,
            caveat="Nearly all of it is the kernel's TCP over loopback; a network card differs.",
        ),
        Figure(
            "c",
            "Ten such messages in a tick, the hub alone: frames per second, until all have them",
            "/s",
            "fan10_frames_per_s",
            HUB,
            C_SEND,
            3.0,
            caveat="Frames of one tick share a write. Messages that come one by one do not.",
        ),
        Figure(
            "c",
            "The same, the hub alone, against a C loop that gathers as well",
            "/s",
            "fan10_frames_per_cpu_s",
            HUB,
            C_GATHER,
            caveat="What is left to gain: this loop keeps no outbox and checks nothing.",
        ),
        Figure(
            "d",
            "JSON heartbeats, 100 connections in a closed loop",
            "/s",
            "echo_per_s",
            SYNCBRIDGE,
            GO_BETTER,
            1.3,
            caveat="Throughput of a closed loop. The peer has no session; both decode and encode.",
        ),
        Figure(
            "d",
            "The same per second of server CPU",
            "/s",
            "echo_per_cpu_s",
            SYNCBRIDGE,
            GO_BETTER,
            caveat="A closed loop also waits for the load; this row does not count the waiting.",
        ),
        Figure("d", "The same on the hub alone", "/s", "echo_per_s", HUB, GO_BETTER),
        Figure(
            "e",
            "Handshake and AUTH, until AUTH_SUCCESS has arrived",
            "/s",
            "connects_per_s",
            SYNCBRIDGE,
            STOCK,
            3.0,
            caveat="SyncBridge registers the device in Redis meanwhile, the other does not.",
        ),
        *_quiet_figures(low, 5.0),
        *_update_figures(middle, None),
        *_update_figures(high, 10.0),
        Figure(
            "f",
            f"The core that Redis and the load share, at {high:,}/s: 1 is all of it",
            "",
            f"updates_{high}_load_core_busy",
            SYNCBRIDGE,
            caveat="Near 1, Redis waits for the load: the row above it then tells of the machine.",
        ),
        Figure(
            "f",
            f"Updates that were refused or not delivered at {high:,}/s",
            "",
            f"updates_{high}_lost",
            SYNCBRIDGE,
            "",
            0,
            True,
            "A refused update was answered with an ERROR; its sender knows.",
        ),
        Figure(
            "f",
            f"Server CPU per update at {high:,}/s",
            "µs",
            f"updates_{high}_cpu_us",
            SYNCBRIDGE,
            "",
            60.0,
            True,
            "CPU of the server process; Redis has its own.",
        ),
        Figure(
            "g",
            f"POST of a 4 KB snapshot, p99, during {low:,} updates/s",
            "ms",
            "rest_post_p99_ms",
            SYNCBRIDGE,
            "",
            50.0,
            True,
            "A few kept-alive HTTP/1.1 connections, at a fixed rate well below the limit.",
        ),
        Figure(
            "g",
            f"GET of a snapshot, p99, during {low:,} updates/s",
            "ms",
            "rest_get_p99_ms",
            SYNCBRIDGE,
            "",
            50.0,
            True,
        ),
        *state_figures(size),
    ]


def _latency_figures(rate: int, limit: float | None, note: str) -> list[Figure]:
    title = f"STATE_UPDATE at {rate:,}/s, from its due time to the other device"
    return [
        Figure("f", f"{title}, p50", "ms", f"updates_{rate}_p50_ms", SYNCBRIDGE),
        Figure(
            "f", f"{title}, p99", "ms", f"updates_{rate}_p99_ms", SYNCBRIDGE, "", limit, True, note
        ),
    ]


def _quiet_figures(rate: int, limit: float) -> list[Figure]:
    note = (
        "Loopback; Redis and the load share a core. Half seconds in which neither core stood "
        "still; the next row has the others, too."
    )
    return [
        *_latency_figures(rate, limit, note),
        Figure(
            "f",
            f"The same at {rate:,}/s, with what stops of the machine add",
            "ms",
            f"updates_{rate}_all_p99_ms",
            SYNCBRIDGE,
        ),
        Figure(
            "f",
            "Share of the half seconds without a stop of either core",
            "",
            f"updates_{rate}_quiet_share",
            SYNCBRIDGE,
            caveat="A stop: neither we nor the kernel ran there for a millisecond, but others.",
        ),
    ]


def _update_figures(rate: int, limit: float | None) -> list[Figure]:
    note = "Loopback. Redis and the load share a core, the server has one to itself."
    return [
        *_latency_figures(rate, limit, note),
        Figure(
            "f",
            f"Share of a core's time that other machines took meanwhile, at {rate:,}/s",
            "",
            f"updates_{rate}_stolen",
            SYNCBRIDGE,
            caveat="From 0.01 on, the 99th percentile above it is that time.",
        ),
    ]


def with_better_go(samples: Samples) -> Samples:
    """The samples and, for each metric and round, the better of the two Go servers."""
    one, two = samples.get(GO_CHANNEL, {}), samples.get(GO_DIRECT, {})
    better = {
        metric: [max(pair) for pair in zip(one[metric], two[metric], strict=False)]
        for metric in one.keys() & two.keys()
    }
    return {**samples, GO_BETTER: better}


def measured(samples: Samples, size: Size, judge: bool) -> list[Line]:
    """The lines for which there are samples; without `judge` no target is met or missed."""
    everything = with_better_go(samples)
    chosen = figures(size) if judge else [one._replace(target=None) for one in figures(size)]
    return lines_of(chosen, everything)


def lines_of(chosen: Sequence[Figure], samples: Samples) -> list[Line]:
    """The lines of those figures for which there are samples."""
    lines = (_line(figure, samples) for figure in chosen)
    return [line for line in lines if line is not None]


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def _line(figure: Figure, samples: Samples) -> Line | None:
    subject = samples.get(figure.subject, {}).get(figure.metric)
    baseline = samples.get(figure.baseline, {}).get(figure.metric)
    if not subject or (figure.baseline and not baseline):
        return None
    if not baseline:
        return Line(figure, spread(subject), None, None, _met(figure, spread(subject).median))
    ratio = spread([ours / theirs for ours, theirs in zip(subject, baseline, strict=False)])
    met = _met(figure, ratio.median)
    return Line(figure, spread(subject), spread(baseline), ratio, met)


def _met(figure: Figure, value: float) -> bool | None:
    if figure.target is None:
        return None
    return value <= figure.target if figure.at_most else value >= figure.target
