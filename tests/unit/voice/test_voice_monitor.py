"""Measurements of calls: within a share, the longest unmeasured first, and kept for who asks."""

from typing import Any

import trio
import trio.testing
from prometheus_client import CollectorRegistry

from support.voice.voice_store import MemoryChannels, desk_of, open_call
from syncbridge.voice.provider.records import CannotVerify, Metrics, VerifyFailure
from syncbridge_server.voice.figures.metrics import voice_metrics
from syncbridge_server.voice.figures.monitor import UNMEASURED, Monitor, MonitorLimits

NAMES = [f"c{n}" for n in range(7)]
GOOD = Metrics(0.0, 2.5, 40.0, 64_000.0)


class Provider:
    """The same answer about every call. `asked`: about which, in order."""

    def __init__(self, answer: Metrics | CannotVerify = GOOD) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def fetch_metrics(self, session_id: str) -> Metrics | CannotVerify:
        await trio.lowlevel.checkpoint()
        self.asked.append(session_id)
        return self.answer


class Sink:
    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []

    def send(self, document: dict[str, Any]) -> None:
        self.documents.append(document)


class Rig:
    def __init__(self, provider: Provider) -> None:
        self.failing = False
        self.writer = desk_of(MemoryChannels())
        self.sink = Sink()
        metrics = voice_metrics(CollectorRegistry()).calls
        limits = MonitorLimits(interval_s=60.0, calls=3, fresh_s=30.0, kept=100)
        asked: Any = provider
        self.monitor = Monitor(asked, self.writer, metrics, limits, self.sink, lambda: self.failing)

    async def fill(self) -> None:
        for name in NAMES:
            await open_call(self.writer, name, "ann")
        self.sink.documents.clear()


async def test_each_pass_measures_others(autojump_clock: trio.testing.MockClock) -> None:
    """Three of seven in each pass: after three passes each was measured at least once."""
    provider = Provider()
    rig = Rig(provider)
    await rig.fill()
    measured = []
    for _ in range(3):
        await trio.sleep(60)
        rig.sink.documents.clear()
        totals = await rig.monitor.make_pass()
        measured.append([d for d in rig.sink.documents if "error" not in d["rtk"]])

    assert {f"s-{n}" for n in NAMES} == set(provider.asked)
    assert [3, 3, 3] == [len(found) for found in measured]
    assert (7, 7, 3) == (totals.live, totals.participants, totals.asked)
    assert {UNMEASURED} == {d["rtk"]["error"] for d in rig.sink.documents if "error" in d["rtk"]}


async def test_a_provider_that_does_not_measure_is_asked_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Every document says why there are no figures, and the rest of the share is left."""
    provider = Provider(CannotVerify(VerifyFailure.UNSUPPORTED, "told later"))
    rig = Rig(provider)
    await rig.fill()
    totals = await rig.monitor.make_pass()

    assert (1, 7) == (totals.asked, len(rig.sink.documents))
    assert all("error" in document["rtk"] for document in rig.sink.documents)


async def test_who_asks_gets_what_was_measured(autojump_clock: trio.testing.MockClock) -> None:
    """Twice within a while is one request; later it is measured again."""
    provider = Provider()
    rig = Rig(provider)
    await rig.fill()
    channel = await rig.writer.read("c0")
    documents = [await rig.monitor.collect(channel) for _ in range(3)]
    soon = len(provider.asked)
    await trio.sleep(31)
    await rig.monitor.collect(channel)

    assert (1, 2) == (soon, len(provider.asked))
    assert {"packetsLost": 0.0, "jitter": 2.5, "latency": 40.0, "bandwidth": 64_000.0} == (
        documents[2]["rtk"]
    )


async def test_a_call_that_ended_is_reported_once(autojump_clock: trio.testing.MockClock) -> None:
    """Its final figures, when it is written, and nobody is measured for it."""
    provider = Provider()
    rig = Rig(provider)
    await rig.fill()
    await trio.sleep(10)
    await rig.writer.change("c0", lambda channel, now: channel.end(now, "ended"))

    assert [("s-c0", "ended", 10_000, 1)] == [
        (d["sessionId"], d["state"], d["duration"], d["peakParticipants"])
        for d in rig.sink.documents
    ]
    assert [] == provider.asked


async def test_a_provider_that_fails_is_an_error_of_every_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The documents say so, also when it began to fail with the measurements of this very pass."""
    rig = Rig(Provider())
    await rig.fill()
    found = []
    for failing in (True, False):
        rig.failing = failing
        rig.sink.documents.clear()
        totals = await rig.monitor.make_pass()
        good = {d["health"]["checks"]["noErrors"] for d in rig.sink.documents}
        found.append((good, totals.health["degraded"], totals.health["healthy"]))

    assert [({False}, 7, 0), ({True}, 0, 7)] == found
