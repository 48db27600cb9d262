"""Metrics that documents, alerts and dashboard name are those that a server with voice exposes."""

import re
from pathlib import Path

from support.source_tree import text, with_suffix
from support.voice.webhook_kit import site

NAME = re.compile(r"`(syncbridge_[a-z0-9_]*[a-z0-9])(?:\{[^`}]*\})?`")
EXPOSED = re.compile(r"^# TYPE (\w+) ", re.M)
PACKAGES = {"syncbridge_client", "syncbridge_core", "syncbridge_server", "syncbridge_tools"}
OF_WORKERS = {"syncbridge_worker_up"}
"""Shown by a server of several workers only."""
ASKED = re.compile(r"\b(syncbridge_[a-z0-9_]*[a-z0-9]|process_[a-z_]*[a-z])\b")
DEPLOYED = (Path("deploy/prometheus/alerts.yaml"), Path("deploy/grafana/syncbridge.json"))
FAMILY = re.compile(r"_(bucket|count|sum)$")
PREFIXED = re.compile(r"^\| (`[a-z_]+(?:\{[^`]*)?`.*?) \|", re.M)
"""The first cell of a row of a table of names without `syncbridge_voice_`."""


def documented() -> set[str]:
    """Every name of a metric in a document."""
    named = {
        name for page in with_suffix(".md", under="docs/") for name in NAME.findall(text(page))
    }
    voice = next(p for p in with_suffix(".md", under="docs/") if p.name == "voice-sync.md")
    table = text(voice).partition("Prometheus, all with `syncbridge_voice_` in front:")[2]
    cells = " ".join(PREFIXED.findall(table))
    return named | {f"syncbridge_voice_{name}" for name in re.findall(r"`([a-z_]+)", cells)}


async def test_documented_metrics_are_exposed() -> None:
    """Each name stands in `/metrics` of a server that has a voice provider."""
    async with site() as one:
        answer = await one.rig.client.get(one.nodes[0].url + "/metrics")
    exposed = set(EXPOSED.findall(answer.text))
    named = documented()

    assert "syncbridge_voice_breaker_open" in named
    assert named - PACKAGES - OF_WORKERS - exposed == set()
    asked = {FAMILY.sub("", name) for path in DEPLOYED for name in ASKED.findall(text(path))}
    assert len(asked) > 30
    assert asked - OF_WORKERS - exposed == set()
