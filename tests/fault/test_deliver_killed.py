"""`syncbridge deliver` and Redis die again and again: each event arrives, in order, with one id.

`SYNCBRIDGE_EVENT_KILLS` is how many times something is killed.
"""

import os
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx
import trio

from support.events.receiver import Got, Receiver, receiving
from support.redis_servers import RedisServer
from support.server_kit import bare_environment, bearer, mint, server_process
from syncbridge.identity import Role

KILLS = int(os.environ.get("SYNCBRIDGE_EVENT_KILLS", "4"))
SECONDS = 120 + 15 * KILLS
NETWORKS = {"SYNCBRIDGE_WEBHOOK_NETWORKS": "127.0.0.0/8"}
Json = dict[str, Any]


@contextmanager
def deliver(redis_url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`syncbridge deliver`; killed at the end."""
    environment = {**bare_environment(), **NETWORKS, "REDIS_ADDR": redis_url}
    command = [sys.executable, "-m", "syncbridge_server", "deliver"]
    popen = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield popen
    finally:
        popen.kill()
        popen.wait()


class Writers:
    """What was written: session -> its newest version."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.versions: dict[str, int] = {}
        self.stopping = False

    async def _ask(self, path: str, body: Json) -> None:
        while True:
            try:
                answer = await self._http.post(path, json=body)
            except httpx.TransportError:
                continue
            if answer.status_code not in (429, 503):
                assert answer.status_code in (200, 201, 409), answer.text
                return
            await trio.sleep(0.05)

    async def run(self, seed: int) -> None:
        draw = random.Random(seed)
        while not self.stopping:
            sid, stream = str(uuid.uuid4()), uuid.uuid4().hex
            body: Json = {"session_id": sid, "user_id": "ann", "device_id": "phone"}
            await self._ask("/session/snapshot", body | {"state_data": {"n": 0}})
            self.versions[sid] = 1
            for number in (1, 2):
                change = {"changes": {"n": number}, "base_version": number}
                change |= {"stream": stream, "seq": number}
                await self._ask("/session/incremental", body | change)
                self.versions[sid] = number + 1
                await trio.sleep(draw.uniform(0, 1.2))


def reached(got: list[Got]) -> dict[str, int]:
    """Up to which version each session was told; the first arrivals are in order."""
    found: dict[str, int] = {}
    by_id: dict[str, bytes] = {}
    for one in got:
        if by_id.setdefault(one.headers["webhook-id"], one.body) != one.body:
            raise AssertionError("an id has two bodies")
        event = one.event
        data, sid = event["data"], event["session_id"]
        if event["type"] == "session.created":
            found.setdefault(sid, 1)
        elif data["to_version"] > found.get(sid, 0):
            assert data["from_version"] == found[sid]
            found[sid] = data["to_version"]
    return found


async def killer(receiver: Receiver, server: RedisServer, writers: Writers) -> None:
    """Kill what delivers once it has begun; at every other time Redis as well."""
    for turn in range(KILLS):
        with deliver(server.url):
            await receiver.until(len(receiver.got) + 5, 60)
            if turn % 2:
                server.kill()
                await trio.sleep(0.2)
                server.start()
                await trio.sleep(1.5)
    writers.stopping = True


async def test_no_delivery_is_lost(tmp_path: Path, redis_server: RedisServer) -> None:
    """A fifth of the events fails at first besides. What arrived was acknowledged with 2xx."""
    taken: list[Got] = []
    refused: set[str] = set()

    def answer(got: Got) -> int:
        event_id = got.headers["webhook-id"]
        if crc32(event_id.encode()) % 5 == 0 and event_id not in refused:
            refused.add(event_id)
            return 500
        taken.append(got)
        return 200

    variables = {"SYNCBRIDGE_RATE_LIMIT_ENABLED": "false", **NETWORKS}
    with server_process(tmp_path, redis_server.url, **variables) as node:
        async with (
            receiving() as receiver,
            httpx.AsyncClient(
                base_url=node.url, timeout=20.0, headers=bearer(mint("root", Role.ADMIN))
            ) as http,
        ):
            receiver.answer = answer
            body = {"url": receiver.url(), "kinds": ["session.*"]}
            assert 201 == (await http.post("/admin/webhooks", json=body)).status_code
            writers = Writers(http)
            with trio.fail_after(SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(killer, receiver, redis_server, writers)
                    for seed in range(3):
                        nursery.start_soon(writers.run, seed)
                with deliver(redis_server.url):
                    await arrived(receiver, taken, writers.versions)

    assert len(writers.versions) > 5


def is_told(told: dict[str, int], versions: dict[str, int]) -> bool:
    return all(told.get(sid, 0) >= version for sid, version in versions.items())


async def arrived(receiver: Receiver, taken: list[Got], versions: dict[str, int]) -> None:
    """Wait until every version was told."""
    while not is_told(reached(taken), versions):
        await receiver.until(len(receiver.got) + 1, 60)
