"""The deployment files are what their schemas ask for, and agree with the server and each other."""

import json
import re
import shutil
import ssl
import subprocess
import sys
import threading
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import ComposeSpecification
from packaging.requirements import Requirement

from support.listener.listener_site import certificate
from support.source_tree import ROOT
from syncbridge_server.durations import parse_duration
from syncbridge_server.settings import Settings, variable

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = "kustomization.yaml"
MANIFESTS = sorted(p for p in FOLDER.glob("*.yaml") if p.name != KUSTOMIZATION)
VARIABLES = {variable(name) for name in Settings.model_fields}


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that logs nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


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
    for name in ("syncbridge", "deliver"):
        used |= set(compose()["services"][name]["environment"])

    assert set() == used - VARIABLES


def test_redis_of_the_compose_file_is_bounded_below_its_container() -> None:
    """At maxmemory writes are refused; twice that, while a file is written, still has room."""
    redis = compose()["services"]["redis"]
    command = redis["command"]
    default = re.compile(r"\$\{REDIS_\w+:-(\d+)gb\}")
    most = default.fullmatch(command[command.index("--maxmemory") + 1])
    room = default.fullmatch(redis["mem_limit"])

    assert most is not None
    assert room is not None
    assert int(most[1]) * 2 <= int(room[1])
    assert "noeviction" == command[command.index("--maxmemory-policy") + 1]


def test_compose_passes_every_setting_through() -> None:
    """Also those that it does not set; all but the mode for development, and its own port."""
    named = compose()["services"]["syncbridge"]["environment"]
    set_here = {name for name, value in named.items() if value is not None}

    assert VARIABLES - {"SERVER_ADDR", "SYNCBRIDGE_DEV"} == set(named)
    assert {"REDIS_ADDR", "REDIS_PASSWORD", "JWT_SECRET", "JWT_REFRESH_SECRET"} == set_here


def test_bounds_are_reached_before_descriptors_run_out() -> None:
    """The container of compose.yaml may open what the bounds of one process allow, and more."""
    default = Settings.model_construct()
    bounds = default.max_connections + default.http_connections + default.http_handshakes
    limits = compose()["services"]["syncbridge"]["ulimits"]["nofile"]

    assert bounds < limits["soft"] <= limits["hard"]


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
    for name in ("service", "service-metrics"):
        assert label == read(FOLDER / f"{name}.yaml")["spec"]["selector"]
    for name in ("pod-disruption-budget", "network-policy"):
        spec = read(FOLDER / f"{name}.yaml")["spec"]
        assert label == (spec.get("selector") or spec["podSelector"])["matchLabels"]


def test_container_has_no_more_rights_than_it_needs() -> None:
    """Not root, nothing writable, no capabilities."""
    context = container()["securityContext"]

    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert {"drop": ["ALL"]} == context["capabilities"]


def test_who_delivers_has_no_more_rights_than_it_needs() -> None:
    """Nothing reaches it, no service selects it, and it has no key of tokens."""
    deployment = read(FOLDER / "deliver.yaml")["spec"]
    policy = read(FOLDER / "deliver-network-policy.yaml")["spec"]
    label = deployment["selector"]["matchLabels"]
    (process,) = deployment["template"]["spec"]["containers"]
    service = compose()["services"]["deliver"]

    assert label == deployment["template"]["metadata"]["labels"]
    assert label == policy["podSelector"]["matchLabels"]
    assert label != read(FOLDER / "service.yaml")["spec"]["selector"]
    assert ([], ["Ingress", "Egress"]) == (policy["ingress"], policy["policyTypes"])
    assert container()["securityContext"] == process["securityContext"]
    assert {"REDIS_PASSWORD", "SYNCBRIDGE_SENTINEL_PASSWORD"} == {v["name"] for v in process["env"]}
    assert all("secretRef" not in source for source in process["envFrom"])
    assert process["args"] == service["command"]
    alive = process["args"][-1]
    assert all(alive in str(process[f"{name}Probe"]) for name in ("startup", "liveness"))
    assert alive in service["healthcheck"]["test"][1]
    assert not any("JWT" in name for name in service["environment"])
    assert (True, ["ALL"]) == (service["read_only"], service["cap_drop"])


def test_dockerfile_passes_its_linter() -> None:
    """hadolint finds nothing but unpinned Debian packages, which the base image's tag pins."""
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter is not None
    done = subprocess.run(
        [linter, "--no-color", "--ignore", "DL3008", "--ignore", "DL3066", "Dockerfile"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert ("", 0) == (done.stdout, done.returncode)


@pytest.mark.parametrize("tls", [False, True])
def test_the_image_asks_for_its_health_as_it_serves(tls: bool, tmp_path: Path) -> None:
    """Also with a certificate; where nobody answers, or with an error, it is not healthy."""
    line = (ROOT / "Dockerfile").read_text("utf-8").partition("HEALTHCHECK")[2]
    command = json.loads(line.partition("CMD ")[2].splitlines()[0])
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate(tmp_path))
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        told = {"SYNCBRIDGE_TLS_CERT": "cert.pem"} if tls else {}
        asked = [word.replace("8080", str(server.server_port)) for word in command[1:]]
        (tmp_path / "health").mkdir()
        codes = []
        for there in (False, True):
            if there:
                (tmp_path / "health/live").write_text("{}")
            done = subprocess.run([sys.executable, *asked], env=told, capture_output=True)
            codes.append(done.returncode)
        server.shutdown()
        thread.join()

    assert [1, 0] == codes


def test_the_image_has_every_dependency_in_a_version_that_is_allowed() -> None:
    """deploy/requirements.lock names what pyproject.toml asks for, in its ranges, with hashes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lock = (ROOT / "deploy/requirements.lock").read_text("utf-8")
    locked = dict(re.findall(r"^([a-z0-9_.-]+)==([^\s;]+)", lock, re.M))
    wanted = [*project["dependencies"], *project["optional-dependencies"]["otel"]]
    wrong = [
        wish
        for wish in map(Requirement, wanted)
        if not wish.specifier.contains(locked.get(wish.name.lower(), "0"))
    ]

    assert wrong == []
    assert len(re.findall(r"^\S+==", lock, re.M)) <= lock.count("--hash=sha256:")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd-analyze has nothing to say, exposure is low, and there is time to drain."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = (ROOT / "deploy/systemd/syncbridge.service").read_text("utf-8")
    program = Path(sys.executable).parent / "syncbridge"
    path = tmp_path / "syncbridge.service"
    path.write_text(unit.replace("/opt/syncbridge/bin/syncbridge", str(program)), "utf-8")
    verified = subprocess.run([analyze, "verify", path], capture_output=True, text=True, timeout=60)
    secure = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", path],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    values = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line[1:])
    default = Settings.model_construct()
    bounds = default.max_connections + default.http_connections + default.http_handshakes

    assert (0, "") == (verified.returncode, verified.stderr)
    assert 0 == secure.returncode, secure.stdout
    assert default.drain < float(values["TimeoutStopSec"])
    assert bounds < int(values["LimitNOFILE"])
    assert "2" == values["RestartPreventExitStatus"]
