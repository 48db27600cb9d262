"""Times as people write them: "15m" in, seconds out, and back."""

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)")
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,6})?")


def parse_duration(text: str) -> float:
    """Seconds in "90", "1.5h", "15m" or "1h30m".

    Raises ValueError, naming the accepted form, for anything else. Negative times do not exist.
    """
    text = text.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ValueError(f"not a duration: {text[:40]!r}; write seconds, or 250ms, 30s, 15m, 7d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def short_duration(seconds: float) -> str:
    """The shortest exact spelling in one unit: 900 is "15m", 90 is "90s", 0.25 is "250ms"."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds / _UNITS[unit])}{unit}"
    return f"{round(seconds * 1000)}ms" if seconds else "0"


def clock_duration(seconds: float) -> str:
    """An uptime as Go prints it, whole seconds: "72h15m30s", "4m0s", "7s"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
