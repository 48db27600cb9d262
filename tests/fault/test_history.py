"""Sixteen devices write to one session while everything around them breaks; then the history is
held to what the service promises. See tests/support/history/checker.py for the rules.

`SYNCBRIDGE_HISTORY_OPERATIONS` and `SYNCBRIDGE_HISTORY_SEED` make the run larger or another one.
"""

import os
from functools import partial
from pathlib import Path

import pytest

from support.history import naive
from support.history.checker import check
from support.history.faults import Deployment
from support.history.lost import forget_lost
from support.history.places import place
from support.history.run import Run, Schedule
from support.history.workload import KINDS
from support.redis_places import anywhere, client_of

OPERATIONS = int(os.environ.get("SYNCBRIDGE_HISTORY_OPERATIONS", "10000"))
SEED = int(os.environ.get("SYNCBRIDGE_HISTORY_SEED", "1"))
PARTS = {"single": 1, "sentinel": 10, "cluster": 10}
"""Of how many writes one is made in each place, unless all are asked for."""
if "SYNCBRIDGE_HISTORY_OPERATIONS" in os.environ:
    PARTS = dict.fromkeys(PARTS, 1)

VARIABLES = {
    "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
}

SCHEDULE: Schedule = [
    (0.06, lambda d: d.cut_clients(4)),
    (0.10, lambda d: d.flush_scripts()),
    (0.14, lambda d: d.cut_redis(1)),
    (0.20, lambda d: d.kill_node(1)),
    (0.28, lambda d: d.kill_redis()),
    (0.34, lambda d: d.cut_clients(6)),
    (0.38, lambda d: d.pause_redis(0.5)),
    (0.44, lambda d: d.cut_redis(2)),
    (0.50, lambda d: d.pause_node(0, 1.0)),
    (0.56, lambda d: d.flush_scripts()),
    (0.60, lambda d: d.kill_node(0)),
    (0.68, lambda d: d.move_redis()),
    (0.74, lambda d: d.pause_redis(2.5)),
    (0.80, lambda d: d.cut_clients(8)),
    (0.84, lambda d: d.cut_redis(3)),
    (0.88, lambda d: d.pause_node(1, 4.0)),
    (0.92, lambda d: d.flush_scripts()),
]
"""When, as a part of all writes, and what. The long pauses are longer than everybody's patience."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARTS)
async def test_history_under_faults(kind: str, tmp_path: Path) -> None:
    """No rule is broken, nobody's write is left unknown, and everything that can happen did."""
    operations = OPERATIONS // PARTS[kind]
    with place(kind) as where:
        async with Deployment.open(where, tmp_path, **VARIABLES) as deployment:
            run = Run(deployment, operations, SEED, SCHEDULE)
            await run.run()
    lost = forget_lost(run.history)
    print(kind, run.figures(), {"shown and lost": lost})

    assert not lost or kind != "single", "its Redis loses nothing"
    assert {} == check(run.history)
    assert operations == len(run.history.calls)
    assert set(KINDS) == set(run.workload.counts)
    assert len(SCHEDULE) == len(deployment.done)
    assert 0 not in run.figures().values()


@pytest.mark.parametrize("kind", PARTS)
def test_control_without_the_service_is_found_out(kind: str) -> None:
    """Devices that read, change and write back lose what others wrote, and the checker says so."""
    with anywhere(kind) as where:
        found = check(naive.race(partial(client_of, where.url), 6, 100, SEED))

    assert {"versions", "lost"} <= set(found)
    assert any("belongs to" in text for text in found["versions"])
    assert any("is 0 times in list" in text for text in found["lost"])
