"""Bounds on connections that fit the limit of descriptors."""

import resource
import subprocess
import sys
from typing import Any

import pytest

from syncbridge_server.descriptors import fitting, wanted
from syncbridge_server.settings import ConfigError, Settings

RAISED = """
import resource
from syncbridge_server.descriptors import with_descriptors
from syncbridge_server.settings import Settings
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, {hard}))
settings = with_descriptors(Settings(max_connections=1000, http_connections=500))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], settings.max_connections)
"""


def bounds(limit: int, **values: Any) -> tuple[int, int, int]:
    """The three bounds under a limit."""
    settings = Settings(**values)
    lowered = fitting(settings, limit)
    shown = settings.with_values(**lowered) if lowered else settings
    return shown.max_connections, shown.http_connections, shown.http_handshakes


@pytest.mark.parametrize(
    ("limit", "values", "expected"),
    [
        (100_000, {}, (65_536, 4_096, 1_024)),
        (20_000, {}, (14_560, 4_096, 1_024)),
        (1_024, {}, (440, 176, 88)),
        (1_024, {"max_connections": 100}, (100, 176, 88)),
        (1_024, {"max_connections": 0}, (0, 4_096, 1_024)),
    ],
)
def test_bounds_under_a_limit(
    limit: int, values: dict[str, int], expected: tuple[int, int, int]
) -> None:
    """Lowered as far as the limit asks for, and no bound above what was configured."""
    assert expected == bounds(limit, **values)


def test_bounds_that_were_lowered_fit() -> None:
    """At every limit from the least one on; below it nothing starts."""
    for limit in range(512, 80_000, 997):
        settings = Settings()
        lowered = fitting(settings, limit)
        assert wanted(settings.with_values(**lowered) if lowered else settings) <= limit
    with pytest.raises(ConfigError, match="ulimit -n is 511"):
        fitting(Settings(), 511)


@pytest.mark.parametrize(("hard", "soft", "sockets"), [(4_096, 2_844, 1000), (1_024, 1_024, 440)])
def test_the_soft_limit_is_raised(hard: int, soft: int, sockets: int) -> None:
    """As far as is needed and the hard limit lets it, before any bound is lowered; with a line."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 4_096
    done = subprocess.run(
        [sys.executable, "-c", RAISED.format(hard=hard)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert f"{soft} {sockets}" == done.stdout.splitlines()[-1]
    assert ("descriptor_limit_low" in done.stdout + done.stderr) is (sockets < 1000)
