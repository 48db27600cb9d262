"""The Helm chart renders what Kubernetes accepts, with names of settings that exist."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from support.source_tree import ROOT
from syncbridge_server.durations import parse_duration
from syncbridge_server.settings import Settings, variable

CHART = ROOT / "deploy" / "helm" / "syncbridge"
VERSION = "1.32.0"
SECRET = ("--set", "secretName=keys")
EVERYTHING = (
    *SECRET,
    "--set",
    "ingress.enabled=true,ingress.tlsSecretName=tls,serviceMonitor.enabled=true",
)
VARIABLES = {variable(name) for name in Settings.model_fields}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm; the test is skipped where there is none."""
    found = shutil.which("helm") or shutil.which("helm", path=str(ROOT / "build/tools"))
    if found is None:
        pytest.skip("helm is not there: bash scripts/helm.sh builds it")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=120)


@cache
def rendered(*arguments: str) -> tuple[dict[str, Any], ...]:
    """The objects of a release called `live`."""
    done = helm("template", "live", str(CHART), "--kube-version", VERSION, *arguments)
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def server(*arguments: str) -> list[dict[str, Any]]:
    """The objects that are about the server, not about the process that delivers events."""
    found = rendered(*(arguments or EVERYTHING))
    return [document for document in found if document["metadata"]["name"] != "live-deliver"]


