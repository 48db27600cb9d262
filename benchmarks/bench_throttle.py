"""Speaking reports: kernel, pure twin, a naive broadcast and a throttle that only drops.

The load: in each tick of 20 ms some participants of 100 channels report; each says its state
again within a second, and changes it after times that are short for noise and long for speech.
It follows from the seed, and is the same for all four.

* `kernel`, `twin`: `report` for each report and one `collect` a tick.
* `naive`: every report is an event for every listener; only counted.
* `drop_only`: forwards a change unless one went out less than 250 ms ago. What it drops is lost.

`wrong` counts participants whose listeners end with another state than the one last reported. What
the numbers do not show: encoding and sending, which cost more than any of this. Times are those of
a shared machine, without the loop around the calls: trust the ratios, each of which is taken within
a round. `bytes_held` is measured with 100,000 speakers held, by the growth of the process (kernel)
and of traced memory (twin), names included.

    python benchmarks/bench_throttle.py [--json FILE] [--ticks 500]
"""

import argparse
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bench_document import machine
from syncbridge.kernels import _throttle_py
from syncbridge_core import throttle

INTERVAL = 250
TICK = 20
ROUNDS = 9
CHANNELS, PARTICIPANTS = 100, 20
Report = tuple[int, str, bool]
Load = list[list[Report]]


def load(ticks: int) -> Load:
    """Reports by tick."""
    chance = random.Random(7)
    people = [(c, f"user-{c}-{n}") for c in range(CHANNELS) for n in range(PARTICIPANTS)]
    speaking = dict.fromkeys(people, False)
    turns: dict[int, list[tuple[int, str]]] = {}
    for who in people:
        turns.setdefault(chance.randrange(50), []).append(who)
    made: Load = []
    for tick in range(ticks):
        reports: list[Report] = []
        for who in turns.pop(tick, []):
            speaking[who] = not speaking[who] if chance.random() < 0.8 else speaking[who]
            reports.append((*who, speaking[who]))
            wait = chance.choice([1, 2, 3, 5, 20, 50])
            turns.setdefault(tick + wait, []).append(who)
        made.append(reports)
    return made


def throttled(module: Any, reports: Load) -> list[Report]:
    """What a listener hears, with a quiet end so that the last windows close."""
    speech = module.Throttle(INTERVAL)
    heard: list[Report] = []
    report, now = speech.report, 0
    for tick in reports:
        now += TICK
        for channel, who, speaking in tick:
            report(channel, who, speaking, now)
        for channel, batch in speech.collect(now):
            heard += [(channel, who, said) for who, said in batch]
    for channel, batch in speech.collect(now + INTERVAL):
        heard += [(channel, who, said) for who, said in batch]
    return heard


def naive(reports: Load) -> list[Report]:
    return [report for tick in reports for report in tick]


def drop_only(reports: Load) -> list[Report]:
    sent: dict[tuple[int, str], tuple[int, bool]] = {}
    heard: list[Report] = []
    now = 0
    for tick in reports:
        now += TICK
        for channel, who, speaking in tick:
            at, said = sent.get((channel, who), (-INTERVAL, False))
            if said != speaking and now - at >= INTERVAL:
                sent[channel, who] = (now, speaking)
                heard.append((channel, who, speaking))
    return heard


def final(heard: list[Report]) -> set[tuple[int, str]]:
    """Who speaks in the end."""
    return {who for who, said in {(c, w): s for c, w, s in heard}.items() if said}


def reporting(module: Any, reports: Load) -> float:
    """Seconds for the calls of `report` and `collect` alone."""
    speech = module.Throttle(INTERVAL)
    report, collect, now = speech.report, speech.collect, 0
    began = perf_counter()
    for tick in reports:
        now += TICK
        for channel, who, speaking in tick:
            report(channel, who, speaking, now)
        collect(now)
    return perf_counter() - began


def empty(reports: Load) -> float:
    """Seconds for the loop of `reporting` without the calls."""
    began = perf_counter()
    now = 0
    for tick in reports:
        now += TICK
        for _channel, _who, _speaking in tick:
            pass
    return perf_counter() - began


def resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def bytes_held(module: Any, traced: bool) -> float:
    """Bytes for each participant that is held."""
    count = 100_000
    speech = module.Throttle(INTERVAL, 2000, 1000, 1000)
    if traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else resident()
    for n in range(count):
        speech.report(n // 1000, f"user-{n}", True, 0)
    after = tracemalloc.get_traced_memory()[0] if traced else resident()
    if traced:
        tracemalloc.stop()
    held: int = speech.held
    return (after - before) / held


def measured(ticks: int) -> dict[str, Any]:
    reports = load(ticks)
    count = sum(map(len, reports))
    last = final(naive(reports))
    ways: dict[str, Callable[[], list[Report]]] = {
        "kernel": lambda: throttled(throttle, reports),
        "twin": lambda: throttled(_throttle_py, reports),
        "naive": lambda: naive(reports),
        "drop_only": lambda: drop_only(reports),
    }
    events = {name: way() for name, way in ways.items()}
    modules = {"kernel": throttle, "twin": _throttle_py}
    rounds = [
        {name: reporting(module, reports) - empty(reports) for name, module in modules.items()}
        for _ in range(ROUNDS)
    ]
    seconds = {name: median(one[name] for one in rounds) for name in modules}
    ratios = [one["twin"] / one["kernel"] for one in rounds]
    return {
        "machine": machine(),
        "reports": count,
        "reports_per_second": {name: round(count / s) for name, s in seconds.items()},
        "kernel_over_twin": round(median(ratios), 1),
        "range": [round(min(ratios), 1), round(max(ratios), 1)],
        "events": {name: len(heard) for name, heard in events.items()},
        "wrong": {name: len(final(heard) ^ last) for name, heard in events.items()},
        "bytes_held": {
            "kernel": round(bytes_held(throttle, traced=False)),
            "twin": round(bytes_held(_throttle_py, traced=True)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speaking throttle.")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--ticks", type=int, default=500, help="ticks of 20 ms")
    arguments = parser.parse_args()
    figures = json.dumps(measured(arguments.ticks), indent=2)
    print(figures)
    if arguments.json:
        arguments.json.write_text(figures + "\n")


if __name__ == "__main__":
    main()
