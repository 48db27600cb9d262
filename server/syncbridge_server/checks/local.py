"""What can be checked on this machine alone: files, ports, descriptors."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from syncbridge_server.checks.findings import Finding, Level
from syncbridge_server.configuration.files import DOTENV, TOML
from syncbridge_server.descriptors import fitting, raised_limit, wanted
from syncbridge_server.environment import CONFIG
from syncbridge_server.listener.bind import bind
from syncbridge_server.settings import ConfigError, Settings


def check_files() -> Iterator[Finding]:
    """Whether others may read the files of settings, which may hold secrets."""
    for path in (DOTENV, os.environ.get(CONFIG) or TOML):
        if Path(path).is_file():
            mode = stat.S_IMODE(os.stat(path).st_mode)
            open_to_all = bool(mode & stat.S_IROTH)
            text = f"{path} is readable by everybody: chmod 600" if open_to_all else path
            yield Finding("files", Level.WARNING if open_to_all else Level.OK, text)


def check_ports(settings: Settings) -> Finding:
    """Whether the addresses can be listened on now."""
    # To bind a unix socket is to replace the one of a server that runs.
    all_of_them = (*settings.listen_addresses(), *settings.admin_addresses())
    addresses = [str(address) for address in all_of_them if not address.path]
    try:
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
