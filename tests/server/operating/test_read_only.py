"""The server as containers run it: another user without rights, and nothing writable.

No container engine is needed: a user and a mount namespace make the same. Every file system is
read-only there; one tmpfs takes what a container's /tmp and data directory take.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.redis_servers import RedisServer
from support.server_kit import bearer, mint, new_session, server_process
from support.source_tree import ROOT

USER = "10001"
"""As in the Dockerfile."""
READ_ONLY = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$TMPDIR"
while read -r _ point _; do
    case "$point" in /proc|/proc/*|/sys|/sys/*|/dev|/dev/*|"$TMPDIR") continue ;; esac
    mount -o remount,bind,ro "$point" 2> "$TMPDIR/refused" || true
done < /proc/self/mounts
if touch "$SOURCES/written" "$TMPDIR/../written" 2> "$TMPDIR/refused"; then exit 3; fi
exec setpriv --inh-caps=-all --ambient-caps=-all --no-new-privs "$@"
"""
NAMESPACE = (
    *("unshare", "--user", f"--map-user={USER}", f"--map-group={USER}", "--mount", "--keep-caps"),
    *("sh", "-euc", READ_ONLY, "sh"),
)


@pytest.fixture
def told(tmp_path: Path) -> dict[str, str]:
    """What is writable there; skips where no such namespaces can be made."""
    (writable := tmp_path / "writable").mkdir()
    told = {"TMPDIR": str(writable), "SOURCES": str(ROOT)}
    told["SYNCBRIDGE_DATA_DIR"] = str(writable / "data")
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("util-linux is not here")
    tried = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", "pass"],
        env=os.environ | told, capture_output=True, text=True,
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"no such namespaces here: {tried.returncode} {tried.stderr[-300:]}")
    return told


def test_serves_without_rights_on_a_file_system_that_is_read_only(
    told: dict[str, str], tmp_path: Path
) -> None:
    """A state is written and read, and the stop is clean."""
    session = new_session()
    body = {"session_id": session, "user_id": "ann", "device_id": "d", "app_version": "1"}
    body |= {"version": 0, "state_data": {"a": 1}}
    with RedisServer(tcp=True) as redis:
        url = f"redis://127.0.0.1:{redis.port}"
        with server_process(tmp_path, url, within=NAMESPACE, **told) as server:
            with httpx.Client(base_url=server.url, headers=bearer(mint("ann")), timeout=60) as http:
                written = http.post("/session/snapshot", json=body)
                read = http.get(f"/session/{session}")
            process = Path(f"/proc/{server.popen.pid}")
            status, users = (process / "status").read_text(), (process / "uid_map").read_text()
            ended = server.terminate()
    fields = dict(line.split(":\t", 1) for line in status.split("\n") if ":\t" in line)

    assert (201, {"a": 1}) == (written.status_code, read.json()["state_data"])
    assert [USER, str(os.getuid()), "1"] == users.split()
    assert ["0" * 16] * 3 == [fields[f"Cap{name}"] for name in ("Prm", "Eff", "Amb")]
    assert "1" == fields["NoNewPrivs"]
    assert 0 == ended
