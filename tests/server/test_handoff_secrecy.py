"""A handoff token is in a path, and must be in no log; and the documented commands work."""

import json
import os
import subprocess
from pathlib import Path

import httpx

from support.server_kit import Process, server_process

SESSION = "550e8400-e29b-41d4-a716-446655440000"
SNAPSHOT = {
    "session_id": SESSION,
    "user_id": "user-123",
    "state_data": {"meditation_progress": 75},
    "device_id": "device-456",
    "app_version": "2.1.0",
    "version": 1,
}
PAIR = {"source_device": "device-phone", "target_device": "device-tablet"}


def curl(process: Process, *arguments: str, path: str) -> str:
    """What curl prints, with the status in the last line."""
    command = ["curl", "-sS", "-w", "\n%{http_code}", *arguments, process.url + path]
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=20, env=environment, check=True
    )
    return done.stdout


def test_the_documented_commands_work_in_development(tmp_path: Path, redis_url: str) -> None:
    """List, hand over, redeem and disconnect as printed, without a token or a device header."""
    json_type = ("-H", "Content-Type: application/json")
    with server_process(tmp_path, redis_url, "dev") as process:
        post = ("-X", "POST", *json_type, "-d")
        curl(process, *post, json.dumps(SNAPSHOT), path="/session/snapshot")
        devices = curl(process, path=f"/session/{SESSION}/devices")
        created = curl(process, *post, json.dumps(PAIR), path=f"/session/{SESSION}/handoff")
        token = json.loads(created.splitlines()[0])["token"]
        redeemed = curl(process, path=f"/session/{SESSION}/handoff/{token}")
        removed = curl(process, "-X", "DELETE", path=f"/session/{SESSION}/device/device-456")

    assert "200" == devices.splitlines()[-1]
    assert "201" == created.splitlines()[-1]
    assert "200" == redeemed.splitlines()[-1]
    assert json.loads(redeemed.splitlines()[0])["state_data"]["meditation_progress"] == 75
    assert ("404", "device_not_found") == (
        removed.splitlines()[-1],
        json.loads(removed.splitlines()[0])["code"],
    )


def test_no_log_line_has_the_token(tmp_path: Path, redis_url: str) -> None:
    """Redeemed, refused, with a wrong method, a trailing slash, in a query, over HTTP/1.1."""
    with server_process(tmp_path, redis_url, "dev", SYNCBRIDGE_LOG_LEVEL="debug") as process:
        with httpx.Client(base_url=process.url, timeout=10) as http:
            http.post("/session/snapshot", json=SNAPSHOT)
            token = http.post(f"/session/{SESSION}/handoff", json=PAIR).json()["token"]
            path = f"/session/{SESSION}/handoff/{token}"
            answers = [
                http.get(path, headers={"X-Device-ID": "other"}),
                http.get(path),
                http.post(path),
                http.head(path),
                http.get(path + "/"),
                http.get(path + "/more"),
                http.get(path.replace("handoff", "handoff/")),
                http.get(path.replace("handoff", "%68andoff")),
                http.get(path.upper()),
            ]
        log = process.log.read_text()

    assert [403, 200, 405, 405] == [answer.status_code for answer in answers[:4]]
    assert "/handoff/[redacted]" in log
    assert token not in log
    assert token.upper() not in log
