"""What it costs to say how much is stored, and how right that is."""

import uuid

import redis

from support.redis_servers import RedisServer
from syncbridge.slots import session_key
from syncbridge_server.admin.survey import MAX_ROWS, VOLUME_SCANS, Survey
from syncbridge_server.redis.link.client import RedisIO

SESSIONS = 12_000
BYTES = 100


def fill(raw: redis.Redis, count: int) -> None:
    """Sessions of `BYTES` each, beside two other keys for each of them."""
    pipeline = raw.pipeline(transaction=False)
    for number in range(count):
        sid = str(uuid.uuid4())
        pipeline.hset(session_key(sid, "m"), mapping={"v": 1, "u": "ann", "e": "e", "n": BYTES})
        pipeline.hset(session_key(sid, "d"), "a", "1")
        pipeline.set(f"other:{number}", "x")
    pipeline.execute()


def calls(raw: redis.Redis) -> dict[str, int]:
    stats = raw.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


async def test_few_sessions_are_counted_exactly(redis_server: RedisServer) -> None:
    """All of them are looked at."""
    with redis_server.client() as raw:
        fill(raw, 500)
        async with RedisIO(redis_server.url).running() as io:
            found = await Survey(io).volume()

    assert (500, 500 * BYTES, BYTES, BYTES) == (
        found.stored,
        found.bytes,
        found.average_bytes,
        found.largest_bytes,
    )
    assert found.exact


async def test_many_sessions_cost_a_bounded_number_of_commands(redis_server: RedisServer) -> None:
    """A part is looked at, and stands for the whole."""
    with redis_server.client() as raw:
        fill(raw, SESSIONS)
        async with RedisIO(redis_server.url).running() as io:
            raw.config_resetstat()
            found = await Survey(io).volume()
            asked = calls(raw)

    assert not found.exact
    assert asked["evalsha"] <= MAX_ROWS
    assert asked["scan"] <= VOLUME_SCANS
    assert abs(found.stored - SESSIONS) < SESSIONS / 5
    assert BYTES == found.average_bytes
