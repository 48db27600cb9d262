"""What the load generator measures of a server's processes."""

import os
import subprocess
import sys
import time

import pytest

from syncbridge_tools.bench.usage import Usage, cpu_seconds, family, sample

CHILD = """
import subprocess, sys
inner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(inner.pid, flush=True)
input()
inner.kill()
inner.wait()
"""


def test_difference_of_two_samples() -> None:
    """Every column on its own; memory may shrink."""
    assert Usage(2.0, -5, 7) == Usage(3.0, 5, 17).since(Usage(1.0, 10, 10))


def test_work_shows_as_cpu_time() -> None:
    """A process that computes uses more of it than before, and has memory of its own."""
    before = sample(os.getpid())
    until = time.process_time() + 0.05
    while time.process_time() < until:
        sum(range(1000))
    used = sample(os.getpid()).since(before)

    assert used.cpu > 0
    assert before.pss > 1_000_000
    assert 0 < before.private <= before.pss
    assert before.cpu <= cpu_seconds(os.getpid())


def test_descendants_are_counted_too() -> None:
    """A supervisor's workers belong to the server; so do theirs."""
    outer = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert outer.stdin is not None
    assert outer.stdout is not None
    with outer:
        inner = int(outer.stdout.readline())
        found = family(outer.pid)
        together = sample(outer.pid).pss
        alone = sample(inner).pss
        outer.stdin.write(b"\n")
        outer.stdin.close()

    assert [outer.pid, inner] == found
    assert together > alone > 0


def test_a_process_that_is_gone_has_no_usage() -> None:
    """The caller is told, not given zeros."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    with pytest.raises(OSError, match=str(gone.pid)):
        sample(gone.pid)
