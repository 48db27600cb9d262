"""What the figures were measured on: processor, kernel, versions, commit."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("trio", "hypercorn", "starlette", "redis", "msgspec")


def describe() -> dict[str, str]:
    """Names and values, for a table."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "Redis": _first_line("redis-server", "--version"),
        "Go": _first_line("go", "version"),
        "C compiler": _first_line("cc", "--version"),
        "commit": _commit(),
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    commit = _first_line("git", "rev-parse", "--short", "HEAD")
    return f"{commit}, with changes" if _first_line("git", "diff", "--stat", "HEAD") else commit


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    here = Path(__file__).parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=30)
    return done.stdout.partition("\n")[0].strip()
