"""The rules of decision record 9, searched: Redis may lose any suffix of what it did.

`SYNCBRIDGE_LINEAGE_WORLDS` sets how many worlds each search looks at (the long runs take 200,000,
which is some minutes); the gate looks at fewer, breadth first, so it sees all short histories.
"""

import os

import pytest

from support.lineage.search import explore
from support.lineage.world import FORMAT_1, Budget, Naming, Rules

WORLDS = int(os.environ.get("SYNCBRIDGE_LINEAGE_WORLDS", "20000"))
SMALL = Budget(writes=2, rollbacks=1, drops=0, deaths=0, partings=1)
CHAIN = Rules()
ALL_SMALL = (189_557, 24)
"""Every world of the smallest budget, and the longest way to one."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "budget",
    [
        Budget(writes=2, rollbacks=1, drops=0, deaths=0, partings=0),
        Budget(writes=3, rollbacks=1, drops=1, deaths=1, partings=2),
        Budget(writes=2, rollbacks=2, drops=0, deaths=1, partings=1),
    ],
    ids=["small", "all kinds of faults", "two rollbacks"],
)
def test_everybody_is_current_and_told_what_was_lost(budget: Budget) -> None:
    """With chained tokens and sequences no order of faults deceives anybody."""
    found = explore(CHAIN, budget, WORLDS)
    assert found.broken == {}
    assert found.worlds >= WORLDS or (found.worlds, found.depth) == ALL_SMALL


@pytest.mark.slow
@pytest.mark.parametrize("invariant", ["CURRENT", "LOST", "BASE"])
def test_numbers_alone_deceive(invariant: str) -> None:
    """Format 1, which compares versions by their number, fails in each of three ways."""
    assert invariant in explore(FORMAT_1, Budget(), max(WORLDS, 30_000), wanted=invariant).broken


def test_numbers_suffice_while_redis_keeps_its_data() -> None:
    """Format 1 is right without rollbacks, so the search does not see faults that are not there."""
    found = explore(FORMAT_1, Budget(writes=2, rollbacks=0), WORLDS)
    assert found.broken == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "budget", "invariant"),
    [
        (CHAIN._replace(compare_on_bus=False), SMALL, "CURRENT"),
        (CHAIN._replace(hold=False), SMALL, "CURRENT"),
        (CHAIN._replace(reckon=False), SMALL, "LOST"),
        (CHAIN._replace(reckon_after_break=False), SMALL, "LOST"),
        (CHAIN._replace(gaps=False), SMALL, "LOST"),
        (
            CHAIN._replace(naming=Naming.NONCE),
            Budget(writes=3, rollbacks=1, drops=0, deaths=0, partings=0),
            "BASE",
        ),
    ],
    ids=["no second comparison", "no holding", "no sequence", "versions only", "no gap", "nonce"],
)
def test_each_part_is_needed(rules: Rules, budget: Budget, invariant: str) -> None:
    """Without one of the rules, the search finds a history in which somebody is deceived."""
    assert invariant in explore(rules, budget, max(WORLDS, 80_000), wanted=invariant).broken
