"""Honest clients beside every attack at once, on two workers: they do not notice.

The attackers come from four addresses. The honest ones are behind a local proxy that nobody trusts
(127.0.0.1, which stands for many people), and behind one address of their own. None of them may be
refused, cut off, or miss an update, and what the server holds goes back to what it was.

SYNCBRIDGE_ATTACK_SECONDS and SYNCBRIDGE_ATTACK_CLIENTS make it longer and larger (`make soak`):
from 1,000 clients on, on a machine that has nothing else to do, 99 of 100 updates take 250 ms.
SYNCBRIDGE_ATTACK_BEHIND_ONE says how many of their own are behind the one address.
SYNCBRIDGE_ATTACK_WITHIN is a command that the server runs within, as `scripts/sanitized_tests.sh`
gives it: then it may be slow and need memory, and reports nothing.
"""

import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from integration.commands.test_metrics_of_workers import free_port, until_up
from integration.test_user_bounds import packed, snapshot
from support.hub_kit import client_frame, descriptors
from support.listener.ws_raw import handshake_headers, request_bytes
from support.redis_servers import RedisServer
from support.server_kit import Process, mint, new_session, server_process
from support.ws_client import Device
from syncbridge_core.swarm import Swarm, UpdatesResult
from syncbridge_tools.bench.scenarios import update_templates
from syncbridge_tools.bench.usage import sample

