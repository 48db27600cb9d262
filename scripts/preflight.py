"""Say in one line each what this machine lacks to build SyncBridge; run before .venv is made.

Uses the standard library only, so that any Python can run it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig


def missing() -> list[str]:
    """One sentence for each thing that is not there; empty when the build can start."""
    found = []
    if sys.version_info < (3, 11):  # noqa: UP036 - the reason to be here is an older Python
        found.append(f"Python 3.11 or newer is needed; {sys.executable} is older")
    if not sys.platform.startswith("linux"):
        found.append("the socket hub uses epoll: SyncBridge runs on Linux only")
    if importlib.util.find_spec("ensurepip") is None:
        found.append("this Python cannot make environments (Debian: apt install python3-venv)")
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        found.append("Python.h is missing (Debian: apt install python3-dev)")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not (shutil.which(compiler) or shutil.which("cc")):
        found.append(f"no C compiler {compiler} on PATH (Debian: apt install gcc libc6-dev)")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(missing()) or 0)
