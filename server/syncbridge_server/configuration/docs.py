"""The settings as text, from `Settings` alone: `serve --help` and docs/configuration.md.

`python -m syncbridge_server.configuration.docs > docs/configuration.md` writes the page; a test
holds the page to it.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from syncbridge_server.durations import short_duration
from syncbridge_server.settings import Settings, variable

_HEADING = re.compile(r"^    # (\w[\w ]*)\n    (\w+):", re.MULTILINE)

_INTRODUCTION = """\
# Configuration

Everything is set by environment variables; `.venv/bin/syncbridge serve --help` prints the
same list. What the environment does not set is looked for in `.env`, and then in `syncbridge.toml`,
or the TOML file that `SYNCBRIDGE_CONFIG` names; both are read in the working directory, with the
same names. An empty variable counts as unset. Times are seconds, or a number with a unit: `250ms`,
`30s`, `15m`, `12h`, `7d`. Shares are numbers up to 1. Sizes are bytes. Lists are separated by
commas, or TOML arrays of strings.

A name that is one or two letters away from one of these is refused, and so is every other
configuration that cannot work: one line on standard error, exit code 2. Other names with
`SYNCBRIDGE_` in front are told in the log; in TOML they are refused.

This page is generated from the settings; do not edit it.
"""


class Row(NamedTuple):
    """One setting. `default` is text; "" for unset. `choices` is empty unless it is an enum."""

    section: str
    name: str
    default: str
    text: str
    choices: tuple[str, ...]


def rows() -> Iterator[Row]:
    """Every setting, in the order of the source."""
    section, sections = "", _sections()
    for name, field in Settings.model_fields.items():
        section = sections.get(name, section)
        yield Row(
            section, variable(name), _default(field), field.description or "", _choices(field)
        )


def _sections() -> dict[str, str]:
    """First field of each section -> the section's heading comment."""
    return {field: title for title, field in _HEADING.findall(inspect.getsource(Settings))}


def _default(field: FieldInfo) -> str:
    return text_of(field.default, field)


def text_of(value: Any, field: FieldInfo) -> str:
    """A value of a setting as it would be written; a secret as it is."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not _is_share(field):
        return short_duration(value)
    return str(value)


def _is_share(field: FieldInfo) -> bool:
    """A part of a whole, `Share`: a plain number, not a time."""
    return any(getattr(bound, "le", None) == 1 for bound in field.metadata)


def _choices(field: FieldInfo) -> tuple[str, ...]:
    return tuple(arg for arg in get_args(field.annotation) if isinstance(arg, str))


def markdown() -> str:
    """The whole of docs/configuration.md."""
    lines, section = [_INTRODUCTION], ""
    for row in rows():
        if row.section != section:
            section = row.section
            lines += [f"\n## {section}\n", "| variable | default | meaning |", "|---|---|---|"]
        default = f"`{row.default}`" if row.default else "unset"
        choices = f" One of `{'`, `'.join(row.choices)}`." if row.choices else ""
        lines.append(f"| `{row.name}` | {default} | {row.text}{choices} |")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def plain_text(width: int = 100) -> str:
    """The list below `syncbridge serve --help`."""
    lines, section = ["Environment variables:"], ""
    for row in rows():
        if row.section != section:
            section = row.section
            lines += ["", f"  {section}"]
        choices = f" ({'|'.join(row.choices)})" if row.choices else ""
        default = f" [{row.default}]" if row.default else ""
        lines.append(f"    {row.name}{default}{choices}")
        lines += _wrapped(row.text, width)
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    indent = " " * 8
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


if __name__ == "__main__":
    sys.stdout.write(markdown())
