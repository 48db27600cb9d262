"""Settings as they are given: from the environment and from files."""

import os
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from syncbridge_server.configuration.files import FileValue, file_values
from syncbridge_server.environment import ConfigError
from syncbridge_server.redis.link.endpoint import RedisEndpoint
from syncbridge_server.settings import Settings, variable


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and from files; `overrides`, by field, win over both.

    Raises ConfigError naming the first bad variable, and its file.
    """
    names = {variable(field): field for field in Settings.model_fields}
    _require_text(names)
    found = file_values(os.environ, names)
    values = {names[name]: value for name, value in found.items()}
    for field, (value, file) in values.items():
        if isinstance(value, bool) and Settings.model_fields[field].annotation is not bool:
            raise ConfigError(f"{variable(field)} in {file}: it is not a boolean")
    try:
        settings = Settings(**({field: v.value for field, v in values.items()} | overrides))
        field = "redis_addr"
        if settings.redis_addr:
            RedisEndpoint(settings.redis_url())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = _field(str(first["loc"][0])) if first["loc"] else ""
        where = f"{variable(field)}{_in_file(values, field)}: " if field else ""
        raise ConfigError(where + first["msg"].removeprefix("Value error, ")) from None
    except ValueError as error:
        raise ConfigError(f"REDIS_ADDR{_in_file(values, field)}: {error}") from None
    return settings


def _require_text(names: Iterable[str]) -> None:
    """Raise ConfigError for a variable with bytes that are no UTF-8."""
    for name in names:
        try:
            os.environ.get(name, "").encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{name}: not UTF-8") from None


def _field(name: str) -> str:
    """The field of a variable (also accepts what is one already)."""
    return next((field for field in Settings.model_fields if variable(field) == name), name)


def _in_file(values: dict[str, FileValue], field: str) -> str:
    return f" in {values[field].file}" if field in values else ""