SECONDS = float(os.environ.get("SYNCBRIDGE_ATTACK_SECONDS", "10"))
CLIENTS = int(os.environ.get("SYNCBRIDGE_ATTACK_CLIENTS", "200"))
LARGE = 1_000
P99_NS = 250_000_000
ATTACKERS = tuple(f"127.0.0.{n}" for n in range(2, 6))
HONEST = "127.0.0.9"
BEHIND_ONE = int(os.environ.get("SYNCBRIDGE_ATTACK_BEHIND_ONE", "0")) or min(CLIENTS, 400)
WITHIN = os.environ.get("SYNCBRIDGE_ATTACK_WITHIN", "").split()
WARM_SECONDS = min(SECONDS, 60.0)
"""What is bounded is full by then."""
AT_ONCE = 400
"""So many of one address come at once; more of them come at the rate that it may."""
PER_SECOND = 80.0
WRITES = 400.0
"""Writes a second of those behind one address, all together."""
REPORTS = re.compile(r"AddressSanitizer|runtime error:")
EACH = 100
"""Connections of an attacker of one kind that are open at once."""
MEMORY = 1.05
SLACK = 8 << 20
SLOW = (
    b"POST /rtk-webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)
GREEDY = (
    b"POST /session/snapshot HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)

Attack = Callable[[int, str], Awaitable[None]]


async def hold(data: bytes, port: int, source: str) -> None:
    """A connection that says so much, and then waits to be thrown out."""
    async with await trio.open_tcp_stream("127.0.0.1", port, local_address=source) as stream:
        if data:
            await stream.send_all(data)
        with trio.move_on_after(5):
            while await stream.receive_some(65_536):
                pass


async def bombs(port: int, source: str) -> None:
    """Compressed messages before AUTH that unfold to much."""
    bomb = packed({"type": 1, "payload": {"x": "x" * 60_000}})
    offer = handshake_headers({"sec-websocket-extensions": "permessage-deflate"})
    await hold(request_bytes("/ws", offer) + client_frame(1, bomb, reserved=4) * 100, port, source)


async def unfinished(port: int, source: str) -> None:
    """A user's message whose fragments never end."""
    async with await Device.open(port, source=source) as device:
        await device.auth(mint("mallory"), f"d{random.random()}")
        await device.send_raw(client_frame(1, b"{", fin=False))
        with trio.move_on_after(5):
            while True:
                await device.send_raw(client_frame(0, b" " * 500, fin=False))
                await trio.sleep(0.1)


async def greedy(port: int, source: str) -> None:
    """One token that makes sessions as fast as it can."""
    made = b""
    for _ in range(20):
        state = snapshot(new_session(), a="x" * 10_000) | {"user_id": "mallory"}
        body = json.dumps(state).encode()
        made += GREEDY % (mint("mallory").encode(), len(body)) + body
    await hold(made, port, source)


async def fight(port: int, source: str) -> None:
    """A tab of a device id that others have as well, and that comes back at once."""
    async with await Device.open(port, source=source) as tab:
        await tab.auth(mint("mallory"), "tab")
        with trio.move_on_after(1):
            await tab.closed()


ATTACKS: dict[str, Attack] = {
    "silent": partial(hold, b""),
    "half a head": partial(hold, b"GET /w"),
    "slow body": partial(hold, SLOW),
    "no AUTH": partial(hold, request_bytes("/ws", handshake_headers())),
    "no token": partial(hold, b"GET /sessions HTTP/1.1\r\nHost: x\r\n\r\n" * 20),
    "bombs": bombs,
    "unfinished": unfinished,
    "greedy": greedy,
    "fight": fight,
}
FEW = {"greedy": 2, "fight": 4, "unfinished": 20, "bombs": 10}


async def again(attack: Attack, port: int, source: str, count: Callable[[], None]) -> None:
    """One attacker of one kind, for ever."""
    while True:
        try:
            await attack(port, source)
        except Exception:  # thrown out, refused, or cut off in any way
            await trio.sleep(0.05)
        count()


def first_messages() -> list[bytes]:
    """AUTH of pairs of devices, each pair in a session of its own."""
    sessions = [new_session() for _ in range(CLIENTS // 2)]
    return [
        json.dumps(
            {
                "type": 7,
                "payload": {
                    "token": mint(f"honest-{n}", ttl=SECONDS + 900),
                    "device_id": f"d{k}",
                    "session_id": session,
                },
            }
        ).encode()
        for n, session in enumerate(sessions)
        for k in range(2)
    ]


async def behind_one_address(
    port: int, stack: AsyncExitStack, honest: trio.Nursery, over: trio.Event
) -> None:
    """Honest devices of one address, which write from the moment when they have joined."""
    for n in range(BEHIND_ONE):
        await trio.sleep(1 / PER_SECOND if n >= AT_ONCE else 0)
        device = await stack.enter_async_context(await Device.open(port, source=HONEST))
        await device.auth(mint(f"colleague-{n}", ttl=SECONDS + 900), "laptop")
        honest.start_soon(write_on, device, over)


async def write_on(device: Device, over: trio.Event) -> None:
    while not over.is_set():
        answer = await device.set("at", time.time())
        assert 5 == answer["type"], answer["payload"]
        with trio.move_on_after(max(1.0, BEHIND_ONE / WRITES)):
            await over.wait()


def talk(swarm: Swarm, seconds: float) -> UpdatesResult:
    """Every pair writes once in ten seconds, and has it at the other device."""
    senders = range(0, CLIENTS, 2)
    return swarm.updates(
        update_templates(), max(1.0, CLIENTS / 20), seconds, senders=senders, copies=1, drain=30.0
    )


async def under_attack(process: Process, seconds: float) -> tuple[UpdatesResult, Counter[str]]:
    """What became of the honest ones' updates, and how often each attack was made."""
    made, over = Counter[str](), trio.Event()
    swarm = Swarm("127.0.0.1", process.port, CLIENTS)
    async with AsyncExitStack() as stack, trio.open_nursery() as honest:
        await behind_one_address(process.port, stack, honest, over)
        joined = await trio.to_thread.run_sync(swarm.connect, first_messages())
        assert (0, "") == (joined.failed, joined.error)
        async with trio.open_nursery() as nursery:
            for source in ATTACKERS:
                for name, attack in ATTACKS.items():
                    count = partial(made.update, [name])
                    for _ in range(FEW.get(name, EACH)):
                        nursery.start_soon(again, attack, process.port, source, count)
            wrote: UpdatesResult = await trio.to_thread.run_sync(talk, swarm, seconds)
            nursery.cancel_scope.cancel()
        over.set()
        totals = swarm.totals
        swarm.close()
    assert (0, 0) == (totals.closed, totals.protocol_errors)
    return wrote, made


@pytest.mark.slow
async def test_honest_clients_do_not_notice_attacks(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Nobody is refused, every update arrives, and memory is back."""
    metrics = free_port()
    variables = {
        "SYNCBRIDGE_WORKERS": "2",
        "SYNCBRIDGE_ADMIN_ADDR": f"127.0.0.1:{metrics}",
        "SYNCBRIDGE_MESSAGE_TIMEOUT": "3s",
        "SYNCBRIDGE_STORE_DEADLINE": "10s" if WITHIN else "2s",
    }
    with (
        descriptors(4 * CLIENTS + 8192),
        server_process(tmp_path, redis_server.url, within=WITHIN, **variables) as process,
    ):
        until_up(f"http://127.0.0.1:{metrics}/metrics")
        await under_attack(process, WARM_SECONDS)
        await settled(process)
        before = sample(process.popen.pid).private
        wrote, made = await under_attack(process, SECONDS)
        await settled(process)
        after = sample(process.popen.pid).private
    p99 = wrote.latency.percentile(99)
    print(
        f"attacks {dict(made)}; p99 {p99 / 1e6:.1f} ms; memory {before >> 10} -> {after >> 10} KiB"
    )

    assert set(ATTACKS) == set(made)
    assert (wrote.sent, wrote.expected, 0) == (wrote.acknowledged, wrote.delivered, wrote.unsent)
    assert not REPORTS.findall(process.log.read_text())
    assert after <= before * MEMORY + SLACK or WITHIN
    assert p99 <= P99_NS or CLIENTS < LARGE or WITHIN


async def settled(process: Process) -> None:
    """Wait until the memory of the server does not fall any more."""
    held = [sample(process.popen.pid).private]
    with suppress(trio.TooSlowError), trio.fail_after(30):
        while len(held) < 6 or held[-1] < held[-5]:
            await trio.sleep(1)
            held.append(sample(process.popen.pid).private)
