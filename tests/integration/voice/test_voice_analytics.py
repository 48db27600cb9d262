"""Documents for the analytics service: delivered, repeated, dropped, and never waited for."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from support.redis_servers import RedisServer, until
from support.voice import sim_kit
from support.voice.voice_kit import voice_server
from syncbridge_server.voice.figures.analytics import Analytics, AnalyticsLimits
from syncbridge_server.voice.figures.metrics import voice_metrics
from syncbridge_server.voice.provider.calling import new_client

LIMITS = AnalyticsLimits(queue=5, together=1, deadline_s=1.0, attempts=3, pause_s=0.01, most_s=0.02)
KEY = "a-key-that-is-secret"


class Rig:
    """A delivery to a web server, and what was counted."""

    def __init__(self, analytics: Analytics, registry: CollectorRegistry) -> None:
        self.analytics = analytics
        self.registry = registry

    def counted(self, name: str, **labels: str) -> float:
        sample = f"syncbridge_voice_analytics_{name}"
        return self.registry.get_sample_value(sample, labels) or 0.0


@asynccontextmanager
async def delivering(url: str, limits: AnalyticsLimits = LIMITS) -> AsyncIterator[Rig]:
    registry = CollectorRegistry()
    async with new_client() as client, trio.open_nursery() as nursery:
        analytics = Analytics(client, url, KEY, voice_metrics(registry).analytics, limits)
        nursery.start_soon(analytics.run)
        yield Rig(analytics, registry)
        nursery.cancel_scope.cancel()


async def test_a_document_arrives_with_the_key() -> None:
    """As JSON, in the order of their making, with the bearer token."""
    async with sim_kit.inbox() as box, delivering(box.url) as rig:
        for number in range(3):
            rig.analytics.send({"sessionId": "s", "number": number})
        got = [await box.next() for _ in range(3)]

    assert [0, 1, 2] == [json.loads(body)["number"] for _, body in got]
    assert {f"Bearer {KEY}"} == {headers["authorization"] for headers, _ in got}
    assert {"application/json"} == {headers["content-type"] for headers, _ in got}


async def test_what_is_not_taken_is_sent_again() -> None:
    """In trouble, then too busy, then taken: one document, and it is not lost."""
    async with sim_kit.inbox() as box, delivering(box.url) as rig:
        box.answers += [503, 429]
        rig.analytics.send({"number": 1})
        bodies = [(await box.next())[1] for _ in range(3)]
        await until(lambda: rig.counted("sent_total") == 1)

    assert [b'{"number":1}'] * 3 == bodies
    assert 0.0 == rig.counted("dropped_total", reason="undelivered")


async def test_what_is_never_taken_is_dropped_and_the_next_one_sent() -> None:
    """Three attempts; a refusal has one. Both are counted."""
    async with sim_kit.inbox() as box, delivering(box.url) as rig:
        box.answers += [500, 500, 500, 401]
        for number in range(3):
            rig.analytics.send({"number": number})
        numbers = [json.loads((await box.next())[1])["number"] for _ in range(5)]
        await until(lambda: rig.counted("sent_total") == 1)

    assert [0, 0, 0, 1, 2] == numbers
    assert (1.0, 1.0) == (
        rig.counted("dropped_total", reason="undelivered"),
        rig.counted("dropped_total", reason="refused"),
    )


async def test_nobody_waits_and_the_oldest_are_dropped() -> None:
    """The service hangs: sending returns at once, and the queue keeps the latest."""
    async with sim_kit.rig() as sim, delivering(sim.url) as rig:
        await sim.faults(hang=True)
        for number in range(20):
            rig.analytics.send({"number": number})
        queued, dropped = rig.counted("queued"), rig.counted("dropped_total", reason="full")

    assert (5.0, 15.0) == (queued, dropped)


async def test_calls_are_reported_while_and_after_they_last(redis_server: RedisServer) -> None:
    """Each pass of the monitor, and the figures at the end of a call."""
    async with sim_kit.inbox() as box:
        more: dict[str, Any] = {
            "analytics_url": box.url,
            "analytics_key": KEY,
            "voice_monitor": 86_400.0,
        }
        async with voice_server(redis_server.url, **more) as rig:
            session = await rig.join("ann", "lobby")
            await rig.voice.monitor.make_pass()
            running = json.loads((await box.next())[1])
            await rig.voice.writer.change("lobby", lambda channel, now: channel.end(now, "ended"))
            final = json.loads((await box.next())[1])

    assert (session, "lobby", 1, "active") == tuple(
        running[name] for name in ("sessionId", "channelId", "participants", "state")
    )
    assert {"packetsLost", "jitter", "latency", "bandwidth"} == set(running["rtk"])
    assert (session, "ended", 1, "ended") == tuple(
        final[name] for name in ("sessionId", "state", "peakParticipants", "reason")
    )
