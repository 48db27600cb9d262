"""Our webhook's registration: once for all nodes, again when it has passed, never in the way."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import trio
import trio.testing

from support.redis_servers import RedisServer
from support.voice.inbox_kit import Worker, worker
from syncbridge.errors import StoreUnavailable
from syncbridge.voice.provider import errors
from syncbridge.voice.provider.records import WebhookRegistration
from syncbridge_server.ports.channels import Channels
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.redis.stores.registrations import RedisNotes, key_of
from syncbridge_server.voice.provider.registration import RENEW_SECONDS, Registration

URL = "https://bridge.example/"


class Provider:
    """Counts registrations. `failures`: what to raise first."""

    def __init__(self, *failures: Exception) -> None:
        self.urls: list[str] = []
        self.asked: list[float] = []
        self.failures = list(failures)

    async def register_webhook(self, url: str) -> WebhookRegistration:
        self.asked.append(trio.current_time())
        await trio.sleep(0.01)
        if self.failures:
            raise self.failures.pop(0)
        self.urls.append(url)
        return WebhookRegistration("hook", url)


class Notes:
    """Notes in memory; `failures`: what to raise first."""

    def __init__(self, *failures: Exception) -> None:
        self.until: dict[str, float] = {}
        self.failures = list(failures)

    async def registered(self, url: str) -> bool:
        if self.failures:
            raise self.failures.pop(0)
        return self.until.get(url, 0.0) > trio.current_time()

    async def note(self, url: str, seconds: float) -> None:
        self.until[url] = trio.current_time() + seconds


class Unlocked:
    """Channels whose lock is always free."""

    def lock(self, *arguments: Any) -> Any:
        return _Free()


class _Free:
    async def __aenter__(self) -> bool:
        return True

    async def __aexit__(self, *arguments: object) -> None:
        return None


def registration(provider: Provider, notes: Any, channels: Any = None) -> Registration:
    held = channels or cast(Channels, Unlocked())
    return Registration(cast(VoiceProvider, provider), held, notes, URL)


@pytest.fixture
async def node() -> AsyncIterator[Worker]:
    with RedisServer() as redis:
        async with worker(redis.url, "n", 0.0) as running:
            yield running


async def test_many_nodes_register_once(node: Worker) -> None:
    """They start together; one of them asks the provider, and the others find its note."""
    provider = Provider()
    made = [registration(provider, RedisNotes(node.io), node.channels) for _ in range(8)]

    async def until_done(one: Registration) -> None:
        while not await one.once():  # noqa: ASYNC110 - another node has the lock
            await trio.sleep(0.005)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for one in made:
                nursery.start_soon(until_done, one)

    assert ["https://bridge.example/rtk-webhook"] == provider.urls
    assert 0 < await node.io.execute("PTTL", key_of(made[0].url)) <= RENEW_SECONDS * 1000


async def run_for(one: Registration, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await one.run()


async def test_what_passes_is_tried_again_with_growing_pauses(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The store away, the provider away, our budget spent: then it works."""
    provider = Provider(errors.NetworkFailed(), errors.ProviderUnavailable(), errors.RateLimited())
    notes = Notes(StoreUnavailable("away"))
    await run_for(registration(provider, notes), 60)
    pauses = [b - a for a, b in zip(provider.asked, provider.asked[1:], strict=False)]

    assert 1 == len(provider.urls)
    assert [2.01, 4.01, 8.01] == pytest.approx(pauses)


@pytest.mark.parametrize(
    "refusal", [errors.PermissionDenied(), errors.InvalidRequest(), errors.SessionNotFound()]
)
async def test_what_does_not_pass_is_not_hammered(
    refusal: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    """A key without the right to register: asked again an hour later, not before."""
    provider = Provider(refusal)
    await run_for(registration(provider, Notes()), RENEW_SECONDS - 1)
    assert 1 == len(provider.asked)


async def test_it_is_renewed(autojump_clock: trio.testing.MockClock) -> None:
    """A registration that somebody deleted comes back within about an hour."""
    provider = Provider()
    await run_for(registration(provider, Notes()), 3 * RENEW_SECONDS + 60)

    assert 4 == len(provider.urls)
