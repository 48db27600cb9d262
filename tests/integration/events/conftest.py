"""A node whose endpoints may be on this machine, an admin who asks it, and a receiver."""

from collections.abc import AsyncIterator

import httpx
import pytest

from support.events.receiver import Receiver, receiving
from support.redis_servers import RedisServer
from support.server_kit import Node, bearer, mint, running_node
from syncbridge.identity import Role


@pytest.fixture
async def node(redis_server: RedisServer) -> AsyncIterator[Node]:
    networks = ("127.0.0.0/8",)
    async with running_node(
        redis_server.url, rate_limit_enabled=False, webhook_networks=networks
    ) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    headers = bearer(mint("root", Role.ADMIN))
    async with httpx.AsyncClient(base_url=node.url, timeout=30.0, headers=headers) as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running
