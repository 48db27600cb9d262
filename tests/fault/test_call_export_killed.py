"""Nodes, gateways and the reader of the bill die again and again: each call is billed once.

Gateways know from their answers when their calls began to be active and ended; the export must say
the same to the millisecond. `SYNCBRIDGE_CALL_KILLS` is how many nodes are killed.
"""

import json
import os
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import Process, bearer, mint, server_process
from syncbridge.identity import Role

KILLS = int(os.environ.get("SYNCBRIDGE_CALL_KILLS", "4"))
GATEWAYS = 4
LEASE_MS = 2_000
SECONDS = 120 + 10 * KILLS
"""The whole test, at most."""

ENDS = ("state", "hangup", "delete", "reuse", "crash")


class Bill:
    """What gateways know, and what the export has told.

    Attributes:
        expected: id -> active ms of each call that had it, in order.
        steps: how many requests were answered. lines: of the export, as they were kept.
    """

    def __init__(self) -> None:
        self.expected: dict[str, list[int]] = {}
        self.steps = 0
        self.stopping = False
        self.lines: list[dict[str, Any]] = []
        self.again = 0


class Fleet:
    """Two nodes, one of which may be dead."""

    def __init__(self, tmp_path: Path, redis_url: str) -> None:
        self._args = (tmp_path, redis_url)
        self._stacks: list[Any] = []
        self.nodes: list[Process | None] = [None, None]

    def start(self, index: int) -> None:
        opened = server_process(
            *self._args,
            SYNCBRIDGE_CALL_LEASE=f"{LEASE_MS // 1000}s",
            SYNCBRIDGE_RATE_LIMIT_ENABLED="false",
        )
        self._stacks.append(opened)
        self.nodes[index] = opened.__enter__()

    def kill(self, index: int) -> None:
        node = self.nodes[index]
        assert node is not None
        node.kill()

    def end(self) -> None:
        for opened in self._stacks:
            opened.__exit__(None, None, None)


async def ask(fleet: Fleet, bill: Bill, method: str, path: str, **parts: Any) -> httpx.Response:
    """One request, at any node, until one of them answers it."""
    parts.setdefault("headers", bearer(mint("gw", Role.SERVICE)))
    while True:
        node = random.choice(fleet.nodes)
        assert node is not None
        try:
            async with httpx.AsyncClient(base_url=node.url, timeout=5.0) as http:
                answer = await http.request(method, path, **parts)
        except httpx.TransportError:
            await trio.sleep(0.02)
            continue
        if answer.status_code not in (429, 503):
            bill.steps += 1
            return answer
        await trio.sleep(0.02)


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def call_life(fleet: Fleet, bill: Bill, call_id: str, end: str) -> int:
    """A call of a gateway; its active ms as its answers say."""
    path = f"/sessions/{call_id}"

    async def told(method: str, target: str, body: dict[str, str]) -> dict[str, Any]:
        key = {"Idempotency-Key": uuid.uuid4().hex, **bearer(mint("gw", Role.SERVICE))}
        answer = await ask(fleet, bill, method, target, json=body, headers=key)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    await told("POST", "/sessions", {"id": call_id, "type": "SIP"})
    await told("POST", f"{path}/events", {"kind": "ring"})
    began = ms((await told("PUT", f"{path}/state", {"state": "active"}))["updatedAt"])
    await told("POST", f"{path}/events", {"kind": "hold"})
    if end == "crash":
        beat = await told("POST", f"{path}/heartbeat", {})
        return ms(beat["leaseUntil"]) - LEASE_MS - began
    if end == "state":
        ended = (await told("PUT", f"{path}/state", {"state": "terminated"}))["updatedAt"]
    elif end == "hangup":
        body = {"kind": "hangup", "cause": "normal"}
        ended = (await told("POST", f"{path}/events", body))["updatedAt"]
    else:
        deleted = await ask(fleet, bill, "DELETE", path)
        assert deleted.status_code in (204, 404)
        history = await ask(fleet, bill, "GET", f"{path}/history")
        ended = history.json()["deletedAt"]
    return ms(ended) - began


