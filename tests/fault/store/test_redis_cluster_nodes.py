"""Nodes on a cluster: readiness for every primary, messages in the slot of their session, walks."""

from collections.abc import Iterator
from itertools import count

import pytest
import structlog
import trio
from structlog.testing import LogCapture

from support.contract.requests import session_id, write
from support.redis_cluster import RedisCluster, ask, text
from support.redis_servers import bundled, default_binary, until
from support.server_kit import running_node, settings
from support.watched_node import Watched, watched, writes_arrive
from syncbridge.records.sessions import Notice
from syncbridge.slots import BUCKETS, TAGS, slot_of
from syncbridge_server.admin.survey import Survey
from syncbridge_server.checks.redis import check_redis
from syncbridge_server.redis.bus import readiness as module
from syncbridge_server.redis.bus.messages import encode_notice, node_channels
from syncbridge_server.redis.bus.readiness import configuration_warnings
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import plain
from syncbridge_server.redis.link.urls import Address

FAILOVER_SECONDS = 60.0
ONE_EACH = [1] * BUCKETS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steady pace of the probes is not what is tested."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)


@pytest.fixture(params=["redis", "valkey"])
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    """Three primaries with a replica each."""
    binary = bundled() if request.param == "valkey" else default_binary()
    with RedisCluster(binary, replicas=1) as running:
        yield running


async def both_ready(one: Watched, other: Watched) -> None:
    """Wait for the verdict of both nodes."""
    await until(lambda: not one.readiness.reason and not other.readiness.reason, FAILOVER_SECONDS)


class Subscriber:
    """Numbers of the notices that a node has heard, and how often it was told to compare."""

    def __init__(self, node: Watched) -> None:
        self.heard: list[int] = []
        self.resyncs = 0
        node.bus.on_notice("test", lambda notice: self.heard.append(int(notice.data)))
        node.bus.on_resync(self._compare)

    def _compare(self) -> None:
        self.resyncs += 1


async def heard_from_every_bucket(node: Watched, ear: Subscriber) -> None:
    """Each bucket comes to have one listener, and what is published in its slot arrives once."""
    channels = node_channels(node.bus.node)
    with trio.fail_after(FAILOVER_SECONDS):
        asked = [plain("SPUBLISH", one, encode_notice(Notice("", "", b""))) for one in channels]
        while await node.io.request(asked) != ONE_EACH:  # noqa: ASYNC110 - Redis is asked
            await trio.sleep(0.02)
    ear.heard.clear()
    said = [
        plain("SPUBLISH", channel, encode_notice(Notice("test", "", b"%d" % number)))
        for number, channel in enumerate(channels)
    ]
    assert await node.io.request(said) == ONE_EACH
    await until(lambda: len(ear.heard) == BUCKETS)
    assert sorted(ear.heard) == list(range(BUCKETS))


async def test_a_primary_dies(cluster: RedisCluster) -> None:
    """Not ready until its replica is promoted; then every slot hears again, and all is compared."""
    async with watched(cluster.url, "n1") as one, watched(cluster.url, "n2") as other:
        ear = Subscriber(one)
        await both_ready(one, other)
        await heard_from_every_bucket(one, ear)
        await writes_arrive(one, other)
        assert ear.resyncs == 0
        cluster.masters[1].kill()
        await until(lambda: bool(one.readiness.reason) and bool(other.readiness.reason))
        await both_ready(one, other)
        await until(lambda: ear.resyncs > 0)
        await heard_from_every_bucket(one, ear)
        for _ in range(3):
            await writes_arrive(one, other)
        cluster.masters[1].start()
        await until(lambda: text(ask(cluster.masters[1], "ROLE")[0]) == "slave")
        await both_ready(one, other)
        await heard_from_every_bucket(one, ear)


async def test_slots_move_under_nodes(cluster: RedisCluster) -> None:
    """Nobody is refused or not ready; a channel that moved is subscribed where it is now."""
    async with watched(cluster.url, "n1") as one, watched(cluster.url, "n2") as other:
        ear = Subscriber(one)
        await both_ready(one, other)
        changes = one.readiness.changes
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_writes, one, over)
            for bucket in range(0, 40, 4):
                slot = slot_of(TAGS[bucket])
                await trio.to_thread.run_sync(cluster.move_slot, slot, cluster.masters[2])
            over.set()
        await until(lambda: ear.resyncs > 0)
        await both_ready(one, other)
        await heard_from_every_bucket(one, ear)
        for _ in range(3):
            await writes_arrive(one, other)
        assert one.readiness.changes == changes


async def _writes(node: Watched, over: trio.Event) -> None:
    """Sessions of every bucket are written; an error ends the test."""
    for number in count():
        if over.is_set():
            return
        assert (await node.store.call(write(session_id(), {"n": str(number)}))).version == 1


async def test_warnings_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow failover, and primaries that refuse for each other, are named, and where."""
    with RedisCluster(masters=2) as cluster:
        first, second = (f"127.0.0.1:{master.port}" for master in cluster.masters)
        async with RedisIO(cluster.url).running() as io:
            before = [setting for setting, _ in await configuration_warnings(io)]
            ask(cluster.masters[0], "CONFIG SET", "cluster-node-timeout", 15_000)
            ask(cluster.masters[0], "CONFIG SET", "cluster-require-full-coverage", "yes")
            at = Address("127.0.0.1", cluster.masters[0].port)
            found = [setting for setting, _ in await configuration_warnings(io, at)]
        logged = LogCapture()
        every = structlog.make_filtering_bound_logger(0)
        log = structlog.wrap_logger(None, processors=[logged], wrapper_class=every)
        monkeypatch.setattr(module, "log", log)
        checked = [finding.text for finding in await check_redis(settings(cluster.url))]
    assert before == ["no persistence"]
    assert found == [*before, "cluster-node-timeout 15000", "cluster-require-full-coverage yes"]
    slow = [line for line in checked if "cluster-node-timeout" in line]
    assert [f"{first}: cluster-node-timeout 15000"] == [line.split(": use")[0] for line in slow]
    assert any(line.startswith(f"{second}: no persistence") for line in checked)
    warned = {line["server"] for line in logged.entries if line["event"] == "redis_configuration"}
    assert {first, second} == warned


async def test_a_whole_server(cluster: RedisCluster) -> None:
    """It is ready, walks over all primaries, and says which of them is missing."""
    async with running_node(cluster.url) as node, node.http() as http:
        sids = {session_id() for _ in range(30)}
        for sid in sids:
            await node.server.store.call(write(sid, {"n": "1"}))
        assert (await http.get("/health/ready")).status_code == 200
        survey, found, cursor = Survey(node.server.io), set(), ""
        while True:
            rows, cursor, _ = await survey.page(cursor, 7)
            found |= {row.session_id for row in rows}
            if not cursor:
                break
        assert found == sids
        assert (await survey.volume()).stored == 30
        cluster.masters[2].kill()
        await until(lambda: bool(node.server.readiness.reason))
        ready = await http.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["reason"] in ("away", "bus_deaf")
