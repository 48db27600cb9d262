"""The requests of the session state document, pasted into a shell next to `syncbridge dev`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from support import spec_commands as spec
from support.server_kit import Process, mint, server_process
from support.ws_client import Device
from syncbridge.identity import Role

STATE = {"meditation_progress": 75, "current_mood": "calm", "streak_days": 12}


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Process]:
    """`syncbridge dev` with its own embedded Redis, as `make run` starts it."""
    with server_process(tmp_path, "", "dev") as process:
        yield process


async def paste(dev: Process, command: str, token: str = "") -> tuple[int, Any]:
    """Run a command in a shell; its HTTP status and body."""
    text = command.replace("http://localhost:8080", f"http://localhost:{dev.port}")
    line = text.replace("{token}", token).strip() + " -sS -w '\\n%{http_code}'"
    done = await trio.run_process(["bash", "-c", line], capture_stdout=True)
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(body) if body else None


async def test_state_commands(dev: Process) -> None:
    """Create, read, change, resolve: the contract's statuses and members."""
    created = await paste(dev, spec.CREATE)
    again = await paste(dev, spec.CREATE)
    read = await paste(dev, spec.READ)
    changed = await paste(dev, spec.INCREMENTAL)
    resolved = await paste(dev, spec.RESOLVE)
    after = await paste(dev, spec.READ)

    written = {"session_id", "version", "epoch", "lineage"}
    written |= {"created_at", "updated_at", "expires_at"}
    assert (201, written, 1) == (created[0], set(created[1]), created[1]["version"])
    assert (200, 1) == (again[0], again[1]["version"])
    assert {"user_id", "device_id", "app_version", "state_data"} | written == set(read[1])
    assert (200, STATE, "user-123", "device-456", "2.1.0") == (
        read[0],
        *(read[1][k] for k in ("state_data", "user_id", "device_id", "app_version")),
    )
    assert (200, 2, []) == (changed[0], changed[1]["version"], changed[1]["conflicts"])
    assert {"session_id", "version", "epoch", "applied", "conflicts"} <= set(changed[1])
    assert (200, "server_wins") == (resolved[0], resolved[1]["resolution_strategy"])
    assert {
        "session_id",
        "version",
        "epoch",
        "state_data",
        "resolution_strategy",
        "conflicts",
    } <= set(resolved[1])
    assert STATE | {"meditation_progress": 80} == resolved[1]["state_data"]
    assert resolved[1]["state_data"] == after[1]["state_data"]


async def test_device_and_handoff_commands(dev: Process) -> None:
    """Devices are listed, one is handed over to, one is signed out, with its socket."""
    await paste(dev, spec.CREATE)
    async with await Device.open(dev.port) as device:
        await device.auth(mint("user-123"), session_id=spec.SESSION, **spec.MESSAGES[0][1])
        listed = await paste(dev, spec.DEVICES)
        handed = await paste(dev, spec.HANDOFF)
        redeemed = await paste(dev, spec.REDEEM, handed[1]["token"])
        unknown = await paste(dev, spec.REDEEM, "{token}")
        removed = await paste(dev, spec.DISCONNECT)
        closed = await device.closed()
        gone = await paste(dev, spec.DISCONNECT)

    assert (200, spec.SESSION, 1) == (listed[0], listed[1]["session_id"], listed[1]["total"])
    [row] = listed[1]["devices"]
    assert ("device-456", "mobile", "iPhone 13", "online") == tuple(
        row[k] for k in ("device_id", "device_type", "device_name", "status")
    )
    assert {"os_version", "connected_at", "last_seen"} < set(row)
    assert 201 == handed[0]
    assert {"token", "session_id", "source_device", "target_device", "expires_at"} == set(handed[1])
    assert (200, True, "device-phone", "device-tablet", STATE) == (
        redeemed[0],
        *(redeemed[1][k] for k in ("valid", "source_device", "target_device", "state_data")),
    )
    assert (404, 204, None, 4010, 404) == (unknown[0], *removed, closed.code, gone[0])


async def test_admin_commands(dev: Process) -> None:
    """Metrics of everything; a message that reaches the administrator who is connected."""
    await paste(dev, spec.CREATE)
    async with await Device.open(dev.port) as device:
        await device.auth(mint("user-123", Role.ADMIN), "device-456", session_id=spec.SESSION)
        metrics = await paste(dev, spec.METRICS)
        sent = await paste(dev, spec.BROADCAST)
        seen = (await device.receive(13))["payload"]

    assert (200, 1, 1, 1) == (
        metrics[0],
        metrics[1]["sessions"]["active"],
        metrics[1]["connections"]["open"],
        metrics[1]["snapshots"]["stored"],
    )
    assert (200, 1) == (sent[0], sent[1]["delivered"])
    assert {"message": "System maintenance scheduled", "type": "notification"} == seen


async def test_websocket_messages(dev: Process) -> None:
    """The messages of the example, one after the other, are answered by their types."""
    answers = []
    async with await Device.open(dev.port) as device:
        for kind, payload in spec.MESSAGES:
            token = {"token": mint("user-123")} if kind == 7 else {}
            answers.append(await device.request(kind, payload | token))

    assert [8, 2, 5, 12] == [answer["type"] for answer in answers]
    assert 1_700_000_000_000 == answers[1]["payload"]["client_time"]
    assert {"meditation_progress": 80} == answers[2]["payload"]["changes"]
    assert ["device-456"] == [d["device_id"] for d in answers[3]["payload"]["devices"]]
