"""Merging: kernel, pure twin and parsing libraries, side by side in one run.

Tasks, on documents of `_data.py`:

* `diff`: two states of 16 KiB, three keys differ; one is a reply of HGETALL, as a resolution reads
  it, the other is a text that came in. `Doc.from_flat`, `split` and `Doc.diff`, against parsing
  everything and comparing the dicts.
* `merge3`: the same with an imprint of each of the three old values.
* `merge_patch`: a JSON Merge Patch of three members onto one object of 1 or 16 KiB, against parsing
  both, RFC 7396 on dicts, and dumping.
* `compose`: change sets of 3 and of 100 keys, half of them the same, against dicts.

What the numbers do not show: the kernel validates what it reads (I-JSON, no name twice), and orjson
does not look for repeated names. Results of the libraries are Python objects where the kernel's
are bytes; for `merge_patch` both end as bytes. Times are those of a shared machine: trust the
ratios.

    python benchmarks/bench_merge.py [--json FILE] [--seconds 0.2]
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from _data import Case, case, dump, state
from bench_document import LIBRARIES, Call, machine, measure, show, summary
from syncbridge.kernels import _document_py, _merge_py
from syncbridge_core import document, merge
from syncbridge_core.canonical import imprint

Kernel = tuple[ModuleType, ModuleType]
KERNELS: dict[str, Kernel] = {"kernel": (document, merge), "twin": (_document_py, _merge_py)}
CODECS = {name: LIBRARIES[name] for name in ("orjson", "json")}


def diffs(kernel: Kernel, sample: Case) -> Call:
    documents = kernel[0]
    flat = documents.split(sample.state).flat()
    return lambda: documents.Doc.from_flat(flat, 1, "").diff(documents.split(sample.target))


def parsed_diffs(loads: Any, sample: Case) -> Call:
    flat = document.split(sample.state).flat()

    def call() -> object:
        values = zip(flat[::2], flat[1::2], strict=True)
        ours, theirs = {key.decode(): loads(value) for key, value in values}, loads(sample.target)
        sets = {k: v for k, v in theirs.items() if k not in ours or ours[k] != v}
        return sets, [k for k in ours if k not in theirs]

    return call


def three_way(kernel: Kernel, sample: Case) -> Call:
    documents, merging = kernel
    doc = documents.Doc.from_flat(documents.split(sample.state).flat(), 1, "")
    base = {key: imprint(b'"older"') for key in sample.changes[::2]}
    return lambda: merging.merge3(doc, documents.split(sample.target), base, True)


def patches(kernel: Kernel, value: bytes, patch: bytes) -> Call:
    return lambda: kernel[1].merge_patch(value, patch)


def parsed_patches(codec: tuple[Any, Any], value: bytes, patch: bytes) -> Call:
    loads, dumps = codec
    return lambda: dumps(patched(loads(value), loads(patch)))


def patched(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2 on values, in place."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = patched(target.get(name), value)
    return target


def change_sets(size: int) -> tuple[tuple[list[bytes], list[bytes]], ...]:
    keys = [b"key.%d" % n for n in range(2 * size)]
    first = [part for key in keys[:size] for part in (key, b"1")]
    second = [part for key in keys[size // 2 : size // 2 + size] for part in (key, b"2")]
    return (first, keys[-1:]), (second, keys[:1])


def dict_compose(first: Any, second: Any) -> object:
    merged = {}
    for sets, deletes in (first, second):
        merged.update(dict.fromkeys(deletes))
        merged.update(zip(sets[::2], sets[1::2], strict=True))
    return merged


def tasks() -> Iterator[tuple[str, str, dict[str, Call]]]:
    sample = case(200)
    ours = {name: diffs(kernel, sample) for name, kernel in KERNELS.items()}
    theirs = {name: parsed_diffs(loads, sample) for name, (loads, _) in CODECS.items()}
    yield "diff", sample.name, ours | theirs
    ours = {name: three_way(kernel, sample) for name, kernel in KERNELS.items()}
    yield "merge3", sample.name, ours
    for keys in (12, 200):
        value = dump(state(keys))
        names = list(state(keys))
        patch = dump({names[1]: None, names[-1]: {"id": 5, "tags": None}, "new": "value"})
        ours = {name: patches(kernel, value, patch) for name, kernel in KERNELS.items()}
        theirs = {name: parsed_patches(codec, value, patch) for name, codec in CODECS.items()}
        yield "merge_patch", f"{keys} members, {len(value) / 1024:.1f} KiB", ours | theirs
    for keys in (3, 100):
        first, second = change_sets(keys)
        calls: dict[str, Call] = {
            name: (lambda k=kernel[1], a=first, b=second: k.compose(a, b))  # type: ignore[misc]
            for name, kernel in KERNELS.items()
        }
        calls["dict, unpacked"] = lambda a=first, b=second: dict_compose(a, b)  # type: ignore[misc]
        yield "compose", f"{keys} keys each", calls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each contender of a task")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for task, name, calls in tasks():
        found = summary(measure(calls, options.seconds))
        results.append({"task": task, "document": name, "results": found})
        show(task, Case(name, b"", b"", []), found)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "runs": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
