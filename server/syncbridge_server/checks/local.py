"""What can be checked on this machine alone: files, ports, descriptors."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from syncbridge_server.auth.audit import STANDARD_OUTPUT
from syncbridge_server.checks.findings import Finding, Level
from syncbridge_server.configuration.files import DOTENV, TOML
from syncbridge_server.descriptors import fitting, raised_limit, wanted
from syncbridge_server.environment import CONFIG
from syncbridge_server.listener.bind import bind
from syncbridge_server.redis.link.embedded import SUN_PATH_BYTES
from syncbridge_server.settings import ConfigError, Settings


def check_files() -> Iterator[Finding]:
    """Whether others may read the files of settings, which may hold secrets."""
    for path in (DOTENV, os.environ.get(CONFIG) or TOML):
        if Path(path).is_file():
            mode = stat.S_IMODE(os.stat(path).st_mode)
            open_to_all = bool(mode & stat.S_IROTH)
            text = f"{path} is readable by everybody: chmod 600" if open_to_all else path
            yield Finding("files", Level.WARNING if open_to_all else Level.OK, text)


def check_written(settings: Settings) -> Iterator[Finding]:
    """Whether the files that a server writes could be written; nothing is made."""
    places = {"SYNCBRIDGE_AUDIT_LOG": settings.audit_log.removeprefix(STANDARD_OUTPUT)}
    if not settings.redis_addr:  # the folder is made, with those above it
        places["SYNCBRIDGE_DATA_DIR"] = os.path.join(_there(settings.data_dir), "redis.lock")
    for name, path in places.items():
        reason = _unwritable(path) if path else ""
        if reason:
            yield Finding("files", Level.FAILED, f"{name}: {path}: {reason}")


def _there(folder: str) -> str:
    """A folder, or the nearest one above it that is there."""
    path = os.path.abspath(folder)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _unwritable(path: str) -> str:
    """Why a file could not be written, or made; empty when it could."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        return os.strerror(errno.EISDIR)
    if not os.path.isdir(folder):
        return os.strerror(errno.ENOTDIR if os.path.lexists(folder) else errno.ENOENT)
    there = os.path.exists(path)
    allowed = os.access(path, os.W_OK) if there else os.access(folder, os.W_OK | os.X_OK)
    return "" if allowed else "may not be written"


def _require_socket(path: str) -> None:
    """Raise OSError where no unix socket could be made. One that is there is not touched."""
    reason = ""
    if len(os.fsencode(path)) > SUN_PATH_BYTES:
        reason = "AF_UNIX path too long"
    elif os.path.isfile(path):
        reason = os.strerror(errno.EADDRINUSE)
    elif os.path.isdir(path) or not os.path.exists(path):
        reason = _unwritable(path)
    if reason:
        raise OSError(errno.EINVAL, f"cannot listen on unix:{path}: {reason}")


def check_ports(settings: Settings) -> Finding:
    """Whether the addresses can be listened on now."""
    # To bind a unix socket is to replace the one of a server that runs.
    all_of_them = (*settings.listen_addresses(), *settings.admin_addresses())
    addresses = [str(address) for address in all_of_them if not address.path]
    try:
        for address in all_of_them:
            if address.path:
                _require_socket(address.path)
        for sock in bind(addresses):
            sock.close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return Finding("ports", Level.FAILED, str(reason))
    return Finding("ports", Level.OK, ", ".join(addresses) or "unix sockets are not tried")


def check_descriptors(settings: Settings) -> Finding:
    """Whether the limit of descriptors allows what the bounds do."""
    need = wanted(settings)
    limit = raised_limit(need)
    try:
        lowered = fitting(settings, limit)
    except ConfigError as error:
        return Finding("descriptors", Level.FAILED, str(error))
    if not lowered:
        return Finding("descriptors", Level.OK, f"ulimit -n {limit}")
    most = lowered["max_connections"]
    text = f"ulimit -n is {limit}, {need} are needed: SYNCBRIDGE_MAX_CONNECTIONS is lowered to"
    return Finding("descriptors", Level.WARNING, f"{text} {most}")
