"""Settings in files of the working directory: `.env`, and below it a TOML file.

Names are those of the environment, which wins over `.env`, which wins over the TOML file:
`syncbridge.toml`, or the one that SYNCBRIDGE_CONFIG names. No error repeats what a file says.
"""

import io
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from dotenv.parser import parse_stream

from syncbridge_server.configuration.documents import MOST_BYTES
from syncbridge_server.environment import CONFIG, ConfigError, unknown_names

DOTENV = ".env"
TOML = "syncbridge.toml"
_POSITION = re.compile(r"at line \d+, column \d+|at end of document")


class FileValue(NamedTuple):
    """What a file gives a setting. `value`: text, or a number, boolean or array of TOML."""

    value: Any
    file: str


def file_values(environment: Mapping[str, str], known: Collection[str]) -> dict[str, FileValue]:
    """The settings in files that the environment does not give, by variable.

    Raises ConfigError for a file that cannot be read, and for names as `unknown_names` does; in
    TOML, where nobody else's names stand, for each that is not in `known`.
    """
    given = {name.upper() for name, value in environment.items() if value}
    dotenv = read_dotenv()
    unknown_names(dotenv, known, DOTENV)
    path = environment.get(CONFIG) or dotenv.get(CONFIG, "")
    toml = _read_toml(path or TOML, needed=bool(path))
    _refuse_unknown(toml, known, path or TOML)
    found = {name: FileValue(value, path or TOML) for name, value in toml.items()}
    found |= {name: FileValue(value, DOTENV) for name, value in dotenv.items() if value}
    for name, (value, file) in found.items():
        if any("\0" in str(word) for word in (value if isinstance(value, list) else [value])):
            raise ConfigError(f"{name} in {file} has a NUL character")
    return {
        name: value
        for name, value in found.items()
        if name in known and name not in given and value.value != ""
    }


def read_dotenv() -> dict[str, str]:
    """Names and values of `.env`; nothing when there is none. Raises ConfigError."""
    values: dict[str, str] = {}
    if not os.path.isfile(DOTENV):  # a folder of that name is somebody's virtual environment
        return values
    bindings = list(parse_stream(io.StringIO(_text(DOTENV) or "")))
    for binding in bindings:
        if binding.error or (binding.key and binding.value is None):
            text = binding.original.string  # blank lines in front of it belong to it
            line = binding.original.line + len(text) - len(text.lstrip("\r\n"))
            raise ConfigError(f"{DOTENV}, line {line}: write NAME=value")
        if binding.key:
            values[binding.key.upper()] = binding.value or ""
    return values


def _text(path: str) -> str | None:
    """What a file has after the mark that Windows puts first; None without one. ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"cannot read {path}: {reason}") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path}: more than {MOST_BYTES} bytes")
    return text


def _read_toml(path: str, needed: bool) -> dict[str, Any]:
    text = _text(path)
    if text is None and needed:
        raise ConfigError(f"{CONFIG}: no such file: {path}")
    try:
        return tomllib.loads(text or "")
    except (ValueError, RecursionError) as error:
        where = _POSITION.search(str(error)) if isinstance(error, tomllib.TOMLDecodeError) else None
        raise ConfigError(f"{path}: not TOML, {where[0] if where else 'see toml.io'}") from None


def _refuse_unknown(values: Mapping[str, Any], known: Collection[str], path: str) -> None:
    unknown_names(dict.fromkeys(map(str.upper, values), ""), known, path)
    for name, value in values.items():
        if name not in known:
            meant = f"; did you mean {name.upper()}?" if name.upper() in known else ""
            raise ConfigError(f"{name} in {path} is not a setting{meant}")
        words = isinstance(value, list) and all(isinstance(word, str) for word in value)
        if not words and not isinstance(value, str | int | float):
            raise ConfigError(f"{name} in {path}: write a string, number, boolean or strings")
