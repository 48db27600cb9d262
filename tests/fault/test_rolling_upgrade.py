"""Two versions side by side, under load: upgraded one node at a time, and downgraded again.

Here the earlier version is the oldest commit with the same kernels, so that nothing is compiled.
With SYNCBRIDGE_UPGRADE_OPERATIONS (`make upgrade`) it is the wheel of the release that
.ci/previous-release names, or of the commit in SYNCBRIDGE_UPGRADE_FROM.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import earlier_release
from support.history.checker import check
from support.history.faults import Deployment
from support.history.places import place
from support.history.run import Run, Schedule
from support.server_kit import bearer, mint, new_session
from syncbridge.identity import Role

LARGE = "SYNCBRIDGE_UPGRADE_OPERATIONS" in os.environ
OPERATIONS = int(os.environ.get("SYNCBRIDGE_UPGRADE_OPERATIONS", "1000"))
EXPECTED = {"version_conflict", "precondition_failed"}
"""Refusals that the workload asks for."""
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


def schedule(earlier: dict[str, str]) -> Schedule:
    """The second node first, then the first; back in the other order."""
    steps = [(0.15, 1, NOW), (0.35, 0, NOW), (0.6, 0, earlier), (0.8, 1, earlier)]

    async def replace(index: int, version: dict[str, str], deployment: Deployment) -> None:
        await deployment.replace_node(index, version)

    return [(part, partial(replace, index, version)) for part, index, version in steps]


class Records:
    """What the workload does not write: a call session, a handoff and a snapshot over REST."""

    def __init__(self) -> None:
        self.call = f"call-{new_session()[:8]}"
        self.session = new_session()
        self.tokens: list[str] = []

    async def write(self, url: str) -> None:
        """Make all three."""
        async with httpx.AsyncClient(base_url=url) as http:
            http.headers.update(bearer(mint("gateway", Role.SERVICE)))
            body: dict[str, Any] = {"id": self.call, "type": "SIP"}
            assert 201 == (await http.post("/sessions", json=body)).status_code
            await self._note(http, 0)

    async def _note(self, http: httpx.AsyncClient, version: int) -> None:
        session = {"session_id": self.session, "user_id": "ann", "device_id": "phone"}
        body = session | {"app_version": "1", "version": version, "state_data": {"n": version}}
        answer = await http.post("/session/snapshot", json=body, headers=bearer(mint("ann")))
        assert 200 == answer.status_code, answer.text
        pair = {"source_device_id": "phone", "target_device_id": "tablet"}
        path = f"/session/{self.session}/handoff"
        answer = await http.post(path, json=pair, headers=bearer(mint("ann")))
        self.tokens.append(answer.raise_for_status().json()["token"])

    async def read_and_go_on(self, url: str, version: int) -> dict[str, Any]:
        """What another version finds; it changes all three."""
        async with httpx.AsyncClient(base_url=url) as http:
            http.headers.update(bearer(mint("gateway", Role.SERVICE)))
            call = (await http.get(f"/sessions/{self.call}")).raise_for_status().json()
            put = {"state": "active"} if call["state"] != "active" else {"state": "terminated"}
            answer = await http.put(f"/sessions/{self.call}/state", json=put)
            tablet = bearer(mint("ann", device="tablet"))
            path = f"/session/{self.session}/handoff/{self.tokens[-1]}"
            moved = (await http.get(path, headers=tablet)).raise_for_status().json()
            await self._note(http, version)
        found = moved["snapshot"]["state_data"] if "snapshot" in moved else moved
        return {"call": call["state"], "then": answer.json()["state"], "state": found}


@pytest.mark.slow
async def test_rolling_upgrade_and_downgrade_under_load(
    earlier: dict[str, str], tmp_path: Path
) -> None:
    """Nothing is lost, nobody is refused for a version, no node stops writing for the other."""
    with place("single") as where:
        variables = {"SYNCBRIDGE_RATE_LIMIT_ENABLED": "false", "SYNCBRIDGE_DRAIN": "10s"}
        async with Deployment.open(
            where, tmp_path, own=(earlier, earlier), **variables
        ) as deployment:
            run = Run(deployment, OPERATIONS, 1, schedule(earlier))
            await run.run()
    print(run.figures())
    codes = {answer.code for call in run.history.calls for answer in call.answers} - {""}
    logs = "".join(log.read_text() for log in deployment.logs)

    assert {} == check(run.history)
    assert OPERATIONS == len(run.history.calls)
    assert ["node replaced"] * 4 == deployment.done
    assert codes <= EXPECTED
    assert [word for word in ("old_node", "rolled_back", "Traceback") if word in logs] == []
