"""The types of settings: how a text of the environment becomes a value, and what is refused."""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from syncbridge_server.durations import parse_duration
from syncbridge_server.redis.link.urls import require_port


def words(value: Any) -> Any:
    """A tuple of what commas separate."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


def seconds(value: Any) -> Any:
    """Seconds of a duration such as `15s`."""
    return parse_duration(value) if isinstance(value, str) else value


def root_path(value: str) -> str:
    """`/a/b`, however many slashes stand around it; empty: none. Raises ValueError."""
    path = value.strip("/")
    segments = path.split("/")
    if path and not all(re.fullmatch(r"(?!\.+$)[A-Za-z0-9._~-]+", one) for one in segments):
        raise ValueError("write a path such as /sync, of letters, digits, -, ., _ and ~")
    return f"/{path}" if path else ""


def public_url(value: str) -> str:
    """An http or https URL without a slash at its end. Raises ValueError."""
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("write an http:// or https:// URL")
    require_port(parts)
    return value.rstrip("/")


def file_mode(value: str) -> str:
    """Permissions in octal digits, or empty. Raises ValueError."""
    if value and not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError("write permissions in octal digits, such as 0660")
    return value


def pointer(value: str) -> str:
    """The name of a claim, or a JSON pointer (RFC 6901). Raises ValueError."""
    if value.startswith("/") and re.search(r"~(?![01])", value):
        raise ValueError("in a JSON pointer, ~ is written ~0 and / within a name ~1")
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(words)]
Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=31_622_400)]
SecondsOrZero = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=31_622_400)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0, le=2**31 - 1)]
Bytes = Annotated[int, Field(gt=0, le=2**30)]
Claim = Annotated[str, AfterValidator(pointer)]
FileMode = Annotated[str, AfterValidator(file_mode)]
RootPath = Annotated[str, AfterValidator(root_path)]
Url = Annotated[str, AfterValidator(public_url)]


def named(name: str, default: Any, text: str) -> Any:
    """A field whose variable has no prefix."""
    return Field(default, validation_alias=name, description=text)


def var(default: Any, text: str, **bounds: Any) -> Any:
    """A field; its variable is its name with `SYNCBRIDGE_` in front."""
    return Field(default, description=text, **bounds)


RATES = (
    "messages_per_second",
    "message_burst",
    "flood_messages",
    "user_messages_per_second",
    "user_message_burst",
    "user_joins_per_second",
    "user_join_burst",
    "device_joins_per_minute",
    "device_join_burst",
    "user_sockets",
    "user_sessions",
    "user_bytes",
    "requests_per_second",
    "request_burst",
    "handshakes_per_second",
    "handshake_burst",
    "unauthenticated_per_address",
)
"""Settings that `SYNCBRIDGE_RATE_LIMIT_ENABLED` turns on and off."""
