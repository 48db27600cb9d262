"""Nodes and Redis die again and again: no event is lost, and what is told twice has the same id.

`SYNCBRIDGE_EVENT_KILLS` is how many times something is killed.
"""

import os
import random
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import trio

from support.redis_servers import RedisServer
from support.server_kit import Process, bearer, mint, server_process
from syncbridge.identity import Role
from syncbridge_server.voice.payload import unbroken

KILLS = int(os.environ.get("SYNCBRIDGE_EVENT_KILLS", "4"))
WRITERS = 4
SECONDS = 120 + 15 * KILLS
"""The whole test, at most."""

Json = dict[str, Any]


def service() -> dict[str, str]:
    """The headers of a back end."""
    return bearer(mint("back-end", Role.SERVICE))


class World:
    """Two nodes, one of which may be dead, what writers know, and what a reader was told.

    Attributes:
        versions: session -> the version that was acknowledged last. told: events in order.
    """

    def __init__(self, tmp_path: Path, redis_url: str) -> None:
        self._args = (tmp_path, redis_url)
        self._stacks: list[Any] = []
        self.nodes: list[Process] = []
        self.versions: dict[str, int] = {}
        self.told: list[Json] = []
        self.stopping = False
        for _ in range(2):
            self.start(len(self.nodes))

    def start(self, index: int) -> None:
        opened = server_process(*self._args, SYNCBRIDGE_RATE_LIMIT_ENABLED="false")
        self._stacks.append(opened)
        self.nodes[index : index + 1] = [opened.__enter__()]

    def end(self) -> None:
        for opened in self._stacks:
            opened.__exit__(None, None, None)


async def ask(world: World, method: str, path: str, **parts: Any) -> httpx.Response:
    """One request, at any node, until one of them answers it."""
    while True:
        url = random.choice(world.nodes).url
        try:
            async with httpx.AsyncClient(base_url=url, timeout=15.0, headers=service()) as http:
                answer = await http.send(unbroken(http.build_request(method, path, **parts)))
        except httpx.TransportError:
            await trio.sleep(0.02)
            continue
        if answer.status_code not in (429, 503):
            return answer
        await trio.sleep(0.05)


async def writer(world: World, seed: int) -> None:
    """Sessions one after another, each with a few changes. A repetition is told by its number."""
    draw = random.Random(seed)
    while not world.stopping:
        sid, stream = str(uuid.uuid4()), uuid.uuid4().hex
        body: Json = {"session_id": sid, "user_id": "ann", "device_id": "phone"}
        first = await ask(world, "POST", "/session/snapshot", json=body | {"state_data": {"n": 0}})
        assert first.status_code in (200, 201, 409), first.text
        world.versions[sid] = 1
        for number in range(1, draw.randrange(2, 6)):
            change = {"changes": {"n": number}, "base_version": 0, "stream": stream, "seq": number}
            change |= {"base_version": number}
            answer = await ask(world, "POST", "/session/incremental", json=body | change)
            assert 200 == answer.status_code, answer.text
            world.versions[sid] = number + 1
            await trio.sleep(draw.uniform(0, 0.4))


async def reader(world: World, after: str) -> None:
    """Reads on behind its cursor, whichever node answers, until told to stop."""
    while True:
        answer = await ask(world, "GET", "/events", params={"after": after, "wait": 2, "limit": 50})
        assert 200 == answer.status_code, answer.text
        page = answer.json()
        world.told += page["events"]
        after = page["cursor"]
        if world.stopping and not page["events"] and complete(world):
            return


def complete(world: World) -> bool:
    """Whether every acknowledged version was told."""
    reached: dict[str, int] = defaultdict(int)
    for event in world.told:
        data = event["data"]
        version = data.get("to_version", data.get("version", 0))
        reached[event.get("session_id", "")] = max(reached[event.get("session_id", "")], version)
    return all(reached[sid] >= version for sid, version in world.versions.items())


async def killer(world: World, server: RedisServer) -> None:
    for turn in range(KILLS):
        await trio.sleep(1.5)
        if turn % 2:
            server.kill()
            await trio.sleep(0.2)
            server.start()
        else:
            index = turn // 2 % 2
            world.nodes[index].kill()
            await trio.to_thread.run_sync(world.start, index)
    await trio.sleep(1.0)
    world.stopping = True


async def test_no_event_is_lost(tmp_path: Path, redis_server: RedisServer) -> None:
    """Each acknowledged version is told, in order, without a hole between updates of a session."""
    world = World(tmp_path, redis_server.url)
    try:
        with trio.fail_after(SECONDS):
            cursor = (await ask(world, "GET", "/events")).json()["cursor"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader, world, cursor)
                nursery.start_soon(killer, world, redis_server)
                for seed in range(WRITERS):
                    nursery.start_soon(writer, world, seed)
    finally:
        world.end()

    by_id: dict[str, Json] = {}
    for event in world.told:
        same = {name: value for name, value in event.items() if name != "cursor"}
        assert by_id.setdefault(event["id"], same) == same
    reached: dict[str, int] = {}
    for event in by_id.values():
        sid = event.get("session_id", "")
        if event["type"] == "session.created":
            assert sid not in reached
            reached[sid] = 1
        elif event["type"] == "session.updated":
            assert reached[sid] == event["data"]["from_version"]
            reached[sid] = event["data"]["to_version"]
    assert [] == [event for event in by_id.values() if event["type"] == "events.lost"]
    assert dict(world.versions.items()) == {sid: reached.get(sid, 0) for sid in world.versions}
    assert len(world.versions) > 10
