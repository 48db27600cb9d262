"""Reads fields of a provider's answers. A malformed answer counts as a provider failure."""

from typing import Any

from syncbridge.voice.provider.errors import ProviderUnavailable

MAX_TEXT = 16_384
LARGEST = 1e300


def text(body: dict[str, Any], name: str) -> str:
    """A required, non-empty text field. Raises ProviderUnavailable."""
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise ProviderUnavailable(f"the provider's answer has no {name}")
    return value


def entries(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A required list of objects. Raises ProviderUnavailable."""
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ProviderUnavailable(f"the provider's answer has no list of {name}")
    return value


def count(body: dict[str, Any], name: str) -> int | None:
    """A non-negative integer, or None."""
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if value >= 0 else None


def figure(body: dict[str, Any], name: str) -> float | None:
    """A finite number, or None."""
    value = body.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < LARGEST else None
