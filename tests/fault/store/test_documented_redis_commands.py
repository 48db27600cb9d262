"""The commands of docs/operations.md for backups, another Redis and the size of a cluster.

Each block is run as it stands there by bash, on real servers, beside a whole node with a device.
"""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from support.redis_cluster import RedisCluster
from support.redis_servers import RedisServer
from support.rollback.kit import PATIENCE, Copy, Room, stored
from support.server_kit import Node, running_node
from support.source_tree import text
from syncbridge.slots import TAGS, bucket_of, slot_of

AT_ONCE = ("--repl-diskless-sync-delay", "0")
SLOTS = 48
"""That are moved: the first 16 of each of three primaries."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not on PATH"),
]


def blocks(title: str) -> list[str]:
    """The commands of a section."""
    found = re.search(rf"^## {title}\n(.*?)^## ", text(Path("docs/operations.md")), re.M | re.S)
    assert found is not None
    return re.findall(r"^```sh\n(.*?)^```$", found[1], re.M | re.S)


async def run(script: str, cwd: Path, **variables: object) -> None:
    """A block in bash, which must succeed."""
    told = os.environ | {name: str(value) for name, value in variables.items()}
    done = await trio.to_thread.run_sync(
        partial(
            subprocess.run,
            ["bash", "-euc", script],
            cwd=cwd, env=told, capture_output=True, text=True, timeout=120,
        )
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def url_of(server: RedisServer) -> str:
    return f"redis://127.0.0.1:{server.port}"


async def reason(node: Node, wanted: str | None) -> None:
    """Until the node is ready, or not ready for a reason."""
    async with node.http() as http:
        with trio.fail_after(PATIENCE):
            while True:
                found = (await http.get("/health/ready")).json()
                if found.get("reason") == wanted:
                    return
                await trio.sleep(0.05)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(aof=True, tcp=True, options=AT_ONCE) as made:
        yield made


async def test_backup_and_restore(server: RedisServer, tmp_path: Path) -> None:
    """What came after the backup is gone, the device is told so, and the file is written again."""
    backup, stop, begin = blocks("Backup and restore")
    told = {"REDIS_URL": url_of(server), "DATA": server.directory}
    async with running_node(server.url, rate_limit_enabled=False) as node, Room() as room:
        phone = await room.join(node, "phone")
        await phone.write(kept=1)
        await run(backup, tmp_path, **told)
        await phone.write(lost=1)
        await run(stop, tmp_path, **told)
        server.stop()  # it has ended
        server.say("--appendonly", "no")
        server.start()
        await run(begin, tmp_path, **told)
        reset = await phone.reset()
        await phone.write(after=1)
        state, _ = await stored(node, room.session)
        with server.client() as client:
            persistence = client.info("persistence")

    assert ("rolled_back", {"kept": 1}) == (reset["reason"], reset["state_data"])
    assert {"kept": 1, "after": 1} == state
    assert (1, "ok") == (persistence["aof_enabled"], persistence["aof_last_bgrewrite_status"])


async def test_moving_to_another_redis(server: RedisServer, tmp_path: Path) -> None:
    """The old node writes nothing more; on the new server the device goes on where it was."""
    (block,) = blocks("Moving to another Redis")
    with RedisServer(aof=True, tcp=True, options=AT_ONCE) as new:
        told = {"REDIS_URL": url_of(server), "NEW_URL": url_of(new)}
        told |= {"OLD_HOST": "127.0.0.1", "OLD_PORT": str(server.port)}
        told |= {"NEW_HOST": "127.0.0.1", "NEW_PORT": str(new.port)}
        async with Room() as room:
            async with running_node(url_of(server), rate_limit_enabled=False) as node:
                before = await room.join(node, "phone")
                await before.write(kept=1)
                await run(block, tmp_path, **told)
                await reason(node, "readonly")
                refused = await before.write(late=1)
            async with running_node(url_of(new), rate_limit_enabled=False) as node:
                phone = await room.join(node, "phone", before)
                answer = await phone.write(late=1)
                state, _ = await stored(node, room.session)

    assert "store_unavailable" == refused["payload"]["code"]
    assert 2 == answer["payload"]["version"]
    assert [] == phone.resets
    assert {"kept": 1, "late": 1} == state


def session_of_the_first_slots() -> str:
    """One of those that are moved first."""
    while slot_of(TAGS[bucket_of(session := str(uuid.uuid4()))]) >= SLOTS // 3:
        pass
    return session


async def _write_on(phone: Copy, answers: list[int | str], over: trio.Event) -> None:
    """One write after the other; the types of what they are answered with."""
    while not over.is_set():
        answers.append((await phone.write(n=len(answers) + 1))["type"])


async def test_resizing_a_cluster(tmp_path: Path) -> None:
    """A session moves to a new primary and to another one; no write meanwhile is refused."""
    grow, shrink = blocks("Resizing a cluster")
    with RedisCluster() as cluster, cluster.stranger() as new:
        first, _, last, _ = cluster.masters
        told = {"HOST": "127.0.0.1", "PORT": last.port, "SLOTS": SLOTS}
        more = {"NEW_HOST": "127.0.0.1", "NEW_PORT": new.port}
        less = {"OLD_HOST": "127.0.0.1", "OLD_PORT": new.port}
        async with running_node(cluster.url, rate_limit_enabled=False) as node, Room() as room:
            room.session = session_of_the_first_slots()
            slot = slot_of(TAGS[bucket_of(room.session)])
            phone = await room.join(node, "phone")
            owners = [cluster.owner(slot)]
            answers: list[int | str] = []
            over = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write_on, phone, answers, over)
                for block, variables in ((grow, more), (shrink, less)):
                    await run(block, tmp_path, **told, **variables)
                    owners.append(cluster.owner(slot))
                over.set()
            state, place = await stored(node, room.session)

    assert [first, new, last] == owners
    assert {5} == set(answers)
    assert (len(answers), {"n": len(answers)}) == (place[0], state)
    assert [] == phone.resets
