"""The deployment files are what their schemas ask for, and agree with the server and each other."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import ComposeSpecification

from support.source_tree import ROOT
from syncbridge_server.durations import parse_duration
from syncbridge_server.settings import Settings, variable

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = "kustomization.yaml"
MANIFESTS = sorted(p for p in FOLDER.glob("*.yaml") if p.name != KUSTOMIZATION)
VARIABLES = {variable(name) for name in Settings.model_fields}


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def compose() -> dict[str, Any]:
    return read(ROOT / "compose.yaml")


def container() -> dict[str, Any]:
    pod = read(FOLDER / "deployment.yaml")["spec"]["template"]["spec"]
    first: dict[str, Any] = pod["containers"][0]
    return first


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_manifest_fits_its_schema(path: Path) -> None:
    """Every manifest is accepted by the Kubernetes API's own schema, unknown fields refused."""
    kubernetes_validate.validate(read(path), kubernetes_validate.latest_version(), strict=True)


def test_kustomization_lists_everything_but_the_secret() -> None:
    """What is in the folder is applied; a secret is never made from a file of the repository."""
    listed = set(read(FOLDER / KUSTOMIZATION)["resources"])

    assert {p.name for p in MANIFESTS} - {"secret.example.yaml"} == listed
    assert {""} == set(read(FOLDER / "secret.example.yaml")["stringData"].values())


def test_compose_file_fits_its_schema() -> None:
    """compose.yaml is a compose specification."""
    ComposeSpecification.model_validate(compose())


def test_every_variable_is_a_setting() -> None:
    """Names in the deployment files are names that the server reads."""
    used = set(read(FOLDER / "configmap.yaml")["data"])
    used |= set(read(FOLDER / "secret.example.yaml")["stringData"])
    used |= set(compose()["services"]["syncbridge"]["environment"])

    assert set() == used - VARIABLES


def test_there_is_time_to_drain() -> None:
    """Grace periods are longer than the drain, and than the pause before it."""
    drain = parse_duration(read(FOLDER / "configmap.yaml")["data"]["SYNCBRIDGE_DRAIN"])
    pod = read(FOLDER / "deployment.yaml")["spec"]["template"]["spec"]
    pause = float(container()["lifecycle"]["preStop"]["exec"]["command"][1])

    assert drain + pause < pod["terminationGracePeriodSeconds"]
    assert Settings().drain < parse_duration(
        compose()["services"]["syncbridge"]["stop_grace_period"]
    )


def test_probes_ask_the_right_questions() -> None:
    """Liveness never depends on Redis; readiness does."""
    paths = {
        name: container()[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")
    }

    assert {"liveness": "/health/live", "readiness": "/health/ready"} == paths


def test_selectors_select_the_pods() -> None:
    """Service, budget, policy and deployment name the same label."""
    label = {"app.kubernetes.io/name": "syncbridge"}
    deployment = read(FOLDER / "deployment.yaml")["spec"]

    assert label == deployment["selector"]["matchLabels"]
    assert label == deployment["template"]["metadata"]["labels"]
    assert label == read(FOLDER / "service.yaml")["spec"]["selector"]
    for name in ("pod-disruption-budget", "network-policy"):
        spec = read(FOLDER / f"{name}.yaml")["spec"]
        assert label == (spec.get("selector") or spec["podSelector"])["matchLabels"]


def test_container_has_no_more_rights_than_it_needs() -> None:
    """Not root, nothing writable, no capabilities."""
    context = container()["securityContext"]

    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert {"drop": ["ALL"]} == context["capabilities"]


def test_dockerfile_passes_its_linter() -> None:
    """hadolint finds nothing but unpinned Debian packages, which the base image's tag pins."""
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter is not None
    done = subprocess.run(
        [linter, "--no-color", "--ignore", "DL3008", "--ignore", "DL3066", "Dockerfile"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert ("", 0) == (done.stdout, done.returncode)
