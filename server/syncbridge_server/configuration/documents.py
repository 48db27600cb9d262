"""Files that a setting names: TOML, or JSON when the name ends in `.json`, of a bounded size."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from syncbridge_server.environment import ConfigError

MOST_BYTES = 1_048_576
T = TypeVar("T")


def read_document(path: str, where: str, kind: type[T]) -> T:
    """A file as a structure of some kind. Raises ConfigError, one line that begins with `where`."""
    data = read_bounded(path, where)
    decode: Callable[..., T]
    decode = msgspec.json.decode if path.endswith(".json") else msgspec.toml.decode
    try:
        return decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise refused(where, error) from None


def read_bounded(path: str, where: str) -> bytes:
    """The content of a file. Raises ConfigError when it cannot be read, or is too large."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{where}: more than {MOST_BYTES} bytes")
    return data


def refused(where: str, error: Exception) -> ConfigError:
    """Why what a file says cannot be used, in one line."""
    return ConfigError(f"{where}: {' '.join(str(error).split())[:300]}")
