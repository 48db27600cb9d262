"""A process that packs sessions is killed in the middle of its work, again and again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from support.contract.requests import pairs, read, session_id, write
from support.redis_servers import RedisServer, binaries
from syncbridge.records.sessions import Status
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.freezer import Freezer
from syncbridge_server.redis.stores.store import RedisStore

SESSIONS, KILLS = 30, 8
STATE = {f"key-{number}": f'"{"text " * 20}"' for number in range(30)}

PROCESS = """
import sys, trio
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.freezer import Freezer
from syncbridge_server.redis.stores.store import RedisStore
from support.contract.requests import read

async def main(url, sids):
    async with RedisIO(url).running() as io:
        store, freezer = RedisStore(io, "other"), Freezer(io, "other", after=0.0, least=0)
        print("ready", flush=True)
        while True:
            await freezer.freeze(sids)
            for sid in sids[::2]:
                await store.call(read(sid))

trio.run(main, sys.argv[1], sys.argv[2:])
"""


def start(url: str, sids: list[str]) -> "subprocess.Popen[bytes]":
    """A process that packs and unpacks these sessions for ever."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PROCESS, url, *sids]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while b"ready" not in (line := process.stdout.readline()):
        assert line, "the process ended"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("version", binaries())
async def test_a_killed_freezer_loses_nothing(version: str) -> None:
    """SIGKILL at random moments, writes all the time: every acknowledged write is there, every
    session can be read, and what is left is packed by another process."""
    chance = random.Random(7)
    with RedisServer(binaries()[version]) as server:
        async with RedisIO(server.url).running() as io:
            store = RedisStore(io, "n1")
            sids = [session_id() for _ in range(SESSIONS)]
            expected = {sid: dict(STATE) for sid in sids}
            versions = dict.fromkeys(sids, 1)
            for sid in sids:
                await store.call(write(sid, STATE))
            for round_number in range(KILLS):
                process = await trio.to_thread.run_sync(start, server.url, sids)
                until = time.monotonic() + chance.uniform(0.02, 0.3)
                try:
                    while time.monotonic() < until:
                        sid = chance.choice(sids)
                        value = f'"{round_number}-{chance.random()}"'
                        outcome = await store.call(write(sid, {"last": value}))
                        versions[sid] += 1
                        assert (Status.OK, versions[sid]) == (outcome.status, outcome.version)
                        expected[sid]["last"] = value
                finally:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    assert process.stdout is not None
                    process.stdout.close()
            for sid in sids:
                snapshot = await store.call(read(sid))
                state = {
                    key.decode(): value.decode() for key, value in pairs(snapshot.flat).items()
                }
                assert (expected[sid], versions[sid]) == (state, snapshot.version)
            freezer = Freezer(io, "n1", after=0.0, least=0)
            assert dict.fromkeys(sids, 0) == await freezer.freeze(sids)
            assert SESSIONS == freezer.frozen
