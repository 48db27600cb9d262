"""Thousands of webhooks, many of them repeated and all shuffled, end like the same in order."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
import trio

from redis_servers import RedisServer
from syncbridge.voice.budget import RequestBudget
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.channel_ports import Delivery
from syncbridge.voice.records import ChannelConfig
from syncbridge_server.redis.bus import RedisBus
from syncbridge_server.redis.client import RedisIO
from syncbridge_server.redis.inbox import RedisInbox
from syncbridge_server.redis.recordings import RedisRecordings
from syncbridge_server.redis.voice import RedisChannels
from syncbridge_server.voice.calling import ProviderCalls
from syncbridge_server.voice.desk import Desk
from syncbridge_server.voice.inbox_worker import InboxWorker
from syncbridge_server.voice.rtk import RtkProvider
from webhook_kit import event

DELIVERIES = 5_000
REPEATED = 0.3
CHANNELS = 25
USERS = 12
START = 1_700_000_000.0
SEEDS = (1, 2, 3)


class Effects:
    """Counts what became of deliveries."""

    def __init__(self) -> None:
        self.done = 0
        self.dead: list[str] = []

    def took_effect(self, seconds: float) -> None:
        self.done += 1

    def buried(self, reason: str) -> None:
        self.dead.append(reason)

    def waiting(self, count: int) -> None:
        pass


@dataclass
class Worker:
    """A node's worker, and what it needs."""

    inbox: RedisInbox
    channels: RedisChannels
    desk: Desk
    effects: Effects
    worker: InboxWorker


@asynccontextmanager
async def worker(url: str, name: str) -> AsyncIterator[Worker]:
    """A node that works on webhooks. Its clock stands an hour after the story began."""
    async with RedisIO(url).running() as io, RedisBus(io, name).running() as bus:
        async with httpx.AsyncClient() as client:
            calls = ProviderCalls(client, "http://127.0.0.1:9", "", RequestBudget(1, 1))
            inbox, channels = RedisInbox(io, bus, name), RedisChannels(io, bus, name, 3600)
            desk = Desk(channels, ChannelLimits(), lambda: START + 3_600)
            effects = Effects()
            recordings = RedisRecordings(io, 3600)
            made = InboxWorker(
                RtkProvider(calls), inbox, channels, desk, recordings, effects, idle_ms=60_000
            )
            yield Worker(inbox, channels, desk, effects, made)


def story(rng: random.Random) -> list[Delivery]:
    """Deliveries in the order in which things happened: people come, go, come again."""
    told: list[Delivery] = []
    present: dict[tuple[str, str], list[str]] = {}
    count = round(DELIVERIES / (1 + REPEATED))
    for number in range(count):
        at = START + number * 0.5
        place = f"s{rng.randrange(CHANNELS)}", f"u{rng.randrange(USERS)}"
        peers = present.setdefault(place, [])
        if peers and rng.random() < 0.6:
            name, peer = "left", peers.pop(rng.randrange(len(peers)))
        else:
            name, peer = "joined", f"p{number}"
            peers.append(peer)
        body = event("rtk", name, *place, peer, at)
        told.append(Delivery(f"d{number}", body, int((START + 3_600) * 1000)))
    return told


def storm(told: list[Delivery], rng: random.Random) -> list[Delivery]:
    """The same, with repetitions, in any order."""
    repeated = rng.choices(told, k=round(len(told) * REPEATED))
    sent = [*told, *repeated]
    rng.shuffle(sent)
    return sent


async def send(inbox: RedisInbox, sent: list[Delivery]) -> int:
    """Put all of them, many at a time; how many were new."""
    limiter, new = trio.CapacityLimiter(64), 0

    async def put(delivery: Delivery) -> None:
        nonlocal new
        async with limiter:
            kept = await inbox.put(delivery)
            new += kept

    async with trio.open_nursery() as nursery:
        for delivery in sent:
            nursery.start_soon(put, delivery)
    return new


async def settled(url: str, told: list[Delivery], *, at_once: bool, nodes: int) -> dict[str, Any]:
    """Who is in which call, with which connections, once all deliveries have taken effect."""
    async with worker(url, "n0") as first, worker(url, "n1") as second:
        for number in range(CHANNELS):
            channel, session = f"c{number}", f"s{number}"
            await first.channels.note_session(session, channel)
            await first.desk.change(channel, lambda c, now: c.opening(now, ChannelConfig(), "w"))
            await first.desk.change(channel, partial(opened, session))
        if at_once:
            assert len({d.delivery_id for d in told}) == await send(first.inbox, told)
        else:
            for delivery in told:
                await first.inbox.put(delivery)
        await work_off([first, second][:nodes])
        assert [] == first.effects.dead + second.effects.dead
        return {f"c{n}": await view(first, f"c{n}") for n in range(CHANNELS)}


def opened(session: str, channel: Channel, now: int) -> None:
    channel.opened(session, now)


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
    call = (await one.desk.look(channel_id)).call
    assert call is not None
    total = call.statistics(one.desk.now()).participants
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
