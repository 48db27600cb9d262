"""The audit log: a line for each login, revocation, admin call, handoff and removal."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from support.server_kit import bearer, mint, new_session, running_node, serve_once
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge_server.auth.audit import Audit
from syncbridge_server.settings import ConfigError


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_what_is_audited(redis_url: str, tmp_path: Path) -> None:
    """Who, from where, what and how it ended; refused ones too; no token and no read of a state."""
    path = tmp_path / "audit.log"
    service, admin = bearer(mint("backend", Role.SERVICE)), bearer(mint("root", Role.ADMIN))
    ann, session = bearer(mint("ann")), new_session()
    pair = {"source_device": "phone", "target_device": "tablet"}
    async with running_node(redis_url, audit_log=str(path)) as node, node.http() as http:
        issued = await http.post("/auth/token", json={"user_id": "ann"}, headers=service)
        await http.post("/auth/token", json={"user_id": "ann"}, headers=ann)
        secret = issued.json()["refresh_token"]
        await http.post("/auth/refresh", json={"refresh_token": secret})
        await http.post("/auth/revoke", json={"device_id": "tv"}, headers=ann)
        await http.get("/admin/sessions", headers=admin)
        body = {"session_id": session, "user_id": "ann", "state_data": {}}
        await http.post("/session/snapshot", json=body, headers=ann)
        made = await http.post(f"/session/{session}/handoff", json=pair, headers=ann)
        handoff = made.json()["token"]
        await http.get(f"/session/{session}/handoff/{handoff}", headers=ann)
        await http.delete(f"/session/{session}/device/phone", headers=ann)
        await http.get(f"/session/{session}", headers=ann)
        for verb in ("leave", "mute", "end"):
            await http.post(f"/voice/channels/stage/{verb}", json={}, headers=admin)
        await http.get("/voice/channels/stage/recordings", headers=admin)
        await http.get("/voice/channels/stage/recordings", headers=service)
        said = {"message": "hello", "audience": "session", "session_id": session}
        await http.post("/admin/broadcast", json=said, headers=admin)

    written = lines(path)
    assert [
        ("token_issued", "backend", 200),
        ("token_issued", "ann", 403),
        ("token_refreshed", "", 200),
        ("token_revoked", "ann", 200),
        ("GET /admin/sessions", "root", 200),
        ("handoff_created", "ann", 201),
        ("handoff_redeemed", "ann", 200),
        ("device_removed", "ann", 404),
        ("call_left", "root", 503),
        ("call_muted", "root", 503),
        ("call_ended", "root", 503),
        ("recordings_read", "root", 200),
        ("POST /admin/broadcast", "root", 200),
    ] == [(line["action"], line["user"], line["status"]) for line in written]
    assert {"audit"} == {line["event"] for line in written}
    assert {"127.0.0.1"} == {line["client"] for line in written}
    assert ("ann", "user") == (written[0]["subject"], written[0]["role"])
    assert ("device", "tv", "ann") == tuple(written[3][name] for name in ("kind", "value", "owner"))
    assert session == written[7]["session_id"]
    assert "stage" == written[8]["channel_id"]
    assert ("session", session) == (written[12]["audience"], written[12]["session_id"])
    text = path.read_text()
    assert not any(token in text for token in (secret, handoff, issued.json()["access_token"]))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


async def test_a_socket_of_an_administrator_in_a_session_of_somebody_else(
    redis_url: str, tmp_path: Path
) -> None:
    """It sees the state as long as it is open. Of the own session, and of users, it is no look."""
    path, session, own = tmp_path / "audit.log", new_session(), new_session()
    async with running_node(redis_url, audit_log=str(path)) as node:
        for token, device, joined in (
            (mint("ann"), "phone", session),
            (mint("root", Role.ADMIN), "dashboard", own),
            (mint("root", Role.ADMIN), "dashboard", session),
            (mint("backend", Role.SERVICE), "bot", session),
        ):
            async with await Device.open(node.port) as one:
                await one.auth(token, device, session_id=joined)

    assert [("session_joined", "root", "127.0.0.1", session, "dashboard")] == [
        (line["action"], line["user"], line["client"], line["session_id"], line["device_id"])
        for line in lines(path)
    ]


def test_a_page_that_asks_again_leaves_one_line(tmp_path: Path) -> None:
    """One a look: of who, from where, into what, and how it ended. Actions are never left out."""
    path = tmp_path / "audit.log"
    audit = Audit(str(path))

    def asked(method: str, at: float, session: str = "s1", status: int = 200) -> None:
        scope = {
            "method": method,
            "state": {"user": "eve", "client_address": "192.0.2.1"},
            "path_params": {"session_id": session},
        }
        audit.request(scope, "/admin/sessions/{session_id}", status, at)

    for at in range(0, 600, 5):
        asked("GET", float(at))
    asked("GET", 600.0, "s2")
    asked("GET", 600.0, status=403)
    asked("GET", 640.0)
    asked("DELETE", 641.0)
    asked("DELETE", 642.0)
    audit.close()

    assert [
        ("s1", 200, "1970-01-01T00:00:00.000+00:00"),
        ("s2", 200, "1970-01-01T00:10:00.000+00:00"),
        ("s1", 403, "1970-01-01T00:10:00.000+00:00"),
        ("s1", 200, "1970-01-01T00:10:40.000+00:00"),
        ("s1", 200, "1970-01-01T00:10:41.000+00:00"),
        ("s1", 200, "1970-01-01T00:10:42.000+00:00"),
    ] == [(line["session_id"], line["status"], line["time"]) for line in lines(path)]


async def test_a_file_that_was_moved_is_opened_again(tmp_path: Path) -> None:
    """As log rotation does it; no line is lost."""
    path, scope = tmp_path / "audit.log", {"method": "POST", "state": {}}
    audit = Audit(str(path))
    audit.request(scope, "/auth/token", 200, 0.0)
    os.rename(path, tmp_path / "old.log")
    audit.request(scope, "/auth/token", 201, 0.0)
    audit.close()

    assert [200] == [line["status"] for line in lines(tmp_path / "old.log")]
    assert [201] == [line["status"] for line in lines(path)]


def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path, redis_url: str) -> None:
    """One line with the setting, exit code 2."""
    where = str(tmp_path / "none" / "audit.log")
    with pytest.raises(ConfigError, match="SYNCBRIDGE_AUDIT_LOG"):
        Audit(where)
    done = serve_once(tmp_path, redis_url, SYNCBRIDGE_AUDIT_LOG=where)

    assert 2 == done.returncode
    assert "SYNCBRIDGE_AUDIT_LOG" in done.stderr.splitlines()[-1]
