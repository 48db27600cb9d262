"""A storm of signed webhooks over HTTP, at two servers at once: repeated, and in any order.

`SYNCBRIDGE_STORM_DELIVERIES` makes it larger: `make chaos` sends 10,000.
"""

import os
import random
import time

import pytest
import trio

from webhook_kit import KINDS, Site, comings_and_goings, signed, site

DELIVERIES = int(os.environ.get("SYNCBRIDGE_STORM_DELIVERIES", "1000"))
REPEATED = 0.3
CHANNELS = 20
USERS = 12
AT_ONCE = 48
SECONDS = 60 + DELIVERIES / 25

Delivery = tuple[bytes, dict[str, str]]


async def storm(one: Site, sent: list[Delivery]) -> None:
    """Post all of them, many at a time, to any of the nodes; each is answered with 200."""
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def post(number: int, body: bytes, headers: dict[str, str]) -> None:
        async with limiter:
            answer = await one.post(body, headers, node=number % len(one.nodes))
            assert 200 == answer.status_code

    async with trio.open_nursery() as nursery:
        for number, (body, headers) in enumerate(sent):
            nursery.start_soon(post, number, body, headers)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_storm_over_http_ends_with_the_truth(kind: str) -> None:
    """Who is in which call, and with which connections, is what happened."""
    rng = random.Random(7)
    async with site(kind, nodes=2, rate_limit_enabled=False, voice_sync=86_400.0) as one:
        sessions = [await one.open(f"c{number}") for number in range(CHANNELS)]
        count = round(DELIVERIES * (1 - REPEATED))
        times = [time.time() - (count - number) * 0.05 for number in range(count)]
        bodies, present = comings_and_goings(rng, kind, sessions, USERS, times)
        deliveries = [(body, signed(kind, body)) for body in bodies]
        sent = deliveries + rng.choices(deliveries, k=DELIVERIES - len(deliveries))
        rng.shuffle(sent)
        with trio.fail_after(SECONDS):
            await storm(one, sent)
            while await one.voice.inbox.waiting():  # noqa: ASYNC110 - others work it off
                await trio.sleep(0.05)
        for number, session in enumerate(sessions):
            call = (await one.look(f"c{number}")).call
            assert call is not None
            found = {user: set(call.connections(user)) for user in call.users}
            assert {u: set(peers) for u, peers in present[session].items() if peers} == found
