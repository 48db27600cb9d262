"""Records when other machines had our cores, so their cost is not attributed to ours.

Theory. The hypervisor of a rented machine stops a core for some 20 ms at a time. `stolen` measures
again when the kernel counted much of that; where it is a per cent or more at all hours, there is no
better attempt to wait for. So here the stops themselves are seen, each with its time
(`peers/stalls`), and what is measured comes in pieces: a piece during which a core stood still is
kept apart. Nothing else is: a piece is judged by the watcher alone, before its result is looked at,
and what all pieces together give is reported beside.
"""

import bisect
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep

from harness.process import CORES

LEAST_US = 1_000
"""A shorter stop is part of what is measured."""
START_SECONDS = 5.0
SOURCE = Path(__file__).resolve().parent.parent / "peers/stalls/stalls.c"


class Stalls:
    """Stops of the two cores. Times in seconds of `time.perf_counter`.

    Attributes:
        known: whether they are watched; the system may not allow it.
    """

    def __init__(self, outputs: list[Path]) -> None:
        self.known = bool(outputs)
        self._outputs = outputs

    def seen(self) -> "Seen":
        """All stops until now."""
        found: list[tuple[float, float]] = []
        for output in self._outputs:
            lines = output.read_text().splitlines()[1:]
            pairs = (line.split() for line in lines if line.count(" ") == 1)
            found += [(int(begin) / 1e9, int(end) / 1e9) for begin, end in pairs]
        return Seen(sorted(found))


class Seen:
    """Stops, in order."""

    def __init__(self, stops: list[tuple[float, float]]) -> None:
        self._stops = stops
        self._begins = [begin for begin, _ in stops]
        self._longest = max((end - begin for begin, end in stops), default=0.0)

    def during(self, begin: float, end: float) -> bool:
        """Whether a core stood still between two times. O(log stops + stops near them)."""
        at = bisect.bisect_left(self._begins, end)
        while at and self._begins[at - 1] > begin - self._longest:
            at -= 1
            if self._stops[at][1] > begin:
                return True
        return False


@contextmanager
def watched() -> Iterator[Stalls]:
    """Watch both cores while the block runs, where there is a compiler and it is allowed."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        outputs: list[Path] = []
        binary = _built(Path(folder))
        if binary is not None:
            outputs = [Path(folder) / f"core{core}" for core in CORES]
            for core, output in zip(CORES, outputs, strict=True):
                stack.enter_context(_watcher(binary, core, output))
        known = bool(outputs) and all(one.read_text().startswith("ready") for one in outputs)
        yield Stalls(outputs if known else [])


def _built(folder: Path) -> Path | None:
    binary = folder / "stalls"
    try:
        subprocess.run(["cc", "-O2", "-o", str(binary), str(SOURCE)], check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return binary


@contextmanager
def _watcher(binary: Path, core: int, output: Path) -> Iterator[None]:
    with output.open("wb") as stream:
        process = subprocess.Popen([str(binary), str(core), str(LEAST_US)], stdout=stream)
    try:
        deadline = monotonic() + START_SECONDS
        while not output.stat().st_size and process.poll() is None and monotonic() < deadline:
            sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()
