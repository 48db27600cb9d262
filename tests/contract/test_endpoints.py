"""Endpoints of events, on every kind of server."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from syncbridge.events.endpoints import Endpoint
from syncbridge.events.outbox import event_of
from syncbridge_server.ports.events import Part, Place, Want
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.endpoints import RedisEndpoints
from syncbridge_server.redis.stores.events import ENDPOINTS, OWN_TAG, RedisEvents, outbox


@pytest.fixture
async def endpoints(io: RedisIO) -> AsyncIterator[RedisEndpoints]:
    """A store with none, and an outbox without an event of theirs."""
    await io.execute("UNLINK", ENDPOINTS, outbox(OWN_TAG))
    yield RedisEndpoints(io)
    await io.execute("UNLINK", ENDPOINTS, outbox(OWN_TAG))


async def told(io: RedisIO) -> list[dict[str, str]]:
    """What the events of endpoints say, as whoever carries finds them."""
    events = RedisEvents(io, most=10, most_bytes=100_000, session_ms=1)
    (part,) = await events.take([Want(OWN_TAG, Place())], 100, values=False)
    assert isinstance(part, Part)
    found = [event_of(OWN_TAG, name, fields) for name, fields in part.entries]
    assert {"endpoint.disabled"} >= {one.type for one in found}
    return [msgspec.json.decode(one.data) for one in found]


async def test_one_is_disabled_and_told_once(io: RedisIO, endpoints: RedisEndpoints) -> None:
    """Both in one step; a second time is none."""
    assert OWN_TAG in RedisEvents.tags
    await endpoints.put(Endpoint("e", "https://example.com/", ["s"], description="mine"))
    answers = [await endpoints.disable("e", reason, 5) for reason in ("status 410", "again")]
    found = await endpoints.find("e")

    assert found is not None
    assert [True, False] == answers
    assert ("status 410", 5, "mine") == (found.disabled, found.disabled_at, found.description)
    url = "https://example.com/"
    assert [{"endpoint_id": "e", "url": url, "reason": "status 410"}] == await told(io)


async def test_one_that_cannot_be_told_is_not_disabled(
    io: RedisIO, endpoints: RedisEndpoints
) -> None:
    """The next failure tries it again."""
    await endpoints.put(Endpoint("e", "https://example.com/", ["s"]))
    await io.execute("SET", outbox(OWN_TAG), "damaged")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await endpoints.disable("e", "status 410", 5)
    found = await endpoints.find("e")

    assert found is not None
    assert "" == found.disabled


async def test_one_that_is_changed_or_removed_meanwhile_stays_so(
    io: RedisIO, endpoints: RedisEndpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever disables it has read it before; neither is a new secret lost, nor does it return."""
    await endpoints.put(Endpoint("e", "https://example.com/", ["old"]))
    script = io.script

    async def late(name: str, keys: list[str], args: list[bytes]) -> object:
        if args[0] == "e":
            await endpoints.put(Endpoint("e", "https://example.com/", ["new", "old"]))
        else:
            await endpoints.remove("f")
        return await script(name, keys, args)

    await endpoints.put(Endpoint("f", "https://example.com/", ["s"]))
    monkeypatch.setattr(io, "script", late)
    answers = [await endpoints.disable(name, "status 410", 5) for name in "ef"]
    found = await endpoints.find("e")

    assert found is not None
    assert ([False, False], ["new", "old"]) == (answers, found.secrets)
    assert None is await endpoints.find("f")
    assert [] == await told(io)
