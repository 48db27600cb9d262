"""Variables of the environment that look like settings and are none.

A mistyped name would otherwise change nothing, in silence. A name near one that is known is
refused; other names with our prefix are only told, as an older or newer release, or a provider from
another package, may know them. What Kubernetes injects for a Service called `syncbridge` is left
out, unless the name is near a setting's.
"""

import re
from collections.abc import Collection, Iterable, Mapping

PREFIX = "SYNCBRIDGE_"
CONFIG = "SYNCBRIDGE_CONFIG"
"""Names the TOML file of settings."""
FAMILIES = ("ANALYTICS_", "JWT_", "REDIS_", "RTK_", "SERVER_", "WORKER_")
"""First words of settings without our prefix; others' variables begin with them too."""
EDITS, FOREIGN_EDITS = 2, 1
"""How far a mistyped name is from the one that is meant."""
ELSEWHERE = frozenset(
    {CONFIG, "SYNCBRIDGE_CFLAGS", "SYNCBRIDGE_PURE_PYTHON", "SYNCBRIDGE_TOKEN", "SYNCBRIDGE_TRACE"}
)
"""Read by the build, the kernels and the commands for operators."""
WORKER = "SYNCBRIDGE_WORKER"
_INTERNAL = {
    WORKER: r"\d+:\d+:[\d,]+",
    "SYNCBRIDGE_WORKER_REDIS": r"\w[\w+]*://.*",
    "SYNCBRIDGE_WORKER_FOLDER": r"/.*",
}
"""What a parent process hands to its workers, and how that looks."""
_KUBERNETES = re.compile(
    r"\w+(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)


class ConfigError(Exception):
    """The configuration cannot work. The message is one line and holds no secret."""


def unknown_names(
    environment: Mapping[str, str], known: Collection[str], where: str = ""
) -> list[str]:
    """Names with our prefix that nothing reads; none in a worker, whose parent has told of them.

    O(variables × settings). Raises ConfigError for one that is within `EDITS` of a name in `known`,
    naming that, and the file `where` it stands; and for one that only a parent process may set.
    """
    if not where and _is_internal(WORKER, environment.get(WORKER, "")):
        return []
    unknown = []
    place = f" in {where}" if where else ""
    for name, value in sorted(environment.items()):
        ours = name.startswith(PREFIX)
        if not ours and not name.startswith(FAMILIES):
            continue
        if name in known or name in ELSEWHERE:
            continue
        if _is_internal(name, value):
            raise ConfigError(f"{name}{place} is internal to a server and its workers; remove it")
        meant = _nearest(name, known, EDITS if ours else FOREIGN_EDITS)
        if meant:
            raise ConfigError(f"{name}{place} is not a setting; did you mean {meant}?")
        if ours and not _KUBERNETES.fullmatch(name):
            unknown.append(name)
    return unknown


def _is_internal(name: str, value: str) -> bool:
    return name in _INTERNAL and re.fullmatch(_INTERNAL[name], value) is not None


def _nearest(name: str, known: Iterable[str], most: int) -> str:
    """The known name that is at most so many edits away; empty when there is none."""
    near = [
        (distance(name, other), other) for other in known if abs(len(other) - len(name)) <= most
    ]
    return min((pair for pair in near if pair[0] <= most), default=(0, ""))[1]


def distance(one: str, other: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours between two words.

    The optimal string alignment distance (Damerau 1964). O(len × len).
    """
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
