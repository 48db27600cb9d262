"""The README's commands, as they stand there, on a Debian that has nothing.

    sudo python3 scripts/bare_debian.py [--suite trixie] [--mirror URL] [--tests "pytest arguments"]

debootstrap makes the system in a temporary folder, from the archive that this machine's apt is
configured with. A user who has the packages that the README names clones the last commit, runs
`make run`, pastes the first try into a second terminal, ends the server with Ctrl-C, and runs
`make test` on a part of the tests. Port 8080 must be free.

What runs there lives in mount and process namespaces of its own, held open by one process. When it
ends, so do all of them, and nothing stays mounted; then the folder is removed.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
USER = "ann"
CLONE = f"/home/{USER}/syncbridge"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PORT = 8080
LISTENING = f"listening on http://127.0.0.1:{PORT}"
TESTS = (
    "tests/kernels tests/contract tests/fault/store/test_redis_embedded.py tests/test_examples.py"
)
STEP_SECONDS = 1200.0
STOP_SECONDS = 60.0
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
TAKEN = ("/etc/hosts", "/etc/resolv.conf", "/etc/pip.conf", CERTIFICATES)
"""Files by which this machine reaches the archives; they are copied there."""
PASSED_ON = ("PIP_", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Variables likewise; proxies are passed on as well."""


class Failed(Exception):
    """Something else came than the README says; the text says what."""