async def gateway(fleet: Fleet, bill: Bill, seed: int) -> None:
    """Calls one after another, ended in all ways, until the test stops."""
    draw = random.Random(seed)
    while not bill.stopping:
        call_id, end = uuid.uuid4().hex, draw.choice(ENDS)
        for _ in range(2 if end == "reuse" else 1):
            lasted = await call_life(fleet, bill, call_id, end)
            bill.expected.setdefault(call_id, []).append(lasted)


async def biller(fleet: Fleet, bill: Bill, seed: int, done: trio.Event) -> None:
    """Keeps each page together with its cursor, or dies before it does, and asks again."""
    draw, cursor, empty = random.Random(seed), "", 0
    headers = bearer(mint("biller", Role.VIEWER))
    while True:
        query = {"cursor": cursor, "limit": str(draw.choice((16, 32, 256)))}
        answer = await ask(fleet, bill, "GET", "/admin/calls/export", params=query, headers=headers)
        assert 200 == answer.status_code, answer.text
        if draw.random() < 0.3:
            bill.again += bool(answer.text)
            continue
        lines = lines_of(answer)
        bill.lines += lines
        cursor = answer.headers["x-next-cursor"]
        calls = sum(map(len, bill.expected.values()))
        empty = empty + 1 if bill.stopping and len(bill.lines) >= calls and not lines else 0
        if empty == 3:
            done.set()
            return
        await trio.sleep(0.02)


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


async def killer(fleet: Fleet, bill: Bill, seed: int) -> None:
    """Kill one node after the other, amid requests, and start it again."""
    draw = random.Random(seed)
    for kill in range(KILLS):
        until = bill.steps + draw.randint(5, 40)
        while bill.steps < until:  # noqa: ASYNC110
            await trio.sleep(0.002)
        await trio.to_thread.run_sync(fleet.kill, kill % 2)
        await trio.to_thread.run_sync(fleet.start, kill % 2)
    bill.stopping = True


@asynccontextmanager
async def running_fleet(tmp_path: Path, redis_url: str) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, redis_url)
    try:
        for index in range(2):
            await trio.to_thread.run_sync(fleet.start, index)
        yield fleet
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(fleet.end)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_each_call_is_billed_once(redis_server: RedisServer, tmp_path: Path) -> None:
    """No call twice, none missing, numbers without a gap, and the time right to the ms.

    The warning ignored is httpx's, of a body that it was sending when its node died.
    """
    seed = random.randrange(2**32)
    bill, done = Bill(), trio.Event()
    with trio.fail_after(SECONDS):
        async with running_fleet(tmp_path, redis_server.url) as fleet:
            async with trio.open_nursery() as nursery:
                for index in range(GATEWAYS):
                    nursery.start_soon(gateway, fleet, bill, seed + index)
                nursery.start_soon(biller, fleet, bill, seed, done)
                nursery.start_soon(killer, fleet, bill, seed)

    billed: dict[str, list[int]] = {}
    for line in bill.lines:
        billed.setdefault(line["id"], []).append(line["activeMs"])
    numbers = Counter(line["record"].split("-")[0] for line in bill.lines)
    note = f"seed {seed}"
    assert bill.expected == billed, note
    assert len(bill.lines) == len({line["record"] for line in bill.lines}), note
    assert all(
        f"{part}-{n}" in {line["record"] for line in bill.lines}
        for part, count in numbers.items()
        for n in range(1, count + 1)
    ), note
    assert all(-(-line["activeMs"] // 1000) == line["seconds"] for line in bill.lines), note
    assert done.is_set()
    assert len(bill.lines) >= KILLS
    assert bill.again, note
    print(f"{len(bill.lines)} calls, {KILLS} kills, {bill.steps} answers, {bill.again} pages again")
