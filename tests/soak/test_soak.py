"""Devices come and go for a long time; when they have gone, nothing of them is held any more.

A round: 200 devices in 50 sessions connect, all of them send heartbeats, one in each session writes
and the others must have it, the state is read and written over REST, and they leave, every other
time without a word. Then there is no socket left, and what the server and its Redis hold is noted.
The first rounds fill what is bounded (journals, ids, pools); later ones may not add to that.

`SYNCBRIDGE_SOAK_SECONDS` makes the run longer: `make soak`.
"""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from support.redis_servers import RedisServer, wait_until
from support.server_kit import Process, bearer, mint, new_session, server_process
from syncbridge.identity import Role
from syncbridge_core.swarm import Swarm
from syncbridge_tools.bench.scenarios import HEARTBEAT_ACK, heartbeat_message, update_templates
from syncbridge_tools.bench.usage import sample

SECONDS = float(os.environ.get("SYNCBRIDGE_SOAK_SECONDS", "30"))
SESSIONS = 50
DEVICES = 4
RATE = 1000.0
FILLING = 4
"""So many rounds fill what is bounded."""
AT_LEAST = 3 * FILLING
SERVER_BYTES = 4 << 20
REDIS_BYTES = 1 << 20
"""What memory may differ by: fragments of the allocators, and caches that fill late."""
VARIABLES = {
    "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
    "SYNCBRIDGE_TOKEN_CACHE": "512",
}


class Held(NamedTuple):
    """What is held between two rounds: bytes of the server and of Redis, open descriptors."""

    server: int
    redis: int
    descriptors: int


class Soak:
    """The same sessions and devices, round after round."""

    def __init__(self, process: Process, redis: RedisServer) -> None:
        self.process, self.redis = process, redis
        self.sessions = [new_session() for _ in range(SESSIONS)]
        self.http = httpx.Client(base_url=process.url, timeout=30.0)

    def first_messages(self) -> list[bytes]:
        """AUTH of each device."""
        devices = [(n, s, f"d{n}-{k}") for n, s in enumerate(self.sessions) for k in range(DEVICES)]
        return [
            json.dumps(
                {
                    "type": 7,
                    "payload": {
                        "token": mint(f"user-{number}", session=session, device=device),
                        "device_id": device,
                        "device_type": "soak",
                        "device_name": device,
                    },
                }
            ).encode()
            for number, session, device in devices
        ]

    def round(self, *, reset: bool) -> Held:
        """Come, talk, go; AssertionError when anybody was refused, or missed something."""
        swarm = Swarm("127.0.0.1", self.process.port, SESSIONS * DEVICES)
        try:
            joined = swarm.connect(self.first_messages())
            beats = swarm.echo(heartbeat_message(), 0.2, reply_type=HEARTBEAT_ACK)
            senders = range(0, SESSIONS * DEVICES, DEVICES)
            wrote = swarm.updates(
                update_templates(), RATE, 1.0, senders=senders, copies=DEVICES - 1, drain=30.0
            )
            self.over_rest()
        finally:
            swarm.close(reset=reset)
        assert (joined.failed, joined.error) == (0, "")
        assert beats.done
        assert wrote.sent
        assert (wrote.sent, wrote.expected) == (wrote.acknowledged, wrote.delivered)
        assert (wrote.totals.errors, wrote.totals.closed, wrote.totals.protocol_errors) == (0, 0, 0)
        wait_until(self.nobody_is_there, "all have left", 60.0)
        return self.held()

    def over_rest(self) -> None:
        """Each session is read and written once."""
        for number, session in enumerate(self.sessions):
            headers = bearer(mint(f"user-{number}"))
            version = self.http.get(f"/session/{session}", headers=headers).json()["version"]
            change = {"changes": {"rest": time.time_ns()}, "deleted_keys": []}
            body = {"session_id": session, "base_version": version, **change}
            answer = self.http.post("/session/incremental", json=body, headers=headers)
            assert 200 == answer.status_code, answer.text

    def nobody_is_there(self) -> bool:
        url, headers = "/admin/connections", bearer(mint("root", Role.ADMIN))
        rows = self.http.get(url, headers=headers).raise_for_status().json()
        return not rows["connections"]

    def held(self) -> Held:
        """Without the ids of updates: Redis keeps them for ten minutes, which is a long run."""
        pid = self.process.popen.pid
        with self.redis.client() as client:
            for key in client.scan_iter("s:{*}:*:f:*", 1000):
                client.delete(key)
            used = int(client.info("memory")["used_memory"])
        return Held(sample(pid).private, used, len(list(Path(f"/proc/{pid}/fd").iterdir())))


@pytest.mark.slow
def test_what_is_held_stays_within_bounds(redis_server: RedisServer, tmp_path: Path) -> None:
    """After the first rounds memory and descriptors do not grow, whatever devices do."""
    with server_process(tmp_path, redis_server.url, **VARIABLES) as process:
        soak, held = Soak(process, redis_server), list[Held]()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or len(held) < AT_LEAST:
            held.append(soak.round(reset=len(held) % 2 == 1))
        soak.http.close()
    filled, last = held[:FILLING], held[-3:]
    print(f"{len(held)} rounds; filled {filled}; last {last}")

    assert min(one.server for one in last) <= max(one.server for one in filled) + SERVER_BYTES
    assert min(one.redis for one in last) <= max(one.redis for one in filled) + REDIS_BYTES
    assert min(one.descriptors for one in last) <= max(one.descriptors for one in filled)
