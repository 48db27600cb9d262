"""Metrics that documents, alerts and dashboard name are those that a server with voice exposes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from support.source_tree import ROOT, text, with_suffix
from support.voice.webhook_kit import site
from syncbridge_server.telemetry.siblings import merged

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
SAMPLE = re.compile(r"([a-z]\w*)(?:\{(.*)\})? (\d\S*)")
SCRAPED = 'instance="a:9090",job="syncbridge"'
MINUTES = 30


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


def series(exposed: str) -> Iterator[dict[str, str]]:
    """What Prometheus has of a server whose metrics stay as they are, as promtool reads it."""
    yield {"series": f"up{{{SCRAPED}}}", "values": f"1x{MINUTES}"}
    for found in filter(None, map(SAMPLE.fullmatch, exposed.splitlines())):
        name, labels, value = found.groups()
        told = f"{SCRAPED},{labels}" if labels else SCRAPED
        yield {"series": f"{name}{{{told}}}", "values": f"{float(value):f}x{MINUTES}"}


def promtool(*arguments: str, told: str = "") -> tuple[int, str]:
    """Exit code and output; the test is skipped where it is not installed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    done = subprocess.run(
        [found, *arguments], input=told, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


async def test_alerts_can_be_evaluated_on_what_a_server_exposes(tmp_path: Path) -> None:
    """No rule fails on all metrics together, of one process or of two workers, and none fires."""
    async with site() as one:
        exposed = (await one.rig.client.get(one.nodes[0].url + "/metrics")).text
    for number, seen in enumerate((exposed, merged({0: exposed, 1: exposed}))):
        quiet = {
            "expr": "count(ALERTS) or vector(0)",
            "eval_time": f"{MINUTES}m",
            "exp_samples": [{"value": 0}],
        }
        told = [*series(seen)]
        test = {"interval": "1m", "input_series": told, "promql_expr_test": [quiet]}
        rules = str(ROOT / "deploy/prometheus/alerts.yaml")
        path = tmp_path / f"{number}.yaml"
        path.write_text(json.dumps({"rule_files": [rules], "tests": [test]}))
        judged = await trio.to_thread.run_sync(promtool, "test", "rules", str(path))
        linted = await trio.to_thread.run_sync(partial(promtool, "check", "metrics", told=seen))

        assert len(told) > 150
        assert 0 == judged[0], judged[1]
        assert (0, "") == linted
