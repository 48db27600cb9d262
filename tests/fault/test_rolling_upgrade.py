"""Two versions side by side, under load: upgraded one node at a time, and downgraded again.

Here the earlier version is the oldest commit with the same kernels, so that nothing is compiled.
With SYNCBRIDGE_UPGRADE_OPERATIONS (`make upgrade`) it is the wheel of the release that
.ci/previous-release names, or of the commit in SYNCBRIDGE_UPGRADE_FROM.
"""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.history import earlier_release
from support.history.checker import check
from support.history.faults import Deployment
from support.history.places import place
from support.history.run import Fault, Run, Schedule
from support.server_kit import bearer, mint, new_session
from syncbridge.identity import Role

LARGE = "SYNCBRIDGE_UPGRADE_OPERATIONS" in os.environ
OPERATIONS = int(os.environ.get("SYNCBRIDGE_UPGRADE_OPERATIONS", "1000"))
EXPECTED = {"version_conflict", "precondition_failed"}
"""Refusals that the workload asks for."""
VARIABLES = {
    "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
    "SYNCBRIDGE_DRAIN": "10s",
    "SYNCBRIDGE_STORE_DEADLINE": "15s",  # a machine that stands still is not what this is about
}
NOW: dict[str, str] = {}
"""What a process of this version is told besides."""


@pytest.fixture
def earlier(tmp_path: Path) -> dict[str, str]:
    """What a process of the earlier version is told."""
    if LARGE:
        packages = earlier_release.installed(earlier_release.named(), tmp_path)
    else:
        packages = earlier_release.uncompiled(earlier_release.oldest_with_these_kernels(), tmp_path)
    found = earlier_release.runs_from(packages).split()
    assert [str(packages)] * 2 == [str(Path(path).parents[1]) for path in found]
    return earlier_release.variables(packages)


class Records:
    """What the workload does not write: a call session, a state over REST, and handoffs.

    Attributes:
        found: by each version that came after another one.
    """

    def __init__(self) -> None:
        self.call, self.session = f"call-{new_session()[:8]}", new_session()
        self._handoff = ""
        self.found: list[tuple[str, dict[str, int]]] = []

    async def write(self, deployment: Deployment) -> None:
        """Make all of them."""
        async with self._http(deployment) as http:
            answer = await http.post("/sessions", json={"id": self.call, "type": "SIP"})
            assert 201 == answer.status_code, answer.text
            await self._go_on(http, 0, "phone", "tablet")

    async def read(self, deployment: Deployment, device: str, state: str) -> None:
        """Look at what another version wrote, redeem its handoff, and go on from there."""
        async with self._http(deployment) as http:
            call = (await http.get(f"/sessions/{self.call}")).raise_for_status().json()
            (
                await http.put(f"/sessions/{self.call}/state", json={"state": state})
            ).raise_for_status()
            path = f"/session/{self.session}/handoff/{self._handoff}"
            told = bearer(mint("ann")) | {"X-Device-ID": device}
            moved = (await http.get(path, headers=told)).raise_for_status().json()
            self.found.append((call["state"], moved["state_data"]))
            other = "phone" if device == "tablet" else "tablet"
            await self._go_on(http, moved["version"], device, other)

    def _http(self, deployment: Deployment) -> httpx.AsyncClient:
        node = deployment.nodes[0]
        assert node is not None
        headers = bearer(mint("gateway", Role.SERVICE))
        return httpx.AsyncClient(base_url=node.url, headers=headers, timeout=60)

    async def _go_on(self, http: httpx.AsyncClient, version: int, source: str, target: str) -> None:
        body: dict[str, Any] = {"session_id": self.session, "user_id": "ann", "device_id": "pc"}
        body |= {"app_version": "1", "version": version, "state_data": {"after": version}}
        ann = bearer(mint("ann"))
        (await http.post("/session/snapshot", json=body, headers=ann)).raise_for_status()
        pair = {"source_device": source, "target_device": target}
        path = f"/session/{self.session}/handoff"
        answer = (await http.post(path, json=pair, headers=ann)).raise_for_status()
        self._handoff = answer.json()["token"]


def schedule(earlier: dict[str, str], records: Records) -> Schedule:
    """The second node first, then the first; back in the other order."""

    def replace(index: int, version: dict[str, str]) -> Fault:
        return lambda deployment: deployment.replace_node(index, version)

    return [
        (0.05, records.write),
        (0.15, replace(1, NOW)),
        (0.35, replace(0, NOW)),
        (0.4, lambda deployment: records.read(deployment, "tablet", "active")),
        (0.6, replace(0, earlier)),
        (0.8, replace(1, earlier)),
        (0.9, lambda deployment: records.read(deployment, "phone", "terminated")),
    ]


@pytest.mark.slow
async def test_rolling_upgrade_and_downgrade_under_load(
    earlier: dict[str, str], tmp_path: Path
) -> None:
    """Nothing is lost, nobody is refused for a version, no node stops writing for the other."""
    records = Records()
    with place("single") as where:
        async with Deployment.open(
            where, tmp_path, own=(earlier, earlier), **VARIABLES
        ) as deployment:
            run = Run(deployment, OPERATIONS, 1, schedule(earlier, records))
            await run.run()
    print(run.figures())
    codes = {answer.code for call in run.history.calls for answer in call.answers} - {""}
    logs = "".join(log.read_text() for log in deployment.logs)

    assert {} == check(run.history)
    assert OPERATIONS == len(run.history.calls)
    assert ["node replaced"] * 4 == deployment.done
    assert codes <= EXPECTED
    assert [("pending", {"after": 0}), ("active", {"after": 1})] == records.found
    assert [word for word in ("old_node", "rolled_back", "Traceback") if word in logs] == []
