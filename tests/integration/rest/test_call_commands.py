"""The requests of the session manager document, in a shell next to `syncbridge dev`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from support import call_commands as spec
from support.server_kit import Process, server_process

MEMBERS = ["id", "type", "state", "createdAt", "updatedAt", "details"]
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
LINE = re.compile(r"^\[SESSION_MANAGER\]\[(\w+)\]\[(\w+)\] (.+?)\. (.*)$", re.M)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Process]:
    """`syncbridge dev` with its own embedded Redis, as `make run` starts it."""
    with server_process(tmp_path, "", "dev") as process:
        yield process


async def paste(dev: Process, command: str) -> tuple[int, Any]:
    """Run a command in a shell; its HTTP status and body."""
    text = command.replace("http://localhost:8080", f"http://localhost:{dev.port}")
    line = text.strip() + " -sS -w '\\n%{http_code}'"
    done = await trio.run_process(["bash", "-c", line], capture_stdout=True)
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(body) if body else None


async def test_the_commands_of_the_document(dev: Process) -> None:
    """The document's statuses and members, without a token, and its log lines."""
    missing = [await paste(dev, c) for c in (spec.READ, spec.STATE, spec.DETAILS, spec.DELETE)]
    created = await paste(dev, spec.CREATE)
    again = await paste(dev, spec.CREATE)
    read = await paste(dev, spec.READ)
    listed = await paste(dev, spec.LIST)
    active = await paste(dev, spec.STATE)
    merged = await paste(dev, spec.DETAILS)
    back = await paste(dev, spec.STATE.replace("active", "pending"))
    bad = await paste(dev, spec.STATE.replace("active", "ringing"))
    history = await paste(dev, spec.HISTORY)
    deleted = await paste(dev, spec.DELETE)

    assert [404] * 4 == [status for status, _ in missing]
    assert (201, MEMBERS) == (created[0], list(created[1]))
    assert ("call-12345", "SIP", "pending", {"caller_id": "1001", "callee_id": "2002"}) == tuple(
        created[1][k] for k in ("id", "type", "state", "details")
    )
    assert RFC3339.fullmatch(created[1]["createdAt"])
    assert (409, "call_exists") == (again[0], again[1]["code"])
    assert (200, created[1]) == read
    assert (200, {"sessions": [created[1]], "next_cursor": ""}) == listed
    assert (200, "active") == (active[0], active[1]["state"])
    assert {
        "caller_id": "1001",
        "callee_id": "2002",
        "custom_info": "updated_value",
        "another_key": "new_info",
    } == merged[1]["details"]
    assert (409, 400) == (back[0], bad[0])
    assert ["pending", "active"] == [change["state"] for change in history[1]["history"]]
    assert (204, None) == deleted
    lines = [line for line in LINE.findall(dev.log.read_text()) if "call-12345" in line[3]]
    assert [
        ("INFO", "create_session", "session_created"),
        ("INFO", "tell_state", "session_state_updated"),
        ("INFO", "update_details", "session_details_updated"),
        ("INFO", "delete_session", "session_deleted"),
    ] == [line[:3] for line in lines if line[0] == "INFO"]
    assert {"WARNING"} == {line[0] for line in lines} - {"INFO"}
    assert "updated_value" not in dev.log.read_text()
