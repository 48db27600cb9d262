"""Notices to all nodes of a cluster: nothing travels over the links between its servers.

A message on such a link is lost when the link is made anew, as it is when a server is slow to
answer for half a node timeout. No client's connection breaks, so that nobody would compare.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from support.redis_cluster import RedisCluster, ask, text
from support.redis_servers import PATIENCE, bundled, default_binary, until
from syncbridge.records.sessions import Notice
from syncbridge.voice.records import ChannelRecord
from syncbridge.voice.stored import WebhookDelivery
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.messages import COMMON_TAGS
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.server_info import info_fields
from syncbridge_server.redis.stores.inbox import RedisInbox
from syncbridge_server.redis.stores.voice import BUCKETS, RedisChannels, bucket_of

DAY = 86_400.0


@pytest.fixture(scope="module", params=["redis", "valkey"])
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    """Three primaries."""
    with RedisCluster(bundled() if request.param == "valkey" else default_binary()) as running:
        yield running


@pytest.fixture
async def buses(cluster: RedisCluster) -> AsyncIterator[list[tuple[RedisIO, RedisBus]]]:
    """Those of two nodes, which stand."""
    async with AsyncExitStack() as stack:
        made = []
        for name in ("n1", "n2"):
            io = await stack.enter_async_context(RedisIO(cluster.url, deadline=PATIENCE).running())
            made.append((io, await stack.enter_async_context(RedisBus(io, name).running())))
        await until(lambda: all(bus.connected and len(bus.servers) == 3 for _, bus in made))
        yield made


def crossed(cluster: RedisCluster) -> int:
    """Messages that primaries have passed on to others."""
    infos = [info_fields(text(ask(each, "CLUSTER", "INFO"))) for each in cluster.masters]
    return sum(int(info.get("cluster_stats_messages_publish_sent", 0)) for info in infos)


async def test_no_notice_crosses_a_link(
    cluster: RedisCluster, buses: list[tuple[RedisIO, RedisBus]]
) -> None:
    """Of a command, of a webhook, of a voice channel in each bucket: each node gets each once."""
    (io, bus), (_, other) = buses
    kinds = ("plain", "inbox", "voice")
    heard: list[list[str]] = [[], []]
    for at, each in enumerate((bus, other)):
        for kind in kinds:
            each.on_notice(kind, lambda notice, at=at: heard[at].append(notice.kind))
    before = crossed(cluster)

    bus.tell("*", Notice("plain", "", b""))
    await RedisInbox(io, bus, "n1").put(WebhookDelivery("one", b"body", 1))
    channels = RedisChannels(io, bus, "n1", DAY)
    ids = {bucket_of(text_id): text_id for text_id in map(str, range(400))}
    for channel_id in ids.values():
        record = ChannelRecord(channel_id)
        stored = await channels.read(channel_id)
        assert await channels.write(stored, record, due_at=None, live=False)
        assert await channels.delete(await channels.read(channel_id))

    assert len(ids) == BUCKETS
    expected = sorted(["plain", "inbox", *["voice"] * 2 * BUCKETS])
    await until(lambda: len(heard[0]) == len(heard[1]) == len(expected), PATIENCE)
    assert [expected, expected] == [sorted(kinds) for kinds in heard]
    assert before == crossed(cluster)
    assert {*map(str, range(BUCKETS)), "inbox"} <= {*COMMON_TAGS}
    ask(cluster.masters[0], "PUBLISH", "control", "crosses both")
    await until(lambda: crossed(cluster) == before + 2, PATIENCE)
