"""Run tests many times and say which of them fail at times: repeat.py RUNS [pytest arguments].

Every run is a process of its own, also after a failure. Exit code 1 when a test failed in any run.
The output of a run that failed is kept in build/repeat/.
"""

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path

KEPT = Path("build/repeat")


def failed(report: Path) -> list[str]:
    """The tests that a JUnit report calls failed or broken."""
    cases = xml.parse(report).iter("testcase") if report.exists() else []
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


def run(number: int, arguments: list[str]) -> list[str]:
    """What failed in one run."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wrong = failed(report)
    if done.returncode:
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{number}.log").write_text(done.stdout)
        wrong = wrong or [f"the run itself, exit code {done.returncode}"]
    print(f"run {number}: {done.stdout.strip().splitlines()[-1]}", flush=True)
    return wrong


def main(runs: int, arguments: list[str]) -> int:
    began, counts = time.monotonic(), Counter[str]()
    for number in range(1, runs + 1):
        counts.update(run(number, arguments))
    for name, times in counts.most_common():
        print(f"{name}: failed in {times} of {runs} runs; output in {KEPT}/")
    print(f"{runs} runs in {time.monotonic() - began:.0f} s, {len(counts)} tests failed at times")
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
