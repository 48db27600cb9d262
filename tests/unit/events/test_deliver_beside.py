"""`syncbridge dev` has deliveries made, by one process after another; figures of endpoints."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from syncbridge.events.cursor import Cursor
from syncbridge.events.endpoints import Endpoint
from syncbridge_server.events import beside
from syncbridge_server.events.endpoint_figures import EndpointFigures
from syncbridge_server.ports.endpoints import Status


@pytest.mark.parametrize(
    ("statuses", "started"), [([-9, 1, 0, 0], 3), ([beside.MISTAKE, 0], 1), ([0, 0], 1)]
)
async def test_one_that_died_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    statuses: list[int],
    started: int,
) -> None:
    """Not one that was told to end, nor one whose settings cannot work.

    It has the server's settings, whichever file they are from.
    """
    monkeypatch.setenv("SYNCBRIDGE_LOG_FORMAT", "")
    monkeypatch.delenv("SYNCBRIDGE_WEBHOOK_NETWORKS", raising=False)
    expected = {
        "REDIS_ADDR": "unix:///r",
        "SYNCBRIDGE_WEBHOOK_NETWORKS": "10.0.0.0/8,::1",
        "SYNCBRIDGE_LOG_FORMAT": "console",
    }
    commands: list[list[str]] = []

    async def run_process(command: list[str], **more: Any) -> SimpleNamespace:
        commands.append(command)
        assert expected == {name: more["env"][name] for name in expected}
        return SimpleNamespace(returncode=statuses[len(commands) - 1])

    monkeypatch.setattr(trio, "run_process", run_process)
    await beside.deliver_beside("unix:///r", ("10.0.0.0/8", "::1"), "console", None)

    assert ["deliver"] * started == [command[-1] for command in commands]
    assert (started > 1) == (trio.current_time() > 0)


class Store:
    """Two endpoints: one that is disabled, and one that is served, 3 events behind."""

    async def endpoints(self) -> list[Endpoint]:
        return [Endpoint("off", "", [], disabled="why"), Endpoint("on", "", [])]

    async def status(self, name: str) -> Status:
        if name == "on":
            return Status(cursor="1-97", late_ms=2_000, delivered=5)
        return Status(cursor="1-2", late_ms=9_000, failing_since=1, delivered=7)

    async def held_count(self, name: str) -> int:
        return 0

    async def last(self) -> Cursor:
        return Cursor(1, 100)


async def test_one_that_is_disabled_is_not_late(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It is counted as such, and what it is behind is nobody's trouble."""

    async def wait() -> None:
        await trio.lowlevel.checkpoint()

    switch: Any = SimpleNamespace(carrying=True, wait=wait)
    store: Any = Store()
    figures = EndpointFigures(store, store, switch)
    nursery.start_soon(figures.run)
    await trio.testing.wait_all_tasks_blocked()
    found = dict(figures.figures())

    assert (2, 1, 0, 12) == tuple(
        found[name] for name in ("endpoints", "disabled", "failing", "delivered_total")
    )
    assert (3, 2.0) == (found["behind"], found["late_seconds"])
