"""Documents: kernel, pure twin, orjson, msgspec and json, side by side in one run.

Five tasks, at 3, 20, 200 and 800 keys (documents of `_data.py`):

* `commit`: three keys change, the whole state is needed as bytes. The kernel and the twin hold a
  replica (`Doc.apply`, `Doc.render`); the libraries parse the state, update, and dump it.
* `diff`: a device sends a whole state; which keys differ from ours? `split` and `Doc.diff` against
  parsing both and comparing the dicts. The kernel's side validates the incoming text.
* `load`: an HGETALL reply becomes JSON: `render_pairs` against parsing each value and dumping all.
* `canonical`: are these values spelled canonically? All are, as JSON.stringify writes scalars and
  objects with ascending names. `spellings` of the values that were split off, against what a
  library has to do to know: parse the state and dump it with sorted names.
* `respelled`: the same with objects in the order of their making, so that a quarter of the values
  are not canonical, and the kernel has to build and to hash their forms.

What the numbers do not show: the kernel keeps an index between calls and a parser does not, that is
the point, but a state that is read once and never again gains only what `load` shows. The
libraries' results are Python objects, which a handler might want anyway. The libraries round
numbers to doubles, the kernel compares them digit by digit. One round trip to Redis
(25 us and more) outweighs all of it for one small session; the gain is CPU: sessions a core.
Documents of one generator are no traffic. Times are those of a shared machine: trust the ratios,
and the best round more than the median when the spread is large.

    python benchmarks/bench_document.py [--json FILE] [--seconds 0.2]
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import orjson

from _data import Case, case
from syncbridge.kernels import _canonical_py
from syncbridge.kernels import _document_py as pure
from syncbridge_core import canonical
from syncbridge_core import document as compiled

SIZES = (3, 20, 200, 800)
ROUNDS = 15

Call = Callable[[], object]


# ### Tasks ###


def commits(kernel: ModuleType, sample: Case) -> Call:
    """The three keys change back and forth, so that each commit changes something."""
    doc = kernel.Doc.from_flat(kernel.split(sample.state).flat(), 1, "")
    other = [part for key in sample.changes[::2] for part in (key, doc.get(key))]

    def call() -> object:
        now = doc.version
        assert doc.apply(other if now % 2 == 0 else sample.changes, (), now, now + 1)
        return doc.render()

    return call


def parsed_commits(
    loads: Callable[[bytes], Any], dumps: Callable[[Any], object], sample: Case
) -> Call:
    keys, news = sample.changes[::2], sample.changes[1::2]
    changes = {key.decode(): loads(new) for key, new in zip(keys, news, strict=True)}

    def call() -> object:
        state = loads(sample.state)
        state.update(changes)
        return dumps(state)

    return call


def diffs(kernel: ModuleType, sample: Case) -> Call:
    doc = kernel.Doc.from_flat(kernel.split(sample.state).flat(), 1, "")
    return lambda: doc.diff(kernel.split(sample.target))


def parsed_diffs(loads: Callable[[bytes], Any], sample: Case) -> Call:
    def call() -> object:
        ours, theirs = loads(sample.state), loads(sample.target)
        sets = {k: v for k, v in theirs.items() if k not in ours or ours[k] != v}
        return sets, [k for k in ours if k not in theirs]

    return call


def parsed_loads(
    loads: Callable[[bytes], Any], dumps: Callable[[Any], object], flat: list[bytes]
) -> Call:
    def call() -> object:
        values = zip(flat[::2], flat[1::2], strict=True)
        return dumps({key.decode(): loads(value) for key, value in values})

    return call


def spellings(values: ModuleType, state: bytes) -> Call:
    flat = compiled.split(state).flat()
    return lambda: values.spellings(flat)


def parsed_spellings(
    loads: Callable[[bytes], Any], dumps: Callable[[Any], object], state: bytes
) -> Call:
    return lambda: dumps(loads(state))


def json_dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
LIBRARIES: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], object]]] = {
    "orjson": (orjson.loads, orjson.dumps),
    "msgspec": (msgspec.json.decode, msgspec.json.encode),
    "json": (json.loads, json_dumps),
}
SORTING: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], object]]] = {
    "orjson": (orjson.loads, lambda value: orjson.dumps(value, option=orjson.OPT_SORT_KEYS)),
    "msgspec": (msgspec.json.decode, msgspec.json.Encoder(order="sorted").encode),
    "json": (json.loads, lambda value: json.dumps(value, sort_keys=True).encode()),
}


def tasks(sample: Case) -> Iterator[tuple[str, dict[str, Call]]]:
    flat = compiled.split(sample.state).flat()
    kernels = {"kernel": compiled, "twin": pure}
    raw = {"msgspec Raw": (raw_members.decode, msgspec.json.encode)}
    libraries = LIBRARIES | raw
    yield (
        "commit",
        (
            {name: commits(kernel, sample) for name, kernel in kernels.items()}
            | {
                name: parsed_commits(loads, dumps, sample)
                for name, (loads, dumps) in LIBRARIES.items()
            }
        ),
    )
    yield (
        "diff",
        (
            {name: diffs(kernel, sample) for name, kernel in kernels.items()}
            | {name: parsed_diffs(loads, sample) for name, (loads, _) in libraries.items()}
        ),
    )
    yield (
        "load",
        (
            {name: (lambda k=kernel: k.render_pairs(flat)) for name, kernel in kernels.items()}
            | {name: parsed_loads(loads, dumps, flat) for name, (loads, dumps) in LIBRARIES.items()}
        ),
    )
    for task, state in (
        ("canonical", canonical.canonical(sample.state)),
        ("respelled", sample.state),
    ):
        values = {"kernel": canonical, "twin": _canonical_py}
        yield (
            task,
            (
                {name: spellings(module, state) for name, module in values.items()}
                | {name: parsed_spellings(*codec, state) for name, codec in SORTING.items()}
            ),
        )


# ### Measuring ###


def repeats(call: Call, seconds: float) -> int:
    """How often the call fits into one round."""
    call()
    start = time.perf_counter()
    call()
    return max(1, int(seconds / ROUNDS / max(time.perf_counter() - start, 1e-7)))


def measure(calls: dict[str, Call], seconds: float) -> dict[str, list[float]]:
    """Microseconds a call, by round. All contenders take turns, so a slow moment hits all."""
    counts = {name: repeats(call, seconds) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - start) / counts[name] * 1e6)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, quartile spread and best round in us; how many times the kernel is faster."""
    base = statistics.median(times["kernel"])
    result = {}
    for name, rounds in times.items():
        low, middle, high = statistics.quantiles(rounds, n=4)
        result[name] = {
            "us": middle,
            "spread_us": high - low,
            "best_us": min(rounds),
            "ratio": middle / base,
            "best_ratio": min(rounds) / min(times["kernel"]),
        }
    return result


def show(task: str, sample: Case, found: dict[str, dict[str, float]]) -> None:
    print(f"\n{task}: {sample.name}")
    print("                 median us  spread    ratio  |   best us   ratio")
    for name, row in found.items():
        typical = f"{row['us']:10.2f} {row['spread_us']:7.2f} {row['ratio']:7.1f}x"
        print(f"  {name:12} {typical}  | {row['best_us']:9.2f} {row['best_ratio']:6.1f}x")


def machine() -> dict[str, str]:
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "commit": head.stdout.strip(),
        "orjson": orjson.__version__,
        "msgspec": msgspec.__version__,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each contender of a task")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for keys in SIZES:
        sample = case(keys)
        for task, calls in tasks(sample):
            found = summary(measure(calls, options.seconds))
            results.append({"task": task, "document": sample.name, "results": found})
            show(task, sample, found)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "runs": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
