"""Secrets that development makes for itself, kept in the data directory between runs.

One JSON file, readable by its owner only, written whole before it gets its name: two processes
that start at once agree on the secrets of whichever linked its file first.
"""

import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from syncbridge_server.settings import ConfigError, Settings

FILE_NAME = "secrets.json"


class DevSecrets(NamedTuple):
    """The two secrets, hexadecimal."""

    jwt_secret: str
    jwt_refresh_secret: str


def read_secrets(data_dir: str) -> DevSecrets | None:
    """The kept secrets, or None when there are none. Raises ConfigError for a broken file."""
    path = Path(data_dir) / FILE_NAME
    try:
        values: Any = json.loads(path.read_text("utf-8"))
        found = DevSecrets(values["jwt_secret"], values["jwt_refresh_secret"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{path} is damaged; delete it to get new secrets") from None
    if not all(isinstance(secret, str) and secret for secret in found):
        raise ConfigError(f"{path} is damaged; delete it to get new secrets")
    return found


def keep_secrets(data_dir: str) -> DevSecrets:
    """The kept secrets, made first when there are none. Raises ConfigError."""
    found = read_secrets(data_dir)
    if found is None:
        try:
            _write(Path(data_dir), DevSecrets(secrets.token_hex(32), secrets.token_hex(32)))
        except OSError as error:
            raise ConfigError(f"cannot write to {data_dir}: {error.strerror}") from None
        found = read_secrets(data_dir)
    if found is None:
        raise ConfigError(f"the secrets in {data_dir} disappeared while they were being read")
    return found


def with_dev_secrets(settings: Settings, create: bool) -> Settings:
    """Settings whose unset JWT secrets come from the file; `create` makes it when it is missing."""
    have = (settings.jwt_secret, settings.jwt_refresh_secret)
    if all(secret.get_secret_value() for secret in have):
        return settings
    found = keep_secrets(settings.data_dir) if create else read_secrets(settings.data_dir)
    if found is None:
        return settings
    return settings.with_values(
        jwt_secret=settings.jwt_secret.get_secret_value() or found.jwt_secret,
        jwt_refresh_secret=settings.jwt_refresh_secret.get_secret_value()
        or found.jwt_refresh_secret,
    )


def _write(directory: Path, values: DevSecrets) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=directory, prefix=FILE_NAME)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(values._asdict(), file)
        os.link(name, directory / FILE_NAME)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
