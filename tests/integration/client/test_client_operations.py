"""Operations of the client on a real server: shown at once, and what the server makes of them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.client_kit import device, on, until
from support.server_kit import Node, new_session, running_node
from support.tcp_proxy import TcpProxy
from syncbridge_client import MISSING, Session, UpdateRefused

pytestmark = pytest.mark.parametrize("backend", ["trio", "asyncio"])

START = {"n": 5, "list": [1], "object": {"a": 1, "b": {"c": 2}}, "text": "x"}


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url) as running:
        yield running


async def every_operation(session: Session) -> None:
    await session.incr("n", 3)
    await session.incr("new number")
    await session.append("list", {"b": [2]})
    await session.append("new list", 1)
    await session.merge("object", {"a": None, "b": {"d": 3}})
    await session.merge("new object", {"x": {"y": None}})
    await session.max("new max", 7)
    await session.max("n", 20)
    await session.min("n", 12)
    await session.setnx("text", "other")
    await session.setnx("new text", "y")
    await session.cas("text", "x", "z")
    await session.cas("new cas", MISSING, True)


EXPECTED = {
    "n": 12,
    "new number": 1,
    "list": [1, {"b": [2]}],
    "new list": [1],
    "object": {"b": {"c": 2, "d": 3}},
    "new object": {"x": {}},
    "new max": 7,
    "text": "z",
    "new text": "y",
    "new cas": True,
}


async def test_what_is_shown_is_what_the_server_does(node: Node, backend: str) -> None:
    """The optimistic result of every operation equals the server's, for each device."""

    async def scenario() -> None:
        sid = new_session()
        async with device(node.port, "phone", sid) as phone, device(node.port, "pc", sid) as pc:
            await phone.update(START)
            await phone.synced()
            await every_operation(phone)
            shown = dict(phone.state)
            await phone.synced()
            assert EXPECTED == shown == dict(phone.state)
            await until(lambda: dict(pc.state) == EXPECTED)

    await on(backend, scenario)


async def test_two_counters_add_up(node: Node, backend: str) -> None:
    """Answers are lost and connections cut while both devices count: nothing counts twice."""

    async def scenario() -> None:
        sid = new_session()
        with TcpProxy(node.port) as proxy:
            async with device(proxy.port, "phone", sid) as phone:
                async with device(node.port, "pc", sid) as pc:
                    for n in range(30):
                        await phone.incr("n")
                        await pc.incr("n", 10)
                        proxy.deaf = n % 10 > 5
                        if n % 10 == 9:
                            await pc.synced()
                            proxy.deaf = False
                            proxy.cut()
                    proxy.deaf = False
                    await phone.synced()
                    await pc.synced()
                    assert {"n": 330} == await pc.snapshot() == await phone.snapshot()

    await on(backend, scenario)


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [("incr", ("text",)), ("append", ("n", 1)), ("cas", ("n", 4, 1)), ("max", ("text", 1))],
)
async def test_impossible_operation_is_refused(
    node: Node, backend: str, operation: str, arguments: tuple[Any, ...]
) -> None:
    """The value stays as it is, and the handle says why."""

    async def scenario() -> None:
        async with device(node.port, "phone", new_session()) as phone:
            await phone.update(START)
            update = await getattr(phone, operation)(*arguments)
            with pytest.raises(UpdateRefused):
                await update.acknowledged()
            assert START == dict(phone.state) == await phone.snapshot()

    await on(backend, scenario)
