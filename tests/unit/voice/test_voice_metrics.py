"""The metrics of voice and the page that describes them."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from prometheus_client import CollectorRegistry

from syncbridge_server.voice.figures.metrics import voice_metrics
from syncbridge_server.voice.voice_gateway import VoiceGateway

PAGE = Path(__file__).parents[3] / "docs" / "voice-sync.md"
READ = {"breaker_open", "reads_breaker_open", "budget_left", "revocations_pending"}
"""What is read from the breakers, the budget and the revocations when somebody asks."""


def described() -> set[str]:
    """The names in the first column of the page's table of metrics, without labels."""
    table = PAGE.read_text().partition("| metric |")[2]
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.M)
    return {re.sub(r"\{.*", "", name) for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def of_sockets() -> set[str]:
    """What is read from the sockets' side of voice."""
    parts = SimpleNamespace(
        live_calls=SimpleNamespace(calls={}, refused=0),
        reports=SimpleNamespace(waiting=0),
        speaking=SimpleNamespace(held=0, refused=0, shared=0),
    )
    return {f"sockets_{name}" for name, _ in VoiceGateway.figures(cast(VoiceGateway, parts))}


def test_every_metric_is_described_and_no_other() -> None:
    """The page names each metric of the registry once more, and nothing that is not there."""
    registry = CollectorRegistry()
    voice_metrics(registry)
    names = {
        family.name.removeprefix("syncbridge_voice_") + "_total" * (family.type == "counter")
        for family in registry.collect()
    }

    assert names | READ | of_sockets() == described()
