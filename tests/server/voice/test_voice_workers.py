"""Queues that several workers take from: an idle worker is woken, however many of them wait."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from syncbridge_server.auth.revocation import Rule
from syncbridge_server.voice.figures.analytics import Analytics, AnalyticsLimits
from syncbridge_server.voice.figures.metrics import voice_metrics
from syncbridge_server.voice.rooms.provider_tasks import ProviderTasks
from syncbridge_server.voice.rooms.revoking import Revocation, Revoking


class Work:
    """Work that never ends, and how many do it."""

    def __init__(self) -> None:
        self.under_way = 0

    async def do(self, *_: Any) -> Any:
        self.under_way += 1
        await trio.sleep_forever()


async def counted(
    run: Callable[[], Awaitable[None]], add: Callable[[int], None], work: Work
) -> int:
    """How many of three items are worked on when they come to workers that all wait."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            add(number)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return work.under_way


async def test_documents_are_sent_together() -> None:
    """As many as `together` says."""
    work, metrics = Work(), voice_metrics(CollectorRegistry()).analytics
    async with httpx.AsyncClient(transport=httpx.MockTransport(work.do)) as client:
        analytics = Analytics(client, "http://analytics", "", metrics, AnalyticsLimits(together=2))

        assert 2 == await counted(analytics.run, lambda n: analytics.send({"n": n}), work)


async def test_the_tasks_of_channels_are_done_together() -> None:
    """Three channels have three workers."""
    work = Work()

    class Writer:
        isolation: Any

        def on_tasks(self, wake: object) -> None:
            pass

    writer = Writer()
    writer.isolation = type("Isolation", (), {"run": staticmethod(work.do)})
    tasks = ProviderTasks(cast(Any, None), cast(Any, writer), cast(Any, None), 1.0)

    assert 3 == await counted(tasks.run, lambda n: tasks.wake(f"channel {n}"), work)


async def test_revocations_are_applied_together() -> None:
    """The revocation of a second user does not wait until the calls of the first are done."""
    work = Work()

    class Applying(Revoking):
        async def apply(self, revocation: Revocation) -> Any:
            await work.do()

    revoking = Applying(cast(Any, None), cast(Any, None))

    def add(number: int) -> None:
        revoking.revoked(Rule("user", f"user {number}", "", 1.0))

    assert 3 == await counted(revoking.run, add, work)
