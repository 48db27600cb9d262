"""What a server process costs: CPU time and memory, as the kernel counts them.

CPU is utime + stime of the process and of its worker processes, never of a Redis among its
children, in steps of 10 ms. Memory is what the process alone holds (Private_Clean + Private_Dirty)
and its share of shared pages (Pss), from smaps_rollup. Socket buffers are the kernel's and are in
neither.
"""

import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_STORES = ("redis-server", "valkey-server")


class Usage(NamedTuple):
    """A sample. `cpu` in seconds since the process began; sizes in bytes."""

    cpu: float
    private: int
    pss: int

    def since(self, earlier: "Usage") -> "Usage":
        """The difference of two samples."""
        return Usage(self.cpu - earlier.cpu, self.private - earlier.private, self.pss - earlier.pss)


def sample(pid: int) -> Usage:
    """The present usage of a server and its workers. Raises OSError when it is gone."""
    parts = [_sample_one(one) for one in family(pid)]
    return Usage(*(sum(column) for column in zip(*parts, strict=True)))


def cpu_seconds(pid: int) -> float:
    """Only the CPU time of one process, without reading its memory map."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def family(pid: int) -> list[int]:
    """A process and its descendants, stores left out."""
    found = [pid]
    for task in (_PROC / str(pid) / "task").iterdir():
        children = task / "children"
        for child in children.read_text().split() if children.exists() else ():
            if _name(int(child)) not in _STORES:
                found += family(int(child))
    return found


def _name(pid: int) -> str:
    return (_PROC / str(pid) / "comm").read_text().strip()


def _sample_one(pid: int) -> Usage:
    sizes = {"Private_Clean": 0, "Private_Dirty": 0, "Pss": 0}
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in sizes:
            sizes[name] = int(value.split()[0]) * 1024
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return Usage(cpu_seconds(pid), private, sizes["Pss"])