def one(kind: str, *arguments: str) -> dict[str, Any]:
    """The first object of a kind that is the server's."""
    return next(document for document in server(*arguments) if document["kind"] == kind)


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = one("Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("values", [None, "sentinel.values.yaml", "cluster.values.yaml"])
def test_the_chart_is_accepted(values: str | None) -> None:
    """By helm's own linter, and each object by the schema of Kubernetes, unknown fields refused."""
    more = ("--values", str(CHART / values)) if values else ()
    done = helm("lint", "--strict", str(CHART), "--kube-version", VERSION, *SECRET, *more)
    objects = rendered(*EVERYTHING, *more)

    assert done.returncode == 0, done.stdout
    assert 11 == len(objects)
    for document in objects:
        if document["kind"] != "ServiceMonitor":
            kubernetes_validate.validate(document, "1.32", strict=True)


CONTRADICTIONS = [
    ("replica=5", "Additional property replica is not allowed"),
    ("autoscaling.maxReplica=5", "Additional property maxReplica is not allowed"),
    ("redis.port=70000", "less than or equal to 65535"),
    ("settings.SERVER_ADDR=:80", "settings.SERVER_ADDR: the chart sets the ports"),
    ("settings.SYNCBRIDGE_TLS_CERT=/tls", "settings.SYNCBRIDGE_TLS_CERT: the chart sets the ports"),
    ("settings.REDIS_ADDR=other:6379", "settings.REDIS_ADDR: write redis.addr"),
    ("settings.JWT_SECRET=x", "settings.JWT_SECRET: it is a secret"),
    ("redis.addr=redis://ann:hush@redis:6379", "redis.addr: its password belongs into the Secret"),
    ("redis.addr=redis://redis:6379?password=x", "redis.addr: its password belongs"),
    ("redis.addr=rediss://ann@redis:6380/0", "redis.port: the network policy lets 6379 through"),
    ("redis.addr=redis redis.port=1", "lets 1 through, and redis.addr has port 6379"),
    ("redis.addr=redis+sentinel://a:1\\,b:1/main", "redis.sentinelPort: the network policy"),
    ("terminationGracePeriodSeconds=35", "preStopSeconds and SYNCBRIDGE_DRAIN take 35 s"),
    ("settings.SYNCBRIDGE_DRAIN=1m30s", "preStopSeconds and SYNCBRIDGE_DRAIN take 95 s"),
    ("autoscaling.minReplicas=21", "autoscaling.minReplicas: it is above maxReplicas"),
    ("autoscaling.connectionsPerPod=0 autoscaling.cpuPercent=0", "write connectionsPerPod or cpu"),
    ("settings.SYNCBRIDGE_MAX_CONNECTIONS=5000", "a pod takes 5000 connections"),
    ("resources=null", "autoscaling.cpuPercent: it is a share of resources.requests.cpu"),
]


def given(values: str) -> list[str]:
    """Options for values that blanks separate; those of settings are texts."""
    return [
        option
        for value in values.split()
        for option in ("--set-string" if value.startswith("settings.") else "--set", value)
    ]


@pytest.mark.parametrize(("values", "words"), CONTRADICTIONS)
def test_values_that_contradict_each_other(values: str, words: str) -> None:
    """Nothing is rendered that the server, Kubernetes or the chart's own policy would break."""
    done = helm("template", "live", str(CHART), "--kube-version", VERSION, *SECRET, *given(values))

    assert 1 == done.returncode
    assert words in done.stderr


@pytest.mark.parametrize(
    "values",
    [
        "settings=null",
        "networkPolicy.enabled=false redis.addr=redis:6380",
        "redis.addr=rediss://ann@redis:6380/0 redis.port=6380",
        "autoscaling.cpuPercent=0 resources=null",
        "autoscaling.enabled=false resources=null settings.SYNCBRIDGE_MAX_CONNECTIONS=5000",
        "settings.SYNCBRIDGE_MAX_CONNECTIONS=5000 settings.SYNCBRIDGE_WORKERS=2",
        "settings.SYNCBRIDGE_DRAIN=39s",
        "global.registry=x",
    ],
)
def test_values_that_fit_together(values: str) -> None:
    """What resembles a contradiction and is none is rendered, as Kubernetes accepts it."""
    for document in rendered(*SECRET, *given(values)):
        kubernetes_validate.validate(document, "1.32", strict=True)


def test_secrets_are_those_of_the_server() -> None:
    """The chart refuses each secret of the server's settings in its ConfigMap."""
    listed = (CHART / "templates/_checks.tpl").read_text("utf-8")
    block = listed.partition('define "syncbridge.secrets" -}}')[2].partition("{{-")[0]
    secrets = {n for n, field in Settings.model_fields.items() if field.annotation is SecretStr}

    assert {variable(name) for name in secrets} == set(block.split())


def test_the_policy_lets_through_what_settings_name() -> None:
    """The ports of URLs in settings, and those of `networkPolicy.ports`; not our own URL's."""
    urls = {
        "SYNCBRIDGE_OTLP_URL": "http://collector:4318",
        "SYNCBRIDGE_CONNECT_URL": "http://app/may-join",
        "SYNCBRIDGE_LIVEKIT_URL": "https://user@[fd00::1]:7880/x",
        "RTK_API_URL": "https://api.example",
        "WORKER_URL": "https://sync.example:8443",
    }
    told = ",".join(f"settings.{name}={url}" for name, url in urls.items())
    policy = one("NetworkPolicy", *SECRET, "--set", f"{told},networkPolicy.ports={{9000}}")
    ports = [port["port"] for port in policy["spec"]["egress"][0]["ports"]]

    assert [6379, 53, 53, 80, 443, 4318, 7880, 9000] == [*ports[:3], *sorted(ports[3:])]


def test_a_secret_must_be_named() -> None:
    """Without its name nothing is rendered, and a wrong value is refused by the chart's schema."""
    none = helm("template", "live", str(CHART), "--kube-version", VERSION)
    wrong = helm("template", "live", str(CHART), *SECRET, "--set", "redis.adr=x")

    assert (1, True) == (none.returncode, "secretName: name a Secret" in none.stderr)
    assert (1, True) == (wrong.returncode, "adr" in wrong.stderr)


@pytest.mark.parametrize("values", [None, "sentinel.values.yaml", "cluster.values.yaml"])
def test_its_settings_are_settings(values: str | None) -> None:
    """Every name in the ConfigMap is one that the server reads, and the values are taken."""
    more = ("--values", str(CHART / values)) if values else ()
    data = one("ConfigMap", *SECRET, *more)["data"]
    fields = {name: field for field in Settings.model_fields for name in [variable(field)]}

    assert set(data) - VARIABLES == set()
    assert Settings(**{fields[name]: value for name, value in data.items()}).admin_addr == (
        ":9090",
    )


def test_there_is_time_to_drain() -> None:
    """The grace period is longer than the drain and the pause before it."""
    drain = parse_duration(one("ConfigMap")["data"]["SYNCBRIDGE_DRAIN"])
    pause = float(pod()["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])

    assert drain + pause < pod()["terminationGracePeriodSeconds"]


def test_metrics_are_not_at_the_public_service() -> None:
    """Users reach one port; probes, the monitor and the policy know the other one."""
    public, metrics = (o for o in rendered(*EVERYTHING) if o["kind"] == "Service")
    container = pod()["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (policy_public, policy_metrics) = one("NetworkPolicy")["spec"]["ingress"]

    assert ["http"] == [port["targetPort"] for port in public["spec"]["ports"]]
    assert ["metrics"] == [port["targetPort"] for port in metrics["spec"]["ports"]]
    assert {"http": 8080, "metrics": 9090} == ports
    assert {"metrics"} == {
        container[f"{name}Probe"]["httpGet"]["port"]
        for name in ("startup", "liveness", "readiness")
    }
    assert ("from" in policy_public, "from" in policy_metrics) == (False, True)
    selected = one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    assert selected <= metrics["metadata"]["labels"].items()
    assert not selected <= public["metadata"]["labels"].items()


def test_the_container_has_no_more_rights_than_it_needs() -> None:
    """Not root, nothing writable, no capabilities, no token, no variables of services."""
    context = pod()["containers"][0]["securityContext"]

    assert (True, False) == (
        context["readOnlyRootFilesystem"],
        context["allowPrivilegeEscalation"],
    )
    assert {"drop": ["ALL"]} == context["capabilities"]
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert (False, False) == (pod()["automountServiceAccountToken"], pod()["enableServiceLinks"])


def test_who_delivers_has_no_more_rights_than_it_needs() -> None:
    """Nothing reaches it, it has no key of tokens; endpoints stand in one Secret with theirs."""
    arguments = (*SECRET, "--set", "deliver.endpointsSecret=hooks,deliver.ports={8443}")
    objects = [o for o in rendered(*arguments) if o["metadata"]["name"] == "live-deliver"]
    kinds = {o["kind"]: o["spec"] for o in objects}
    (process,) = kinds["Deployment"]["template"]["spec"]["containers"]
    labels = kinds["Deployment"]["template"]["metadata"]["labels"]
    policy = kinds["NetworkPolicy"]
    services = [o["spec"]["selector"] for o in rendered(*arguments) if o["kind"] == "Service"]
    none = rendered(*SECRET, "--set", "deliver.enabled=false")

    assert labels == policy["podSelector"]["matchLabels"]
    assert not any(selector.items() <= labels.items() for selector in services)
    assert ([], 8443) == (policy["ingress"], policy["egress"][0]["ports"][-1]["port"])
    assert pod()["containers"][0]["securityContext"] == process["securityContext"]
    assert ["REDIS_PASSWORD", "SYNCBRIDGE_SENTINEL_PASSWORD", "SYNCBRIDGE_WEBHOOKS"] == [
        variable["name"] for variable in process["env"]
    ]
    assert "hooks" in [
        v.get("secret", {}).get("secretName")
        for v in kinds["Deployment"]["template"]["spec"]["volumes"]
    ]
    assert "live-deliver" not in [o["metadata"]["name"] for o in none]


def test_selectors_select_the_pods() -> None:
    """Services, budget and policy name labels that the pods have."""
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for document in server():
        spec = document.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        wanted = selector.get("matchLabels", selector)
        if document["kind"] != "ServiceMonitor":
            assert wanted.items() <= labels, document["kind"]


def test_the_sentinels_are_let_through() -> None:
    """The policy of the Sentinel values has their port, too."""
    values = str(Path(CHART / "sentinel.values.yaml"))
    ports = one("NetworkPolicy", *SECRET, "--values", values)["spec"]["egress"][0]["ports"]

    assert {6379, 26379} <= {port["port"] for port in ports}
