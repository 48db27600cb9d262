"""Alert rules and dashboard: accepted by their tools, tested one by one, with a runbook each."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.source_tree import ROOT, text

FOLDER = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy/grafana/syncbridge.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    read = yaml.safe_load((FOLDER / "alerts.yaml").read_text("utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("command", ["check rules alerts.yaml", "test rules alerts.test.yaml"])
def test_promtool_accepts_the_rules(command: str) -> None:
    """The rules are well formed, and each fires for what it is about."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    done = subprocess.run(
        [promtool, *command.split()], cwd=FOLDER, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_explained() -> None:
    """Each has a test that expects it, and a section of its own in the runbook."""
    tests = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text("utf-8"))["tests"]
    tested = {test["name"] for test in tests if test["name"] in str(test["promql_expr_test"])}
    runbook = set(re.findall(r"^### (SyncBridge\w+)$", text(Path("docs/operations.md")), re.M))
    names = {rule["alert"] for rule in rules()}

    assert len(names) > 10
    assert (names, names) == (tested, runbook)
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_panels_do_not_overlap() -> None:
    """Every panel has a query, a unit, an id and a place of its own."""
    places = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        places.add((at["x"], at["y"]))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert len(places) == len(DASHBOARD["panels"]) == len(set(ids))
    assert all(panel["targets"] and panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)


def test_the_service_monitor_selects_the_service() -> None:
    """It names a port and a label of the service, and the job that the rules ask for."""
    monitor = yaml.safe_load((FOLDER / "service-monitor.yaml").read_text("utf-8"))
    service = yaml.safe_load((ROOT / "deploy/kubernetes/service-metrics.yaml").read_text("utf-8"))
    ports = {port["name"] for port in service["spec"]["ports"]}

    assert {end["port"] for end in monitor["spec"]["endpoints"]} <= ports
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert 'job="syncbridge"' in (FOLDER / "alerts.yaml").read_text("utf-8")
