"""Thousands of webhooks, many of them repeated and all shuffled, end like the same in order."""

import random
from typing import Any

import pytest
import trio

from support.redis_servers import RedisServer
from support.voice.inbox_kit import Worker, worker
from support.voice.webhook_kit import comings_and_goings
from syncbridge.voice.stored import WebhookDelivery
from syncbridge_server.redis.stores.inbox import RedisInbox

DELIVERIES = 5_000
REPEATED = 0.3
CHANNELS = 25
USERS = 12
START = 1_700_000_000.0
LATER = START + 3_600
SEEDS = (1, 2, 3)


def story(rng: random.Random) -> list[WebhookDelivery]:
    """Deliveries in the order in which things happened: people come, go, come again."""
    sessions = [f"s{number}" for number in range(CHANNELS)]
    times = [START + number * 0.5 for number in range(round(DELIVERIES * (1 - REPEATED)))]
    bodies, _ = comings_and_goings(rng, "rtk", sessions, USERS, times)
    return [WebhookDelivery(f"d{n}", body, int(LATER * 1000)) for n, body in enumerate(bodies)]


def storm(told: list[WebhookDelivery], rng: random.Random) -> list[WebhookDelivery]:
    """The same, with repetitions, in any order."""
    repeated = rng.choices(told, k=DELIVERIES - len(told))
    sent = [*told, *repeated]
    rng.shuffle(sent)
    return sent


async def send(inbox: RedisInbox, sent: list[WebhookDelivery]) -> int:
    """Put all of them, many at a time; how many were new."""
    limiter, new = trio.CapacityLimiter(64), 0

    async def put(delivery: WebhookDelivery) -> None:
        nonlocal new
        async with limiter:
            kept = await inbox.put(delivery)
            new += kept

    async with trio.open_nursery() as nursery:
        for delivery in sent:
            nursery.start_soon(put, delivery)
    return new


async def settled(
    url: str, told: list[WebhookDelivery], *, at_once: bool, nodes: int
) -> dict[str, Any]:
    """Who is in which call, with which connections, once all deliveries have taken effect."""
    async with worker(url, "n0", LATER) as first, worker(url, "n1", LATER) as second:
        for number in range(CHANNELS):
            channel, session = f"c{number}", f"s{number}"
            await first.open(channel, session)
        if at_once:
            assert len({d.delivery_id for d in told}) == await send(first.inbox, told)
        else:
            for delivery in told:
                await first.inbox.put(delivery)
        await work_off([first, second][:nodes])
        assert [] == first.effects.dead + second.effects.dead
        return {f"c{n}": await view(first, f"c{n}") for n in range(CHANNELS)}


async def work_off(workers: list[Worker]) -> None:
    """Let the workers work, all at the same time, until nothing waits."""

    async def work(one: Worker) -> None:
        while await one.inbox.waiting():
            await one.worker.step()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for one in workers:
                nursery.start_soon(work, one)


async def view(one: Worker, channel_id: str) -> tuple[int, dict[str, set[str]]]:
    """How many are in the call, and the connections of each."""
    call = (await one.writer.read(channel_id)).call
    assert call is not None
    total = call.statistics(one.writer.now()).participants
    return total, {user: set(call.connections(user)) for user in call.users}


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_storm_ends_like_the_clean_order(seed: int) -> None:
    """Two nodes at once, on repeated and shuffled deliveries: the state of one in good order."""
    rng = random.Random(seed)
    told = story(rng)
    with RedisServer() as clean, RedisServer() as stormy:
        expected = await settled(clean.url, told, at_once=False, nodes=1)
        found = await settled(stormy.url, storm(told, rng), at_once=True, nodes=2)

    assert sum(total for total, _ in expected.values()) > CHANNELS
    assert expected == found