def blocks(title: str, language: str) -> list[str]:
    """The code blocks in one language below a heading of the README."""
    found = re.search(rf"^## {title}\n(.*?)^## ", README, re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```$", found[1], re.M | re.S) if found else []


def packages() -> str:
    """What the README says to install on Debian."""
    found = re.search(r"`apt install ([a-z0-9 .+-]+)`", README)
    if found is None:
        raise Failed("README.md does not say what to install on Debian")
    return found[1]


def archive() -> str:
    """The Debian archive that this machine's apt is configured with."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"]
    listed = subprocess.run([*command, "Created-By: Packages"], capture_output=True, text=True)
    for origin, _, address in (line.partition(" ") for line in listed.stdout.splitlines()):
        if origin == "Debian" and address.rstrip("/").endswith("/debian"):
            return address
    raise Failed("apt knows no Debian archive here: run apt-get update, or name a --mirror")


def variables() -> dict[str, str]:
    """What the user's shell has; nothing else of this machine's environment."""
    own = {"HOME": f"/home/{USER}", "USER": USER, "PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb"}
    return own | {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(PASSED_ON) or name.lower().endswith("_proxy"))
        and not os.path.isdir(value)
    }


def listening() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def wait(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Return when a condition is true; raise Failed after some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class System:
    """A Debian in a folder, with processes and mounts of its own."""

    def __init__(self, folder: Path, suite: str, mirror: str) -> None:
        self.folder = folder
        make = ["debootstrap", "--variant=minbase", suite, str(folder), mirror]
        done = subprocess.run(make, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failed(f"debootstrap: {done.stdout[-2000:]}")
        dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
        proxies = re.findall(r"^Acquire::\S*Proxy.*$", dumped, re.M)
        (folder / "etc/apt/apt.conf.d/90proxy").write_text("\n".join([*proxies, ""]))
        self._holder = self._hold()

    def _hold(self) -> "subprocess.Popen[bytes]":
        then = f"mount -t tmpfs tmpfs '{self.folder}/dev/shm' && echo ready && exec sleep infinity"
        spaces = ["--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.folder}/proc"]
        holder = subprocess.Popen(["unshare", *spaces, "sh", "-c", then], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            raise Failed("no namespaces can be made here: this needs root")
        return holder

    def close(self) -> None:
        """End everything that runs there; the mounts go with the last process."""
        self._holder.kill()
        self._holder.wait(STOP_SECONDS)

    def take(self) -> None:
        """Give it this machine's way to the archives, as far as it has one of its own."""
        for name in TAKEN:
            target = self.folder / name.lstrip("/")
            if os.path.isfile(name):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                shutil.copy(name, target)

    def command(self, script: str, user: str, folder: str) -> list[str]:
        """A shell script there, as somebody, from a folder."""
        holder = self._holder.pid
        inside = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()[0]
        enter = ["nsenter", f"--target={inside}", "--mount", "--pid", "--"]
        chroot = ["chroot", f"--userspec={user}:{user}", str(self.folder)]
        told = [f"{name}={value}" for name, value in variables().items()]
        shell = ["bash", "-euo", "pipefail", "-c", f"cd {folder}\n{script}"]
        return [*enter, *chroot, "env", "-i", *told, *shell]

    def run(self, script: str, user: str = USER, folder: str = CLONE) -> str:
        """Run a script; its standard output, which is also shown. Raises Failed."""
        print(f"\n{user}$ {script.strip()}", flush=True)
        began, command = time.monotonic(), self.command(script, user, folder)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=STEP_SECONDS)
        print(done.stdout, f"({time.monotonic() - began:.0f} s)", sep="", flush=True)
        if done.returncode:
            raise Failed(f"exit code {done.returncode} from {script.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def terminal(self, script: str, says: str) -> Iterator[None]:
        """A terminal of the user in which something runs that has said so; Ctrl-C in the end."""
        print(f"\n{USER}$ {script.strip()}", flush=True)
        began, log = time.monotonic(), self.folder.with_name("terminal.log")
        with log.open("wb") as output:
            shell = subprocess.Popen(
                self.command(script, USER, CLONE),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait(lambda: says in log.read_text() or shell.poll() is not None, says, STEP_SECONDS)
            print(log.read_text(), f"({time.monotonic() - began:.0f} s)", sep="", flush=True)
            if shell.poll() is not None:
                raise Failed(f"exit code {shell.returncode} from {script.strip()}")
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGINT)
            shell.wait(STOP_SECONDS)


@contextlib.contextmanager
def debian(suite: str, mirror: str) -> Iterator[System]:
    """A new system; nothing is left of it afterwards."""
    with tempfile.TemporaryDirectory(prefix="bare-debian-", dir="/var/tmp") as folder:
        system = System(Path(folder, "root"), suite, mirror)
        try:
            yield system
        finally:
            system.close()
            mounted = Path("/proc/mounts").read_text()
            assert folder not in mounted, f"still mounted below {folder}"


def install(system: System) -> None:
    """A user, the packages that the README names, and a clone of the last commit."""
    system.run("apt-get -qq update", "root", "/")
    quiet = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes"
    system.run(f"{quiet} {packages()} > /dev/null 2>&1", "root", "/")
    system.run(f"useradd --create-home --shell /bin/bash {USER}", "root", "/")
    system.take()
    inside = system.folder / CLONE.lstrip("/")
    subprocess.run(["git", "clone", "--quiet", "--no-local", ROOT, inside], check=True)
    system.run(f"chown -R {USER}:{USER} {CLONE}", "root", "/")
    system.run("python3 -VV; git log -1 --format='%h %s'; ! command -v redis-server valkey-server")


def first_try(system: System) -> None:
    """Serve in one terminal, try in another: what is shown is what the README shows."""
    serve, attempt = blocks("Try it", "sh")
    (promised,) = blocks("Try it", "text")
    if listening():
        raise Failed(f"port {PORT} is in use; the README's commands need it")
    with system.terminal(serve, LISTENING):
        shown = system.run(attempt)
        if shown.strip() != promised.strip():
            raise Failed(f"the README promises:\n{promised}")
        again = system.run(attempt)
        if "joined at version 1" not in again:
            raise Failed("the session is not there the second time")
    wait(lambda: not listening(), "Ctrl-C ends the server", STOP_SECONDS)


def test(system: System, tests: str) -> str:
    """`make test` on a part of the tests; pytest's last line."""
    (command,) = blocks("Test it", "sh")
    output = system.run(f'{command.strip()} ARGS="-q {tests}"')
    return output.strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--suite", default="trixie", help="Debian's name for the release")
    parser.add_argument("--mirror", help="default: the archive of this machine's apt")
    parser.add_argument("--tests", default=TESTS, help="what make test is given as ARGS")
    told = parser.parse_args()
    began = time.monotonic()
    try:
        with debian(told.suite, told.mirror or archive()) as system:
            install(system)
            first_try(system)
            tested = test(system, told.tests)
    except (Failed, subprocess.SubprocessError, OSError) as failure:
        print(f"bare Debian: FAILED: {failure}", file=sys.stderr)
        return 1
    print(f"bare Debian: serves, shows what the README shows, ends; tests: {tested}")
    print(f"bare Debian: done in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
