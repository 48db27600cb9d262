"""One server, Sentinel or a cluster, for tests that only need a URL; and plain clients for each."""

from contextlib import AbstractContextManager
from typing import Any

import redis

from support.redis_cluster import RedisCluster
from support.redis_sentinels import PASSWORD, SentinelGroup
from support.redis_servers import RedisServer
from syncbridge_server.redis.link.endpoint import RedisEndpoint

Anywhere = RedisServer | SentinelGroup | RedisCluster


def anywhere(kind: str) -> AbstractContextManager[Anywhere]:
    """A place of a kind, whole when it is entered. Sentinels do not fail over by themselves."""
    if kind == "single":
        return RedisServer()
    if kind == "sentinel":
        return SentinelGroup(replicas=1)
    assert kind == "cluster", f"SYNCBRIDGE_TEST_PLACE is single, sentinel or cluster, not {kind}"
    return RedisCluster(replicas=1)


def client_of(url: str) -> Any:
    """A plain client of the Redis at a URL, for what a test wants to see or break."""
    primary = RedisEndpoint(url).primary()
    if primary is not None:
        return redis.Redis(host=primary.host, port=primary.port, password=PASSWORD)
    client = redis.Redis.from_url(url)
    if not client.info("cluster")["cluster_enabled"]:
        return client
    client.close()
    return redis.RedisCluster.from_url(url)
