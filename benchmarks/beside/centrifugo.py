"""How Centrifugo is obtained: see peers/centrifugo/README.md."""

import os
import shutil
import subprocess
from pathlib import Path

from harness.servers import PEERS

VERSION = "v6.9.1"
MODULE = "github.com/centrifugal/centrifugo/v6"
CONFIG = PEERS / "centrifugo/config.json"
BUILT = PEERS.parent.parent / "build" / f"centrifugo-{VERSION}"
BUILD_SECONDS = 1200


def obtain(build: bool) -> tuple[Path | None, str]:
    """The binary, or None and the reason.

    Args:
        build: compile it when it is not there, which takes some minutes.
    """
    named = os.environ.get("CENTRIFUGO")
    if named:
        return (Path(named), "") if Path(named).is_file() else (None, f"CENTRIFUGO: no {named}")
    binary = BUILT / "centrifugo"
    if binary.exists():
        return binary, ""
    go = shutil.which("go")
    if not go:
        return None, "no Go: Centrifugo was not measured"
    if not build:
        return None, "Centrifugo is not built (`make bench-peers` does that) and was not measured"
    return _install(go, binary)


def _install(go: str, binary: Path) -> tuple[Path | None, str]:
    env = {**os.environ, "GOBIN": str(BUILT)}
    try:
        command = [go, "install", f"{MODULE}@{VERSION}"]
        subprocess.run(command, env=env, check=True, timeout=BUILD_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"Centrifugo did not build (no module proxy?) and was not measured: {error}"
    return binary, ""
